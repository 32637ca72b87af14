"""Runs by name, what a look costs, the limit of the queue, removing, and what the page says of a run."""

import builtins
import io
import json
import os
import re
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sds3d.config import resolve
from sds3d.errors import ConfigError
from sds3d.jobs.database import Database
from sds3d.jobs.processes import WorkerId
from sds3d.run.events import (
    Changed,
    CheckpointSaved,
    Exporting,
    Failed,
    Finished,
    StageBegun,
    Started,
    StepDone,
    Stop,
    Warned,
)
from sds3d.run.folder import RunFolder
from sds3d_app.ui import fragments, run_index
from sds3d_app.ui.actions import change_run, command, delete_run, fork_run
from sds3d_app.ui.export_files import FileMaker, make_file
from sds3d_app.ui.page import refresh
from sds3d_app.ui.run_index import RunIndex
from sds3d_app.ui.run_log import POINTS, RunLog, RunLogs


def write_run(outputs: Path, name: str, config: Any, *events: Any) -> RunFolder:
    """A run folder of the command line with these events."""
    (outputs / name).mkdir(parents=True)
    folder = RunFolder(outputs / name)
    folder.write_config(config)
    for event in events:
        folder.append(event)
    return folder


def finished(steps: int) -> Finished:
    return Finished({"steps": steps})


def counting(call: Any, name: str, counts: Counter[str]) -> Any:
    def counted_call(*args: Any, **kwargs: Any) -> Any:
        counts[name] += 1
        return call(*args, **kwargs)

    return counted_call


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Counts what is asked of the file system and of SQLite."""
    counts = Counter[str]()
    with pytest.MonkeyPatch.context() as patch:
        for module, name in (
            (os, "stat"), (os, "lstat"), (os, "scandir"), (os, "listdir"), (os, "open"), (io, "open"),
            (builtins, "open"), (Database, "read"),
        ):  # fmt: skip
            patch.setattr(module, name, counting(getattr(module, name), name, counts))
        yield counts


def test_runs_of_the_queue_and_of_the_command_line_are_found_by_name(ball: SimpleNamespace, small_config) -> None:
    queued = ball.index.add(small_config(prompt="a blue ball"))
    assert [entry.name for entry in ball.index.all()[0]] == [queued.name, "ball"]
    assert (ball.entry.state, ball.entry.job) == ("done", None)
    assert ball.index.find(queued.name).state == "queued"
    for name in ("../outputs/ball", "queue", "", None, 7, {"ball": 1}, "ball\x00", f"queue/{queued.name}"):
        assert ball.index.find(name) is None


def test_runs_of_the_command_line_come_go_and_change_while_the_page_looks(tmp_path: Path, small_config) -> None:
    index = RunIndex(tmp_path / "outputs", limit=3)
    assert index.all()[:2] == ([], [])
    config = small_config(steps=4)
    folder = write_run(tmp_path / "outputs", "ball", config)
    assert index.find("ball").state == "new"
    with folder.lock():
        folder.append(Started("a red ball", folder.path, "cpu", 0, 4))
        assert index.find("ball").state == "running"
    assert index.find("ball").state == "interrupted"  # its process is gone and wrote nothing
    folder.append(finished(4))
    assert index.find("ball").state == "done"
    version = index.all()[2]
    assert index.all()[2] == version
    with folder.lock():  # `sds3d resume` of a run that had ended
        folder.append(Started("a red ball", folder.path, "cpu", 4, 9))
        assert index.find("ball").state == "running"
    assert index.all()[2] > version
    (tmp_path / "outputs" / "notes").mkdir()
    (tmp_path / "outputs" / "file.txt").touch()
    shutil.rmtree(folder.path)
    assert index.find("ball") is None
    assert index.all()[:2] == ([], [])


def test_a_config_that_is_read_while_it_is_written_is_read_again(tmp_path: Path, small_config) -> None:
    folder = write_run(tmp_path / "outputs", "ball", small_config())
    entry = RunIndex(tmp_path / "outputs", limit=3).find("ball")
    resolved = folder.files()["resolved.json"]
    before = resolved.read_bytes()
    folder.write_config(small_config(prompt="a blue ball"))
    after = resolved.read_bytes()
    resolved.write_bytes(before)  # as if config.json were written, and this one not yet
    assert entry.config.prompt == "a red ball"
    resolved.write_bytes(after)
    assert entry.config.prompt == "a blue ball"


def test_100_finished_runs_cost_a_look_no_more_than_5(tmp_path: Path, small_config) -> None:
    """Jobs and runs of the command line; reads of files, folders and the database, of the whole poll of the page."""
    config, costs, keys = small_config(steps=4), [], []
    for number in (5, 100):
        outputs = tmp_path / f"outputs-{number}"
        index = RunIndex(outputs, limit=10**6)
        for one in range(number):
            write_run(outputs, f"ball-{one}", config, Started("a red ball", Path("x"), "cpu", 0, 4), finished(4))
        configs = [config.with_changes({"seed": one}, ("seed",)) for one in range(number)]
        index.queue.add_many(configs)
        while (job := index.queue.claim(WorkerId.here())) is not None:
            index.queue.finish(job, "stopped", "enough")
        running_now = index.add(small_config(seed=10**6))
        os.utime(outputs, (0, 0))  # long ago
        maker = FileMaker()
        shown = refresh(index, maker, running_now.name, {}, "")[0]
        assert len(index.all()[0]) == 2 * number + 1
        with counted() as counts:
            for _ in range(3):
                again = refresh(index, maker, running_now.name, shown, "")
        assert again[0] == shown
        costs.append(counts)
        keys.append(len(json.dumps(shown)))
        maker.close()
    few, many = (sum(counts.values()) for counts in costs)
    assert 0 < many <= few, costs
    assert keys[1] < keys[0] + 200, "nor does an open page hold the cards of all of them twice"


def test_the_same_options_are_the_same_run_and_the_queue_has_a_limit(ball: SimpleNamespace, small_config) -> None:
    first = ball.index.add(small_config())
    assert ball.index.add(small_config()).name == first.name
    others = [ball.index.add(small_config(seed=seed)) for seed in (1, 2)]
    assert [ball.index.place(entry) for entry in (first, *others)] == [0, 1, 2]
    with pytest.raises(ConfigError, match="the queue is full: 3 runs wait"):
        ball.index.add(small_config(seed=3))
    command(ball.index, others[0].name, order="stop")
    assert ball.index.add(small_config(seed=3)).state == "queued"


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is put away is removed as soon as it is."""
    monkeypatch.setattr(run_index, "UNDO", 0.0)


