"""Antialiased outlines: areas that are exact, gradients that are those of the image, edges and crossings by hand."""

import pytest
import torch
import trimesh

from sds3d.ops.extension import compiled
from sds3d.ops.outlines import (
    blend_outlines,
    mesh_edges,
    outline_crossings,
)
from sds3d.ops.rasterize_triangles import rasterize_triangles
from tests.ops.mesh_cases import coverage, ellipsoid, tensors


def test_edges_of_a_closed_mesh_have_two_faces_each() -> None:
    _, faces = ellipsoid(1)
    edges = mesh_edges(faces)
    assert len(edges) == len(faces) * 3 // 2
    corners = faces.long()
    for a, b, one, two in edges.tolist():
        assert {a, b} <= set(corners[one].tolist())
        assert {a, b} <= set(corners[two].tolist())
        first = corners[one].tolist()
        assert first[(first.index(a) + 1) % 3] == b  # as the first face walks it
    assert len({tuple(sorted(row[:2])) for row in edges.tolist()}) == len(edges)


def test_edges_at_borders_and_of_three_faces() -> None:
    fan = torch.tensor([[0, 1, 2], [1, 0, 3], [0, 1, 4]], dtype=torch.int32)
    rows = sorted((min(a, b), max(a, b), one, two) for a, b, one, two in mesh_edges(fan).tolist())
    assert [row for row in rows if row[:2] == (0, 1)] == [(0, 1, 0, 1), (0, 1, 2, -1)]
    assert all(two == -1 for a, b, _, two in rows if (a, b) != (0, 1))
    assert mesh_edges(fan[:0]).shape == (0, 4)


@pytest.mark.parametrize("size", [64, 128, 256])
def test_the_area_covered_is_exact(size) -> None:
    """Against the same mesh at 2048 pixels, without antialiasing. 1e-4 of the image is a hundredth of a pixel of
    outline; without antialiasing it is off by up to ten times that."""
    vertices, faces = ellipsoid(4)
    exact = coverage(vertices, faces, 2048, antialias=False).mean(dim=(1, 2, 3))
    assert ((coverage(vertices, faces, size).mean(dim=(1, 2, 3)) - exact).abs() < 5e-5).all()


def move(vertices, kind, amount):
    if kind == "scale":
        return vertices * (1 + amount)
    if kind == "rotation":  # about the first view's axis
        turn = torch.stack([amount.cos(), -amount.sin(), amount.sin(), amount.cos()]).view(2, 2)
        return torch.cat([vertices[:, :1], vertices[:, 1:] @ turn.T], 1)
    return vertices + amount * torch.tensor([0.3, 0.7, 0.5])


@pytest.mark.slow
@pytest.mark.parametrize("size", [64, 128, 256])
@pytest.mark.parametrize("kind", ["translation", "rotation", "scale"])
def test_the_gradient_of_an_image_is_that_of_finite_differences(kind, size) -> None:
    """The mean of the image under a smooth weight at `size` pixels, against differences at 1024."""
    vertices, faces = ellipsoid(4)

    def mean(amount, pixels):
        x = (torch.arange(pixels) + 0.5) / pixels
        phase = torch.arange(8)[:, None, None]  # another weight in each view, so that theirs do not cancel
        weight = torch.sin(3 * x + 1 + phase) * torch.cos(2 * x[:, None])
        return (coverage(move(vertices, kind, amount), faces, pixels, views=8)[..., 0] * weight).mean()

    amount = torch.zeros((), requires_grad=True)
    mean(amount, size).backward()
    with torch.no_grad():
        step = torch.tensor(0.02)
        difference = (mean(step, 1024) - mean(-step, 1024)) / (2 * step)
    assert float(amount.grad) == pytest.approx(float(difference), rel=0.01)


def test_a_square_grows_by_what_its_side_moves() -> None:
    """Five rows each lose what the left side moves to the right, and nothing else changes."""
    points, faces = square(2.3)
    points.requires_grad_()
    image = rasterize_triangles(points, faces, 8, 8)
    seen = (image.face >= 0).float()[..., None]
    blend_outlines(seen, points, outline_crossings(points, faces, mesh_edges(faces), image.depth)).sum().backward()
    assert float(points.grad[0, :2, 0].sum()) == pytest.approx(-5)
    assert float(points.grad[0, 2:, 0].sum()) == pytest.approx(5)
    assert points.grad[..., 2].abs().max() == 0


