"""Both 3D scenes reproduce an object from pictures of it: this proves the renderers apart from guidance."""

import math
from random import Random

import pytest
import torch

from sds3d.cameras import CamerasConfig, orbit, sample_cameras
from sds3d.priors.embedded.captions import build, parse
from sds3d.priors.embedded.render import over, render_solids
from sds3d.scenes import GaussiansConfig, NerfConfig, SceneConfig
from sds3d.scenes.base import RenderContext

VIEWS, SIZE, BATCH = 32, 40, 4
GREY = 0.5


def held_out_psnr(scene, cameras, rgba) -> float:
    """Over grey, from where no picture was taken."""
    background = torch.full((len(cameras), 3), GREY)
    with torch.no_grad():
        error = scene.render(cameras, background).rgb - over(rgba, background)
    return -10 * math.log10(error.square().mean())


CASES = [
    pytest.param(NerfConfig(), 100, id="nerf"),
    pytest.param(GaussiansConfig(), 200, id="gaussians"),
]


@pytest.mark.parametrize(("config", "steps"), CASES)
def test_thirty_two_pictures_of_a_mug_are_enough(config: SceneConfig, steps: int) -> None:
    solids = build(parse("a red mug"), Random(0))
    cameras = sample_cameras(CamerasConfig(views=VIEWS, size=SIZE), torch.Generator().manual_seed(1))
    unseen = orbit(6, elevation_deg=25, size=SIZE)
    pictures, truth = render_solids(solids, cameras), render_solids(solids, unseen)
    generator = torch.Generator().manual_seed(0)
    scene = config.build(generator)
    groups = [{"params": g.parameters, "lr": g.lr, "base": g.lr, "eps": g.eps} for g in scene.param_groups()]
    optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99), foreach=False)
    assert held_out_psnr(scene, unseen, truth) < 20
    for step in range(steps):
        progress = step / steps
        for group in optimizer.param_groups:
            group["lr"] = group["base"] * min(1.0, 0.1 ** (2 * progress - 1))
        chosen = torch.randperm(VIEWS, generator=generator)[:BATCH]
        background = torch.rand(BATCH, 3, generator=generator)
        out = scene.render(cameras.select(chosen), background, RenderContext(progress, (), generator))
        (out.rgb - over(pictures[chosen], background)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        scene.after_step(step, steps, out, optimizer)
    assert held_out_psnr(scene, unseen, truth) > 28
