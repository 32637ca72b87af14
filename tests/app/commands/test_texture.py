"""`sds3d texture` and `sds3d refine`, in this process, with the analytic prior."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import trimesh

from sds3d import Session
from sds3d.config import load_config, resolve
from sds3d.run.events import Finished, StepDone, Stop
from sds3d.run.folder import RunFolder
from sds3d_app.cli import invoke
from sds3d_app.commands.texture import STEPS, refine_config, taken_over, texture_config

pytestmark = pytest.mark.exports
TINY = {
    "prior": {"name": "analytic", "size": 16},
    "cameras": {"views": 1, "size": 16},
    "steps": 4,
    "checkpoint_every": 2,
    "preview_every": 0,
    "export": {"texture_size": 64},
}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """No video, and few triangles where a surface is made anew."""
    monkeypatch.setattr("sds3d.run.artifacts.write_orbit", lambda scene, path: path.write_bytes(b"a video"))
    for name, value in (("FIT_STEPS", 3), ("POINTS", 2000), ("FACES", 600)):
        monkeypatch.setattr(f"sds3d.scenes.file_mesh.{name}", value)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A ball as .gltf with its data beside it."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for name, data in trimesh.creation.icosphere(2).export(file_type="gltf").items():
        (folder / ("ball.gltf" if name.endswith(".gltf") else name)).write_bytes(data)
    (tmp_path / "tiny.json").write_text(json.dumps(TINY))
    return folder / "ball.gltf"


def tiny(path: Path, **options: Any) -> Any:
    scene = {"name": "mesh", "geometry": "fixed", "source": {"path": str(path)}}
    return resolve({"prompt": "a red ball", **TINY, "scene": scene, **options})


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_run_has_the_textured_file_and_leaves_the_users_alone(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = contents(file.parent)
    out, options = tmp_path / "run", ["--config", str(tmp_path / "tiny.json")]
    assert invoke(["texture", str(file), "a red ball", *options, "--out", str(out)]) == 0
    assert "textured.glb" in capsys.readouterr().out
    assert contents(file.parent) == mine
    (copies,) = (out / "inputs").iterdir()
    assert contents(copies) == mine
    assert {"sheet.png", "textured.glb", "report.json"} < {path.name for path in out.iterdir()}
    assert not (out / "mesh.glb").exists()
    assert invoke(["export", str(out), "--out", str(tmp_path / "painted.glb")]) == 0
    assert (tmp_path / "painted.glb").read_bytes()[:4] == b"glTF"
    assert invoke(["texture", str(file), "a red ball", *options, "--out", str(tmp_path / "painted.stl")]) == 2
    assert "gives no .stl" in capsys.readouterr().err
    assert len(trimesh.load_mesh(out / "textured.glb", process=False).faces) == 320
    assert invoke(["export", str(out), "--format", "textured"]) == 0
    assert invoke(["export", str(out), "--format", "glb"]) == 2
    assert "known: sheet, orbit, textured" in capsys.readouterr().err
    assert invoke(["evaluate", str(out), "--json"]) == 0
    (scored,) = json.loads(capsys.readouterr().out)["runs"]
    assert "attributes" in scored
    assert "silhouette_iou" not in scored["values"], "the shape is not the run's"
    assert not any("mesh" in said for said in (*scored["failed"], *scored["notes"]))


def test_resume_needs_neither_the_users_file_nor_the_old_place(file: Path, tmp_path: Path) -> None:
    whole = Session(tiny(file), tmp_path / "whole")
    assert not list(whole.run())[-1].interrupted
    session = Session(tiny(file), tmp_path / "run")
    for event in session.run():
        if isinstance(event, StepDone) and event.step == 3:
            session.send(Stop())
    shutil.rmtree(file.parent)
    moved = (tmp_path / "run").rename(tmp_path / "elsewhere")
    kept = RunFolder(moved).config().mesh_file
    assert kept.is_relative_to(moved / "inputs")
    assert kept.name == "ball.gltf"
    last = list(Session.resume(moved).run())[-1]
    assert isinstance(last, Finished)
    assert not last.interrupted
    results = [(tmp_path / name / "textured.glb").read_bytes() for name in ("whole", "elsewhere")]
    assert results[0] == results[1]


def test_dry_run_draws_a_picture_and_says_what_was_found(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name for path in tmp_path.iterdir()}
    options = ["--config", str(tmp_path / "tiny.json"), "--out", str(tmp_path / "run"), "--dry-run", "--up", "z"]
    assert invoke(["texture", str(file), "a red ball", *options]) == 0
    said = capsys.readouterr()
    assert said.out.strip() == str(tmp_path / "run-as-read.png")
    assert "320 triangles in 1 parts" in said.err
    assert "up is +z (as you said), the front looks along -y" in said.err
    assert "without UVs" in said.err
    assert {path.name for path in tmp_path.iterdir()} - before == {"run-as-read.png"}


def test_refine_ends_with_a_mesh_of_its_own_and_a_run_can_be_refined(file: Path, tmp_path: Path) -> None:
    options = ["--config", str(tmp_path / "tiny.json"), "--set", "scene.finish=0", "--quiet"]
    assert invoke(["refine", str(file), "a red ball", *options, "--out", str(tmp_path / "first")]) == 0
    mesh = trimesh.load_mesh(tmp_path / "first" / "mesh.glb")
    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    assert mesh.is_watertight
    assert 1.0 < mesh.extents.max() < 1.9
    assert invoke(["refine", str(tmp_path / "first"), *options, "--out", str(tmp_path / "second")]) == 0
    config = RunFolder(tmp_path / "second").config()
    assert (config.prompt, config.steps) == ("a red ball", 4)
    assert config.mesh_file.is_relative_to(tmp_path / "second" / "inputs")
    assert config.mesh_file.name == "mesh.glb"


def test_refine_says_what_it_cannot_do(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["refine", str(file)]) == 2
    assert "say what it is" in capsys.readouterr().err
    body = trimesh.creation.icosphere(2)
    body.update_faces(body.triangles_center[:, 2] < 0.5)
    body.export(tmp_path / "bowl.ply")
    options = ["--config", str(tmp_path / "tiny.json"), "--out", str(tmp_path / "run")]
    assert invoke(["refine", str(tmp_path / "bowl.ply"), "a red ball", *options]) == 2
    assert "edges at the borders of holes (close it first; sds3d texture takes it as it is)" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert invoke(["texture", str(tmp_path / "no.glb"), "a red ball", *options]) == 2
    assert "there is no file" in capsys.readouterr().err


def test_texture_has_soft_colours_and_times_of_its_own_unless_others_are_said() -> None:
    scene = {"geometry": "fixed", "path": "a.glb", "up": None, "front": None}
    config = texture_config(None, scene, {"prompt": "a mug"})
    assert (config.scene.colors.palette, config.timesteps.t_min, config.timesteps.t_max) == (False, 0.3, 0.9)
    said = {"prompt": "a mug", "scene.colors.palette": True, "timesteps.t_max": 0.8}
    config = texture_config(None, scene, said)
    assert (config.scene.colors.palette, config.timesteps.t_max) == (True, 0.8)


def test_steps_of_a_config_file_are_taken(tmp_path: Path) -> None:
    """They were ignored."""
    (tmp_path / "tiny.json").write_text(json.dumps(TINY))
    scene = {"geometry": "fixed", "path": "a.glb", "up": None, "front": None}
    for config_of in (texture_config, refine_config):
        assert config_of(tmp_path / "tiny.json", scene, {"prompt": "a mug"}).steps == 4
        assert config_of(tmp_path / "tiny.json", scene, {"prompt": "a mug", "steps": 9}).steps == 9
        assert config_of(None, scene, {"prompt": "a mug"}).steps == STEPS


def test_refine_begins_at_lower_times() -> None:
    scene = {"geometry": "free", "path": "a.glb", "up": None, "front": "x"}
    given: dict[str, Any] = {"prompt": "a mug", "prior": {"name": "diffusers", "model": "somebody/something"}}
    config = refine_config(None, scene, given)
    assert (config.timesteps.t_max.start, config.timesteps.t_max.end) == (0.5, 0.5)
    assert (config.scene.source.front, config.scene.source.up, config.stages) == ("x", None, ())
    assert refine_config(None, scene, {**given, "timesteps": "uniform"}).timesteps.t_max == 0.5
    said = {**given, "timesteps": {"name": "uniform", "t_max": 0.8}}
    assert refine_config(None, scene, said).timesteps.t_max == 0.8
    low = refine_config(None, scene, {"prompt": "a mug", "timesteps.t_min": 0.3}).timesteps
    assert (low.t_min, low.t_max) == (0.3, 0.5)
    assert refine_config(None, scene, {"prompt": "a mug"}).timesteps.t_max == 0.5


def test_a_run_of_another_scene_is_gone_on_from_without_what_only_that_has() -> None:
    """Its prior, words and guidance hold; what it said of splats and of the search for a surface does not."""
    said = {"prompt": "a red ball", "prior": "analytic", "guidance.guidance_scale": 7, "steps": 9, "scene.count": 99}
    splats = load_config(overrides={**said, "loss_weights.sparsity": 3, "export.resolution": 64, "export.faces": 999})
    kept = taken_over(splats)
    assert kept == {
        "prompt": "a red ball", "prior.name": "analytic", "guidance.guidance_scale": 7, "export.faces": 999,
    }  # fmt: skip
    mesh = load_config(overrides={**kept, "scene": "mesh", "scene.finish": 0, "loss_weights.laplacian": 0.5})
    assert taken_over(mesh).items() >= {"scene.finish": 0, "loss_weights.laplacian": 0.5}.items()
    assert "scene.source.path" not in taken_over(mesh)
