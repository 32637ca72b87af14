"""Exports from a finished run: formats, options, steps, what is noted of them, and what is refused."""

import json
from pathlib import Path

import pytest

from sds3d import Session
from sds3d.errors import CheckpointError, ConfigError, OutputError
from sds3d.export.glb import read_glb
from sds3d.export.info import read_info
from sds3d.training.session import export_run

pytestmark = pytest.mark.exports
QUICK = {"resolution": 24, "color_size": 48, "texture_size": 64, "faces": 500}


@pytest.fixture(scope="module")
def run(small_config, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exporting") / "run"
    list(Session(small_config(), folder).run())
    return folder


@pytest.mark.slow
def test_formats_with_other_options_are_written_and_noted(run: Path) -> None:
    found = list(export_run(run, ["glb", "stl", "splat", "ply", "glb"], options=QUICK))
    assert [written.path.name for written in found] == ["mesh.glb", "mesh.stl", "splats.splat", "splats.ply"]
    mesh = read_glb(run / "mesh.glb")
    assert len(mesh.faces) <= 525
    assert max(mesh.texture.image.shape[:2]) <= 64
    report = json.loads((run / "report.json").read_text())
    assert report["prompt"] == "a red ball"
    noted = report["exports"]["mesh.glb"]
    assert noted == json.loads(json.dumps(found[0].stats))
    assert noted["faces"] == len(mesh.faces)
    assert 0.5 < noted["silhouette_iou"] <= 1
    assert noted["watertight"]
    assert (run / "splats.splat").stat().st_size == 32 * report["exports"]["splats.splat"]["splats"]


def test_files_tell_the_run(run: Path) -> None:
    made = read_info(run / "mesh.glb").made
    assert made is not None
    assert (made["prompt"], made["seed"], made["step"], made["prior"]) == ("a red ball", 0, 24, "analytic")
    assert made["guidance"] == {"name": "sds", "guidance_scale": pytest.approx(made["guidance"]["guidance_scale"])}
    figures = {name: made[name] for name in ("tunnels", "roughness", "crease_length")}
    assert {**read_info(run / "splats.ply").made, **figures} == made


@pytest.mark.slow
def test_usdz_without_a_texture_is_warned_of(run: Path) -> None:
    (written,) = export_run(run, ["usdz"], options={**QUICK, "color": "vertex"})
    assert any("--color texture" in warning for warning in written.stats["warnings"])


@pytest.mark.slow
def test_an_older_step_goes_into_a_folder_of_its_own(run: Path) -> None:
    (written,) = export_run(run, ["ply"], step=16)
    assert written.path == run / "exports" / "step-000016" / "splats.ply"
    assert read_info(written.path).made["step"] == 16
    assert list(json.loads((written.path.parent / "report.json").read_text())["exports"]) == ["splats.ply"]
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 3 \(there are: 16, 24\)"):
        list(export_run(run, ["ply"], step=3))


def test_a_file_of_another_program_is_replaced_only_by_force(run: Path) -> None:
    path = run / "mesh.glb"
    mine = path.read_bytes().replace(b'"generator":"sds3d"', b'"generator":"other"')
    path.write_bytes(mine)
    with pytest.raises(OutputError, match=r"mesh\.glb is there already and was not written by sds3d \(.*--force"):
        list(export_run(run, ["glb"], options=QUICK))
    assert path.read_bytes() == mine
    list(export_run(run, ["glb"], options=QUICK, force=True))
    assert read_info(path).made is not None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"faces": 4}, r"export\.faces = 4"),
        ({"texture_size": 1}, r"export\.texture_size = 1"),
        ({"color": "blue"}, r"export\.color"),
    ],
)
def test_options_out_of_range_are_named_before_anything_is_written(run: Path, options, said) -> None:
    before = {path: path.read_bytes() for path in run.iterdir() if path.is_file()}
    with pytest.raises(ConfigError, match=said):
        list(export_run(run, ["glb"], options=options))
    assert {path: path.read_bytes() for path in run.iterdir() if path.is_file()} == before
