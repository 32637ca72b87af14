import numpy as np
import pytest

from sds3d.cameras import orbit
from sds3d.export import render_mesh as module
from sds3d.export.render_mesh import project_points, rasterize_mesh

CAMERAS = orbit(2, elevation_deg=0, distance=3.0, size=65)


def square(x, half, first=0):
    """A square facing +x at this x, as two triangles."""
    corners = [[x, -half, -half], [x, half, -half], [x, half, half], [x, -half, half]]
    return np.array(corners), np.array([[0, 1, 2], [0, 2, 3]]) + first


def test_the_middle_of_the_world_is_the_middle_of_the_image():
    pixels, depth = project_points(np.zeros((1, 3)), CAMERAS, 0)
    assert np.allclose(pixels, 32.5)
    assert np.allclose(depth, 3.0)


def test_covers_what_the_projection_says():
    vertices, faces = square(0.0, 0.4)
    seen = rasterize_mesh(vertices, faces, CAMERAS, 0)
    pixels, _ = project_points(vertices, CAMERAS, 0)
    side = np.ptp(pixels[:, 0])
    assert side > 20
    assert (side - 1) ** 2 <= (seen.face >= 0).sum() <= (side + 1) ** 2
    assert set(np.unique(seen.face)) == {-1, 0, 1}
    assert np.allclose(seen.depth[seen.face >= 0], 3.0)
    assert np.isinf(seen.depth[seen.face < 0]).all()


def test_barycentric_coordinates_give_the_point_seen():
    vertices, faces = square(0.0, 0.4)
    vertices = vertices + np.array([[0.5, 0, 0], [-0.5, 0, 0], [-0.5, 0, 0], [0.5, 0, 0]])  # slanted in depth
    seen = rasterize_mesh(vertices, faces, CAMERAS, 0)
    row, column = np.nonzero(seen.face >= 0)
    weights = seen.barycentric[row, column]
    points = (vertices[faces[seen.face[row, column]]] * weights[..., None]).sum(axis=1)
    pixels, depth = project_points(points, CAMERAS, 0)
    assert np.allclose(weights.sum(axis=-1), 1.0)
    assert np.allclose(pixels, np.stack([column + 0.5, row + 0.5], axis=-1), atol=1e-6)
    assert np.allclose(depth, seen.depth[row, column])


@pytest.mark.parametrize("pairs_at_once", [10, 2_000_000])
def test_the_nearer_face_is_seen_from_either_side(monkeypatch, pairs_at_once):
    monkeypatch.setattr(module, "PAIRS_AT_ONCE", pairs_at_once)
    back, front = square(-0.5, 0.4), square(0.5, 0.2, first=4)
    vertices, faces = np.vstack([back[0], front[0]]), np.vstack([back[1], front[1]])
    assert rasterize_mesh(vertices, faces, CAMERAS, 0).face[32, 32] in (2, 3)
    assert rasterize_mesh(vertices, faces, CAMERAS, 1).face[32, 32] in (0, 1)


def test_faces_behind_or_beside_the_camera_are_not_seen():
    behind, beside = square(5.0, 0.4), square(0.0, 0.4)
    vertices = np.vstack([behind[0], beside[0] + [0.0, 9.0, 0.0]])
    seen = rasterize_mesh(vertices, np.vstack([behind[1], beside[1] + 4]), CAMERAS, 0)
    assert (seen.face == -1).all()


def test_no_faces_are_no_picture():
    seen = rasterize_mesh(np.zeros((0, 3)), np.zeros((0, 3), dtype=np.int64), CAMERAS, 0)
    assert (seen.face == -1).all()
