"""A run from outside: its folder, its events, and what happens when it is stopped, resumed or in trouble."""

import json
import resource
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from sds3d import Session
from sds3d.errors import CheckpointError, ConfigError, ExportError, OutputError, PriorUnavailable
from sds3d.export.glb import read_glb
from sds3d.run.events import (
    CheckpointSaved,
    Exported,
    FinishEarly,
    Finished,
    Pause,
    Paused,
    Preview,
    Resume,
    Started,
    StepDone,
    Stop,
    Warned,
)
from sds3d.run.folder import RunFolder, run_name

RUN_FILES = {
    "config.json",
    "resolved.json",
    "run.lock",
    "events.jsonl",
    "checkpoints",
    "previews",
    "sheet.png",
    "orbit.mp4",
} | {*("splats.ply", "mesh.glb", "report.json")}


def kinds(events: list[Any]) -> list[str]:
    return [type(event).__name__ for event in events]


@pytest.mark.exports
def test_a_run_makes_the_whole_folder(small_config, tmp_path: Path) -> None:
    config = small_config(preview_every=12)
    session = Session(config, tmp_path / "run")
    events = list(session.run())
    folder = tmp_path / "run"

    assert {path.name for path in folder.iterdir()} == RUN_FILES
    assert events[0] == Started("a red ball", folder, "cpu", 0, 24)
    assert [event.step for event in events if isinstance(event, StepDone)] == list(range(1, 25))
    assert [event.step for event in events if isinstance(event, Preview)] == [12, 24]
    assert [event.step for event in events if isinstance(event, CheckpointSaved)] == [8, 16, 24]
    assert [event.path.name for event in events if isinstance(event, Exported)] == [
        *("sheet.png", "orbit.mp4", "splats.ply", "mesh.glb")
    ]
    assert all(event.path.stat().st_size > 100 for event in events if isinstance(event, Preview | Exported))
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"step-000016", "step-000024"}

    report = json.loads((folder / "report.json").read_text())
    assert json.loads(json.dumps(events[-1].report)) == report
    assert set(report["seconds"]) == {"prior", "render", "backward", "optimizer", "export", "total"}
    assert report["seconds"]["total"] >= sum(report["seconds"].values()) - report["seconds"]["total"] - 0.01
    assert report["mesh"]["pieces"] == 1
    assert report["prior_forwards_per_step"] == 2
    assert len(read_glb(folder / "mesh.glb").faces) == report["mesh"]["faces"]

    lines = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    logged = [event for event in events if not isinstance(event, StepDone) or event.losses]
    assert [line["event"] for line in lines] == kinds(logged)
    assert all(line["time"] > 1e9 for line in lines)
    assert Session.resume(folder).config == config


