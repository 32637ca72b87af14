"""Finishing: roughness goes, creases, thin parts, volume and topology stay."""

import numpy as np
import pytest
import torch
import trimesh
from manifold3d import Manifold

from sds3d.errors import ConfigError
from sds3d.metrics.mesh import enclosed_volume, is_watertight
from sds3d.ops.extension import compiled
from sds3d.ops.finish import finish
from sds3d.ops.outlines import mesh_edges
from sds3d.ops.remesh import edge_length_for, remesh
from tests.ops.test_remesh import cube, euler, mesh_of, quality, sphere, tensors, torus

pytestmark = pytest.mark.skipif(not compiled(), reason="sds3d._C is not built")


def normals(vertices, faces):
    a, b, c = vertices[faces.long()].unbind(1)
    normal = torch.linalg.cross(b - a, c - a)
    return torch.nn.functional.normalize(normal, dim=1), normal.norm(dim=1) / 2


def bends(vertices, faces):
    """Degrees by which each edge bends."""
    normal, _ = normals(vertices, faces)
    edges = mesh_edges(faces).long()
    return torch.rad2deg(torch.acos((normal[edges[:, 2]] * normal[edges[:, 3]]).sum(1).clamp(-1, 1)))


def roughened(vertices, faces, share=0.2, count=6000):
    """Even faces, each vertex off along its normal by about `share` of an edge."""
    h = edge_length_for(vertices, faces, count)
    vertices, faces = remesh(vertices, faces, h)
    normal, area = normals(vertices, faces)
    around = torch.zeros_like(vertices).index_add(
        0, faces.long().flatten(), (normal * area[:, None]).repeat_interleave(3, 0)
    )
    noise = torch.randn(len(vertices), 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return vertices + share * h * noise * torch.nn.functional.normalize(around, dim=1), faces


def test_a_rough_cube_becomes_a_cube() -> None:
    rough = roughened(*cube())
    done = finish(*rough, 6000)

    def within(mesh, degrees):
        normal, area = normals(*mesh)
        angle = torch.rad2deg(torch.acos(normal.abs().amax(1).clamp(max=1)))
        return float(area[angle < degrees].sum() / area.sum())

    assert within(rough, 12) < 0.5
    assert within(done, 12) > 0.95
    assert within(done, 5) > 0.9
    assert enclosed_volume(done[0].numpy(), done[1].numpy()) == pytest.approx(
        enclosed_volume(rough[0].numpy(), rough[1].numpy()), rel=1e-9
    )
    corners = torch.cdist(cube()[0], done[0]).min(1).values
    assert float(corners.max()) < 0.04  # an edge is 0.045
    assert is_watertight(done[1].numpy())
    assert float(quality(*done).min()) > 0.1


def test_a_rough_sphere_stays_a_sphere_without_creases() -> None:
    rough = roughened(*sphere())
    vertices, faces = finish(*rough, 6000)
    radius = vertices.norm(dim=1)
    assert float(radius.std() / radius.mean()) < 0.005
    assert float(bends(vertices, faces).max()) < 20
    assert float(bends(*rough).mean()) > 4 * float(bends(vertices, faces).mean())


def test_a_rough_tube_keeps_its_radius_and_is_not_faceted() -> None:
    rough = roughened(*torus())
    vertices, faces = finish(*rough, 6000)
    assert euler(faces) == 0
    tube = torch.hypot(torch.hypot(vertices[:, 0], vertices[:, 1]) - 0.4, vertices[:, 2])
    assert float(tube.mean()) == pytest.approx(0.12, rel=0.02)
    assert float(tube.std()) < 0.006
    assert float(bends(vertices, faces).quantile(0.99)) < 20


def test_thin_parts_get_more_faces_and_stay() -> None:
    rod = Manifold.cylinder(0.8, 0.04, 0.04, 32).translate((0, 0, 0.3))
    vertices, faces = finish(*roughened(*mesh_of(Manifold.cube((0.8, 0.8, 0.8), True) + rod), 0.1), 4000)
    middle = vertices[(vertices[:, 2] > 0.6) & (vertices[:, 2] < 0.9)]
    radius = middle[:, :2].norm(dim=1)
    assert float(radius.mean()) == pytest.approx(0.04, rel=0.15)
    assert float(radius.std()) < 0.006
    assert float(vertices[:, 2].max()) > 1.05
    ring = mesh_edges(faces).long()[:, :2]
    lengths = (vertices[ring[:, 0]] - vertices[ring[:, 1]]).norm(dim=1)
    high = vertices[ring, 2].mean(1) > 0.6
    assert float(lengths[high].mean()) < 0.6 * float(lengths[~high].mean())


def test_a_ledge_stays_a_ledge() -> None:
    """A concave edge is as good as a convex one."""
    slab = Manifold.cube((1.0, 1.0, 0.4), True) + Manifold.cube((0.5, 0.5, 0.8), True)
    vertices, faces = finish(*roughened(*mesh_of(slab), 0.15), 6000)
    normal, area = normals(vertices, faces)
    top = vertices[faces.long()].mean(1)
    ledge = (
        (top[:, 2] > 0.15) & (top[:, 2] < 0.25) & (top[:, :2].abs().amax(1) > 0.3) & (top[:, :2].abs().amax(1) < 0.45)
    )
    assert float(normal[ledge, 2].mean()) > 0.99
    assert float(area[ledge].sum()) == pytest.approx(0.9**2 - 0.6**2, rel=0.08)


def test_the_same_on_every_run_and_with_the_inputs_dtypes() -> None:
    vertices, faces = roughened(*sphere(3), count=1000)
    once, again = finish(vertices.float(), faces.long(), 800), finish(vertices.float(), faces.long(), 800)
    assert once[0].dtype == torch.float32
    assert once[1].dtype == torch.int64
    assert torch.equal(once[0], again[0])
    assert torch.equal(once[1], again[1])


def test_open_surfaces_keep_their_border_and_bad_ones_are_refused() -> None:
    plane = trimesh.creation.icosphere(4, 0.5)
    keep = np.asarray(plane.triangles_center)[:, 2] > 0
    vertices, faces = finish(*tensors(plane.vertices, plane.faces[keep]), 1500)
    assert euler(faces) == 1
    assert float(vertices[:, 2].min()) == pytest.approx(0.0, abs=0.03)
    with pytest.raises(ConfigError, match="finish: 642 of 642 vertices are not finite"):
        finish(sphere(3)[0] * torch.inf, sphere(3)[1], 500)