def test_faces_smaller_than_a_pixel_lose_nothing() -> None:
    """The gradient to a mesh's scale is the same with 80 faces a pixel as with one face for several pixels."""
    found = []
    for subdivisions in (3, 6):
        vertices, faces = tensors(trimesh.creation.icosphere(subdivisions, 0.6))
        scale = torch.ones((), requires_grad=True)
        coverage(vertices * scale, faces, 24).mean().backward()
        found.append(float(scale.grad))
    assert found[1] == pytest.approx(found[0], rel=0.02)


def square(left: float, depth: float = 2.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Two faces that look at the camera, from `left` to 6 and from 1 to 6, in pixels."""
    corners = [[left, 1, depth], [left, 6, depth], [6, 6, depth], [6, 1, depth]]
    return torch.tensor([corners]), torch.tensor([[0, 1, 2], [0, 2, 3]], dtype=torch.int32)


@pytest.mark.parametrize(("left", "expected"), [(2.2, 0.8), (2.5, 0.5), (2.8, 0.2), (3.0, 0.0)])
def test_a_pixel_is_covered_in_part(left, expected) -> None:
    points, faces = square(left)
    image = rasterize_triangles(points, faces, 8, 8)
    crossings = outline_crossings(points, faces, mesh_edges(faces), image.depth)
    seen = blend_outlines((image.face >= 0).float()[..., None], points, crossings)[0, 3, :, 0]
    assert seen.tolist() == pytest.approx([0, 0, expected, 1, 1, 1, 0, 0], abs=1e-6)


def test_a_hidden_edge_and_the_far_side_of_an_open_mesh() -> None:
    """An edge behind another surface is no outline; what is in front of something blends with what it hides."""
    near, faces = square(3.3, depth=1.0)
    far, _ = square(0.6, depth=3.0)
    points = torch.cat([near, far], 1)
    both = torch.cat([faces, faces + 4])
    image = rasterize_triangles(points, both, 8, 8)
    color = torch.stack([(image.face >= 2), (image.face >= 0) & (image.face < 2)], -1).float()
    seen = blend_outlines(color, points, outline_crossings(points, both, mesh_edges(both), image.depth))[0, 3]
    assert seen[:, 1].tolist() == pytest.approx([0, 0, 0, 0.7, 1, 1, 0, 0], abs=1e-6)
    assert seen[:, 0].tolist() == pytest.approx([0.4, 1, 1, 0.3, 0, 0, 0, 0], abs=1e-6)


def test_the_tolerance_keeps_a_surface_from_outlining_itself() -> None:
    """A step of 0.01 in depth within one surface is taken for an outline only below that tolerance."""
    near, faces = square(3.3, depth=2.0)
    far, _ = square(0.6, depth=2.01)
    points, both = torch.cat([near, far], 1), torch.cat([faces, faces + 4])
    image = rasterize_triangles(points, both, 8, 8)
    for tolerance, expected in ((0.02, 0), (0.001, 5)):  # five rows
        index = outline_crossings(points, both, mesh_edges(both), image.depth, tolerance).place
        columns = index[:, 1:3] % 8
        assert int((columns.sort(1).values == torch.tensor([2, 3])).all(1).sum()) == expected


@pytest.mark.skipif(not compiled(), reason="sds3d._C is not built")
def test_the_operators_keep_torch_s_rules() -> None:
    points, faces = square(2.3)
    image = rasterize_triangles(points, faces, 8, 8)
    edges = mesh_edges(faces)
    crossings = outline_crossings(points, faces, edges, image.depth)
    color = torch.rand(1, 8, 8, 3, requires_grad=True)
    given = (color, points.requires_grad_(), *crossings, False)
    torch.library.opcheck(torch.ops.sds3d.blend_outlines.default, given)
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(
        torch.ops.sds3d.outline_crossings.default, (points.detach(), faces, edges, image.depth, 0.02), test_utils=checks
    )
    with pytest.raises(RuntimeError, match="index"):
        torch.ops.sds3d.blend_outlines(color, points, crossings.place.long(), crossings.value, False)
