"""Captions, objects and renders of the procedural world."""

import math
import zlib
from random import Random

import numpy as np
import pytest
import torch

from sds3d.cameras import orbit
from sds3d.priors.embedded.captions import (
    HELD_OUT,
    RADIUS,
    RELATIONS,
    Description,
    Thing,
    build,
    parse,
    random_description,
)
from sds3d.priors.embedded.data import MOST_SHOWN, SHOWN, SIZE, chance_of, make_batch
from sds3d.priors.embedded.object_kinds import COLORS, KINDS, MATERIALS, PATTERNS, SIZES
from sds3d.priors.embedded.render import camera_rays, draw, over, render_solids
from sds3d.priors.embedded.words import WORDS, words_of

pytestmark = pytest.mark.xdist_group("captions")  # what is drawn is drawn once


@pytest.fixture(scope="module")
def shown() -> list[Description]:
    """What training draws."""
    rng = Random(1)
    return [random_description(rng) for _ in range(4000)]


def test_captions_and_descriptions_are_inverse(shown):
    for description in shown[:400]:
        assert parse(description.caption()) == description, description.caption()
        assert set(words_of(description.caption())) <= set(WORDS)


def test_training_never_shows_held_out_combinations(shown):
    pairs = {(thing.color, thing.kind) for description in shown for thing in description.things()}
    assert not pairs & HELD_OUT
    assert len(pairs) > 0.95 * (len(COLORS) * len(KINDS) - len(HELD_OUT))
    assert not any(description.held_out() for description in shown)
    rng = Random(1)
    assert all(random_description(rng, held_out=True).held_out() for _ in range(5))


def test_a_tenth_of_the_pairs_is_held_out_of_each_new_relation():
    pairs = [(color, kind) for color in COLORS for kind in KINDS if (color, kind) not in HELD_OUT]
    for relation in ("beside", "two"):
        held = sum(Description(Thing(kind, color), relation).held_out() for color, kind in pairs)
        assert 0.07 < held / len(pairs) < 0.13
    assert not any(Description(Thing(kind, color)).held_out() for color, kind in pairs)


def test_all_kinds_colours_patterns_materials_and_relations_are_drawn(shown):
    assert {d.thing.kind for d in shown} == set(KINDS)
    assert {d.thing.color for d in shown} == set(COLORS)
    assert {d.thing.pattern for d in shown} == set(PATTERNS)
    assert {d.thing.material for d in shown} == set(MATERIALS)
    assert {d.relation for d in shown} == {None, *RELATIONS}
    assert {d.thing.size for d in shown} == {None, *SIZES}


def test_seeds_give_the_captions_and_objects_that_the_prior_was_trained_on():
    rng = Random(3)
    captions = "; ".join(random_description(rng).caption() for _ in range(500))
    assert zlib.crc32(captions.encode()) == 3595278010
    colors = ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    solids = [solid for kind in KINDS.values() for seed in range(3) for solid in kind(*colors, Random(seed))]
    places = [(*s.center, *s.size, *s.color, s.yaw, s.pitch, s.roll, s.bottom, s.top, s.tube) for s in solids]
    shapes = " ".join(solid.shape for solid in solids).encode()
    assert zlib.crc32(shapes + (1e5 * torch.tensor(places)).round().int().numpy().tobytes()) == 2044072499


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("A shiny RED coffee cup", None),
        ("a shiny red cup", None),
        ("a red shiny cup", "a red glossy mug"),
        ("two spotted blue balls", "two dotted blue spheres"),
        ("the large grey box, near a little teal home", "a big gray cube beside a small cyan house"),
        ("three red mugs", None),
        ("a pink ice-cream with a brown cone", "a pink ice cream with a brown cone"),
        ("a two-tone red and blue fish", "a two-tone red and blue fish"),
        ("a red and blue fish", "a two-tone red and blue fish"),
        ("two green letter Ls", "two green letter ls"),
        ("two red buses", "two red buses"),
        ("a yellow cone on a purple sphere", None),
        ("a red and", None),
        ("a red and dragon mug", None),
    ],
)
def test_synonyms_plurals_and_phrases_are_read(text, meant):
    found = parse(text)
    assert (found.caption() if found else None) == meant


@pytest.mark.parametrize(
    "text",
    ["", "a dragon", "a red dragon", "red", "a red house with a blue stem", "a red on blue", "two", "red mug on"],
)
def test_other_sentences_have_no_description(text):
    assert parse(text) is None


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_fits_the_ball_and_shows_its_colour(kind):
    solids = build(Description(Thing(kind, "purple")), Random(kind))
    reach = max(np.linalg.norm(solid.outline(), axis=0).max() for solid in solids)
    assert 0.85 * RADIUS < reach <= RADIUS * 1.001
    view = render_solids(solids, orbit(4, size=48))
    covered = view[..., 3] > 0.99
    assert 0.02 < covered.float().mean() < 0.7
    edge = torch.cat([view[:, 0], view[:, -1], view[:, :, 0], view[:, :, -1]], dim=1)
    assert (edge == 0).all(), "the object touches the border of the picture"
    purple = (view[..., 0] > 1.8 * view[..., 1]) & (view[..., 2] > 1.8 * view[..., 1]) & covered
    share = {"snowman": 0.1, "plane": 0.2, "boat": 0.2, "bed": 0.2, "flower": 0.2}.get(kind, 0.3)
    assert purple.sum() > share * covered.sum()


