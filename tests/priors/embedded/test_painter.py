"""What is painted follows the place in the world, not the pixel that shows it."""

import torch

from sds3d.priors.embedded.painter import PAINT_WIDTH, PAINTS, Painter, place_waves
from sds3d.priors.embedded.surfaces import CHECK, STRIPE

TOLD = 5


def _painter(generator):
    painter = Painter(TOLD).double()
    for parameter in painter.parameters():
        torch.nn.init.normal_(parameter, std=0.5, generator=generator)
    return painter


def _inputs(generator, known=1.0):
    normal = lambda *shape: torch.randn(*shape, dtype=torch.float64, generator=generator)  # noqa: E731
    rays = torch.cat([normal(2, 16, 3, 5, 6), torch.full((2, 16, 3, 5, 1), known, dtype=torch.float64)], -1)
    return rays, normal(2, 16, 3, 5), normal(2, TOLD), normal(2, 3 * PAINTS, 3, 5)


def test_against_one_pixel_at_a_time():
    generator = torch.Generator().manual_seed(0)
    painter, (rays, depths, told, colors) = _painter(generator), _inputs(generator)
    with torch.no_grad():
        found = painter(rays, depths, told, colors)
        assert found.shape == (2, 48, 3, 5)
        for batch, pixel, row, column in ((0, 0, 0, 0), (1, 15, 2, 4), (0, 7, 1, 3)):
            center, scale, shift = painter.told(told[batch]).split((3, PAINT_WIDTH, PAINT_WIDTH))
            ray = rays[batch, pixel, row, column]
            place = (ray[:3] + depths[batch, pixel, row, column] * ray[3:6] - center).float()
            waves = place_waves(place).double()
            inside = painter.inside(waves) * (1.0 + scale) + shift
            shares = waves + painter.outside(torch.nn.functional.silu(inside))
            expected = shares @ colors[batch, :, row, column].view(PAINTS, 3)
            torch.testing.assert_close(found[batch, pixel::16, row, column], expected, atol=1e-4, rtol=1e-4)


def test_two_rays_to_one_place_get_one_paint():
    generator = torch.Generator().manual_seed(1)
    painter, (rays, depths, told, colors) = _painter(generator), _inputs(generator)
    place = rays[..., :3] + depths[..., None] * rays[..., 3:6]
    other = torch.randn(rays[..., 3:6].shape, dtype=torch.float64, generator=generator)
    elsewhere = torch.cat([place - 0.3 * other, other, rays[..., 6:]], -1)
    with torch.no_grad():
        one, two = painter(rays, depths, told, colors), painter(elsewhere, torch.full_like(depths, 0.3), told, colors)
        moved = painter(rays, depths + 0.1, told, colors)
    torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-4)
    assert (one - moved).abs().mean() > 0.01


def test_without_a_camera_every_pixel_of_a_block_gets_the_same():
    generator = torch.Generator().manual_seed(2)
    painter, inputs = _painter(generator), _inputs(generator, known=0.0)
    with torch.no_grad():
        found = painter(*inputs).unflatten(1, (3, 16))
    torch.testing.assert_close(found, found[:, :, :1].expand_as(found))


def test_waves_of_a_place_are_the_worlds_stripes_and_checks():
    """Where `surfaces` paints the second colour: a stripe along each axis, and checks."""
    places = 2.0 * torch.rand(500, 3, generator=torch.Generator().manual_seed(3)) - 1.0
    waves = place_waves(places)
    assert waves.shape == (500, PAINTS)
    second = (places / STRIPE + 0.5).floor().long() % 2 == 1
    assert torch.equal(waves[:, 6:9] < 0, second)
    assert torch.equal(waves[:, -1] < 0, (places / CHECK).floor().long().sum(1) % 2 == 1)


def test_before_it_has_learned_it_mixes_by_the_waves_themselves():
    generator = torch.Generator().manual_seed(4)
    rays, depths, told, colors = _inputs(generator)
    place = (rays[..., :3] + depths[..., None] * rays[..., 3:6]).float()
    waves = place_waves(place).double()
    expected = torch.einsum("bphwk,bkchw->bcphw", waves, colors.unflatten(1, (PAINTS, 3)))
    torch.testing.assert_close(
        Painter(TOLD).double()(rays, depths, told, colors), expected.flatten(1, 2), atol=1e-4, rtol=1e-3
    )
