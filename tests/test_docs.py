"""What the pages print is what the programs write, and what they show works."""

import importlib.util
import re
from pathlib import Path

import pytest
import torch

from sds3d.guidance import GUIDANCE
from sds3d.training.trainer import Trainer

ROOT = Path(__file__).parents[1]


def test_the_guidance_page_is_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("make_guidance", ROOT / "docs" / "make_guidance.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.page() == (ROOT / "docs" / "guidance.md").read_text(encoding="utf-8"), "run docs/make_guidance.py"


def test_the_guidance_of_the_contributors_guide_works_as_printed(
    small_config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (code,) = re.findall(r"```python\n(.+?)```", (ROOT / "CONTRIBUTING.md").read_text(), flags=re.DOTALL)
    path = tmp_path / "plain.py"
    path.write_text(code)
    spec = importlib.util.spec_from_file_location("plain", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(GUIDANCE, "plain", module.Plain)
    config = small_config(guidance="plain", **{"guidance.strength": 2.0})
    assert config.to_dict()["guidance"] == {"name": "plain", "strength": 2.0, "weighting": "sigma_squared"}
    generator = torch.Generator().manual_seed(0)
    scene = config.scene.build(generator)
    before = scene.raw_colors.detach().clone()
    trainer = Trainer(config, scene, config.prior.build("cpu"), generator, torch.device("cpu"))
    list(trainer.run())
    assert trainer.forwards_per_step() == 1
    assert (scene.raw_colors[: len(before)].detach() - before[: len(scene.raw_colors)]).abs().max() > 0.1
