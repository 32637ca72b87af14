"""What several scenes with one critic are for: VSD's particles spread over the prior's modes, those of SDS do not."""

from functools import cache

import pytest
import torch
from torch import Tensor

from sds3d import load_config
from sds3d.priors.analytic import AnalyticPrior
from sds3d.scenes.particles import build_scene, scenes_of
from sds3d.training.trainer import Trainer

pytestmark = pytest.mark.xdist_group("particles")  # both look at one run
COUNT, STD = {"vsd": 32, "sds": 8}, 0.15
MEANS = torch.tensor([[0.5, -0.5, -0.5], [-0.5, 0.5, -0.5], [-0.5, -0.5, 0.5]])
SHARES = torch.tensor([0.3, 0.5, 0.2])


@cache
def colors_after_a_run(guidance: str) -> Tensor:
    """[particles, 3] mean colours of flat pictures; the prior sees nothing else of them, and knows three modes."""
    count = COUNT[guidance]
    options = {
        **{"prompt": "red green blue", "prior": "analytic", "steps": 200, "particles": count, "loss_weights": {}},
        **{"scene": {"name": "image", "size": 8}, "cameras": {"views": count, "size": 16}},
        **{"guidance": {"name": guidance, "guidance_scale": 1.0}, "timesteps": "uniform", "optim.lr_scale": 1.0},
    }
    config = load_config(overrides=options)
    generator = torch.Generator().manual_seed(config.seed)
    prior = AnalyticPrior(MEANS[:, :, None, None], torch.full((3,), STD), SHARES, words=("red", "green", "blue"))
    scene = build_scene(config.scene, config.particles, generator)
    for particle in scenes_of(scene):  # far apart from the start
        particle.raw_pixels.data = (0.5 + 4.9 * (particle.pixels - 0.5)).logit().detach()
    for _ in Trainer(config, scene, prior, generator, torch.device("cpu")).run():
        pass
    return torch.stack([2 * particle.pixels.detach().mean(dim=(0, 1)) - 1 for particle in scenes_of(scene)])


def shares(places: Tensor) -> Tensor:
    """The part of the particles that is nearest to each mode."""
    return torch.cdist(places, MEANS).argmin(dim=1).bincount(minlength=3) / len(places)


def test_particles_of_vsd_spread_over_the_modes_as_the_prior_does() -> None:
    """Shares within 0.12 of the prior's (two standard errors of 32 draws would be 0.18)."""
    places = colors_after_a_run("vsd")
    assert (shares(places) - SHARES).abs().max() < 0.12
    distances = (places - MEANS[torch.cdist(places, MEANS).argmin(dim=1)]).norm(dim=1)
    assert distances.mean() < 0.5  # modes are 1.41 apart, and their samples 0.24 from the middle


def test_particles_of_sds_all_end_at_one_place() -> None:
    places = colors_after_a_run("sds")
    assert shares(places).max() == 1
    assert places.var(dim=0).sum() < 0.05 * colors_after_a_run("vsd").var(dim=0).sum()
