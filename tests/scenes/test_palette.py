"""The flat colours of a surface are found in colours that are soft and stained."""

import pytest
import torch

from sds3d.scenes.palette import MOST, find_palette

RED, WHITE, BLUE = torch.tensor([0.85, 0.1, 0.1]), torch.tensor([0.95, 0.95, 0.95]), torch.tensor([0.1, 0.2, 0.85])
BLACK, YELLOW, GRAY = torch.tensor([0.1, 0.1, 0.1]), torch.tensor([0.95, 0.85, 0.15]), torch.tensor([0.5, 0.5, 0.5])


def square(count=8000, seed=0):
    """Points of a unit square in space, and a generator."""
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.pad(torch.rand(count, 2, generator=generator), (0, 1)), generator


def stripes(points, *colors, soft=0.08):
    """The colours side by side along x, with bands of mixtures `soft` wide between them."""
    place = points[:, :1] * len(colors)
    found = colors[0].expand(len(points), 3)
    for number, color in enumerate(colors[1:], start=1):
        share = ((place - number) / (soft * len(colors)) + 0.5).clamp(0, 1)
        found = found + share * (color - found)
    return found


def noisy(colors, generator, size=0.01):
    return (colors + size * torch.randn(colors.shape, generator=generator)).clamp(0, 1)


def assert_are(found, *colors, atol=0.04):
    assert len(found) == len(colors), found
    apart = torch.cdist(torch.stack(colors), found)
    assert float(apart.min(dim=1).values.max()) < atol, found


@pytest.mark.parametrize("colors", [(RED,), (RED, WHITE), (RED, WHITE, BLUE), (WHITE, BLACK), (BLACK, GRAY, WHITE)])
def test_exactly_the_colours_that_there_are_and_no_band_between_them(colors) -> None:
    """Grey between black and white is a colour of its own where it is flat."""
    points, generator = square()
    assert_are(find_palette(points, noisy(stripes(points, *colors), generator)), *colors)


@pytest.mark.parametrize("shade", [0.15, 0.2])
def test_stains_are_no_colours(shade) -> None:
    """One of a hundredth of the surface, and shades over all of it."""
    points, generator = square()
    colors = stripes(points, RED, WHITE)
    stain = (points[:, :2] - torch.tensor([0.8, 0.5])).norm(dim=1, keepdim=True) < 0.056
    colors = colors - shade * stain * torch.tensor([1.0, 0.0, 0.0])
    colors = colors - 0.1 * points[:, 1:2]
    assert_are(find_palette(points, noisy(colors, generator)), RED, WHITE, atol=0.15)


def test_a_small_part_with_no_flat_middle_is_found_by_its_distance() -> None:
    """An eye: soft all over, half of a hundredth of the surface."""
    points, generator = square(20_000)
    distance = (points[:, :2] - torch.tensor([0.3, 0.4])).norm(dim=1, keepdim=True)
    share = (1.5 - distance / 0.04).clamp(0, 1)
    found = find_palette(points, noisy(YELLOW + share * (BLACK - YELLOW), generator))
    assert_are(found, YELLOW, BLACK, atol=0.3)


@pytest.mark.parametrize(("width", "found"), [(0.07, False), (0.2, True)])
def test_a_flat_mixture_is_a_colour_where_it_is_wide_and_none_where_it_is_a_band(width, found) -> None:
    """Pink between red and white."""
    points, generator = square(20_000)
    side = points[:, :1] - 0.5
    pink = (RED + WHITE) / 2
    colors = noisy(torch.where(side.abs() < width / 2, pink, torch.where(side < 0, RED, WHITE)), generator)
    assert_are(find_palette(points, colors), RED, WHITE, *([pink] if found else []))


@pytest.mark.parametrize("color", [BLUE, (RED + WHITE) / 2])
def test_a_thin_colour_stays_that_is_no_mixture_of_both_its_sides(color) -> None:
    """A blue line between red and white; a pink one, within white."""
    points, generator = square(20_000)
    line = (points[:, :1] - 0.7).abs() < 0.035
    colors = torch.where(line, color, torch.where(points[:, :1] < (0.7 if color is BLUE else 0.4), RED, WHITE))
    assert_are(find_palette(points, noisy(colors, generator)), RED, WHITE, color)


def test_there_are_at_most_so_many() -> None:
    points, generator = square()
    many = torch.cartesian_prod(*[torch.tensor([0.0, 0.5, 1.0])] * 3)[torch.randperm(27, generator=generator)]
    colors = many[(points[:, 0] * 27).long().clamp(max=26)]
    assert len(find_palette(points, colors)) == MOST


def test_few_points_and_the_same_colour_everywhere() -> None:
    points, _ = square(5)
    assert torch.allclose(find_palette(points, RED.expand(5, 3)), RED[None], atol=1e-6)
