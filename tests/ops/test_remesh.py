"""Remeshing: even faces on the same surface, creases and topology kept, refusals."""

import math
import time

import numpy as np
import pytest
import torch
import trimesh
from manifold3d import Manifold

from sds3d.errors import ConfigError
from sds3d.metrics.mesh import enclosed_volume, is_watertight, triangles_of
from sds3d.ops import remesh as module
from sds3d.ops.extension import compiled
from sds3d.ops.outlines import mesh_edges
from sds3d.ops.remesh import edge_length_for, remesh, thickness

pytestmark = pytest.mark.skipif(not compiled(), reason="sds3d._C is not built")


def tensors(vertices, faces):
    return torch.as_tensor(np.asarray(vertices), dtype=torch.float64), torch.as_tensor(np.asarray(faces)).int()


def mesh_of(body):
    return tensors(*triangles_of(body))


def cube():
    return mesh_of(Manifold.cube((1, 1, 1), True))


def house():
    """A box under a pyramid that sticks out."""
    roof = [[x, y, z] for x in (-0.65, 0.65) for y in (-0.55, 0.55) for z in (0.3, 0.36)]
    return mesh_of(Manifold.cube((1.0, 0.8, 0.6), True) + Manifold.hull_points(np.array([*roof, [0, 0, 0.8]])))


def torus():
    mesh = trimesh.creation.torus(0.4, 0.12, 48, 24)
    return tensors(mesh.vertices, mesh.faces)


def sphere(levels=4):
    ball = trimesh.creation.icosphere(levels, 0.5)
    return tensors(ball.vertices, ball.faces)


def quality(vertices, faces):
    """1 for equilateral faces, 0 for flat ones."""
    a, b, c = vertices.double()[faces.long()].unbind(1)
    sides = sum((p - q).square().sum(1) for p, q in ((a, b), (b, c), (c, a)))
    return 2 * math.sqrt(3) * torch.linalg.cross(b - a, c - a).norm(dim=1) / sides


def euler(faces):
    return len(faces.unique()) - len(mesh_edges(faces)) + len(faces)


@pytest.mark.parametrize("make", [cube, house, torus, sphere])
@pytest.mark.parametrize("count", [1000, 6000])
def test_faces_are_even_and_the_solid_stays_the_same(make, count) -> None:
    vertices, faces = make()
    h = edge_length_for(vertices, faces, count)
    new_vertices, new_faces = remesh(vertices, faces, h)
    assert len(new_faces) == pytest.approx(count, rel=0.25)
    assert is_watertight(new_faces.numpy())
    assert euler(new_faces) == euler(faces)
    assert float(quality(new_vertices, new_faces).min()) > 0.2
    assert float(quality(new_vertices, new_faces).mean()) > 0.9
    ends = new_vertices[mesh_edges(new_faces)[:, :2].long()]
    lengths = (ends[:, 0] - ends[:, 1]).norm(dim=1) / h
    assert float(((lengths > 0.6) & (lengths < 1.5)).double().mean()) > 0.95
    volume = enclosed_volume(vertices.numpy(), faces.numpy())
    assert enclosed_volume(new_vertices.numpy(), new_faces.numpy()) == pytest.approx(
        volume, rel=0.05 if count < 6000 else 0.01
    )


@pytest.mark.parametrize("make", [cube, house])
def test_creases_stay_and_corners_do_not_move(make) -> None:
    vertices, faces = make()
    new_vertices, new_faces = remesh(vertices, faces, 0.05)
    distance = torch.cdist(vertices, new_vertices).min(1).values
    corners = distance < 1e-12  # the vertices that triangulation put into flat places may go
    assert int(corners.sum()) >= (8 if make is cube else 17)
    assert enclosed_volume(new_vertices.numpy(), new_faces.numpy()) == pytest.approx(
        enclosed_volume(vertices.numpy(), faces.numpy()), rel=1e-9
    )


def test_vertices_lie_on_the_given_surface() -> None:
    vertices, faces = torus()
    new_vertices, _ = remesh(vertices, faces, 0.05)
    _, distance, _ = trimesh.proximity.closest_point_naive(
        trimesh.Trimesh(vertices, faces, process=False), new_vertices[:300].numpy()
    )
    assert distance.max() < 2e-3  # those that the last flips and collapses touched may be a little off


def test_an_open_surface_keeps_its_border() -> None:
    x, y = np.meshgrid(np.linspace(0, 1, 9), np.linspace(0, 1, 9), indexing="ij")
    cell = np.array([[0, 9, 10], [0, 10, 1]])
    faces = np.concatenate([cell + 9 * i + j for i in range(8) for j in range(8)])
    vertices, faces = tensors(np.stack([x, y, 0 * x], -1).reshape(-1, 3), faces)
    new_vertices, new_faces = remesh(vertices, faces, 0.06)
    a, b, c = new_vertices[new_faces.long()].unbind(1)
    area = torch.linalg.cross(b - a, c - a)[:, 2] / 2
    assert float(area.min()) > 0
    assert float(area.sum()) == pytest.approx(1.0, abs=1e-12)
    assert euler(new_faces) == 1


