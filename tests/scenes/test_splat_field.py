import pytest
import torch

from sds3d.ops.project_gaussians import rotation_matrices
from sds3d.scenes.splat_field import SplatField


@pytest.fixture
def splats():
    generator = torch.Generator().manual_seed(0)
    return {
        "means": torch.rand(40, 3, generator=generator) - 0.5,
        "quats": torch.randn(40, 4, generator=generator),
        "scales": 0.02 + 0.1 * torch.rand(40, 3, generator=generator),
        "opacities": torch.rand(40, generator=generator),
        "colors": torch.rand(40, 3, generator=generator),
    }


def slow_field(splats, points):
    """The definition, one splat and float64 at a time."""
    s = {key: value.double() for key, value in splats.items()}
    rotations = rotation_matrices(s["quats"])
    weights = []
    for i in range(len(rotations)):
        covariance = rotations[i] @ torch.diag(s["scales"][i] ** 2) @ rotations[i].T
        d = points.double() - s["means"][i]
        weights.append(s["opacities"][i] * torch.exp(-0.5 * (d @ torch.inverse(covariance) * d).sum(-1)))
    weights = torch.stack(weights, dim=-1)
    return weights.sum(-1).float(), (weights @ s["colors"] / weights.sum(-1, keepdim=True)).float()


def test_points_match_the_definition(splats):
    points = torch.rand(300, 3, generator=torch.Generator().manual_seed(1)) - 0.5
    density, color = SplatField(**splats).at_points(points, chunk=128)
    expected_density, expected_color = slow_field(splats, points)
    assert torch.allclose(density, expected_density, rtol=1e-3, atol=1e-5)
    assert torch.allclose(color, expected_color, atol=1e-3)


def test_far_points_have_a_colour_and_no_density(splats):
    density, color = SplatField(**splats).at_points(torch.tensor([[50.0, 0.0, 0.0]]))
    assert density == 0
    assert torch.isfinite(color).all()
    assert color.min() >= 0
    assert color.max() <= 1


def test_no_points_give_no_values(splats):
    density, color = SplatField(**splats).at_points(torch.zeros(0, 3))
    assert density.shape == (0,)
    assert color.shape == (0, 3)


@pytest.mark.parametrize("shape", [(17, 9, 24), (1, 1, 1), (8, 8, 8)])
def test_grid_matches_points_up_to_the_cutoff(splats, shape):
    origin, spacing = torch.tensor([-0.6, -0.3, -0.7]), 0.06
    grid = SplatField(**splats).on_grid(origin, spacing, shape)
    index = torch.stack(torch.meshgrid(*(torch.arange(n) for n in shape), indexing="ij"), dim=-1)
    density, _ = SplatField(**splats).at_points((origin + spacing * index).reshape(-1, 3))
    assert grid.shape == shape
    assert (density.reshape(shape) - grid).max() < 40 * 0.0112  # every splat is cut where it adds under e^-4.5
    assert (grid - density.reshape(shape)).max() < 1e-4
    assert grid.mean() > 0.9 * density.mean()


def test_grid_leaves_out_splats_that_miss_it(splats):
    grid = SplatField(**splats).on_grid(torch.tensor([3.0, 3.0, 3.0]), 0.1, (10, 10, 10))
    assert (grid == 0).all()
