"""Exact shapes: bent solids become straight ones, what is not made of planes and cones stays as it is."""

import math

import numpy as np
import pytest
import torch
import trimesh
from manifold3d import Manifold

from sds3d.errors import ConfigError
from sds3d.metrics.mesh import enclosed_volume, is_watertight
from sds3d.ops.extension import compiled
from sds3d.ops.finish import finish
from sds3d.ops.primitives import with_primitives
from sds3d.ops.remesh import edge_length_for, remesh
from tests.ops.test_remesh import cube, euler, mesh_of, sphere, torus

pytestmark = pytest.mark.skipif(not compiled(), reason="sds3d._C is not built")

FACES = 1200


def bent(mesh, amount=0.018, lean_deg=3.0, count=FACES):
    """In even faces, waves of half an object's length in all directions, leaning; as prior and splats leave things."""
    vertices, faces = remesh(*mesh, edge_length_for(*mesh, count))
    x, y, z = vertices.unbind(1)
    waves = torch.stack([torch.sin(6 * y + 5 * z), torch.sin(7 * z + 4 * x + 1), torch.sin(5 * x + 6 * y + 2)], dim=1)
    lean = torch.stack([math.tan(math.radians(lean_deg)) * z, 0 * z, 0 * z], dim=1)
    return vertices + amount * waves + lean, faces


def normals(vertices, faces):
    a, b, c = vertices[faces.long()].unbind(1)
    normal = torch.linalg.cross(b - a, c - a)
    area = normal.norm(dim=1)
    return normal / area[:, None], area / area.sum()


def share_along(mesh, directions, degrees=1.0):
    """The part of the surface that looks in one of the directions."""
    normal, area = normals(*mesh)
    directions = torch.tensor(np.array(directions), dtype=normal.dtype)
    cosine = (normal @ torch.nn.functional.normalize(directions, dim=1).T).amax(1)
    return float(area[cosine > math.cos(math.radians(degrees))].sum())


AXES = [[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]]


