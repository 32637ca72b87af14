"""Meshes as cameras see them, by whatever rasterizes."""

from collections.abc import Callable

import numpy as np
import pytest

from sds3d.cameras import orbit
from sds3d.export import render_mesh as module
from sds3d.export.render_mesh import rasterize_mesh
from sds3d.ops.rasterize_triangles import rasterize_triangles, rasterize_triangles_reference

CAMERAS = orbit(2, elevation_deg=0, distance=3.0, size=65)
FOCAL = float(CAMERAS.intrinsics[0, 0, 0])


@pytest.fixture(autouse=True, params=[rasterize_triangles, rasterize_triangles_reference])
def op(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable:
    """The kernels, and what there is without them."""
    monkeypatch.setattr(module, "rasterize_triangles", request.param)
    return request.param


def square(x, half, first=0):
    """A square facing +x at this x, as two triangles."""
    corners = [[x, -half, -half], [x, half, -half], [x, half, half], [x, -half, half]]
    return np.array(corners), np.array([[0, 1, 2], [0, 2, 3]]) + first


def test_covers_what_the_projection_says():
    vertices, faces = square(0.0, 0.4)
    seen = next(rasterize_mesh(vertices, faces, CAMERAS))
    side = 0.8 * FOCAL / 3.0
    assert side > 20
    assert (side - 1) ** 2 <= (seen.face >= 0).sum() <= (side + 1) ** 2
    assert set(np.unique(seen.face)) == {-1, 0, 1}
    assert np.allclose(seen.depth[seen.face >= 0], 3.0)
    assert np.isinf(seen.depth[seen.face < 0]).all()


def test_barycentric_coordinates_give_the_point_seen():
    vertices, faces = square(0.0, 0.4)
    vertices = vertices + np.array([[0.5, 0, 0], [-0.5, 0, 0], [-0.5, 0, 0], [0.5, 0, 0]])  # slanted in depth
    seen = next(rasterize_mesh(vertices, faces, CAMERAS))
    row, column = np.nonzero(seen.face >= 0)
    weights = seen.barycentric[row, column]
    points = (vertices[faces[seen.face[row, column]]] * weights[..., None]).sum(axis=1)
    depth = 3.0 - points[:, 0]  # the camera is at (3, 0, 0)
    pixels = np.stack([32.5 + FOCAL * points[:, 1] / depth, 32.5 - FOCAL * points[:, 2] / depth], axis=-1)
    assert np.allclose(weights.sum(axis=-1), 1.0)
    assert np.allclose(pixels, np.stack([column + 0.5, row + 0.5], axis=-1), atol=1e-4)
    assert np.allclose(depth, seen.depth[row, column], atol=1e-5)


def test_the_nearer_face_is_seen_from_either_side():
    back, front = square(-0.5, 0.4), square(0.5, 0.2, first=4)
    vertices, faces = np.vstack([back[0], front[0]]), np.vstack([back[1], front[1]])
    first, second = rasterize_mesh(vertices, faces, CAMERAS)
    assert first.face[32, 32] in (2, 3)
    assert second.face[32, 32] in (0, 1)


def test_faces_behind_or_beside_the_camera_are_not_seen():
    behind, beside = square(5.0, 0.4), square(0.0, 0.4)
    vertices = np.vstack([behind[0], beside[0] + [0.0, 9.0, 0.0]])
    seen = next(rasterize_mesh(vertices, np.vstack([behind[1], beside[1] + 4]), CAMERAS))
    assert (seen.face == -1).all()


def test_no_faces_are_no_picture():
    seen = list(rasterize_mesh(np.zeros((0, 3)), np.zeros((0, 3), dtype=np.int64), CAMERAS))
    assert len(seen) == 2
    assert (seen[0].face == -1).all()


def test_many_views_are_one_after_the_other(monkeypatch: pytest.MonkeyPatch):
    vertices, faces = square(0.3, 0.4)
    cameras = orbit(3, size=32)
    whole = [view.depth for view in rasterize_mesh(vertices, faces, cameras)]
    monkeypatch.setattr(module, "VIEWS_AT_ONCE", 2)
    assert np.array_equal(whole, [view.depth for view in rasterize_mesh(vertices, faces, cameras)])