def wait_until_gone(path: Path) -> None:
    deadline = time.monotonic() + 20
    while path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.01)


def bytes_below(folder: Path) -> dict[str, bytes]:
    """All files but the note of who worked on it last."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "run.lock"}


def test_a_removal_can_be_undone_for_a_while(ball: SimpleNamespace) -> None:
    before = bytes_below(ball.run)
    answer = delete_run(ball.index, "ball")
    assert "a red ball" in answer
    assert ball.index.find("ball") is None
    assert ball.index.all()[0] == []
    assert "choose a run" in delete_run(ball.index, "ball")
    assert ball.index.bring_back("ball").name == "ball"
    assert [entry.name for entry in ball.index.all()[0]] == ["ball"]
    assert bytes_below(ball.run) == before
    with pytest.raises(ConfigError, match="too late"):
        ball.index.bring_back("ball")


def test_who_asks_for_a_run_that_is_about_to_be_removed_keeps_it(ball: SimpleNamespace, small_config) -> None:
    entry = ball.index.add(small_config())
    command(ball.index, entry.name, order="stop")
    delete_run(ball.index, entry.name)
    assert ball.index.add(small_config()).name == entry.name
    assert ball.index.find(entry.name).state == "queued"


@pytest.mark.usefixtures("at_once")
def test_a_run_that_nobody_works_on_is_removed_with_all_its_files(ball: SimpleNamespace, small_config) -> None:
    entry = ball.index.add(small_config())
    assert "is under way" in delete_run(ball.index, entry.name)
    assert entry.job.folder.is_dir()
    command(ball.index, entry.name, order="stop")
    for name, folder in ((entry.name, entry.job.folder), ("ball", ball.run)):
        assert "Undo" in delete_run(ball.index, name)
        wait_until_gone(folder)
        assert ball.index.find(name) is None
    assert "choose a run" in delete_run(ball.index, "../outputs")
    with pytest.raises(ConfigError, match="too late"):
        ball.index.bring_back("ball")


def test_a_run_of_the_command_line_that_is_under_way_is_not_deleted(ball: SimpleNamespace) -> None:
    """Whatever the page last saw of it: here it ended, and was taken up again since."""
    with RunFolder(ball.run).lock():
        assert f"process {os.getpid()} on " in delete_run(ball.index, "ball")
    assert ball.index.find("ball") is not None


@pytest.mark.usefixtures("at_once")
def test_a_run_that_somebody_takes_up_before_it_is_removed_is_shown_again(ball: SimpleNamespace) -> None:
    removal = threading.Event()
    remove = ball.index._remove

    def removing(entry: Any) -> None:
        with entry.folder.lock():
            remove(entry)
        removal.set()

    ball.index._remove = removing
    delete_run(ball.index, "ball")
    assert removal.wait(20)
    assert ball.index.find("ball").name == "ball"
    assert (ball.run / "sheet.png").is_file()


def test_commands_are_for_runs_of_the_queue(ball: SimpleNamespace, small_config) -> None:
    assert "sds3d resume" in command(ball.index, "ball", order="pause")
    name = ball.index.add(small_config()).name
    assert command(ball.index, name, order="pause") == ""
    paused = ball.index.find(name)
    assert paused.state == "paused"
    assert "paused; others go on" in fragments.live(paused, ball.index.log(paused), 0)
    other = ball.index.add(small_config(seed=1))
    assert (ball.index.place(other), ball.index.queue.claim(WorkerId.here()).name) == (0, other.name)
    assert command(ball.index, name, order="resume") == ""
    assert ball.index.find(name).state == "queued"
    assert command(ball.index, name, order="stop") == ""
    assert ball.index.find(name).state == "stopped"
    assert "has ended" in command(ball.index, name, order="pause")
    assert command(ball.index, name, order="again") == ""
    assert ball.index.find(name).state == "queued"


@pytest.mark.parametrize("empty", [None, ""])
def test_a_change_says_only_what_was_filled_in(ball: SimpleNamespace, small_config, empty: str | None) -> None:
    entry = ball.index.add(small_config())
    assert change_run(ball.index, entry.name, "a blue ball", empty).startswith("from the next step on")
    assert change_run(ball.index, entry.name, empty, "8").startswith("from the next step on")
    assert [sent.changes for _, sent in ball.index.queue.commands(entry.job)] == [
        {"prompt": "a blue ball"}, {"guidance.guidance_scale": "8"},
    ]  # fmt: skip
    assert "nothing is filled in" in change_run(ball.index, entry.name, empty, empty)
    assert "guidance_scale" in change_run(ball.index, entry.name, empty, "many")
    assert len(ball.index.queue.commands(entry.job)) == 2


def test_words_that_the_prior_does_not_know_are_refused_or_warned_of(ball: SimpleNamespace, small_config) -> None:
    """As Generate does, for changes and forks."""
    name = ball.index.add(small_config()).name
    refused = change_run(ball.index, name, "a zzz qqq", "")
    assert 'class="problem"' in refused
    assert "zzz" in refused
    assert ball.index.queue.commands(ball.index.find(name).job) == []
    warned = change_run(ball.index, name, "a red zzz", "")
    assert 'class="note"' in warned
    assert "zzz" in warned
    assert "zzz" in fork_run(ball.index, "ball", "a zzz qqq", "", "9")[1]
    assert [one.name for one in ball.index.all()[0]] == [name, "ball"]
    forked, answer = fork_run(ball.index, "ball", "a red zzz", "", "9")
    assert 'class="note"' in answer
    assert ball.index.find(forked).state == "queued"


@pytest.mark.parametrize("empty", [None, ""])
def test_a_fork_has_the_steps_of_its_parent_if_none_are_filled_in(
    tmp_path: Path, small_config, empty: str | None
) -> None:
    from sds3d import Session

    session = Session(small_config(steps=12, checkpoint_every=4), tmp_path / "outputs" / "ball")
    for event in session.run():
        if isinstance(event, CheckpointSaved):
            session.send(Stop())
    index = RunIndex(tmp_path / "outputs", limit=3)
    name, answer = fork_run(index, "ball", "a blue ball", empty, empty)
    assert answer == "a new run is in the queue"
    assert (index.find(name).config.prompt, index.find(name).config.steps) == ("a blue ball", 12)


def test_a_fork_of_a_run_of_the_command_line(ball: SimpleNamespace) -> None:
    name, answer = fork_run(ball.index, "ball", "a blue ball", "", "9")
    assert answer == "a new run is in the queue"
    config = ball.index.find(name).config
    assert (config.prompt, config.steps) == ("a blue ball", 9)
    for steps, problem in (("4", "steps = 4 is no"), ("0", "steps"), ("many", "steps"), ("2.5", "steps")):
        assert problem in fork_run(ball.index, "ball", "a green ball", "", steps)[1]
    assert "nothing is filled in" in fork_run(ball.index, "ball", "", "", "")[1]


@pytest.mark.exports
@pytest.mark.usefixtures("exports_here")
def test_another_format_is_made_and_others_are_refused(ball: SimpleNamespace) -> None:
    assert make_file(ball.entry, "stl") == (None, ["mesh.stl"])
    assert (ball.run / "mesh.stl").stat().st_size > 1000
    maker = FileMaker()
    for name in ("exe", "../x", None, "--help", ["stl"], ""):
        with pytest.raises(ConfigError, match="choose one of the formats"):
            maker.start(ball.entry, name)
    maker.close()


HOSTILE = '<img src=x onerror="alert(1)">\'&'


def test_words_from_outside_are_escaped_wherever_they_are_shown(ball: SimpleNamespace, small_config) -> None:
    entry = ball.index.add(small_config(prompt=f"a red ball {HOSTILE}"))
    entry.folder.path.mkdir(parents=True)
    entry.folder.append(Warned(HOSTILE))
    log = ball.index.log(entry)
    pages = [
        *(fragments.live(entry, log, 0), fragments.details(log), fragments.results(entry, log)),
        *(fragments.cards([(entry, ("", False))], ""), fragments.compared([(entry, log), (ball.entry, log)])),
        *(fragments.problem(HOSTILE, HOSTILE), fragments.note(HOSTILE)),
    ]
    for page in pages:
        assert "<img src=x" not in page
    assert "&lt;img src=x" in pages[0]
    assert not re.search(r"on\w+=\"", "".join(pages))


def test_the_log_is_read_as_it_grows(tmp_path: Path) -> None:
    folder, logs = RunFolder(tmp_path), RunLogs()
    assert (logs.read(folder).step, logs.read(folder).pace()) == (0, None)
    lines = [
        {"event": "Started", "prompt": "x", "out_dir": "x", "device": "cpu", "step": 0, "steps": 100, "time": 10.0},
        {"event": "StepDone", "step": 10, "loss": 1.0, "losses": {"guidance": 2.5}, "time": 12.0},
        {"event": "StepDone", "step": 20, "loss": 1.0, "losses": {"guidance": 1.5}, "time": 14.0},
    ]
    path = folder.reader().path
    last = json.dumps({**lines[-1], "step": 30, "losses": {}, "time": 16.0})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + last[:20])
    log = logs.read(folder)
    assert (log.step, log.steps, log.pace(), log.seconds_left()) == (20, 100, 5.0, 16.0)
    assert log.losses == {"guidance": [(10, 2.5), (20, 1.5)]}
    with path.open("a") as file:
        file.write(last[20:] + "\nnot json\n")
    folder.append(Changed(30, {"prompt": "a blue ball"}))
    assert (logs.read(folder).step, log.altered) == (30, "it was changed during the run")
    path.write_text(json.dumps(lines[0]) + "\n")  # a new run in its place
    log = logs.read(folder)
    assert (log.step, log.altered, log.losses) == (0, "", {})


def test_saved_checkpoints_do_not_push_the_rest_out_of_the_log() -> None:
    log = RunLog()
    log.add(1.0, Changed(10, {"prompt": "a blue ball"}))
    for step in range(20, 2000, 20):
        log.add(1.0, CheckpointSaved(step, Path("x")))
    assert log.lines == ["step 10: changed prompt to a blue ball", "step 1980: saved"]


def test_curves_stay_small() -> None:
    log = RunLog()
    for step in range(3000):
        log.add(float(step), StepDone(step, {"guidance": float(step)}))
    points = log.losses["guidance"]
    assert POINTS / 2 <= len(points) <= POINTS
    assert points[-1] == (2999, 2999.0)
    assert fragments.details(log).count(",") == len(points)


def test_a_changed_run_does_not_promise_the_same_again(ball: SimpleNamespace) -> None:
    assert "The same again" in fragments.results(ball.entry, ball.index.log(ball.entry))
    ball.entry.folder.append(Changed(2, {"prompt": "a blue ball"}))
    page = fragments.results(ball.entry, ball.index.log(ball.entry))
    assert "The same again" not in page
    assert "it was changed during the run, so they make another object" in page


def test_the_stage_is_told_what_there_is_to_draw(ball: SimpleNamespace, small_config: Any) -> None:
    log = ball.index.log(ball.entry)
    for artifact in ("glb", "ply"):
        ball.entry.folder.artifact(artifact).write_bytes(b"a model")
    shown = fragments.stage_of(ball.entry, log)
    assert shown["run"] == "ball"
    for name, file in (("mesh", "mesh.glb"), ("splats", "splats.ply"), ("picture", "sheet.png")):
        assert shown[name].split("?")[0] == f"run/ball/{file}"
    assert (shown["live"], shown["light"]) == ("", None)
    assert json.dumps(shown["mesh"]).strip('"') in fragments.live(ball.entry, log, 0)
    os.utime(ball.entry.folder.artifact("glb"), (1, 1))
    assert fragments.stage_of(ball.entry, log)["mesh"] != shown["mesh"], "another file has another address"
    outputs = ball.index.outputs
    light = {"direction": (0.0, 0.0, 1.0), "ambient": 0.5, "diffuse": 0.25}
    lit = small_config(scene={"name": "mesh", "light": light}, loss_weights={})
    folder = write_run(outputs, "lit", lit, Started("a ball", outputs / "lit", "cpu", 0, 9), finished(9))
    assert fragments.stage_of(ball.index.find("lit"), log) == {}, "nothing to draw"
    folder.artifact("glb").write_bytes(b"mesh")
    assert fragments.stage_of(ball.index.find("lit"), log)["light"] == light
    for name, config in (
        ("flat", {"scene": {"name": "image"}, "loss_weights": {}}),
        ("several", {"particles": 2, "cameras.views": 2}),
    ):
        write_run(outputs, name, small_config(**config), Started("a ball", outputs / name, "cpu", 0, 9))
        assert fragments.stage_of(ball.index.find(name), log) == {}


def test_a_run_that_makes_its_results_says_so_and_not_how_long_its_steps_take(
    tmp_path: Path, small_config: Any
) -> None:
    """F4: after `Stop and keep it` it went on to tell the time that is left."""
    out = tmp_path / "outputs"
    folder = write_run(out, "ball", small_config(), Started("a ball", out / "ball", "cpu", 0, 600))
    index = RunIndex(out, limit=3)
    folder.append(StepDone(297, {"guidance": 1.0}, 0.5))
    with folder.lock():
        entry = index.find("ball")
        before = fragments.live(entry, index.log(entry), 0)
        assert 'data-state="running"' in before
        assert 'style="width:49.5%"' in before
        folder.append(Exporting(297))
        after = fragments.live(entry, index.log(entry), 0)
        assert "making the results" in after
        assert 'data-state="saving"' in after
        assert 'style="width:100.0%"' in after
        assert " left" not in after
        assert "steps/s" not in after


@pytest.mark.exports  # so that a mesh is among the results
def test_the_page_tells_at_what_a_run_is(tmp_path: Path, small_config: Any) -> None:
    out = tmp_path / "outputs"
    index = RunIndex(out, limit=3)

    def stages(name: str) -> dict[str, str]:
        entry = index.find(name)
        return dict(fragments.stages_of(entry, index.log(entry)))

    waiting = index.add(small_config())
    assert stages(waiting.name) == {"Queue": "now", "Load": "", "Shape": "", "Mesh": ""}
    index.queue.claim(WorkerId.here())
    assert stages(waiting.name) == {"Queue": "done", "Load": "now", "Shape": "", "Mesh": ""}
    run = write_run(out, "mug", resolve({"prompt": "a red mug"}), Started("a red mug", out / "mug", "cpu", 0, 450))
    with run.lock():
        assert stages("mug") == {"Queue": "done", "Load": "done", "Shape": "now", "Mesh": "", "Check": ""}
        run.append(StageBegun(200, 2, 2, "mesh"))
        assert stages("mug") == {"Queue": "done", "Load": "done", "Shape": "done", "Mesh": "now", "Check": ""}
        run.append(Exporting(450))
        assert stages("mug")["Check"] == "now"
        assert 'aria-current="step">Check' in fragments.live(index.find("mug"), index.log(index.find("mug")), 0)
    run.append(Failed("no mesh", "ExportError"))
    assert stages("mug") == {"Queue": "done", "Load": "done", "Shape": "done", "Mesh": "done", "Check": "failed"}
    run.append(Finished({"steps": 450, "seconds": {"total": 34.6}}))
    assert set(stages("mug").values()) == {"done"}
    assert "made in 35 s" in fragments.live(index.find("mug"), index.log(index.find("mug")), 0)


@pytest.mark.parametrize(("step", "seconds", "left"), [(4, 2, None), (5, 2, 38), (1, 10, 990)])
def test_how_long_it_will_take_is_not_said_too_soon(step: int, seconds: float, left: float | None) -> None:
    log = RunLog()
    log.add(100.0, Started("a red ball", Path("x"), "cpu", 0, 100))
    log.add(100.0 + seconds, StepDone(step, {"guidance": 1.0}))
    assert log.seconds_left() == left