@pytest.mark.exports
def test_stopped_and_resumed_equals_uninterrupted(small_config, tmp_path: Path) -> None:
    config = small_config()
    for _ in Session(config, tmp_path / "whole").run():
        pass
    session, seen = Session(config, tmp_path / "parts"), []
    for event in session.run():
        seen.append(event)
        if isinstance(event, StepDone) and event.step == 11:
            session.send(Stop())
    assert kinds(seen)[-2:] == ["CheckpointSaved", "Finished"]
    assert seen[-1] == Finished(interrupted=True)
    assert not (tmp_path / "parts" / "mesh.glb").exists()

    resumed = list(Session.resume(tmp_path / "parts").run())
    assert resumed[0].step == 11
    assert not resumed[-1].interrupted
    for name in ("splats.ply", "mesh.glb", "sheet.png", "checkpoints/step-000024/tensors.safetensors"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


@pytest.mark.exports
@pytest.mark.slow
def test_killed_between_checkpoints_equals_uninterrupted(small_config, tmp_path: Path) -> None:
    config = small_config(steps=20)
    for event in Session(config, tmp_path / "run").run():
        if isinstance(event, StepDone) and event.step == 13:
            shutil.copytree(tmp_path / "run", tmp_path / "killed")  # what a SIGKILL leaves: a checkpoint of step 8
            break
    with (tmp_path / "killed" / "events.jsonl").open("ab") as file:
        file.write(b'{"event": "Step')
    events = list(Session.resume(tmp_path / "killed").run())
    assert events[0].step == 8
    for _ in Session(config, tmp_path / "whole").run():
        pass
    assert (tmp_path / "killed" / "splats.ply").read_bytes() == (tmp_path / "whole" / "splats.ply").read_bytes()
    for line in (tmp_path / "killed" / "events.jsonl").read_text().splitlines():
        json.loads(line)


def test_a_damaged_newest_checkpoint_is_warned_of_and_the_older_one_used(small_config, tmp_path: Path) -> None:
    session = Session(small_config(), tmp_path / "run")
    for event in session.run():
        if isinstance(event, CheckpointSaved) and event.step == 16:
            session.send(Stop())
    damaged = tmp_path / "run" / "checkpoints" / "step-000016" / "tensors.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    events = list(Session.resume(tmp_path / "run").run())
    assert events[0].step == 8
    assert isinstance(events[1], Warned)
    assert str(damaged) in events[1].message


def test_pause_holds_the_run_and_unpause_lets_it_go_on(small_config, tmp_path: Path) -> None:
    session, held, finished = Session(small_config(), tmp_path / "run"), threading.Event(), threading.Event()
    steps: list[int] = []

    def work() -> None:
        for event in session.run():
            if isinstance(event, StepDone):
                steps.append(event.step)
                if event.step == 3:
                    session.send(Pause())
                    held.set()
        finished.set()

    worker = threading.Thread(target=work)
    worker.start()
    assert held.wait(60)
    assert not finished.wait(0.5)
    assert steps[-1] == 3
    session.send(Resume())
    worker.join(60)
    assert finished.is_set()
    assert steps == list(range(1, 25))


def test_stop_ends_a_pause(small_config, tmp_path: Path) -> None:
    session = Session(small_config(), tmp_path / "run")
    session.send(Pause())
    threading.Timer(0.5, lambda: session.send(Stop())).start()
    events = list(session.run())
    assert Paused(0) in events
    assert events[-1].interrupted
    assert not steps(events)
    assert session.folder.checkpoint_steps() == [0]  # so that it can be resumed like any other


def test_an_early_finish_exports_the_step_that_it_ended_with(small_config, tmp_path: Path) -> None:
    session = Session(small_config(scene="image", loss_weights={}), tmp_path / "run")
    for event in session.run():
        if isinstance(event, StepDone) and event.step == 5:
            session.send(FinishEarly())
    assert session.made().step == 5
    assert event.report["steps"] == 5
    assert Session.resume(tmp_path / "run").made().step == 5


def test_an_existing_folder_is_never_written_over(small_config, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    session = Session(small_config(steps=1), tmp_path / "run")
    session.send(Stop())
    events = list(session.run())
    assert session.out_dir == tmp_path / "run-2" == events[0].out_dir
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("A red Mug!", "a-red-mug-7"),
        ("../../etc/passwd", "etc-passwd-7"),
        ("größe & café", "grosse-cafe-7"),
        ("-rf /", "rf-7"),
        ("x" * 200, "x" * 48 + "-7"),
    ],
)
def test_the_folder_is_named_after_the_prompt_and_is_never_a_path(small_config, prompt: str, name: str) -> None:
    found = run_name(small_config(prompt=prompt, seed=7))
    assert found == name.replace("grosse", "groe")  # NFKD has no form of sharp s


def test_prompts_in_other_scripts_have_names_of_their_own(small_config) -> None:
    names = {run_name(small_config(prompt=prompt)) for prompt in ("赤いカップ", "красная кружка", "🚀")}
    assert len(names) == 3
    assert all(name.isascii() and name.startswith("prompt-") for name in names)