def test_a_size_field_puts_faces_where_it_asks_for_them() -> None:
    vertices, faces = sphere()
    size = torch.where(vertices[:, 2] > 0, 0.02, 0.08).double()
    new_vertices, new_faces = remesh(vertices, faces, 0.08, size=size)
    ends = new_vertices[mesh_edges(new_faces)[:, :2].long()]
    lengths, height = (ends[:, 0] - ends[:, 1]).norm(dim=1), ends[:, :, 2].mean(1)
    assert float(lengths[height > 0.15].mean()) == pytest.approx(0.02, rel=0.15)
    assert float(lengths[height < -0.15].mean()) == pytest.approx(0.08, rel=0.15)


def test_thickness_tells_a_handle_from_a_plate_and_a_body() -> None:
    rod = trimesh.creation.cylinder(0.05, 1.0, sections=24)
    vertices, faces = remesh(*tensors(rod.vertices, rod.faces), 0.03)
    middle = vertices[:, 2].abs() < 0.4
    assert float(thickness(vertices, faces)[middle].median()) == pytest.approx(0.1, rel=0.15)
    vertices, faces = remesh(*mesh_of(Manifold.cube((1, 1, 0.1), True)), 0.05)
    inner = (vertices[:, :2].abs() < 0.3).all(1)
    assert float(thickness(vertices, faces)[inner].min()) > 0.35
    vertices, faces = sphere()
    assert float(thickness(vertices, faces).min()) == pytest.approx(1.0, rel=0.1)
    open_faces = faces[vertices[faces.long()].mean(1)[:, 2] > 0.2]
    assert bool(thickness(vertices, open_faces)[open_faces.long().unique()].isinf().any())


def test_slivers_and_folds_of_the_input_go() -> None:
    vertices, faces = sphere(3)
    generator = torch.Generator().manual_seed(0)
    vertices = vertices + 0.02 * torch.randn(vertices.shape, generator=generator, dtype=torch.float64)
    vertices[faces[0, 0].long()] = vertices[faces[0, 1].long()]  # two faces without area
    new_vertices, new_faces = remesh(vertices, faces, 0.06, crease_deg=180.0)
    assert float(quality(new_vertices, new_faces).min()) > 0.2
    assert is_watertight(new_faces.numpy())


def test_random_meshes_keep_their_topology_and_every_run_is_the_same() -> None:
    generator = np.random.default_rng(0)
    makes = [cube, house, torus, lambda: sphere(2), lambda: mesh_of(Manifold.tetrahedron())]
    for number in range(40):
        vertices, faces = makes[number % len(makes)]()
        vertices = vertices + generator.choice([0, 0.002, 0.03]) * torch.tensor(generator.normal(size=vertices.shape))
        length, crease = float(generator.uniform(0.04, 0.6)), float(generator.choice([20, 40, 180]))
        size = torch.tensor(generator.uniform(0.5, 1.5, len(vertices)) * length) if number % 3 == 0 else None
        once = remesh(vertices, faces, length, 3, crease, size)
        again = remesh(vertices, faces, length, 3, crease, size)
        assert torch.equal(once[0], again[0])
        assert torch.equal(once[1], again[1])
        assert is_watertight(once[1].numpy()), number
        assert euler(once[1]) == euler(faces), number
        assert bool(once[0].isfinite().all())


def test_fans_that_touch_in_a_point_come_apart() -> None:
    two = torch.tensor([[0, 1, 2], [0, 3, 4]], dtype=torch.int32)
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0]])
    new_vertices, new_faces = remesh(vertices, two, 2.0, iterations=0)
    assert (len(new_vertices), len(new_faces)) == (6, 2)
    assert new_vertices.dtype == torch.float32
    assert new_faces.dtype == torch.int32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v, f: (v.clone().fill_(math.nan), f), "12 of 12 vertices are not finite"),
        (lambda v, f: (v, f + 1), "faces name vertices 1 to 12, and there are 12"),
        (lambda v, f: (v, f[:0]), "no faces"),
        (lambda v, f: (v, torch.cat([f, f[:1]])), "has 3 faces"),
        (lambda v, f: (v, torch.cat([f[1:], f[:1].flip(1)])), "walked twice in the same direction"),
        (lambda v, f: (v, f[:, [0, 0, 1]]), "name a vertex twice"),
    ],
)
def test_what_cannot_be_remeshed_is_refused(change, message) -> None:
    with pytest.raises(ConfigError, match=message):
        remesh(*change(*sphere(0)), 0.3)


def test_limits_and_options_are_checked(monkeypatch) -> None:
    vertices, faces = sphere(1)
    with pytest.raises(ConfigError, match="too short for this surface"):
        remesh(vertices, faces, 1e-4)
    for bad in ({"edge_length": 0.0}, {"edge_length": math.nan}, {"edge_length": 1.0, "iterations": -1}):
        with pytest.raises(ConfigError):
            remesh(vertices, faces, **bad)
    with pytest.raises(ConfigError, match="size needs a number above 0"):
        remesh(vertices, faces, 1.0, size=torch.zeros(len(vertices)))
    monkeypatch.setattr(module, "MOST_FACES", 50)
    with pytest.raises(ConfigError, match="80 faces, and 50 are allowed"):
        remesh(vertices, faces, 1.0)


def test_many_faces_take_bounded_time() -> None:
    vertices, faces = sphere(5)  # 20 thousand
    start = time.process_time()
    remesh(vertices, faces, edge_length_for(vertices, faces, 8000))
    assert time.process_time() - start < 1.5  # 0.1 to 0.2 on an idle core
