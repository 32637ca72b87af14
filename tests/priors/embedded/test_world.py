"""Captions, objects and renders of the procedural world."""

import math
from random import Random

import pytest
import torch

from sds3d.cameras import orbit
from sds3d.priors.embedded.catalogue import COLORS, KINDS
from sds3d.priors.embedded.data import make_shard, read_shard, write_shard
from sds3d.priors.embedded.render import over, render_solids
from sds3d.priors.embedded.world import (
    HELD_OUT,
    RADIUS,
    WORDS,
    Description,
    build,
    parse,
    random_description,
    words_of,
)


def test_captions_and_descriptions_are_inverse():
    rng = Random(0)
    for _ in range(300):
        description = random_description(rng)
        assert parse(description.caption()) == description
        assert set(words_of(description.caption())) <= set(WORDS)


def test_training_never_shows_held_out_pairs():
    rng = Random(1)
    shown = {(d.color, d.kind) for d in (random_description(rng) for _ in range(4000))}
    assert not shown & HELD_OUT
    assert len(shown) > 0.9 * (len(COLORS) * len(KINDS) - len(HELD_OUT))


@pytest.mark.parametrize(
    "text", ["", "a dragon", "a red dragon", "red", "a red house with a blue stem", "a red on blue"]
)
def test_other_sentences_have_no_description(text):
    assert parse(text) is None


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_fits_the_ball_and_shows_its_colour(kind):
    solids = build(Description(kind, "red"), Random(kind))
    points = torch.cat([solid.outline() for solid in solids])
    reach = points.norm(dim=-1).max()
    assert 0.85 * RADIUS < reach <= RADIUS * 1.001
    view = render_solids(solids, orbit(4, size=48))
    covered = view[..., 3] > 0.99
    assert 0.03 < covered.float().mean() < 0.7
    edge = torch.cat([view[:, 0], view[:, -1], view[:, :, 0], view[:, :, -1]], dim=1)
    assert (edge == 0).all(), "the object touches the border of the picture"
    red = (view[..., 0] > 1.8 * view[..., 1]) & (view[..., 0] > 1.8 * view[..., 2]) & covered
    assert red.sum() > (0.1 if kind == "snowman" else 0.3) * covered.sum()


@pytest.mark.parametrize("kind", ["mug", "chair", "car", "house"])
def test_kinds_with_a_front_look_different_from_behind(kind):
    solids = build(Description(kind, "blue"), Random(0))
    view = over(render_solids(solids, orbit(4, size=48)), torch.full((4, 3), 0.5))
    assert (view[0] - view[2]).abs().mean() > 0.01


def test_things_stand_on_each_other():
    description = parse("a yellow cone on a purple cube")
    view = render_solids(build(description, Random(0)), orbit(1, size=64))[0]
    rows = view[..., 3].sum(1).nonzero().squeeze(1)
    upper, lower = view[rows[4]].amax(0), view[rows[-6]].amax(0)
    assert upper[0] > 0.5
    assert upper[2] < 0.3  # yellow
    assert lower[2] > lower[1] + 0.2  # purple


def test_coverage_of_a_ball_is_exact():
    """A ball of radius r at distance d covers a disc of tan(asin(r / d)) in the image plane."""
    solids = build(Description("sphere", "red"), Random(0))
    radius = solids[0].size[0]
    view = render_solids(solids, orbit(1, elevation_deg=0.0, distance=3.0, size=64))
    seen = view[..., 3].sum().item() / 64**2
    expected = math.pi * math.tan(math.asin(radius / 3.0)) ** 2 / (2 * math.tan(math.radians(20.0))) ** 2
    assert seen == pytest.approx(expected, rel=0.01)


def test_shards_come_from_their_index_alone(tmp_path):
    first, again, other = make_shard(3, scenes=2), make_shard(3, scenes=2), make_shard(4, scenes=2)
    assert torch.equal(first.rgba, again.rgba)
    assert first.captions == again.captions
    assert not torch.equal(first.rgba, other.rgba)


def test_shards_survive_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr("sds3d.priors.embedded.data.SCENES_PER_SHARD", 2)
    monkeypatch.setattr("sds3d.priors.embedded.data.make_shard", lambda index: make_shard(index, scenes=2))
    shard = read_shard(write_shard(tmp_path, 0))
    assert shard.captions == make_shard(0, scenes=2).captions
    assert torch.equal(shard.rgba, make_shard(0, scenes=2).rgba)
    assert not list(tmp_path.glob("*.tmp"))