def test_a_run_that_was_begun_goes_on_whatever_its_words_are(small_config, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not know: xyzzy"):
        Session(small_config(prompt="xyzzy"), tmp_path / "run").check()
    RunFolder.create(tmp_path / "run", small_config(prompt="xyzzy"))
    assert Session.resume(tmp_path / "run").check() == ["the analytic prior does not know: xyzzy"]


def test_unknown_words_are_a_warning_or_with_strict_a_refusal(small_config, tmp_path: Path) -> None:
    config = small_config(prompt="a shiny red ball", steps=1)
    session = Session(config, tmp_path / "run")
    assert session.prior().unknown_words(config.prompt) == ["shiny"]
    assert "shiny" in session.check()[0]
    session.send(Stop())
    assert "shiny" in next(event for event in session.run() if isinstance(event, Warned)).message
    with pytest.raises(ConfigError, match="shiny"):
        list(Session(config, tmp_path / "strict", strict=True).run())
    assert not (tmp_path / "strict").exists()


def test_nothing_is_written_when_the_prior_cannot_be_loaded(small_config, tmp_path: Path) -> None:
    config = small_config(scene="gaussians", prior={"name": "embedded", "weights": str(tmp_path / "none")})
    with pytest.raises(PriorUnavailable):
        list(Session(config, tmp_path / "run").run())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_device_that_is_not_there_is_the_users_mistake(small_config, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cuda"):
        Session(small_config(device="cuda"), tmp_path / "run").check()


def steps(events: list[Any]) -> list[StepDone]:
    return [event for event in events if isinstance(event, StepDone)]


@pytest.mark.parametrize("name", ["file/run", "file"])
def test_a_folder_that_cannot_be_made_is_named(small_config, tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("in the way")
    session = Session(small_config(steps=1), tmp_path / name)
    session.send(Stop())
    if name == "file":
        list(session.run())
        assert session.out_dir == tmp_path / "file-2"
        return
    with pytest.raises(OutputError, match=r"cannot write .*file/run: Not a directory") as caught:
        list(session.run())
    assert caught.value.exit_code == 1
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_read_only_file_system_is_named(small_config) -> None:
    with pytest.raises(OutputError, match="/proc/sds3d"):
        list(Session(small_config(steps=1), "/proc/sds3d").run())


def test_a_full_disk_ends_the_run_with_the_path_and_leaves_nothing_half_written(small_config, tmp_path: Path) -> None:
    """RLIMIT_FSIZE makes the kernel refuse the checkpoint's bytes, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    seen = []

    def consume() -> None:
        for event in Session(small_config(), tmp_path / "run").run():
            seen.append(event)

    resource.setrlimit(resource.RLIMIT_FSIZE, (8000, hard))
    try:
        with pytest.raises(OutputError, match=r"checkpoints/step-000008"):
            consume()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert seen[-1].step == 8
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []
    assert not list((tmp_path / "run").rglob("*.tmp"))
    assert list(Session.resume(tmp_path / "run").run())[-1].report


@pytest.mark.exports
def test_a_scene_unfit_for_a_mesh_is_reported_with_the_reason(small_config, tmp_path: Path) -> None:
    still = dict.fromkeys(("opacities", "scales", "means"), 0.0)  # fog stays fog
    fog = {"scene.init_opacity": 0.02, "scene.densify.refine_stop": 0.0, "optim.group_lr_scale": still}
    config = small_config(**fog, steps=12)
    with pytest.raises(ExportError):
        list(Session(config, tmp_path / "run").run())
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["mesh"]["refused"]
    assert (tmp_path / "run" / "sheet.png").exists()
    assert not (tmp_path / "run" / "mesh.glb").exists()


@pytest.mark.exports
@pytest.mark.slow
def test_results_are_exported_again_from_the_checkpoint(small_config, tmp_path: Path) -> None:
    list(Session(small_config(), tmp_path / "run").run())
    for name, file_format in (("mesh.glb", "glb"), ("splats.ply", "ply"), ("sheet.png", "sheet")):
        first = (tmp_path / "run" / name).read_bytes()
        (tmp_path / "run" / name).unlink()
        assert Session.resume(tmp_path / "run").export(file_format) == tmp_path / "run" / name
        assert (tmp_path / "run" / name).read_bytes() == first
    with pytest.raises(ConfigError, match=r"'fbx' is unknown.*known: sheet, orbit, ply, glb, gltf"):
        Session.resume(tmp_path / "run").export("fbx")


@pytest.mark.exports
def test_nothing_is_exported_from_an_older_checkpoint_or_from_another_run(small_config, tmp_path: Path) -> None:
    list(Session(small_config(), tmp_path / "run").run())
    with pytest.raises(CheckpointError, match="no checkpoint yet"):
        Session(small_config(), tmp_path / "run").export("ply")
    damaged = tmp_path / "run" / "checkpoints" / "step-000024" / "state.json"
    damaged.write_bytes(b"{}")
    with pytest.raises(CheckpointError, match=r"state\.json is damaged"):
        Session.resume(tmp_path / "run").export("ply")


@pytest.mark.exports
def test_what_is_no_run_folder_is_refused(small_config, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"resolved\.json"):
        Session.resume(tmp_path)
    list(Session(small_config(steps=1), tmp_path / "run").run())
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    with pytest.raises(CheckpointError, match="no checkpoint yet"):
        Session.resume(tmp_path / "run").export("glb")
    (tmp_path / "run" / "resolved.json").write_text('{"prompt": ')
    with pytest.raises(ConfigError, match="not valid JSON"):
        Session.resume(tmp_path / "run")
