"""Several guidances on one prompt: shared prior, one sheet, one table, and nothing done twice."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from sds3d.errors import NumericsError
from sds3d.run.events import FinishEarly, Finished, StepDone
from sds3d.scenes import GaussiansConfig
from sds3d.sweeps.comparison import Comparison, Row, page, run_folder
from sds3d.training.session import Session
from sds3d.training.trainer import Trainer
from sds3d_app.cli import invoke


@pytest.fixture
def configs(small_config):
    return [small_config(guidance={"name": "sds", "guidance_scale": 1.0}, seed=seed, steps=6) for seed in (0, 1)]


def test_a_comparison_makes_runs_sheet_table_and_page(configs, tmp_path: Path) -> None:
    comparison = Comparison(configs, tmp_path)
    events = list(comparison.runs.run())
    assert {path.name for path, _ in events} == {"sds-0", "sds-1"}
    assert sum(isinstance(event, Finished) for _, event in events) == 2
    (row,) = comparison.write()
    assert row.seeds == [0, 1]
    assert row.prior_forwards_per_step == 2
    assert row.diversity > 0
    assert 0 < row.coverage < 1
    assert json.loads((tmp_path / "compare.json").read_text())["rows"][0]["saturation"] == row.saturation
    with Image.open(tmp_path / "compare.png") as sheet:
        assert sheet.width > 4 * 192
    assert 'src="compare.png"' in (tmp_path / "compare.html").read_text()


def break_seed(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    advance = Trainer.advance

    def failing(self):
        if self.config.seed == seed and self.step >= 1:
            raise NumericsError("the loss is not finite")
        return advance(self)

    monkeypatch.setattr(Trainer, "advance", failing)


@pytest.mark.parametrize("rollbacks", [0, 3])
def test_a_diverged_run_ends_in_the_table_with_its_reason(
    small_config, tmp_path: Path, monkeypatch, rollbacks: int
) -> None:
    break_seed(monkeypatch, 0)
    monkeypatch.setattr("sds3d.training.recovery.ROLLBACKS", rollbacks)
    comparison = Comparison([small_config(seed=seed, steps=6) for seed in (0, 1)], tmp_path)
    list(comparison.runs.run())
    (row,) = comparison.write()
    assert len(row.notes) == 1
    assert row.notes[0].startswith("seed 0 ended early: the loss is not finite")
    assert row.coverage > 0


def test_a_run_that_a_person_ended_ends_in_the_table(configs, tmp_path: Path) -> None:
    session = Session(configs[0], tmp_path / run_folder(configs[0]))
    for event in session.run():
        if isinstance(event, StepDone) and event.step == 3:
            session.send(FinishEarly())
    comparison = Comparison(configs, tmp_path)
    list(comparison.runs.run())
    (row,) = comparison.write()
    assert row.notes == ["seed 0 ended early: a person ended it early"]


def test_a_refused_mesh_ends_in_the_table_with_its_reason(small_config, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(GaussiansConfig, "artifacts", ("sheet", "glb"))
    comparison = Comparison([small_config(steps=6, **{"export.level": 1e6})], tmp_path)
    list(comparison.runs.run())
    (row,) = comparison.write()
    assert len(row.notes) == 1
    assert row.notes[0].startswith("no mesh: export.level = 1e+06 is above")
    assert "no mesh" in (tmp_path / "compare.html").read_text()


def test_what_a_person_wrote_is_escaped(small_config) -> None:
    row = Row("sds", [0], 0.1, 2.0, 0.5, 0.2, 0.1, None, None, ["<b>no</b>"])
    text = page(small_config(prompt="<script>alert(1)</script>"), [row])
    assert "<script>" not in text
    assert "<b>no" not in text
    assert "&lt;script&gt;" in text


def test_the_page_of_runs_with_stages_names_the_scene_that_they_end_with(small_config) -> None:
    row = Row("sds", [0], 0.1, 2.0, 0.5, 0.2, 0.1, None, None, [])
    stages = [{"begin_at": 0.5, "options": {"scene": "mesh"}}]
    assert "scene mesh" in page(small_config(export={}, stages=stages), [row])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--guidance", "sds,nothing"], "nothing"),
        (["--guidance", ","], "no guidance"),
        (["--guidance", "sds", "--set", "sds.scale=3"], "guidance.scale"),
    ],
)
def test_a_mistake_is_one_line_before_anything_runs(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert invoke(["compare", "a red ball", "--prior", "analytic", "--out", str(out), *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not out.exists()


def test_the_command_makes_a_table_of_flat_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--prior", "analytic", "--scene", "image", "--steps", "5", "--seeds", "2", "--guidance", "sds"]
    options += ["--set", "sds.guidance_scale=1", "--set", "prior.size=16", "--set", "scene.size=16"]
    assert invoke(["compare", "a red ball", "--out", str(tmp_path / "out"), *options]) == 0
    out = capsys.readouterr().out
    assert "saturation" in out
    assert "sds" in out
    assert (tmp_path / "out" / "compare.png").is_file()
    links = re.findall(r'href="([^"]+)"', (tmp_path / "out" / "compare.html").read_text())
    assert links == ["sds-0/image.png", "sds-1/image.png"]
    assert all((tmp_path / "out" / link).is_file() for link in links)


def test_a_row_counts_every_particle(small_config, tmp_path: Path) -> None:
    scene = {"name": "image", "size": 24}
    config = small_config(scene=scene, particles=2, steps=4, loss_weights={}, **{"guidance.guidance_scale": 1.0})
    comparison = Comparison([config], tmp_path)
    list(comparison.runs.run())
    (row,) = comparison.write()
    report = json.loads((tmp_path / "sds-0" / "report.json").read_text())
    each = [particle["metrics"]["saturation"] for particle in report["particles"]]
    assert each[0] != each[1]
    assert row.saturation == pytest.approx(sum(each) / 2, abs=1e-4)
