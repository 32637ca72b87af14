"""A run's folder has the files that it began with: moved, and with the originals gone, it goes on to the same end."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sds3d import Session
from sds3d.config import load_config, resolve
from sds3d.errors import ConfigError, PriorUnavailable
from sds3d.jobs import Queue
from sds3d.jobs.job_list import read_job_list
from sds3d.jobs.queue import fork, job_name
from sds3d.jobs.worker import Worker
from sds3d.run.events import StepDone, Stop
from sds3d.run.folder import RunFolder
from sds3d.run.inputs import changes, keep
from sds3d.sweeps.run_set import RunSet
from sds3d.training.sessions import begin
from sds3d_app.workers.ray_actor import RayWorker, packed
from tests.runs import assert_equal, end_of


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a picture, its mask and a depth map, in which commands are typed."""
    folder = tmp_path / "mine"
    folder.mkdir()
    mask = np.zeros((40, 40), np.uint8)
    mask[8:32, 8:32] = 255
    depth = np.tile(np.linspace(0, 255, 40, dtype=np.uint8), (40, 1))
    for name, grey in {"ball.png": depth[::-1].T, "mask.png": mask, "depth.png": depth}.items():
        Image.fromarray(np.ascontiguousarray(grey)).save(folder / name)
    monkeypatch.chdir(folder)
    return folder


PICTURES = {"path": "ball.png", "mask": "mask.png", "depth": "depth.png", "size": 16}


def stopped(session: Session, at: int = 8) -> None:
    for event in session.run():
        if isinstance(event, StepDone) and event.step == at:
            session.send(Stop())


