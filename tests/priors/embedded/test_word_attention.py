"""What a pixel block reads of the words, and how it sees its ray from the thing that it reads of."""

import math

import torch

from sds3d.priors.embedded.layers import (
    FIELD_PLANES,
    FINE_DEPTHS,
    FINE_WAVES,
    RAY_DEPTHS,
    RAY_PLANES,
    RAY_WAVES,
    READ_HEADS,
    READ_KEY,
    READ_PLANES,
    READ_VALUE,
    WORD_PLANES,
    RayField,
    WordAttention,
    in_frame,
)

DOUBLE = torch.float64


def test_the_reader_is_attention_in_float64():
    generator = torch.Generator().manual_seed(1)
    torch.manual_seed(2)
    reader = WordAttention(24, 30).double()
    planes = torch.randn(2, 30, 3, 5, dtype=DOUBLE, generator=generator)
    words = torch.randn(2, 4, 24, dtype=DOUBLE, generator=generator)
    with torch.no_grad():
        read, told = reader(planes, words)
        query, key = reader.query(planes), reader.key(words)
        values, facts = reader.value(words), reader.told(words)
    assert read.shape == (2, READ_PLANES, 3, 5)
    assert told.shape == (2, WORD_PLANES, 3, 5)
    for batch, row, column, head in ((0, 0, 0, 0), (1, 2, 4, 3), (0, 1, 3, 2)):
        k = slice(head * READ_KEY, (head + 1) * READ_KEY)
        weights = torch.softmax(key[batch, :, k] @ query[batch, k, row, column] / math.sqrt(READ_KEY), 0)
        for found, value, size in ((read, values, READ_VALUE), (told, facts, WORD_PLANES // READ_HEADS)):
            v = slice(head * size, (head + 1) * size)
            torch.testing.assert_close(found[batch, v, row, column], weights @ value[batch, :, v])


def _rays(points, generator):
    """Rays through the points, in random directions, as `pixel_rays` has them."""
    direction = torch.nn.functional.normalize(torch.randn(points.shape, dtype=DOUBLE, generator=generator), dim=-1)
    nearest = points - (points * direction).sum(-1, keepdim=True) * direction
    return torch.cat([nearest, direction, torch.ones_like(direction[..., :1])], -1)


def _field(generator):
    field = RayField().double()
    for parameter in field.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    return field


def test_against_one_block_at_a_time():
    generator = torch.Generator().manual_seed(3)
    field, told = _field(generator), torch.randn(2, WORD_PLANES, 3, 5, dtype=DOUBLE, generator=generator)
    rays = _rays(torch.randn(2, 3, 5, 3, dtype=DOUBLE, generator=generator), generator)
    with torch.no_grad():
        planes, found, frames = field(rays, told)
        assert planes.shape == (2, RAY_PLANES, 3, 5)
        assert found.shape == (2, FIELD_PLANES, 3, 5)
        for batch, row, column in ((0, 0, 0), (1, 2, 4)):
            words, ray = told[batch, :, row, column], rays[batch, row, column]
            torch.testing.assert_close(frames[batch, row, column], field.frame(words))
            met = in_frame(ray[None, None, None], field.frame(words)[None, None, None])
            offset, direction, flag = met.flatten().split((3, 3, 1))
            places = torch.cat([offset + depth * direction for depth in RAY_DEPTHS])
            waves = [wave(k * places) for k in RAY_WAVES for wave in (torch.sin, torch.cos)]
            near = torch.cat([offset + depth * direction for depth in FINE_DEPTHS])
            fine = [wave(k * near) for k in FINE_WAVES for wave in (torch.sin, torch.cos)]
            torch.testing.assert_close(planes[batch, :, row, column], torch.cat([direction, flag, *waves, *fine]))
            hidden = field.inside(torch.cat([direction, *waves, words]))
            for gate, layer in zip(field.gates, (field.between, field.outside), strict=True):
                hidden = layer(torch.nn.functional.silu(hidden) * (1.0 + gate(words)))
            torch.testing.assert_close(found[batch, :, row, column], hidden)


def test_a_thing_aside_and_half_as_large_is_seen_as_one_in_the_middle():
    generator = torch.Generator().manual_seed(4)
    points = torch.randn(1, 1, 1, 3, dtype=DOUBLE, generator=generator)
    one, aside = _rays(points, generator), torch.tensor([0.1, -0.4, 0.2], dtype=DOUBLE)
    other = one.clone()
    other[..., :3] = aside + points / 2.0
    other[..., :3] -= (other[..., :3] * one[..., 3:6]).sum(-1, keepdim=True) * one[..., 3:6]
    torch.testing.assert_close(in_frame(one, torch.zeros(1, 1, 1, 4, dtype=DOUBLE)), one)
    frame = torch.cat([aside, torch.tensor([math.log(2.0)], dtype=DOUBLE)]).expand(1, 1, 1, 4)
    torch.testing.assert_close(in_frame(other, frame), one)


def test_the_field_sees_nothing_without_a_camera():
    generator = torch.Generator().manual_seed(5)
    field, told = _field(generator), torch.randn(1, WORD_PLANES, 1, 1, dtype=DOUBLE, generator=generator)
    rays = torch.randn(1, 2, 2, 7, dtype=DOUBLE, generator=generator)
    rays[..., 6] = 0.0
    with torch.no_grad():
        planes, found, _ = field(rays, told.expand(1, WORD_PLANES, 2, 2))
    assert not planes.any()
    torch.testing.assert_close(found, found[:, :, :1, :1].expand_as(found))
