"""What counts as a ruined scene, and what does not."""

import pytest
import torch

from sds3d.scenes import GaussiansConfig
from sds3d.scenes.gaussians import Gaussians
from sds3d.scenes.image import ImageConfig
from sds3d.scenes.nerf import NerfConfig
from sds3d.training.recovery import diagnose


def splats(**options: float) -> Gaussians:
    config = GaussiansConfig(count=300, init_opacity=0.5, **options)
    return config.build(torch.Generator().manual_seed(0))


def painted(scene: Gaussians, logit: float) -> Gaussians:
    with torch.no_grad():
        scene.raw_colors.fill_(logit)
    return scene


def test_a_ball_is_well_in_any_colour() -> None:
    assert diagnose(splats()) is None
    for logit in (-12.0, 12.0, 0.0):  # black, white, and the grey of the ground that it is looked at on
        assert diagnose(painted(splats(), logit)) is None


def test_a_fresh_field_is_well() -> None:
    assert diagnose(NerfConfig().build(torch.Generator().manual_seed(0))) is None


def test_a_scene_without_opacity_is_ill() -> None:
    scene = splats()
    with torch.no_grad():
        scene.raw_opacities.fill_(-9.0)
    found = diagnose(scene)
    assert found is not None
    assert "nothing can be seen" in found


@pytest.mark.parametrize(("logit", "said"), [(-12.0, "0.00, 0.00, 0.00"), (12.0, "1.00, 1.00, 1.00")])
def test_a_scene_that_fills_its_views_with_one_colour_is_ill(logit: float, said: str) -> None:
    scene = painted(splats(max_scale=1.0), logit)
    with torch.no_grad():
        scene.raw_scales.fill_(0.0)
        scene.raw_opacities.fill_(9.0)
    found = diagnose(scene)
    assert found is not None
    assert said in found


def test_a_plain_image_may_be_of_one_colour() -> None:
    scene = ImageConfig().build(torch.Generator().manual_seed(0))
    with torch.no_grad():
        scene.raw_pixels.fill_(0.0)
    assert diagnose(scene) is None