@pytest.mark.parametrize("pattern", PATTERNS[1:])
def test_a_pattern_shows_both_colours_from_every_side(pattern):
    view = render_solids(build(Description(Thing("sphere", "red", pattern, "blue")), Random(0)), orbit(4, size=48))
    red = (view[..., 0] > 2.0 * view[..., 2]).sum((1, 2)) / (view[..., 3] > 0.99).sum((1, 2))
    blue = (view[..., 2] > 2.0 * view[..., 0]).sum((1, 2)) / (view[..., 3] > 0.99).sum((1, 2))
    assert (red > 0.2).all()
    assert (blue > 0.15).all()


def test_two_tone_colours_the_part_that_has_a_name():
    plain = build(Description(Thing("house", "red", "two-tone", "blue")), Random(0))
    named = build(Description(Thing("house", "red", part_color="blue")), Random(0))
    assert [s.shape for s in plain] == [s.shape for s in named]
    roofs = [s for s in plain if s.shape == "roof"]
    assert all(s.color[2] > 0.7 for s in roofs)
    assert all(s.surface and s.surface.pattern == "plain" for s in roofs)


@pytest.mark.parametrize("material", MATERIALS[1:])
def test_a_material_changes_the_shading_and_not_the_shape(material):
    plain = render_solids(build(Description(Thing("sphere", "red")), Random(0)), orbit(2, size=48))
    other = render_solids(build(Description(Thing("sphere", "red", material=material)), Random(0)), orbit(2, size=48))
    assert torch.equal(plain[..., 3], other[..., 3])
    assert (plain - other).abs().mean() > 0.01


def test_beside_is_left_and_right_from_the_front_and_sizes_are_seen():
    view = render_solids(build(parse("a small red sphere beside a big blue cube"), Random(0)), orbit(4, size=64))
    red = (view[..., 0] > 2.0 * view[..., 2]).nonzero()
    blue = (view[..., 2] > 2.0 * view[..., 0]).nonzero()
    front_red, front_blue = red[red[:, 0] == 0], blue[blue[:, 0] == 0]
    assert front_red[:, 2].float().mean() < front_blue[:, 2].float().mean()  # seen from the front: on the left
    assert red[red[:, 0] == 2][:, 2].float().mean() > blue[blue[:, 0] == 2][:, 2].float().mean()
    assert len(front_blue) > 1.5 * len(front_red)
    assert (front_red[:, 1].max() - front_blue[:, 1].max()).abs() <= 5  # they stand on one ground


def test_two_are_two():
    view = render_solids(build(parse("two red spheres"), Random(0)), orbit(1, elevation_deg=0.0, size=64))[0, ..., 3]
    columns = (view.amax(0) > 0.5).int()
    assert (columns.diff() == 1).sum() == 2


@pytest.mark.parametrize("kind", ["mug", "chair", "car", "house", "bed", "train", "duck", "cat", "robot", "clock"])
def test_kinds_with_a_front_look_different_from_behind(kind):
    solids = build(Description(Thing(kind, "blue")), Random(0))
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
    solids = build(Description(Thing("sphere", "red")), Random(0))
    radius = solids[0].size[0]
    view = render_solids(solids, orbit(1, elevation_deg=0.0, distance=3.0, size=64))
    seen = view[..., 3].sum().item() / 64**2
    expected = math.pi * math.tan(math.asin(radius / 3.0)) ** 2 / (2 * math.tan(math.radians(20.0))) ** 2
    assert seen == pytest.approx(expected, rel=0.01)


def test_depths_of_a_ball_are_exact():
    ball = build(Description(Thing("sphere", "red")), Random(0))
    radius = max(ball[0].size)
    cameras = orbit(2, elevation_deg=20.0, distance=3.0, size=33)
    depths, covered = draw([ball], cameras).depths, render_solids(ball, cameras)[..., 3]
    torch.testing.assert_close(depths[:, 16, 16], torch.full((2,), -radius), atol=1e-4, rtol=0)
    rays_o, rays_d = camera_rays(cameras)
    direction = torch.nn.functional.normalize(rays_d, dim=-1)
    aside = torch.linalg.cross(rays_o, direction).square().sum(-1).reshape(2, 33, 33)
    hit = aside < radius**2 - 1e-4
    torch.testing.assert_close(depths[hit], -(radius**2 - aside[hit]).sqrt(), atol=1e-3, rtol=0)
    assert not depths[covered == 0].any()


def test_a_batch_comes_from_seed_and_numbers_alone():
    whole, part, other = make_batch(3, 0, 3, views=2), make_batch(3, 1, 2, views=2), make_batch(4, 0, 3, views=2)
    assert part.captions == whole.captions[2:]
    for name in ("rgba", "depths", "parts", "angles", "frames"):
        assert torch.equal(getattr(part, name), getattr(whole, name)[2:])
    assert whole.captions[0] == whole.captions[1]
    assert not torch.equal(whole.rgba[0], whole.rgba[1])
    assert not torch.equal(whole.rgba, other.rgba)
    assert whole.rgba.shape == (6, SIZE, SIZE, 4)
    assert make_batch(3, 0, 1, size=128).rgba.shape == (1, 128, 128, 4)
    assert parse(make_batch(3, 0, 1, held_out=True).captions[0]).held_out()


def test_captions_are_kept_by_their_chance():
    batch = make_batch(0, 0, 12, chance=lambda caption: float("chair" in caption), size=16)
    assert all("chair" in caption for caption in batch.captions)
    assert chance_of("a red mug") == 1.0 / MOST_SHOWN
    assert chance_of("a striped red mug") == SHOWN["striped"] / MOST_SHOWN
    assert chance_of("two green apples") == 1.0  # the most
