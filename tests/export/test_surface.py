import numpy as np
import pytest
import trimesh

from sds3d.export.surface import closed_surface, decimate, is_solid, main_pieces, separated, smooth
from sds3d.metrics.mesh import enclosed_volume, face_pieces, is_watertight

ORIGIN, SPACING = np.array([-1.0, -1.0, -1.0]), 0.05


def distances(center=(0.0, 0.0, 0.0), size=41):
    axis = -1.0 + SPACING * np.arange(size)
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    return np.sqrt((x - center[0]) ** 2 + (y - center[1]) ** 2 + (z - center[2]) ** 2)


def ball(center=(0.0, 0.0, 0.0), radius=0.5):
    return np.clip(0.5 + 4 * (radius - distances(center)), 0, None)


def test_surface_of_a_ball():
    vertices, faces = closed_surface(ball(), 0.5, ORIGIN, SPACING)
    assert is_solid((vertices, faces))
    assert np.abs(np.linalg.norm(vertices, axis=-1) - 0.5).max() < 0.01
    assert enclosed_volume(vertices, faces) == pytest.approx(4 / 3 * np.pi * 0.5**3, rel=0.02)


def test_surface_is_closed_where_the_object_leaves_the_grid():
    surface = closed_surface(ball((0.9, 0.0, 0.0)), 0.5, ORIGIN, SPACING)
    assert is_solid(surface)
    assert surface[0][:, 0].max() < 1.0 + SPACING


def test_cavities_are_filled_and_nothing_is_nothing():
    hollow = np.where(distances() < 0.3, 0.0, ball())
    vertices, faces = closed_surface(hollow, 0.5, ORIGIN, SPACING)
    assert int(face_pieces(faces, len(vertices)).max()) == 0
    assert enclosed_volume(vertices, faces) == pytest.approx(4 / 3 * np.pi * 0.5**3, rel=0.02)
    assert closed_surface(np.zeros((5, 5, 5)), 0.5, ORIGIN, SPACING) is None


def test_values_on_the_level_do_not_break_the_surface():
    blocks = (np.random.default_rng(0).random((12, 12, 12)) > 0.6).astype(float) * 0.5
    blocks[3:9, 3:9, 3:9] = 1.0
    vertices, faces = closed_surface(blocks, 0.5, np.zeros(3), 1.0)
    assert np.isfinite(vertices).all()
    assert is_watertight(faces)


def test_main_pieces_and_the_share_of_the_rest():
    both = np.maximum(ball((-0.4, 0.0, 0.0), 0.4), ball((0.6, 0.0, 0.0), 0.12))
    (vertices, faces), share = main_pieces(closed_surface(both, 0.5, ORIGIN, SPACING))
    assert vertices[:, 0].max() < 0.05
    assert len(np.unique(faces)) == len(vertices)
    assert share == pytest.approx(0.12**3 / (0.4**3 + 0.12**3), rel=0.2)


def test_two_things_side_by_side_are_both_kept_and_decimated():
    both = np.maximum(ball((-0.4, 0.0, 0.0), 0.4), ball((0.6, 0.0, 0.0), 0.2))
    surface, share = main_pieces(closed_surface(both, 0.5, ORIGIN, SPACING))
    assert share == 0.0
    assert surface[0][:, 0].max() == pytest.approx(0.8, abs=0.05)
    fewer = decimate(surface, 400)
    assert len(fewer[1]) <= 400
    assert is_watertight(fewer[1])
    assert int(face_pieces(fewer[1], len(fewer[0])).max()) == 1


def test_smoothing_takes_out_steps_and_keeps_the_volume():
    steps = (distances() < 0.5).astype(float)
    rough = closed_surface(steps, 0.5, ORIGIN, SPACING)
    smoothed = smooth(rough, 10)
    assert enclosed_volume(*smoothed) == pytest.approx(enclosed_volume(*rough), rel=0.02)
    assert np.linalg.norm(smoothed[0], axis=-1).std() < 0.7 * np.linalg.norm(rough[0], axis=-1).std()


def test_decimation_stays_solid_and_close():
    surface = closed_surface(ball(), 0.5, ORIGIN, SPACING)
    fewer = decimate(surface, 500)
    assert 300 < len(fewer[1]) <= 500
    assert is_solid(fewer)
    assert enclosed_volume(*fewer) == pytest.approx(enclosed_volume(*surface), rel=0.03)


def test_decimation_is_solid_and_light_where_edge_collapse_breaks_the_surface(monkeypatch):
    surface = closed_surface(ball(), 0.5, ORIGIN, SPACING)
    monkeypatch.setattr("fast_simplification.simplify", lambda v, f, target_count, agg: (v, f[:target_count]))
    fewer = decimate(surface, 500)
    assert 50 < len(fewer[1]) <= 500
    assert is_solid(fewer)
    assert enclosed_volume(*fewer) == pytest.approx(enclosed_volume(*surface), rel=0.05)
    assert decimate(surface, 10**6) is surface


def test_solid_is_not_said_of_open_or_pinched_surfaces():
    vertices, faces = closed_surface(ball(), 0.5, ORIGIN, SPACING)
    assert not is_solid((vertices, faces[:-1]))
    flap = np.array([[0, 1, len(vertices)], [1, 0, len(vertices)]])  # two faces back to back on an edge
    edge = faces[0][:2]
    flap[0, :2], flap[1, :2] = edge, edge[::-1]
    assert not is_solid((np.vstack([vertices, [[0.0, 0.0, 2.0]]]), np.vstack([faces, flap])))


def test_vertices_that_share_a_place_step_apart_and_stay_a_solid():
    """Two tetrahedra that touch in a corner: joined there by place, the corner would belong to both."""
    corners = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    faces = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    both = np.vstack([corners, -corners]), np.vstack([faces, faces[:, ::-1] + 4])
    vertices, same = separated(both)
    assert len(np.unique(vertices.astype(np.float32), axis=0)) == 8
    assert np.abs(vertices - both[0]).max() < 1e-3
    assert np.array_equal(same, both[1])


def test_smoothing_is_taubins_as_trimesh_has_it():
    rough = closed_surface(ball() + 0.2 * np.random.default_rng(0).random((41, 41, 41)), 0.5, ORIGIN, SPACING)
    rough = main_pieces(rough)[0]
    theirs = trimesh.Trimesh(*rough, process=False)
    trimesh.smoothing.filter_taubin(theirs, lamb=0.5, nu=0.53, iterations=10)
    assert np.abs(smooth(rough, 10)[0] - theirs.vertices).max() < 1e-12
