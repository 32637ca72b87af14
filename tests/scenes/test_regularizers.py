import math

import pytest
import torch

from sds3d.ops.march_rays import RaySamples
from sds3d.scenes.regularizers import (
    anisotropic_variation,
    depth_spread,
    distortion,
    opacity_entropy,
    opacity_sparsity,
    orientation,
    segment_sum,
    total_variation,
    weighted_sum,
    z_variance,
)


def test_entropy_is_log_two_at_one_half_and_small_at_both_ends() -> None:
    assert opacity_entropy(torch.full((4,), 0.5)) == pytest.approx(math.log(2))
    assert opacity_entropy(torch.tensor([0.0, 1.0])) < 0.01


def test_entropy_pushes_away_from_one_half() -> None:
    opacity = torch.tensor([0.3, 0.7], requires_grad=True)
    opacity_entropy(opacity).backward()
    assert opacity.grad[0] > 0 > opacity.grad[1]  # downhill: 0.3 falls, 0.7 rises


def test_sparsity_is_zero_when_empty_and_pushes_down() -> None:
    assert opacity_sparsity(torch.zeros(3)) == pytest.approx(0, abs=1e-7)
    assert opacity_sparsity(torch.ones(3)) == pytest.approx(math.sqrt(1.01) - 0.1)


def spread_of(near: float, far: float, shares: float) -> torch.Tensor:
    """Of one pixel, half opaque, that sees two depths with these shares of what it sees."""
    weights = torch.tensor([0.5 * shares, 0.5 * (1 - shares)], requires_grad=True)
    depths = torch.tensor([near, far])
    sums = (weights.sum(), (weights * depths).sum(), (weights * depths.square()).sum())
    opacity, sum_z, sum_zz = (value.reshape(1, 1, 1, 1) for value in sums)
    return depth_spread(opacity, sum_z, sum_zz, 0.1)


def test_depth_spread_is_a_bounded_variance_that_counts_by_opacity() -> None:
    assert spread_of(0.2, 0.2, 0.7).item() == pytest.approx(0, abs=1e-6)
    variance = 0.7 * 0.3 * 0.04**2
    assert spread_of(0.2, 0.24, 0.7).item() == pytest.approx(0.5 * variance / (variance + 0.01), rel=1e-4)
    assert spread_of(-1, 1, 0.5).item() == pytest.approx(0.5, rel=0.02)


def test_depth_spread_lets_go_of_what_is_far_apart_and_does_not_fade_the_object() -> None:
    sums = [torch.full((1, 1, 1, 1), value, requires_grad=True) for value in (0.5, 0.0, 0.5 * 0.1**2)]
    depth_spread(*sums, 0.1).backward()
    # as if the o in front were a constant: v = 0.01 = size^2, and d/d zz of v / (v + s^2) = s^2 / (v + s^2)^2 / o
    assert sums[2].grad.item() == pytest.approx(0.5 * 0.01 / 0.02**2 / 0.5)
    assert sums[0].grad.item() == pytest.approx(-0.25)  # and not + f(v) = 0.5 besides
    far = torch.full((1, 1, 1, 1), 0.5 * 2.0**2, requires_grad=True)
    depth_spread(sums[0].detach(), sums[1].detach(), far, 0.1).backward()
    assert far.grad.item() < 1e-3 * sums[2].grad.item()


def test_total_variation_of_a_ramp() -> None:
    ramp = torch.arange(4.0)[None, :, None, None].expand(1, 4, 5, 3)
    assert total_variation(ramp) == pytest.approx(1)  # 1 down, 0 across
    assert total_variation(ramp.transpose(1, 2)) == pytest.approx(1)
    assert total_variation(torch.ones(1, 4, 4, 3)) == 0


def test_anisotropic_variation_of_a_step_is_its_height_per_difference() -> None:
    step = torch.tensor([0.0, 0.0, 3.0, 3.0])[None, :, None, None].expand(1, 4, 5, 2)
    assert anisotropic_variation(step) == pytest.approx(1)  # one of three differences down, none across
    assert anisotropic_variation(step / 3) == pytest.approx(1 / 3)  # absolute, not squared


