"""The flat picture as a scene: it renders itself, fits a target, and a whole run hands over one PNG."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sds3d import Session
from sds3d.cameras import orbit
from sds3d.config.run_config import load_config
from sds3d.errors import ConfigError
from sds3d.scenes import ImageConfig, Scene


def build(size: int = 16):
    return ImageConfig(size=size).build(torch.Generator().manual_seed(0))


def test_it_is_a_scene_and_every_camera_sees_the_same_image() -> None:
    scene = build()
    assert isinstance(scene, Scene)
    out = scene.render(orbit(3, size=16), torch.rand(3, 3))
    assert torch.equal(out.rgb, scene.pixels.expand(3, -1, -1, -1))
    assert (out.opacity == 1).all()
    assert set(scene.regularizers(out)) == set(ImageConfig.losses)
    torch.testing.assert_close(out.depth, torch.full((3, 16, 16, 1), 2.9))
    assert scene.render(orbit(1, size=8), torch.zeros(1, 3)).rgb.shape == (1, 8, 8, 3)


def test_it_fits_a_target() -> None:
    scene, cameras = build(), orbit(1, size=16)
    target = 0.1 + 0.8 * torch.rand(1, 16, 16, 3, generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.Adam([group.parameters[0] for group in scene.param_groups()], lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        (scene.render(cameras, torch.zeros(1, 3)).rgb - target).square().sum().backward()
        optimizer.step()
    assert (scene.pixels - target).abs().max() < 0.02


def test_one_camera_and_one_background_where_nothing_else_is_said() -> None:
    config = load_config(overrides={"prompt": "a red ball", "scene": "image"})
    assert config.cameras.azimuth_deg == (30.0, 30.0)
    assert config.scene.background.name == "solid"
    config = load_config(overrides={"prompt": "a red ball", "scene": "image", "cameras.azimuth_deg": "[0, 0]"})
    assert config.cameras.azimuth_deg == (0.0, 0.0)
    assert config.cameras.elevation_deg == (15.0, 15.0)


def test_a_run_hands_over_an_image_that_shows_the_prompt(small_config, tmp_path: Path) -> None:
    config = small_config(
        scene={"name": "image", "size": 24},
        loss_weights={},
        steps=60,
        preview_every=30,
        **{"guidance.guidance_scale": 1.0},
    )
    session = Session(config, tmp_path / "run")
    list(session.run())
    assert {path.name for path in (tmp_path / "run").glob("*.*")} == {
        *("config.json", "resolved.json", "run.lock", "events.jsonl", "image.png", "report.json")
    }
    assert Image.open(tmp_path / "run" / "previews" / "step-000030.png").size == (128, 128)
    pixels = np.asarray(Image.open(tmp_path / "run" / "image.png")).astype(float)
    assert pixels.shape == (24, 24, 3)
    middle = pixels[10:14, 10:14].mean(axis=(0, 1))
    assert middle[0] > 150
    assert max(middle[1:]) < 100
    assert json.loads((tmp_path / "run" / "report.json").read_text())["mesh"] == {}
    with pytest.raises(ConfigError, match="no format of the scene image"):
        session.export("glb")
    again = Session.resume(tmp_path / "run")
    assert again.draw(size=48) == [tmp_path / "run" / "image.png"]
    assert Image.open(tmp_path / "run" / "image.png").size == (48, 48)
