"""Colours on a surface: a field takes on given colours; a palette's borders are sharper than its grid."""

import pytest
import torch

from sds3d.ops.hash_encode import HashGrid
from sds3d.scenes.surface_color import ColorField, PaletteField

GRID = HashGrid(levels=4, features=2, base_resolution=4, finest_resolution=24, log2_table=12)
RED, WHITE = torch.tensor([0.8, 0.1, 0.1]), torch.tensor([0.9, 0.9, 0.9])


def two_colors(count=20_000, seed=0):
    points = 2 * torch.rand(count, 3, generator=torch.Generator().manual_seed(seed)) - 1
    return points, torch.where(points[:, 2:] > 0.13, RED, WHITE)


def test_a_field_takes_on_given_colours() -> None:
    generator = torch.Generator().manual_seed(0)
    field = ColorField(GRID, 16, 1.0, generator)
    points, colors = two_colors()
    before = float(field.loss(points, colors))
    field.fit(points, colors, generator)
    assert float(field.loss(points, colors)) < 0.1 * before
    assert ((field(points) >= 0) & (field(points) <= 1)).all()


@pytest.mark.slow
def test_a_palette_has_sharper_borders_than_a_field() -> None:
    generator = torch.Generator().manual_seed(0)
    palette, field = (
        PaletteField(torch.stack([RED, WHITE]), GRID, 16, 1.0, generator),
        ColorField(GRID, 16, 1.0, generator),
    )
    points, colors = two_colors()
    for each in (palette, field):
        each.fit(points, colors, generator)
    palette.sharpness.fill_(20.0)
    test_points, want = two_colors(5000, seed=1)
    errors = [float((each(test_points) - want).abs().mean()) for each in (palette, field)]
    assert errors[0] < 0.6 * errors[1]
    torch.testing.assert_close(palette.palette, torch.stack([RED, WHITE]), atol=1e-5, rtol=0)  # fitting keeps it
    assert torch.allclose(palette.choice(test_points).sum(-1), torch.ones(5000))
    hard = palette.choice(test_points).amax(-1)
    assert float((hard > 0.95).float().mean()) > 0.95


def test_gradients_reach_the_palette_and_the_choice() -> None:
    palette = PaletteField(torch.stack([RED, WHITE]), GRID, 16, 1.0, torch.Generator().manual_seed(0))
    points, _ = two_colors(100)
    palette(points).sum().backward()
    assert palette.raw_palette.grad.abs().min() > 0
    assert palette.table.grad.abs().max() > 0
