"""The examples run, one after the other as a reader would, at small sizes."""

import runpy
from pathlib import Path

import pytest

from sds3d import GUIDANCE
from sds3d.config import run_config

from .sizes import at_full_size

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
# What `preset="draft"` says in the examples, and how far a run goes whose steps they say.
SMALL = {
    "steps": 8,
    "cameras": {"views": 2, "size": 24},
    "preview_every": 4,
    "checkpoint_every": 4,
    "export": {"faces": 2000, "color_size": 64, "texture_size": 128},
}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setitem(run_config.PRESETS, "draft", SMALL)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_example(path: Path, folder: Path) -> None:
    known = set(GUIDANCE)
    try:
        runpy.run_path(str(path), run_name="__main__")
    finally:
        for name in set(GUIDANCE) - known:
            del GUIDANCE[name]
    reports = sorted((folder / "outputs").rglob("report.json"))
    assert reports, "it has made nothing"
    assert len(list((folder / "outputs").rglob("resolved.json"))) == len(reports)


@pytest.mark.slow
@pytest.mark.parametrize("number", ["02", "03", "09", "10"])
def test_an_example_runs(number: str, small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (path,) = (example for example in EXAMPLES if example.name.startswith(number))
    run_example(path, small)
    assert capsys.readouterr().out.strip()


@at_full_size
@pytest.mark.exports
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_runs_with_all_its_results(path: Path, small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_example(path, small)
    assert capsys.readouterr().out.strip()
