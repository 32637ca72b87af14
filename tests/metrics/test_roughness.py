"""Roughness counts what sticks out, not how a surface is cut into triangles; creases are measured by length."""

import math

import numpy as np
import pytest
import trimesh

from sds3d.metrics.mesh import mesh_statistics
from sds3d.metrics.roughness import crease_figures


def figures(body: trimesh.Trimesh) -> tuple[float, float]:
    return crease_figures(np.asarray(body.vertices), np.asarray(body.faces))


def cut(body: trimesh.Trimesh, size: float) -> trimesh.Trimesh:
    fine = body.subdivide_to_size(size)
    fine.merge_vertices()
    return fine


@pytest.mark.parametrize("size", [2.0, 0.3, 0.1])
def test_a_cube_has_twelve_edges_and_no_roughness(size: float) -> None:
    roughness, length = figures(cut(trimesh.creation.box((1, 1, 1)), size))
    assert roughness == pytest.approx(0, abs=1e-6)
    assert length == pytest.approx(12 / math.sqrt(0.75), rel=1e-6)


@pytest.mark.parametrize(("subdivisions", "most"), [(2, 0.3), (3, 0.05), (4, 0.005)])
def test_the_triangles_of_a_ball_do_not_count(subdivisions: int, most: float) -> None:
    roughness, length = figures(trimesh.creation.icosphere(subdivisions, 0.6))
    assert roughness < most
    assert length == 0


def test_a_ball_of_uneven_triangles_is_smooth_too() -> None:
    ball = trimesh.creation.icosphere(4, 0.6)
    moved = ball.vertices + 0.01 * np.random.default_rng(0).standard_normal(ball.vertices.shape)
    ball.vertices = 0.6 * moved / np.linalg.norm(moved, axis=1, keepdims=True)
    assert figures(ball)[0] < 0.05


def test_a_cylinder_is_smooth_between_its_two_edges() -> None:
    roughness, length = figures(cut(trimesh.creation.cylinder(0.5, 1.0, sections=64), 0.1))
    assert roughness < 0.5  # it has flat faces of 6 degrees
    assert length == pytest.approx(2 * (2 * math.pi * 0.5) / math.hypot(0.5, 0.5), rel=0.01)


def test_roughness_grows_with_noise_and_does_not_depend_on_size() -> None:
    ball = trimesh.creation.icosphere(4, 1.0)
    noise = 1 + np.random.default_rng(0).standard_normal((len(ball.vertices), 1)) * ball.edges_unique_length.mean()
    found = []
    for amount in (0.02, 0.04):
        rough = ball.vertices * (1 + amount * (noise - 1))
        found.append(crease_figures(rough, ball.faces)[0])
        assert crease_figures(0.1 * rough + [3, 0, 0], ball.faces)[0] == pytest.approx(found[-1], rel=1e-6)
    assert found[0] == pytest.approx(2, rel=0.15)  # degrees
    assert found[1] == pytest.approx(2 * found[0], rel=0.05)


def test_no_faces_are_no_figures() -> None:
    nothing = mesh_statistics(np.zeros((0, 3)), np.zeros((0, 3), dtype=np.int64), np.zeros((0, 3)))
    assert (nothing.roughness, nothing.crease_length) == (0, 0)
