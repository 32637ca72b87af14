"""Each display fed with a made-up run."""

import json
from pathlib import Path

import pytest

from sds3d.run.events import CheckpointSaved, Exported, Finished, Preview, Started, StepDone, Warned
from sds3d_app.progress import JsonLines, PlainLines, ProgressBar, Speed, WarningsOnly, choose_display, follow

OUT = Path("outputs/a-red-ball-0")
EVENTS = [
    Started(prompt="a red [ball]", out_dir=OUT, device="cpu", step=0, steps=2),
    Warned("the prior does not know [bold]wibble[/bold]"),
    StepDone(step=1, losses={"guidance": 1.25}, seconds=0.5),
    Preview(step=1, path=OUT / "previews" / "000001.png"),
    StepDone(step=2, seconds=0.5),
    CheckpointSaved(step=2, path=OUT / "checkpoints" / "000002"),
    Exported(path=OUT / "mesh.glb", stats={"faces": 12}),
    Finished(report={"seconds": 1.0}),
]


def test_json_lines_parse_and_are_all_of_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    last = follow(iter(EVENTS), JsonLines())
    captured = capsys.readouterr()
    rows = [json.loads(line) for line in captured.out.splitlines()]
    assert [row["event"] for row in rows] == [type(event).__name__ for event in EVENTS]
    assert rows[6]["path"] == str(OUT / "mesh.glb")
    assert captured.err == ""
    assert last is EVENTS[-1]


def test_quiet_shows_only_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    follow(iter(EVENTS), WarningsOnly())
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "warning: the prior does not know [bold]wibble[/bold]\n"


def test_plain_lines_show_start_last_step_and_files(capsys: pytest.CaptureFixture[str]) -> None:
    follow(iter(EVENTS), PlainLines())
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert "'a red [ball]' on cpu" in lines[0]
    assert any("step 2/2" in line and "guidance 1.25" in line and "2.0 steps/s" in line for line in lines)
    assert f"wrote {OUT / 'mesh.glb'}" in lines


def test_a_progress_bar_takes_every_event_and_reads_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    follow(iter(EVENTS), ProgressBar())
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "[bold]wibble[/bold]" in captured.err


def test_the_display_is_closed_when_the_run_fails() -> None:
    closed = []

    class Watched(WarningsOnly):
        def close(self) -> None:
            closed.append(True)

    def events():
        yield EVENTS[0]
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        follow(events(), Watched())
    assert closed


@pytest.mark.parametrize(
    ("quiet", "as_json", "kind"), [(False, False, PlainLines), (True, False, WarningsOnly), (True, True, JsonLines)]
)
def test_options_and_terminal_choose_the_display(quiet: bool, as_json: bool, kind: type) -> None:
    assert type(choose_display(quiet, as_json)) is kind


def test_speed_follows_the_last_steps() -> None:
    speed = Speed()
    for _ in range(200):
        speed.after(StepDone(step=1, seconds=0.1))
    assert speed.after(StepDone(step=1, seconds=0.1)) == "10.0 steps/s"
    for _ in range(200):
        text = speed.after(StepDone(step=1, seconds=1.0))
    assert text == "1.0 steps/s"
