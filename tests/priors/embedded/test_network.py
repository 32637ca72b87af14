"""The text encoder, the rays, and how what the UNet says becomes a picture."""

import torch

from sds3d.cameras import orbit
from sds3d.priors.embedded.layers import FRAME, FRONT, in_frame, ray_planes
from sds3d.priors.embedded.network import (
    BLOCK,
    GRID,
    INPUT_PLANES,
    RAY_PLANES,
    TEXT,
    UNET,
    TextEncoder,
    make_unet,
    pixel_rays,
    predict_clean,
    ray_maps,
)
from sds3d.priors.embedded.render import camera_rays
from sds3d.priors.embedded.words import MAX_WORDS

SLOTS = TEXT["slots"]


def _tokens(*sentence, first=(), second=()):
    rows = [[*row, *[0] * (MAX_WORDS - len(row))] for row in (sentence, first, second)]
    return torch.tensor([rows])


def test_words_follow_the_slots_and_each_thing_has_slots_of_its_own():
    torch.manual_seed(0)
    text = TextEncoder(20, **TEXT).eval()
    with torch.no_grad():
        found = text(_tokens(3, 5, 7, first=(3,), second=(7,)))
        swapped = text(_tokens(7, 5, 3, first=(7,), second=(3,)))
        alone = text(_tokens(7, first=(7,), second=(7,)))
    assert found.shape == (1, 3 * SLOTS + MAX_WORDS, TEXT["width"])
    assert not found[:, 3 * SLOTS + 3 :].any()
    assert found[:, : 3 * SLOTS + 3].any(-1).all()
    whole, first, second = (found[:, n * SLOTS : (n + 1) * SLOTS] for n in range(3))
    assert (whole - swapped[:, :SLOTS]).abs().max() > 1e-3  # the order of words counts
    torch.testing.assert_close(first, swapped[:, 2 * SLOTS : 3 * SLOTS])
    torch.testing.assert_close(second, swapped[:, SLOTS : 2 * SLOTS])
    for slots in alone[:, : 3 * SLOTS].split(SLOTS, 1):
        torch.testing.assert_close(slots, second)


def test_ray_maps_tell_left_from_right_and_are_zero_without_a_camera():
    cameras = orbit(2, elevation_deg=20.0, distance=3.0, fov_deg=40.0, size=64)
    maps = ray_maps(cameras, torch.tensor([True, False]))
    assert maps.shape == (2, RAY_PLANES, 16, 16)
    assert not maps[1].any()
    assert maps[0].abs().max() <= 1.0
    assert (maps[0, :, :, 0] - maps[0, :, :, -1]).abs().amax() > 0.1


def test_every_pixel_has_its_own_ray_whatever_the_size_of_the_view():
    cameras = orbit(2, elevation_deg=20.0, distance=3.0, fov_deg=40.0, size=64)
    rays = pixel_rays(cameras, torch.tensor([True, False]))
    assert rays.shape == (2, BLOCK**2, GRID, GRID, 7)
    assert not rays[1].any()
    larger = orbit(2, elevation_deg=20.0, distance=3.0, fov_deg=40.0, size=128)
    torch.testing.assert_close(rays, pixel_rays(larger, torch.tensor([True, False])), atol=1e-5, rtol=0)
    origins, directions = (side.reshape(2, 64, 64, 3) for side in camera_rays(cameras))
    for row, column in ((0, 0), (5, 38), (63, 17)):
        inside = (row % BLOCK) * BLOCK + column % BLOCK
        nearest, direction, flag = rays[0, inside, row // BLOCK, column // BLOCK].split((3, 3, 1))
        expected = torch.nn.functional.normalize(directions[0, row, column], dim=0)
        torch.testing.assert_close(direction, expected)
        offset = origins[0, row, column] - nearest
        torch.testing.assert_close(offset, (offset @ direction) * direction, atol=1e-5, rtol=0)
        assert abs(nearest @ direction) < 1e-5
        assert flag == 1.0


def test_a_pixel_is_what_its_block_says_and_what_is_painted_at_its_place():
    """x0_hat - background, from the UNet's planes for pixels, for shares of paint, and for depths, in this order."""
    torch.manual_seed(3)
    text, unet = TextEncoder(20, **TEXT).eval(), make_unet().eval()
    generator = torch.Generator().manual_seed(4)
    said = torch.randn(1, UNET["out_channels"], GRID, GRID, generator=generator)
    given = []
    told = []
    unet.forward = lambda planes, _, *things: given.append(planes) or told.append(things) or said
    torch.nn.init.normal_(text.field.frame.weight, std=0.1, generator=generator)
    torch.nn.init.normal_(text.painter.outside.weight, generator=generator)
    cameras = orbit(1, elevation_deg=20.0, distance=3.0, fov_deg=40.0, size=64)
    rays = pixel_rays(cameras, torch.ones(1, dtype=torch.bool))
    pixels, shown, depths = said.split((3 * BLOCK**2, BLOCK**2, BLOCK**2), dim=1)
    with torch.no_grad():
        embedding = text(_tokens(3, 4, 5, first=(3,), second=(5,)))
        found = predict_clean(
            unet,
            text,
            torch.zeros(1, 3, 64, 64),
            torch.zeros(1, dtype=torch.long),
            torch.ones(1, 1, 1, 1),
            embedding,
            torch.zeros(1, 10),
            torch.zeros(1, RAY_PLANES, GRID, GRID),
            rays,
            torch.full((1, 3), 0.5),
        )
        paint = text.painter(rays, depths + FRONT, shown.sigmoid(), embedding[:, :SLOTS].flatten(1))
    condition, second = told[0]
    assert torch.equal(condition[..., :-10], embedding[:, : 3 * SLOTS].unflatten(1, (3, SLOTS)).flatten(2))
    torch.testing.assert_close(second[:, 0], found.second.sigmoid())
    assert found.frames.abs().mean() > 0.01
    torch.testing.assert_close(given[0][:, -FRAME:].movedim(1, -1), found.frames)
    block = ray_planes(in_frame(rays.mean(1), found.frames))
    torch.testing.assert_close(given[0][:, INPUT_PLANES - RAY_PLANES : INPUT_PLANES].movedim(1, -1), block)
    torch.testing.assert_close(found.x0, torch.nn.functional.pixel_shuffle(pixels + paint, BLOCK))
    assert paint.abs().mean() > 0.1
    for row, column in ((0, 0), (5, 38), (63, 17)):
        inside = (row % BLOCK) * BLOCK + column % BLOCK
        torch.testing.assert_close(
            found.depths[0, row, column], depths[0, inside, row // BLOCK, column // BLOCK] + FRONT
        )
