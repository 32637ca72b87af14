"""Creases, and normals that are smooth but for them."""

import numpy as np
import pytest
import torch
import trimesh

from sds3d.ops.creases import crease_normals, edge_angles
from sds3d.ops.outlines import mesh_edges
from tests.ops.mesh_cases import tensors


def cube() -> trimesh.Trimesh:
    body = trimesh.creation.box((1, 1, 1)).subdivide_to_size(0.3)
    body.merge_vertices()
    return body


def test_the_angles_are_those_of_another_library() -> None:
    body = trimesh.creation.cone(0.5, 1.0, sections=7)
    vertices, faces = tensors(body)
    edges = mesh_edges(faces)
    angle = {
        tuple(sorted(pair)): a
        for pair, a in zip(edges[:, 2:].tolist(), edge_angles(vertices, faces, edges), strict=True)
    }
    for pair, want in zip(body.face_adjacency.tolist(), np.degrees(body.face_adjacency_angles), strict=True):
        assert float(angle[tuple(sorted(pair))]) == pytest.approx(want, abs=1e-3)


def test_a_border_and_a_face_without_area_bend_nothing() -> None:
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0.5, 0, 0]])
    faces = torch.tensor([[0, 1, 2], [1, 0, 3]])
    assert edge_angles(vertices, faces, mesh_edges(faces)).tolist() == [0.0] * 5


def test_every_side_of_a_cube_is_flat() -> None:
    body = cube()
    vertices, faces = tensors(body)
    normals, of_corner = crease_normals(vertices, faces)
    assert len(normals) == len(body.vertices) + 12 * 3 + 8 * 2  # inner vertices of 12 edges twice, of 8 corners thrice
    flat = torch.tensor(body.face_normals).float()[:, None]
    assert torch.allclose(normals[of_corner.long()], flat.expand(-1, 3, -1), atol=1e-6)


def test_a_ball_is_smooth() -> None:
    vertices, faces = tensors(trimesh.creation.icosphere(3, 0.7))
    normals, of_corner = crease_normals(vertices, faces)
    assert len(normals) == len(vertices)
    assert torch.allclose(normals[of_corner.long()], vertices[faces.long()] / 0.7, atol=0.03)


def test_below_the_angle_nothing_is_parted() -> None:
    vertices, faces = tensors(cube())
    assert len(crease_normals(vertices, faces, 90.5)[0]) == len(vertices)


def test_a_crease_that_ends_parts_nothing_there() -> None:
    """A sheet with a fold that fades out from its border inwards: where it ends there is one normal."""
    x, y = np.meshgrid(np.arange(5.0), np.arange(5.0), indexing="ij")
    bend = np.array([1.0, 0.45, 0, 0, 0])[x.astype(int)]  # the fold is at y = 2, above 35 degrees for x < 1
    vertices = torch.tensor(np.stack([x, y, -bend * np.abs(y - 2)], axis=-1).reshape(-1, 3))
    corner = (np.arange(4)[:, None] * 5 + np.arange(4)).ravel()
    faces = torch.tensor(np.concatenate([[[i, i + 5, i + 1], [i + 5, i + 6, i + 1]] for i in corner]))
    of_corner = crease_normals(vertices, faces)[1]
    at = {vertex: len(of_corner[faces == vertex].unique()) for vertex in (2, 7)}
    assert at[2] == 2
    assert at[7] == 1


def test_a_vertex_without_area_points_up() -> None:
    normals, _ = crease_normals(torch.zeros(3, 3), torch.tensor([[0, 1, 2]]))
    assert normals.tolist() == [[0, 0, 1]] * 3
