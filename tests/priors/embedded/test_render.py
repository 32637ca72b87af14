"""The compiled renderer of the procedural world against the one in torch."""

import math
from random import Random

import pytest
import torch

from sds3d.cameras import orbit, orbit_cameras
from sds3d.ops.extension import INSTRUCTION_SETS, compiled
from sds3d.priors.embedded.captions import Description, Thing, build, random_description
from sds3d.priors.embedded.object_kinds import KINDS, MATERIALS, PATTERNS
from sds3d.priors.embedded.render import SHAPES, draw, draw_reference
from sds3d.priors.embedded.shading import Surface
from sds3d.priors.embedded.solids import Solid

pytestmark = pytest.mark.skipif(not compiled(), reason="sds3d._C is not built")
STEP = 1.0 / 255.0


def views(count, size, elevation_deg=20.0):
    """None of them along an axis: from there many edges meet on the screen."""
    azimuth = 0.3 + torch.arange(count) * 2.1
    distance, fov = torch.full((count,), 3.0), torch.full((count,), math.radians(40.0))
    return orbit_cameras(azimuth, torch.full((count,), math.radians(elevation_deg)), distance, fov, size)


def assert_same(objects, cameras, samples=1):
    """Silhouettes, parts, depths and colours agree but for the pixels at edges, of which a few may differ."""
    mine, truth = draw(objects, cameras, samples), draw_reference(objects, cameras, samples)
    for name in ("rgba", "depths", "parts"):
        assert getattr(mine, name).shape == getattr(truth, name).shape
        assert getattr(mine, name).dtype == getattr(truth, name).dtype
    assert not mine.rgba.isnan().any()
    same = mine.parts == truth.parts
    assert (~same).float().mean() < 2e-3
    assert (mine.depths - truth.depths).abs()[same].quantile(0.999) < 1e-3
    # Where an edge, or one of a pattern, passes within rounding of a sample, the sample shows one side or the other.
    away = (mine.rgba - truth.rgba).abs().amax(-1)
    assert (away > STEP).float().mean() < 2e-3
    covered = truth.rgba[..., 3]
    assert ((mine.rgba[..., 3] - covered).abs() > 1e-6).float().mean() < 2e-3
    return truth


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("turn", [(0.0, 0.0, 0.0), (0.5, -0.8, 0.3)])
def test_every_shape(shape, turn):
    size = (0.5, 0.5, 0.5) if shape == "ring" else (0.6, 0.4, 0.5)
    solid = Solid(shape, (0.1, -0.05, 0.1), size, (0.8, 0.3, 0.1), *turn, bottom=0.9, top=0.5, tube=0.35)
    truth = assert_same([[solid]], views(2, 40), samples=3)
    assert truth.rgba[..., 3].mean() > 0.05


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("material", MATERIALS)
def test_every_pattern_and_material(pattern, material):
    surface = Surface(pattern, (0.9, 0.9, 0.9), material, 1, (0.05, -0.02, 0.03))
    solids = [
        Solid("ball", (0, 0, 0), (0.7, 0.6, 0.7), (0.2, 0.3, 0.8), surface=surface),
        Solid("box", (0.2, 0.1, -0.6), (0.6, 0.5, 0.1), (0.2, 0.6, 0.2), 0.4, surface=surface),
    ]
    assert_same([solids], views(2, 48))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind(kind):
    assert_same([build(Description(Thing(kind, "red")), Random(1))], views(2, 40))


def test_many_objects_at_once_are_each_seen_by_their_own_cameras():
    objects = [build(random_description(Random(seed)), Random(seed)) for seed in range(4)]
    cameras = views(8, 24)
    truth = assert_same(objects, cameras, samples=2)
    assert (truth.parts >= 0).flatten(1).any(1).all()
    both = draw(objects, cameras, 3)
    for number, solids in enumerate(objects):
        own = torch.tensor([2 * number, 2 * number + 1])
        for alone, together in zip(draw([solids], cameras.select(own), 3), both, strict=True):
            assert torch.equal(alone, together[own])


def test_depth_and_part_are_those_of_the_middle_of_a_pixel():
    solids = build(Description(Thing("car", "red")), Random(0))
    cameras = orbit(3, size=32)
    single, odd, even = (draw([solids], cameras, samples) for samples in (1, 3, 2))
    for other in (odd, even):
        assert (single.parts == other.parts).float().mean() > 0.998
        assert torch.equal(single.parts < 0, single.rgba[..., 3] == 0)
        torch.testing.assert_close(single.depths, other.depths, atol=1e-4, rtol=0)


def test_a_cup_has_an_inside():
    cup = Solid("cup", (0, 0, 0), (0.6, 0.6, 0.6), (1, 0, 0))
    above, side = (draw([[cup]], orbit(1, elevation_deg=angle, size=33)).parts[0] for angle in (89.0, 0.0))
    assert above[16, 16] == 1
    assert side[16, 16] == 0
    assert_same([[cup]], views(2, 40, elevation_deg=40.0))


def test_a_camera_within_a_solid_and_one_that_sees_nothing():
    ball = Solid("ball", (0, 0, 0), (0.9, 0.9, 0.9), (1, 0, 0))
    behind = Solid("box", (3.0, 0, 0), (0.5, 0.5, 0.5), (0, 1, 0))
    close = orbit_cameras(*(torch.tensor([value]) for value in (0.0, 0.0, 0.7, math.radians(60.0))), size=20)
    assert not draw_reference([[ball, behind]], close).rgba.any()
    assert not draw([[ball, behind]], close).rgba.any()
    nothing = draw([[]], orbit(2, size=16))
    assert not nothing.rgba.any()
    assert (nothing.parts == -1).all()


def test_bits_depend_on_no_thread_and_no_instruction_set():
    objects = [build(random_description(Random(seed)), Random(seed)) for seed in range(6)]
    cameras, before = orbit(6, size=24), torch.get_num_threads()
    first = draw(objects, cameras)
    try:
        torch.set_num_threads(3)
        for level in range(len(INSTRUCTION_SETS)):
            torch.ops.sds3d.limit_instruction_set(level)
            for one, other in zip(first, draw(objects, cameras), strict=True):
                assert torch.equal(one, other)
    finally:
        torch.set_num_threads(before)
        torch.ops.sds3d.limit_instruction_set(len(INSTRUCTION_SETS))


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf, -1e30, 1e-30])
@pytest.mark.parametrize("field", ["center", "size"])
def test_a_solid_that_is_none_harms_no_other_view(field, value):
    ball = [Solid("ball", (0, 0, 0), (0.7, 0.6, 0.7), (0.2, 0.3, 0.8))]
    surface = Surface("checkered", (1, 1, 1), "wooden", 0, (0, 0, 0))
    placed = {"center": (0.0, 0.0, 0.0), "size": (0.5, 0.5, 0.5)} | {field: (value, 0.3, 0.2)}
    broken = [Solid(shape, color=(1, 0, 0), surface=surface, **placed) for shape in SHAPES]
    cameras = views(2, 17)
    seen = draw([broken, ball], cameras)
    for alone, together in zip(draw([ball], cameras.select(torch.tensor([1]))), seen, strict=True):
        assert torch.equal(alone[0], together[1])
    assert ((seen.parts >= -1) & (seen.parts < 2 * len(SHAPES))).all()


def test_views_that_cannot_be_shared_out_are_refused():
    ball = [Solid("ball", (0, 0, 0), (1, 1, 1), (1, 0, 0))]
    with pytest.raises(ValueError, match="3 cameras"):
        draw([ball, ball], orbit(3, size=16))