def test_normals_that_turn_by_a_right_angle_are_not_smooth() -> None:
    normal = torch.zeros(1, 2, 2, 3)
    normal[:, 0, :, 0] = normal[:, 1, :, 1] = 1
    assert total_variation(normal) == pytest.approx(2 / 3)  # squares of (1, -1, 0), a mean over three channels


def samples(counts: tuple[int, ...], starts: torch.Tensor, ends: torch.Tensor) -> RaySamples:
    """Of rays with these numbers of samples."""
    indices = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return RaySamples(indices, starts, ends, torch.zeros(len(starts), 3), torch.tensor([0, *counts]).cumsum(0))


DISTANCES = torch.tensor([1.0, 2, 3, 5, 5])
RAYS = samples((3, 0, 2), DISTANCES - 0.5, DISTANCES + 0.5)  # the ray in the middle has no samples


def test_per_ray_sums_and_leaves_empty_rays_at_zero() -> None:
    torch.testing.assert_close(segment_sum(torch.tensor([1.0, 2, 4, 8, 16]), RAYS), torch.tensor([7.0, 0, 24]))


def test_only_what_faces_away_counts_for_orientation_and_it_is_turned_not_removed() -> None:
    directions = torch.tensor([[1.0, 0, 0]]).expand(5, 3)
    away, edge, towards = [1.0, 0, 0], [0.6, 0.8, 0], [-1.0, 0, 0]
    normals = torch.tensor([towards, edge, away, towards, towards], requires_grad=True)
    weights = torch.tensor([0.5, 0.25, 0.125, 0.5, 0.5], requires_grad=True)
    value = orientation(weights, normals, directions, RAYS)
    torch.testing.assert_close(value, torch.tensor([0.25 * 0.36 + 0.125, 0, 0]))
    value.sum().backward()
    assert weights.grad is None
    assert (normals.grad[:, 0] != 0).tolist() == [False, True, True, False, False]


def test_z_variance_is_that_of_the_distances_whatever_the_rays_opacity() -> None:
    weights = torch.tensor([0.25, 0.5, 0.25, 0.1, 0.1])
    expected = torch.tensor([0.5, 0, 0])
    torch.testing.assert_close(z_variance(weights, RAYS), expected)
    torch.testing.assert_close(z_variance(weights * 1e-3, RAYS), expected)
    weights.requires_grad_()
    z_variance(weights, RAYS).sum().backward()
    assert weights.grad[1] < 0 < weights.grad[0]  # downhill: more in the middle, less at the ends


def test_distortion_equals_the_double_sum() -> None:
    generator = torch.Generator().manual_seed(0)
    counts = (4, 0, 7)
    indices = torch.repeat_interleave(torch.arange(3), torch.tensor(counts))
    starts = torch.cat([torch.rand(count, generator=generator).sort().values for count in counts]).double()
    ends = starts + 0.1
    weights = torch.rand(len(starts), generator=generator).double().requires_grad_()
    middles = (starts + ends) / 2
    expected = []
    for ray in range(3):
        w, m = weights[indices == ray], middles[indices == ray]
        pairs = (w[:, None] * w * (m[:, None] - m).abs()).sum()
        expected.append(pairs + (w.square() * 0.1).sum() / 3)
    value = distortion(weights, samples(counts, starts, ends))
    torch.testing.assert_close(value, torch.stack(expected))
    mine, theirs = (torch.autograd.grad(v.sum(), weights, retain_graph=True)[0] for v in (value, torch.stack(expected)))
    torch.testing.assert_close(mine, theirs)


def test_losses_without_weight_get_no_gradient() -> None:
    a, b = torch.ones((), requires_grad=True), torch.ones((), requires_grad=True)
    weighted_sum({"a": a * 2, "b": b.log()}, {"a": 3.0, "b": 0.0}).backward()
    assert a.grad == 6
    assert b.grad is None
