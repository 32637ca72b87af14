"""Several guidances on one prompt: shared prior, one sheet, one table, and nothing done twice."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from sds3d.errors import ConfigError, NumericsError
from sds3d.run.events import Finished, Started
from sds3d.sweeps.comparison import Comparison, Row, page
from sds3d.training.trainer import Trainer
from sds3d_app.cli import invoke


@pytest.fixture
def configs(small_config):
    return [small_config(guidance={"name": "sds", "guidance_scale": 1.0}, seed=seed, steps=6) for seed in (0, 1)]


def test_a_comparison_makes_runs_sheet_table_and_page_once(configs, tmp_path: Path) -> None:
    comparison = Comparison(configs, tmp_path)
    events = list(comparison.run())
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
    again = Comparison(configs, tmp_path)
    assert list(again.run()) == []
    assert again.finished()


def test_a_stopped_comparison_goes_on_where_it_was(configs, tmp_path: Path) -> None:
    comparison = Comparison(configs, tmp_path)
    for path, event in comparison.run():
        if getattr(event, "step", 0) == 2 and path.name == "sds-0":
            comparison.stop()
    assert not comparison.finished()
    again = Comparison(configs, tmp_path)
    started = [event for _, event in again.run() if isinstance(event, Started)]
    assert [event.step for event in started] == [2, 0]
    assert again.finished()


def test_a_run_that_diverges_hands_over_what_it_was_and_the_others_go_on(configs, tmp_path: Path, monkeypatch) -> None:
    advance = Trainer.advance

    def diverging(self):
        if self.config == configs[0] and self.step >= 1:
            raise NumericsError("the loss is not finite")
        return advance(self)

    monkeypatch.setattr(Trainer, "advance", diverging)
    comparison = Comparison(configs, tmp_path)
    list(comparison.run())
    assert comparison.finished()
    first, second = (json.loads((tmp_path / name / "report.json").read_text()) for name in ("sds-0", "sds-1"))
    assert first["steps"] == 0  # it failed before its first checkpoint
    assert second["steps"] == configs[1].steps
    (row,) = comparison.write()
    assert row.notes[0].startswith("the loss is not finite, and going back 3 times did not help")
    assert list(Comparison(configs, tmp_path).run()) == []


def test_a_folder_with_other_options_is_refused(configs, small_config, tmp_path: Path) -> None:
    list(Comparison(configs[:1], tmp_path).run())
    with pytest.raises(ConfigError, match="other options"):
        Comparison([small_config(steps=7)], tmp_path)


def test_what_a_person_wrote_is_escaped(small_config) -> None:
    row = Row("sds", [0], 0.1, 2.0, 0.5, 0.2, 0.1, None, None, ["<b>no</b>"])
    text = page(small_config(prompt="<script>alert(1)</script>"), [row])
    assert "<script>" not in text
    assert "<b>no" not in text
    assert "&lt;script&gt;" in text


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
    list(comparison.run())
    (row,) = comparison.write()
    report = json.loads((tmp_path / "sds-0" / "report.json").read_text())
    each = [particle["metrics"]["saturation"] for particle in report["particles"]]
    assert each[0] != each[1]
    assert row.saturation == pytest.approx(sum(each) / 2, abs=1e-4)
