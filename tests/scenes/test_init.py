import math

import torch

from sds3d.scenes.gaussians import ball_points, ball_spacing


def test_ball_points_fill_the_ball_evenly():
    points = ball_points(20_000, 0.5, torch.Generator().manual_seed(0))
    radii = points.norm(dim=-1)
    assert radii.max() <= 0.5
    assert abs((radii < 0.25).float().mean().item() - 1 / 8) < 0.01  # share of the volume in half the radius
    assert points.mean(dim=0).abs().max() < 0.01


def test_ball_points_repeat_with_the_seed():
    draw = [ball_points(5, 0.5, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(draw[0], draw[1])
    assert not torch.equal(draw[0], draw[2])


def test_ball_spacing_times_count_is_the_volume():
    assert math.isclose(1000 * ball_spacing(1000, 0.7) ** 3, 4 / 3 * math.pi * 0.7**3)
