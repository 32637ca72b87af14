"""What is painted follows the place in the world, not the pixel that shows it."""

import torch

from sds3d.priors.embedded.layers import POINT_HIDDEN, WAVES, TextureHead, point_features
from sds3d.priors.embedded.shading import CHECK, STRIPE

WORDS = 5


def _painter(generator):
    painter = TextureHead(WORDS).double()
    for parameter in painter.parameters():
        torch.nn.init.normal_(parameter, std=0.5, generator=generator)
    return painter


def _inputs(generator, known=1.0):
    """Rays, depths, what is shown, and words."""
    normal = lambda *shape: torch.randn(*shape, dtype=torch.float64, generator=generator)  # noqa: E731
    rays = torch.cat([normal(2, 16, 3, 5, 6), torch.full((2, 16, 3, 5, 1), known, dtype=torch.float64)], -1)
    return (
        rays,
        normal(2, 16, 3, 5),
        torch.rand(2, 16, 3, 5, dtype=torch.float64, generator=generator),
        normal(2, WORDS),
    )


def test_against_one_pixel_at_a_time():
    generator = torch.Generator().manual_seed(0)
    painter, (rays, depths, shown, words) = _painter(generator), _inputs(generator)
    with torch.no_grad():
        found = painter(rays, depths, shown, words)
        assert found.shape == (2, 48, 3, 5)
        for batch, pixel, row, column in ((0, 0, 0, 0), (1, 15, 2, 4), (0, 7, 1, 3)):
            palette, scale, shift = painter.told(words[batch]).split((3 * WAVES, POINT_HIDDEN, POINT_HIDDEN))
            ray = rays[batch, pixel, row, column]
            waves = point_features((ray[:3] + depths[batch, pixel, row, column] * ray[3:6]).float()).double()
            hidden = torch.nn.functional.silu(painter.inside(waves) * (1.0 + scale) + shift)
            expected = shown[batch, pixel, row, column] * (waves @ palette.view(WAVES, 3) + painter.outside(hidden))
            torch.testing.assert_close(found[batch, pixel::16, row, column], expected, atol=1e-4, rtol=1e-4)


def test_two_rays_to_one_place_get_one_paint():
    generator = torch.Generator().manual_seed(1)
    painter, (rays, depths, shown, words) = _painter(generator), _inputs(generator)
    place = rays[..., :3] + depths[..., None] * rays[..., 3:6]
    other = torch.randn(rays[..., 3:6].shape, dtype=torch.float64, generator=generator)
    elsewhere = torch.cat([place - 0.3 * other, other, rays[..., 6:]], -1)
    with torch.no_grad():
        one, two = painter(rays, depths, shown, words), painter(elsewhere, torch.full_like(depths, 0.3), shown, words)
        moved = painter(rays, depths + 0.1, shown, words)
    torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-4)
    assert (one - moved).abs().mean() > 0.01


def test_without_a_camera_there_is_no_place():
    generator = torch.Generator().manual_seed(2)
    painter, (rays, depths, shown, words) = _painter(generator), _inputs(generator, known=0.0)
    with torch.no_grad():
        found = painter(rays, depths, torch.ones_like(shown), words)
    torch.testing.assert_close(found, found[:, ::16, :1, :1].repeat_interleave(16, 1).expand_as(found))


def test_it_paints_nothing_before_it_has_learned_and_then_learns():
    """Neither factor of the paint may begin where the other gets no gradient."""
    generator = torch.Generator().manual_seed(3)
    painter, (rays, depths, shown, words) = TextureHead(WORDS).double(), _inputs(generator)
    shown.requires_grad_()
    found = painter(rays, depths, shown, words)
    assert not found.any()
    (found - 1.0).square().mean().backward()
    assert painter.told[-1].weight.grad.any()
    assert painter.outside.weight.grad.any()


def test_waves_of_a_place_are_the_worlds_stripes_and_checks():
    """Where `surfaces` paints the second colour: a stripe along each axis, and checks."""
    places = 2.0 * torch.rand(500, 3, generator=torch.Generator().manual_seed(4)) - 1.0
    waves = point_features(places)
    assert waves.shape == (500, WAVES)
    second = (places / STRIPE + 0.5).floor().long() % 2 == 1
    assert torch.equal(waves[:, 6:9] < 0, second)
    assert torch.equal(waves[:, -1] < 0, (places / CHECK).floor().long().sum(1) % 2 == 1)
