"""Colours on a surface: a field takes on given colours; a palette's borders are sharper than its grid."""

import pytest
import torch

from sds3d.ops.hash_encode import HashGrid
from sds3d.scenes.surface_color import ColorField, PaletteField

GRID = HashGrid(levels=4, features=2, base_resolution=4, finest_resolution=24, log2_table=12)


def make_palette(generator=None):
    generator = generator or torch.Generator().manual_seed(0)
    palette = PaletteField(GRID, 16, 1.0, generator)
    palette.choose(torch.stack([RED, WHITE]), generator)
    return palette


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
        make_palette(generator),
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
    palette = make_palette()
    points, _ = two_colors(100)
    palette(points).sum().backward()
    assert palette.raw_palette.grad[:2].abs().min() > 0
    assert palette.table.grad.abs().max() > 0


def test_until_it_has_a_palette_it_is_a_field_of_any_colour() -> None:
    field = ColorField(GRID, 16, 1.0, torch.Generator().manual_seed(3))
    palette = PaletteField(GRID, 16, 1.0, torch.Generator().manual_seed(3))
    points, colors = two_colors(100)
    assert not palette.has_palette
    assert torch.equal(palette.finished(points), palette(points))
    generator = torch.Generator().manual_seed(0)
    before = [float(each.loss(points, colors)) for each in (field, palette)]
    for each in (field, palette):
        each.fit(points, colors, generator, steps=5)
    assert [float(each.loss(points, colors)) < 0.9 * old for each, old in zip((field, palette), before, strict=True)]


def test_it_hardens_over_the_run_and_more_in_pictures() -> None:
    palette = make_palette()
    points, _ = two_colors(2000)
    sharpest, softness = [], []
    for progress in (0.0, 0.1, 0.6, 1.0):
        palette.harden(progress)
        sharpest.append(float(palette.sharpness))
        softness.append(float(1 - palette.choice(points).amax(-1).mean()))
    assert sharpest == pytest.approx([1, 1, 5.5, 10])
    assert softness[0] == softness[1] > softness[2] > softness[3]
    of = torch.cdist(palette.finished(points), palette.palette)
    assert float(of.amin(dim=1).max()) < 1e-6  # nothing between them
    assert torch.equal(of.argmin(dim=1), palette.choice(points).argmax(-1))


def test_the_length_of_borders() -> None:
    """Halves of a ball, one step in about so many crosses the border between them: |d_z| / (height of the slab)."""

    class Halves(PaletteField):
        def raw(self, points):
            return 1000 * torch.cat([points[:, 2:], -points[:, 2:]], dim=-1)

    generator = torch.Generator().manual_seed(0)
    field = Halves(GRID, 16, 1.0, generator)
    field.choose(torch.stack([RED, WHITE]), generator)
    points = torch.rand(200_000, 3, generator=generator) * torch.tensor([1.0, 1.0, 0.2]) - torch.tensor([0.5, 0.5, 0.1])
    want = 2 * (0.025 / 2) / 0.2  # the mean of |d_z| is half its length; a step across changes two parts by 1
    assert float(field.border(points, generator)) == pytest.approx(want, rel=0.05)
    assert float(field.border(points + torch.tensor([0.0, 0.0, 0.5]), generator)) == 0


def test_a_saved_palette_is_taken_on_whatever_there_was_before() -> None:
    saved, points = make_palette(), two_colors(100)[0]
    saved.harden(0.7)
    three = make_palette(torch.Generator().manual_seed(8))
    three.choose(torch.rand(3, 3), torch.Generator().manual_seed(1))
    for other in (PaletteField(GRID, 16, 1.0, torch.Generator().manual_seed(9)), three):
        other.load_state_dict(saved.state_dict())
        assert torch.equal(other(points), saved(points))
    empty = PaletteField(GRID, 16, 1.0, torch.Generator().manual_seed(9))
    want = empty(points)
    saved.load_state_dict(empty.state_dict())
    assert torch.equal(saved(points), want)
