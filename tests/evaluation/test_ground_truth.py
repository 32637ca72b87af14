"""The true object as a body: volumes in closed form, surfaces, and what a mesh of it scores."""

import math
from random import Random

import numpy as np
import pytest
from manifold3d import Manifold

from sds3d.evaluation.ground_truth import (
    DRAWS,
    chamfer,
    draw_truths,
    mesh_body,
    normal_error,
    pieces,
    shape_scores,
    solid_body,
    surface_points,
)
from sds3d.export.mesh import Mesh
from sds3d.metrics.mesh import volume_iou
from sds3d.priors.embedded.captions import Description, Thing, build, parse
from sds3d.priors.embedded.object_kinds import KINDS
from sds3d.priors.embedded.solids import Solid

RED = (0.8, 0.1, 0.1)


def as_mesh(body) -> Mesh:
    found = body.to_mesh()
    vertices = found.vert_properties[:, :3].astype(np.float32)
    return Mesh(vertices, found.tri_verts.astype(np.int64), np.zeros_like(vertices))


@pytest.mark.parametrize(
    ("solid", "volume"),
    [
        (Solid("ball", (0, 0, 0), (1, 2, 3), RED), 8 * math.pi),
        (Solid("box", (1, 0, 0), (1, 2, 3), RED, yaw=0.4, pitch=0.3, roll=0.2), 48.0),
        (Solid("frustum", (0, 0, 0), (1, 1, 1), RED, top=0.0), 2 * math.pi / 3),
        (Solid("ring", (0, 0, 0), (1, 1, 1), RED, tube=0.3), 2 * math.pi**2 * 0.09),
        (Solid("pyramid", (0, 0, 0), (1, 1, 1), RED), 8 / 3),
        (Solid("roof", (0, 0, 0), (1, 1, 1), RED), 4.0),
        (Solid("cup", (0, 0, 0), (1, 1, 1), RED), math.pi * (2 - 0.88**2 * 1.88)),
    ],
)
def test_volumes_are_those_of_the_formulas(solid, volume):
    assert solid_body([solid]).volume() == pytest.approx(volume, rel=0.01)


def test_overlap_of_shifted_cubes_is_exact():
    first = solid_body([Solid("box", (0, 0, 0), (1, 1, 1), RED)])
    second = solid_body([Solid("box", (1, 0, 0), (1, 1, 1), RED)])
    assert volume_iou(first, second) == pytest.approx(1 / 3, rel=1e-6)
    assert volume_iou(first, first) == pytest.approx(1.0)


def test_normals_of_a_ball_are_right_and_those_of_a_lumpy_one_are_not():
    ball = Manifold.sphere(0.5, 64)

    def lumpy(p):
        return [c * (1 + 0.04 * math.sin(40 * p[0]) * math.sin(40 * p[1])) for c in p]

    assert normal_error(ball, Manifold.sphere(0.5, 64)) < 3  # of the facets
    assert normal_error(ball, Manifold.sphere(0.5, 64).refine(4).warp(lumpy)) > 15
    assert normal_error(ball, Manifold.sphere(0.6, 64)) < 3  # sizes are for the others to see


def test_chamfer_of_two_balls_is_the_difference_of_their_radii():
    first = solid_body([Solid("ball", (0, 0, 0), (1, 1, 1), RED)])
    second = solid_body([Solid("ball", (0, 0, 0), (0.8, 0.8, 0.8), RED)])
    assert chamfer(first, second) == pytest.approx(0.2, abs=0.01)
    assert chamfer(first, first) < 0.01


def test_surface_points_are_even_by_area():
    body = solid_body([Solid("box", (0, 0, 0), (1, 1, 3), RED)])
    points = surface_points(body, 20_000)
    lids = (np.abs(points[:, 2]) > 3 - 1e-6).mean()
    assert lids == pytest.approx(8 / (8 + 48), abs=0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_a_closed_body_that_compares_with_itself(kind):
    solids = build(Description(Thing(kind, "red")), Random(0))
    body = solid_body(solids)
    assert body.volume() > 0
    assert mesh_body(as_mesh(body)) is not None


def test_the_truth_scores_near_one_and_another_kind_does_not():
    truths = draw_truths(parse("a red chair"))
    ones = [1.0] * DRAWS
    mine = shape_scores(as_mesh(solid_body(truths[3])), truths, 0.0, ones)
    assert mine["volume_iou"] > 0.99
    assert mine["chamfer"] < 0.01
    other = shape_scores(as_mesh(solid_body(draw_truths(parse("a red mug"))[0])), truths, 0.0, ones)
    assert other["volume_iou"] < 0.4
    assert other["chamfer"] > 0.05
    turned = shape_scores(as_mesh(solid_body(truths[3], yaw_deg=90.0, scale=0.8)), truths, 90.0, [0.8] * DRAWS)
    assert turned["volume_iou"] > 0.99


def test_an_open_mesh_has_no_volume_and_an_empty_one_nothing():
    body = as_mesh(solid_body([Solid("box", (0, 0, 0), (1, 1, 1), RED)]))
    truths = draw_truths(parse("a red cube"))
    opened = Mesh(body.vertices, body.faces[1:], body.colors)
    assert shape_scores(opened, truths, 0.0, [1.0] * DRAWS) == {}
    assert shape_scores(Mesh(body.vertices, body.faces[:0], body.colors), truths, 0.0, [1.0] * DRAWS) == {}


def test_things_side_by_side_are_two_pieces():
    assert pieces(build(parse("two red spheres"), Random(0))) == 2
    for seed in range(8):
        assert pieces(build(parse("a red cone on a blue cube"), Random(seed))) == 1
