"""Commands that make, finish, draw and export runs, in this process, with the analytic prior."""

import contextlib
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from sds3d.run.artifacts import ARTIFACTS
from sds3d.run.folder import RunFolder
from sds3d.scenes import GaussiansConfig
from sds3d_app.arguments import OTHERS, RESULTS, folder_of, out_of
from sds3d_app.cli import invoke
from sds3d_app.commands.generate import summary

pytestmark = pytest.mark.exports
COMPLETE = {
    *("config.json", "resolved.json", "run.lock", "events.jsonl", "checkpoints", "previews", "report.json"),
    *("sheet.png", "orbit.mp4", "splats.ply", "mesh.glb"),
}


@pytest.fixture(scope="module")
def made(small_file: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """A finished run's folder, and what its command said on stdout and stderr."""
    folder = tmp_path_factory.mktemp("made") / "run"
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = invoke(["generate", "a red ball", "--config", str(small_file), "--out", str(folder), "--json"])
    assert code == 0, err.getvalue()
    return folder, out.getvalue(), err.getvalue()


def test_json_is_all_of_stdout_and_tells_the_whole_run(made: tuple[Path, str, str]) -> None:
    folder, out, err = made
    events = [json.loads(line) for line in out.splitlines()]
    assert err == ""
    assert events[0]["event"] == "Started"
    assert events[-1]["event"] == "Finished"
    assert [event["step"] for event in events if event["event"] == "StepDone"] == list(range(1, 25))
    assert {Path(event["path"]) for event in events if event["event"] == "Exported"} == {
        folder / name for name in ("sheet.png", "orbit.mp4", "splats.ply", "mesh.glb")
    }


def test_the_run_folder_is_complete_and_holds_nothing_else(made: tuple[Path, str, str]) -> None:
    folder = made[0]
    assert {path.name for path in folder.iterdir()} == COMPLETE
    assert [path.name for path in (folder / "previews").iterdir()]
    assert json.loads((folder / "report.json").read_text())["prompt"] == "a red ball"
    assert not [path for path in folder.rglob("*") if path.name.startswith(".") or path.suffix == ".tmp"]


def test_render_draws_again_in_the_size_asked_for(
    made: tuple[Path, str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = made[0]
    assert invoke(["render", str(folder), "--size", "32", "--views", "2"]) == 0
    assert capsys.readouterr().out.split() == [str(folder / "sheet.png"), str(folder / "orbit.mp4")]
    with Image.open(folder / "sheet.png") as sheet:
        assert 64 <= sheet.width < 128


@pytest.mark.parametrize(("file_format", "name"), [("ply", "splats.ply"), ("glb", "mesh.glb")])
def test_export_writes_the_same_file_again(
    made: tuple[Path, str, str], file_format: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = made[0] / name
    before = path.read_bytes()
    path.unlink()
    assert invoke(["export", str(made[0]), "--format", file_format]) == 0
    assert capsys.readouterr().out == f"{path}\n"
    assert path.read_bytes() == before


def test_an_export_is_as_large_as_asked_and_stands_on_its_foot(
    made: tuple[Path, str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["export", str(made[0]), "--format", "stl", "--size", "80", "--pivot", "base", "--up", "y"]) == 0
    low, high = trimesh.load_mesh(made[0] / "mesh.stl").bounds
    (made[0] / "mesh.stl").unlink()
    assert max(high - low) == pytest.approx(80, rel=1e-4)
    assert low[1] == pytest.approx(0, abs=1e-3)
    assert re.search(r"closed, .*\b80\b", capsys.readouterr().err)


@pytest.mark.parametrize(("name", "floats"), [("ply", 62), ("splat", 8)])
@pytest.mark.parametrize("up", ["y", "-y"])
def test_splats_lie_as_the_viewer_wants_them(
    made: tuple[Path, str, str], name: str, floats: int, up: str, tmp_path: Path
) -> None:
    """Each splat's height, +Z in the run's own file, is along the axis that was named."""

    def along(axis: int, turned: str) -> np.ndarray:
        path = tmp_path / f"{turned}.{name}"
        assert invoke(["export", str(made[0]), "--out", str(path), f"--up={turned}"]) == 0
        rows = np.frombuffer(path.read_bytes().rpartition(b"end_header\n")[2], dtype="<f4").reshape(-1, floats)
        return np.sort(rows[:, axis])

    heights = along(2, "z")
    assert np.ptp(heights) > 0.1
    np.testing.assert_allclose(along(1, up), heights if up == "y" else -heights[::-1], atol=1e-6)


def test_an_unknown_format_names_the_known_ones(
    made: tuple[Path, str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["export", str(made[0]), "--format", "glb,fbx"]) == 2
    assert "glb" in capsys.readouterr().err


def test_resuming_a_finished_run_quietly_prints_its_folder_and_nothing_else(
    made: tuple[Path, str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["resume", str(made[0]), "--quiet"]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{made[0]}\n"
    assert all(line.startswith("warning: mesh.glb: ") for line in captured.err.splitlines())  # a rough mesh of 24 steps


def test_a_damaged_checkpoint_is_named(
    made: tuple[Path, str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    [newest] = sorted((made[0] / "checkpoints").iterdir())[-1:]
    target = folder / "checkpoints" / newest.name
    target.mkdir(parents=True)
    for name in ("config.json", "resolved.json"):
        (folder / name).write_bytes((made[0] / name).read_bytes())
    for file in newest.iterdir():
        data = file.read_bytes()
        (target / file.name).write_bytes(data[: len(data) // 2] if file.suffix == ".safetensors" else data)
    assert invoke(["export", str(folder)]) == 2
    assert str(target / "tensors.safetensors") in capsys.readouterr().err


def try_prompt(prompt: str, file: Path, *options: str) -> int:
    return invoke(["generate", prompt, "--config", str(file), "--dry-run", *options])


def test_unknown_words_are_warned_of_and_a_dry_run_writes_nothing(
    small_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert try_prompt("a red mug", small_file) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "warning: the analytic prior does not know: mug" in captured.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("prompt", "options", "said"), [("a red mug", ["--strict"], "mug"), ("a wibble", [], "it knows a ball in red")]
)
def test_words_that_are_refused(
    prompt: str,
    options: list[str],
    said: str,
    small_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert invoke(["generate", prompt, "--config", str(small_file), *options]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert said in captured.err
    assert list(tmp_path.iterdir()) == []


def test_an_output_folder_under_a_file_is_one_line_and_1(
    small_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    out = file / "run"
    assert invoke(["generate", "a red ball", "--config", str(small_file), "--out", str(out), "--quiet"]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: cannot write {out}")
    assert captured.err.count("\n") == 1
    assert file.read_text() == "mine"


def test_the_summary_names_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "sheet.png").touch()
    (tmp_path / "mesh.glb").touch()
    folder = RunFolder(tmp_path)
    mesh = {"faces": 8012, "pieces": 2, "tunnels": 1, "watertight": True, "extent": [0.9, 0.72, 0.8]}
    folder.write_report({"seconds": {"total": 93.4}, "mesh": mesh})
    text = summary(folder)
    assert f"{tmp_path}/ in 93 s" in text
    assert "mesh.glb" in text
    assert "8012 triangles, 2 pieces, one tunnel, closed, 0.90 x 0.72 x 0.80" in text
    assert "orbit.mp4" not in text
    folder.write_report({"seconds": {"total": 93.4}, "mesh": {"refused": "it has no surface"}})
    assert "mesh.glb" in summary(folder)


@pytest.mark.slow
def test_every_particle_is_named_and_can_be_exported_again(
    small_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(GaussiansConfig, "artifacts", ("sheet", "ply"))
    folder = tmp_path / "run"
    options = ["--config", str(small_file), "--out", str(folder), "--set", "particles=2"]
    assert invoke(["generate", "a red ball", *options]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[1] == "  particles.png look at this first"
    assert said[-1] == "  particle-2/"
    path = folder / "particle-2" / "splats.ply"
    before = path.read_bytes()
    path.unlink()
    assert invoke(["export", str(folder), "--format", "ply", "--particle", "2"]) == 0
    assert capsys.readouterr().out == f"{path}\n"
    assert path.read_bytes() == before
    assert invoke(["export", str(folder), "--format", "ply", "--particle", "3"]) == 2
    assert "the run has 1 to 2" in capsys.readouterr().err
    assert invoke(["generate", "a red ball", *options[:-1], "particles=3"]) == 2
    assert "use cameras.views=3" in capsys.readouterr().err


def test_a_result_is_where_it_was_asked_for(
    small_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["generate", "a red ball", "--config", str(small_file), "--out"]
    assert invoke([*command, "things/v1.2/mug.GLB"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "things/v1.2/mug.GLB"
    run = tmp_path / "outputs" / "a-red-ball-0"
    assert (tmp_path / "things" / "v1.2" / "mug.GLB").read_bytes() == (run / "mesh.glb").read_bytes()
    assert {path.name for path in run.iterdir()} == COMPLETE
    (tmp_path / "mine.glb").write_text("years of work")
    for out, code, said in (
        ("mine.glb", 1, "does not say that sds3d wrote it"),
        ("mug.fbx", 2, "writes no .fbx"),
        ("mug.usdz", 2, "gives no .usdz"),
    ):
        flat = ["generate", "a red ball", "--prior", "analytic", "--scene", "image", "--out"]
        assert invoke([*(flat if out == "mug.usdz" else command), out]) == code
        err = capsys.readouterr().err
        assert said in err
        assert err.count("\n") == 1
    assert (tmp_path / "mine.glb").read_text() == "years of work"
    assert {path.name for path in tmp_path.iterdir()} >= {"things", "outputs", "mine.glb"}
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["a-red-ball-0"]


@pytest.mark.parametrize("name", ["ball.ply", "ball.obj", "ball.usdz", "ball.mp4", "ball.png", "ball.stl"])
def test_an_export_has_the_name_that_it_is_given(
    made: tuple[Path, str, str], name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name for path in made[0].iterdir()}
    assert invoke(["export", str(made[0]), "--out", str(tmp_path / name)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / name}\n"
    assert (tmp_path / name).stat().st_size > 100
    if name == "ball.obj":
        assert {path.name for path in tmp_path.iterdir()} >= {"ball.obj", "ball.mtl", "ball_color.png"}
        assert len(trimesh.load(tmp_path / name, force="mesh").faces) > 100
    assert {path.name for path in made[0].iterdir()} == before


def test_the_endings_of_results_are_those_that_there_are() -> None:
    assert {Path(name).suffix for name in ARTIFACTS.values()} == RESULTS
    assert not RESULTS & OTHERS


@pytest.mark.parametrize("command", [["batch", "list.txt"], ["compare", "a mug"], ["evaluate", "run"], ["ui"]])
def test_many_results_are_no_single_file(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert invoke([*command, "--out", "mug.glb"]) == 2
    assert "--out mug.glb is a file's name, and here are many results" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mug.glb").mkdir()
    assert folder_of(Path("mug.glb")) == Path("mug.glb")
    assert out_of(Path("results/v1.2")) == (Path("results/v1.2"), None)