def test_a_bent_cube_becomes_one() -> None:
    before = bent(cube())
    assert share_along(before, AXES) < 0.1
    *after, primitives = with_primitives(*before)
    assert [p.kind for p in primitives] == ["plane"] * 6
    assert share_along(after, AXES) > 0.97
    corners = torch.tensor([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
    assert torch.cdist(corners.double(), after[0]).amin(1).max() < 0.06
    assert is_watertight(after[1].numpy())
    assert euler(after[1]) == 2
    assert enclosed_volume(*(t.numpy() for t in after)) == pytest.approx(1.0, abs=0.03)


def test_a_roof_keeps_its_slope() -> None:
    box = Manifold.cube((1.0, 0.8, 0.6), True)
    gable = Manifold.hull_points(
        np.array([[x, y, 0.3] for x in (-0.5, 0.5) for y in (-0.4, 0.4)] + [[-0.5, 0, 0.7], [0.5, 0, 0.7]])
    )
    *after, primitives = with_primitives(*bent(mesh_of(box + gable), 0.012))
    assert len(primitives) == 7
    slopes = [p.axis for p in primitives if 0.1 < p.axis[2] < 0.99]
    assert len(slopes) == 2
    for axis in slopes:  # 45 degrees, and along x exactly
        assert axis[0] == 0.0
        assert math.degrees(math.atan2(abs(axis[1]), axis[2])) == pytest.approx(45, abs=3)
    assert share_along(after, [*AXES, *slopes]) > 0.96


def test_a_bumpy_ball_becomes_a_ball() -> None:
    vertices, faces = bent(sphere(), 0.01, 0.0)
    after, corners, primitives = with_primitives(vertices, faces)
    assert [p.kind for p in primitives] == ["sphere"]
    radius = (after - torch.from_numpy(primitives[0].middle)).norm(dim=1)
    assert float(radius.std() / radius.mean()) < 0.004 < float(vertices.norm(dim=1).std() / 0.5)
    assert primitives[0].size == pytest.approx(0.5, abs=0.01)
    assert euler(corners) == 2


@pytest.mark.parametrize(("lowest", "kinds"), [(-0.42, ["sphere"]), (-0.3, ["sphere", "plane"])])
def test_a_ball_with_a_flat_bottom_becomes_a_ball_and_a_dome_stays_one(lowest: float, kinds: list[str]) -> None:
    vertices, faces = remesh(*sphere(), edge_length_for(*sphere(), FACES))
    vertices = 0.5 * vertices / vertices.norm(dim=1, keepdim=True)
    vertices[:, 2].clamp_(min=lowest)
    points, _, primitives = with_primitives(vertices, faces)
    assert [p.kind for p in primitives] == kinds
    assert float(points[:, 2].min()) == pytest.approx(-0.5 if len(kinds) == 1 else lowest, abs=0.01)


def test_a_leaning_mug_stands_upright_and_keeps_its_handle() -> None:
    handle = trimesh.creation.torus(0.22, 0.05, 40, 16)
    handle.apply_transform(trimesh.transformations.rotation_matrix(math.pi / 2, [1, 0, 0]))
    handle.apply_translation([0.4, 0.0, 0.0])
    mug = Manifold.cylinder(0.9, 0.38, 0.38, 64, True) + Manifold(_manifold_mesh(handle))
    before = bent(mesh_of(mug), 0.01, count=3000)
    *after, primitives = with_primitives(*before)
    (body,) = (p for p in primitives if p.kind == "cone")
    assert body.axis == pytest.approx([0, 0, 1])
    assert body.taper == 0.0
    assert body.size == pytest.approx(0.38, abs=0.015)
    assert sorted(p.axis[2] for p in primitives if p.kind == "plane") == [-1, 1]
    assert euler(after[1]) == euler(before[1]) == 0  # one tunnel
    reach = [float((mesh[0][:, 0] ** 2 + mesh[0][:, 1] ** 2).sqrt().max()) for mesh in (before, after)]
    assert reach[1] == pytest.approx(reach[0], abs=0.03)


def _manifold_mesh(mesh):
    from manifold3d import Mesh

    return Mesh(np.asarray(mesh.vertices, dtype=np.float32), np.asarray(mesh.faces, dtype=np.uint32))


@pytest.mark.parametrize("name", ["torus", "egg", "blob"])
def test_what_is_not_made_of_them_is_returned_as_it_is(name) -> None:
    vertices, faces = torus() if name == "torus" else sphere()
    if name == "egg":
        vertices = vertices * torch.tensor([0.6, 0.75, 1.3])
    if name == "blob":
        vertices = vertices * (1 + 0.25 * torch.sin(5 * vertices @ torch.tensor([[1.0], [2.0], [3.0]]).double()))
    same, corners, primitives = with_primitives(vertices.float(), faces)
    assert primitives == []
    assert torch.equal(same, vertices.float())
    assert torch.equal(corners, faces)


def test_the_same_on_every_run_in_the_dtypes_that_came_in() -> None:
    vertices, faces = bent(cube())
    one, other = (with_primitives(vertices.float(), faces.long()) for _ in range(2))
    assert (one[0].dtype, one[1].dtype) == (torch.float32, torch.int64)
    assert torch.equal(one[0], other[0])
    assert torch.equal(one[1], other[1])


def test_after_a_finish_that_left_the_walls_bent() -> None:
    rough = finish(*bent(cube()), FACES)
    assert share_along(rough, AXES) < 0.5
    assert share_along(with_primitives(*rough)[:2], AXES) > 0.97


def test_what_is_no_mesh_is_refused() -> None:
    vertices, faces = cube()
    with pytest.raises(ConfigError, match="with_primitives: 1 of 8 vertices are not finite"):
        with_primitives(vertices.index_fill(0, torch.tensor([3]), float("nan")), faces)
    with pytest.raises(ConfigError, match="with_primitives: the mesh has no faces"):
        with_primitives(vertices, faces[:0])
