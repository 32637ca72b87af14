"""Runs by name, the limit of the queue, removing, and what the page says of a run."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from sds3d.errors import ConfigError
from sds3d_app.ui import fragments as pieces
from sds3d_app.ui.actions import delete_run, fork_run, tell
from sds3d_app.ui.export_files import MODELS_KEPT, for_viewer, make_file
from sds3d_app.ui.run_index import environment_of
from sds3d_app.ui.run_log import RunLog


def test_runs_of_the_queue_and_of_the_command_line_are_found_by_name(made: SimpleNamespace, small_config) -> None:
    queued = made.works.add(small_config(prompt="a blue ball"))
    assert [work.name for work in made.works.all()] == [queued.name, "ball"]
    assert (made.work.state, made.work.job) == ("done", None)
    assert made.works.find(queued.name).state == "queued"
    for name in ("../outputs/ball", "queue", "", None, 7, {"ball": 1}, "ball\x00", f"queue/{queued.name}"):
        assert made.works.find(name) is None


def test_the_same_options_are_the_same_run_and_the_queue_has_a_limit(made: SimpleNamespace, small_config) -> None:
    first = made.works.add(small_config())
    assert made.works.add(small_config()).name == first.name
    others = [made.works.add(small_config(seed=seed)) for seed in (1, 2)]
    assert [made.works.place(work) for work in (first, *others)] == [0, 1, 2]
    with pytest.raises(ConfigError, match="the queue is full: 3 runs wait"):
        made.works.add(small_config(seed=3))
    made.works.delete(others[0])
    assert not others[0].run.parent.exists()
    assert made.works.add(small_config(seed=3)).state == "queued"


def test_a_damaged_job_is_left_out(made: SimpleNamespace, small_config) -> None:
    sound = made.works.add(small_config())
    broken = made.works.ledger.folder / "broken"
    broken.mkdir()
    (broken / "job.json").write_text("{")
    assert [work.name for work in made.works.queued()] == [sound.name]


def test_removing_needs_a_yes_and_an_ended_run(made: SimpleNamespace, small_config, monkeypatch) -> None:
    assert "say that you are sure" in delete_run(made.works)("ball", False)[0]
    assert "say that you are sure" in delete_run(made.works)("ball", "yes")[0]
    assert made.run.is_dir()
    assert delete_run(made.works)("ball", True) == ("removed", False)
    assert not made.run.exists()
    assert "choose a run" in delete_run(made.works)("../outputs", True)[0]
    work = made.works.add(small_config())
    assert made.works.ledger.claim(work.job) is not None  # by this process, which lives
    assert "stop it first" in delete_run(made.works)(work.name, True)[0]


def test_orders_are_for_runs_of_the_queue(made: SimpleNamespace, small_config) -> None:
    assert "sds3d resume" in tell(made.works, "pause")("ball")
    name = made.works.add(small_config()).name
    assert tell(made.works, "stop")(name) == ""
    assert made.works.find(name).state == "stopped"
    assert "has ended" in tell(made.works, "pause")(name)
    assert tell(made.works, "retry")(name) == ""
    assert made.works.find(name).state == "queued"


def test_a_fork_of_a_run_of_the_command_line(made: SimpleNamespace) -> None:
    name, _, said = fork_run(made.works)("ball", "a blue ball", None, 9)
    assert said == "a new run is in the queue"
    config = made.works.find(name).config
    assert (config.prompt, config.steps) == ("a blue ball", 9)
    assert "steps = 4 is no more than" in fork_run(made.works)("ball", "a green ball", None, 4)[2]


def test_another_format_is_made_and_what_is_none_is_refused(made: SimpleNamespace) -> None:
    assert make_file(made.work, "stl") == "mesh.stl"
    assert (made.run / "mesh.stl").stat().st_size > 1000
    for name in ("exe", "../x", None, "--help", ["stl"]):
        with pytest.raises(ConfigError, match="cannot be written in that format"):
            make_file(made.work, name)


def test_copies_for_the_viewer_are_few(made: SimpleNamespace, tmp_path: Path) -> None:
    first = for_viewer(made.work, "mesh.glb", tmp_path / "models")
    assert Path(str(first)).read_bytes() == (made.run / "mesh.glb").read_bytes()
    assert for_viewer(made.work, "mesh.glb", tmp_path / "models") == first
    assert for_viewer(made.work, "nothing.glb", tmp_path / "models") is None
    for number in range(MODELS_KEPT + 5):
        (made.run / "mesh.glb").write_bytes(b"x" * number)
        for_viewer(made.work, "mesh.glb", tmp_path / "models")
    assert len(list((tmp_path / "models").iterdir())) == MODELS_KEPT


HOSTILE = '<img src=x onerror="alert(1)">\'&'


def test_words_from_outside_are_escaped_wherever_they_are_shown(made: SimpleNamespace, small_config) -> None:
    made.works.add(small_config(prompt=f"a red ball {HOSTILE}"))
    work = made.works.all()[0]
    events = json.dumps({"event": "Warned", "message": HOSTILE}) + "\n"
    work.run.mkdir(parents=True)
    (work.run / "events.jsonl").write_text(events)
    shown = [
        *(pieces.live(work, 0), pieces.details(work), pieces.results(work), pieces.history([work], None)),
        *(pieces.compared(work, made.work), pieces.problem(HOSTILE, HOSTILE), pieces.note(HOSTILE)),
    ]
    for html in shown:
        assert "<img src=x" not in html
    assert "&lt;img src=x" in shown[0]
    assert not re.search(r"on\w+=\"", "".join(shown))


def test_the_log_is_read_as_it_grows(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    log = RunLog(path)
    assert (log.read().step, log.pace()) == (0, None)
    lines = [
        {"event": "Started", "device": "cpu", "step": 0, "steps": 100, "time": 10.0},
        {"event": "StepDone", "step": 10, "losses": {"guidance": 2.5}, "time": 12.0},
        {"event": "StepDone", "step": 20, "losses": {"guidance": 1.5}, "time": 14.0},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"event": "Step')
    log.read()
    assert (log.step, log.steps, log.pace(), log.seconds_left()) == (20, 100, 5.0, 16.0)
    assert log.losses == {"guidance": [(10, 2.5), (20, 1.5)]}
    with path.open("a") as file:
        file.write(
            'Done", "step": 30, "losses": {}, "time": 16.0}\nnot json\n'
            '{"event": "Changed", "changes": {"prompt": "a blue ball"}}\n'
        )
    assert (log.read().step, log.altered) == (30, "it was changed on the way")
    path.write_text("")
    assert log.read().steps == 0


def test_curves_stay_small(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    events = ({"event": "StepDone", "step": step, "losses": {"guidance": step}, "time": step} for step in range(3000))
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    points = RunLog(path).read().losses["guidance"]
    assert 200 <= len(points) <= 400
    assert points[-1] == (2999, 2999.0)
    assert pieces.curve("guidance", points).count(",") == len(points)


def test_a_changed_run_does_not_promise_the_same_again(made: SimpleNamespace) -> None:
    assert "The same again" in pieces.results(made.work)
    with (made.run / "events.jsonl").open("a") as file:
        file.write('{"event": "Changed", "step": 2, "changes": {"prompt": "a blue ball"}}\n')
    assert "The same again" not in pieces.results(made.work)
    assert "it was changed on the way, so they make another object" in pieces.results(made.work)


def test_each_of_several_workers_has_a_gpu_unless_the_person_chose() -> None:
    assert environment_of(1, 2, {})["CUDA_VISIBLE_DEVICES"] == "1"
    assert "CUDA_VISIBLE_DEVICES" not in environment_of(0, 1, {})
    assert environment_of(1, 2, {"CUDA_VISIBLE_DEVICES": "5"})["CUDA_VISIBLE_DEVICES"] == "5"