def test_a_run_goes_on_elsewhere_without_the_originals_bit_for_bit(
    mine: Path, small_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(steps=16, reference_image=PICTURES)
    whole = end_of(Session(config, tmp_path / "whole"))
    stopped(Session(config, "run"))
    moved = (mine / "run").rename(tmp_path / "elsewhere")
    shutil.rmtree(mine)
    monkeypatch.chdir(tmp_path)
    text = (moved / "config.json").read_text() + (moved / "resolved.json").read_text()
    assert str(tmp_path) not in text
    assert_equal(end_of(Session.resume("elsewhere")), whole)
    again = load_config("elsewhere/config.json", overrides={"steps": 2})
    assert again.reference_image.path == RunFolder(moved).config().reference_image.path
    end_of(Session(again, tmp_path / "again"))


def test_a_file_is_kept_once_and_what_a_fork_has_is_its_own(mine: Path, small_config: Any, tmp_path: Path) -> None:
    shutil.copy(mine / "mask.png", mine / "also.png")
    image = {**PICTURES, "mask": "mask.png", "depth": "depth.png", "normal": "ball.png"}
    stopped(Session(small_config(steps=16, reference_image=image), "run"))
    copies = [path for path in Path("run/inputs").rglob("*") if path.is_file()]
    assert sorted(path.name for path in copies) == ["ball.png", "depth.png", "mask.png"]
    queue = Queue(tmp_path / "queue")
    job = fork(queue, RunFolder("run"), {"steps": 12})
    shutil.rmtree("run")
    assert [job.state for job, _ in Worker(queue).run()][:1] == ["running"]
    assert queue.job(job.name).state == "done"
    assert all(Path(job.run.config().reference_image.path).is_relative_to(job.run.path) for _ in "x")


def test_jobs_keep_what_they_will_need(mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files beside the list, whoever reads it from where; the queue can be moved before it begins."""
    row = {"prompt": "a red ball", "prior": {"name": "analytic", "size": 16}, "cameras.size": 16, "steps": 2}
    row |= {"scene": {"name": "gaussians", "count": 60}, "preview_every": 0, "reference_image": PICTURES}
    (mine / "list.jsonl").write_text("".join(json.dumps({**row, "seed": seed}) + "\n" for seed in (0, 1)))
    monkeypatch.chdir(tmp_path)
    configs = read_job_list(Path("mine/list.jsonl"))
    assert configs[0].reference_image.mask == str(mine / "mask.png")
    jobs = Queue("queue").add_many(configs)
    assert sum(path.is_file() for path in Path("queue/inputs").rglob("*")) == 3
    assert [job_name(config) for config in configs] == [job.name for job in jobs]
    shutil.rmtree(mine)
    moved = Queue(Path("queue").rename("moved"))
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    moved = Queue(tmp_path / "moved")
    list(Worker(moved).run())
    assert [job.state for job in moved.jobs()] == ["done", "done"]
    assert [job.name for job in moved.add_many(configs)] == [job.name for job in jobs], "the same list goes on"


def test_names_in_a_file_are_meant_from_there_and_then_from_here(mine: Path, tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    path = tmp_path / "configs" / "duck.json"
    shutil.copy(mine / "mask.png", tmp_path / "configs" / "mask.png")
    stages = [{"begin_at": 0.5, "options": {"scene": "mesh", "scene.source": {"path": "lump.ply"}}}]
    said = {"prompt": "a red ball", "reference_image": {"path": "mask.png", "depth": "depth.png"}, "stages": stages}
    prior = {"name": "diffusers", "model": "org/model", "lora": ["mask.png", "/nowhere/style.safetensors"]}
    path.write_text(json.dumps({**said, "prior": prior}))
    config = load_config(path)
    assert config.reference_image.path == str(path.with_name("mask.png"))
    assert config.reference_image.depth == str(mine / "depth.png")
    assert config.prior.model == "org/model"
    assert config.prior.lora == (str(path.with_name("mask.png")), "/nowhere/style.safetensors")
    assert config.in_stage(1).scene.source.path == str(path.with_name("lump.ply"))
    (mine / "org" / "model").mkdir(parents=True)
    assert load_config(path).prior.model == str(mine / "org" / "model")
    assert load_config(overrides={**said, "prior.name": "diffusers", "prior": "./org/model"}).prior.model == str(
        mine / "org" / "model"
    )


def test_weights_and_large_files_are_copied_or_named_by_what_they_are(
    mine: Path, small_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (mine / "weights" / "unet").mkdir(parents=True)
    (mine / "weights" / "unet" / "config.json").write_text("{}")
    config = resolve({"prompt": "a red ball", "prior.weights": "weights", "stages": []})
    kept = Path(keep(config, tmp_path / "run").prior.weights)
    assert (kept / "unet" / "config.json").read_text() == "{}"
    assert kept.is_relative_to(tmp_path / "run" / "inputs")
    monkeypatch.setattr("sds3d.run.inputs.MOST_BYTES", 10)
    session = Session(small_config(steps=16, reference_image=PICTURES), "run")
    stopped(session)
    assert session.config.reference_image.path == str(mine / "ball.png")
    assert not Session.resume("run").check()
    Image.fromarray(np.full((40, 40), 7, np.uint8)).save("ball.png")
    (warning,) = Session.resume("run").check()
    assert warning == f"{mine / 'ball.png'} is not what it was when the run began"


def test_a_model_that_is_another_now_is_told(mine: Path, small_config: Any, tmp_path: Path) -> None:
    """By samples of its files: reading all of them would take minutes. Its card may change."""
    (mine / "sd" / "unet").mkdir(parents=True)
    weights = mine / "sd" / "unet" / "model.safetensors"
    weights.write_bytes(bytes(1_000_000))
    config = small_config(prior={"name": "diffusers", "model": "sd"})
    kept, folder = keep(config, tmp_path / "run"), tmp_path / "run"
    assert kept.prior.model == str(mine / "sd")
    assert [path.name for path in (folder / "inputs").iterdir()] == ["large.json"]
    (mine / "sd" / "README.md").write_text("new")
    assert changes(kept, folder) == []
    weights.write_bytes(bytes(999_999) + b"1")
    assert changes(kept, folder) == [f"{mine / 'sd'} is not what it was when the run began"]
    assert changes(keep(config, folder), folder) != [], "what it was when the run began stays written"


def test_a_ray_worker_that_sees_no_folder_gets_the_files_with_the_run(mine: Path, small_config: Any) -> None:
    config = small_config(steps=2, reference_image=PICTURES)
    begin(config, RunFolder("run"))
    data = packed(Path("run"))
    for path in mine.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    answer = RayWorker().run(config.said, config.to_dict(), [], data)
    assert (answer["state"], answer["reason"]) == ("done", "")


def test_a_copy_that_somebody_changed_is_told(mine: Path, small_config: Any) -> None:
    session = Session(small_config(steps=16, reference_image=PICTURES), "run")
    stopped(session)
    shutil.copy("ball.png", session.config.reference_image.depth)
    (warning,) = Session.resume("run").check()
    assert "reference_image.depth" in warning
    assert "was changed after the run began" in warning


def test_a_set_of_runs_knows_its_own_wherever_the_files_are(mine: Path, small_config: Any) -> None:
    configs = {Path("set/0"): small_config(steps=2, reference_image=PICTURES)}
    list(RunSet(configs).run())
    assert RunSet(configs).finished()
    (mine / "elsewhere").mkdir()
    for name in ("ball.png", "mask.png"):
        (mine / name).rename(mine / "elsewhere" / name)
    RunSet(configs)
    image = {**PICTURES, "path": "elsewhere/ball.png", "mask": "elsewhere/mask.png"}
    RunSet({Path("set/0"): small_config(steps=2, reference_image=image)})
    shutil.copy(mine / "depth.png", mine / "elsewhere" / "ball.png")
    with pytest.raises(ConfigError, match="other options"):
        RunSet({Path("set/0"): small_config(steps=2, reference_image=image)})


@pytest.mark.parametrize("name", ["inputs/../../secret.png", "inputs/0123456789abcdef/../../../secret.png"])
def test_a_run_folder_names_nothing_above_itself(mine: Path, small_config: Any, name: str) -> None:
    begin(small_config(reference_image=PICTURES), RunFolder("run"))
    data = json.loads(Path("run/resolved.json").read_text())
    data["reference_image"]["path"] = name
    Path("run/resolved.json").write_text(json.dumps(data))
    shutil.copy("ball.png", "secret.png")
    with pytest.raises(ConfigError, match="there is no file"):
        Session.resume("run").check()


def test_a_link_out_of_a_run_folder_is_not_followed(mine: Path, small_config: Any) -> None:
    begin(small_config(reference_image=PICTURES), RunFolder("run"))
    place = Path(RunFolder("run").config().reference_image.path)
    place.unlink()
    place.symlink_to(mine / "ball.png")
    with pytest.raises(ConfigError, match="leads out of run"):
        RunFolder("run").config()


def test_a_model_that_is_gone_is_named(small_config: Any, tmp_path: Path) -> None:
    gone = tmp_path / "models" / "sd"
    prior = {"name": "diffusers", "model": str(gone)}
    begin(small_config(prior=prior), RunFolder(tmp_path / "run"))
    with pytest.raises(PriorUnavailable, match=f"there is no folder {gone} with the model") as problem:
        Session.resume(tmp_path / "run").check()
    assert f"ln -s FOLDER {gone}" in str(problem.value)


def test_an_unreadable_file_is_named_and_leaves_the_folder_free(mine: Path, small_config: Any, monkeypatch) -> None:
    def refused(self: Path, *arguments: Any, **options: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch, RunFolder.claim("run") as folder:
        patch.setattr(Path, "open", refused)
        with pytest.raises(ConfigError, match=r"reference_image\.path: .*ball\.png cannot be read: Permission denied"):
            folder.write_config(small_config(reference_image=PICTURES))
        assert folder.is_free()
    assert os.listdir("run") == ["run.lock"]
