"""Meshes for the tests of the triangle ops, and the two ways to draw them."""

import numpy as np
import torch
import trimesh
from torch import Tensor

from sds3d.cameras import orbit, project
from sds3d.ops.outlines import (
    blend_outlines,
    blend_outlines_reference,
    mesh_edges,
    outline_crossings,
    outline_crossings_reference,
)
from sds3d.ops.rasterize_triangles import (
    interpolate,
    interpolate_reference,
    rasterize_triangles,
    rasterize_triangles_reference,
)

KERNELS = (rasterize_triangles, interpolate, outline_crossings, blend_outlines)
REFERENCES = (
    rasterize_triangles_reference,
    interpolate_reference,
    outline_crossings_reference,
    blend_outlines_reference,
)


def tensors(mesh: trimesh.Trimesh) -> tuple[Tensor, Tensor]:
    """Vertices (float32) and faces (int32)."""
    return torch.tensor(mesh.vertices, dtype=torch.float32), torch.tensor(np.asarray(mesh.faces), dtype=torch.int32)


def ellipsoid(subdivisions: int = 3) -> tuple[Tensor, Tensor]:
    """Closed and smooth; its three axes differ."""
    vertices, faces = tensors(trimesh.creation.icosphere(subdivisions, 0.6))
    return vertices * torch.tensor([1.0, 0.8, 0.6]), faces


def random_mesh(seed: int, height: int, width: int, views: int = 2) -> tuple[Tensor, Tensor]:
    """Points on the screen [B, V, 3] and faces: of all sizes, some slivers, some behind the camera or off the image,
    many sharing edges."""
    generator = torch.Generator().manual_seed(seed)
    vertices = 24
    points = torch.rand(views, vertices, 3, generator=generator) * torch.tensor([width + 12.0, height + 12.0, 2.0])
    points = points + torch.tensor([-6.0, -6.0, 1.0])
    points[:, 5, 2] = -points[:, 5, 2]  # behind the camera
    points[:, 8] = points[:, 9] + 1e-3 * torch.rand(views, 3, generator=generator)  # slivers share 8 and 9
    faces = torch.stack([torch.randperm(vertices, generator=generator)[:3] for _ in range(30)])
    strip = torch.stack([torch.arange(10, 22), torch.arange(11, 23), torch.arange(12, 24)], dim=1)
    strip[1::2] = strip[1::2].flip(1)
    sliver = torch.tensor([[8, 9, 3], [9, 8, 4]])
    return points, torch.cat([faces, strip, sliver]).int()


def undecided(points: Tensor, faces: Tensor, height: int, width: int) -> Tensor:
    """Pixels [B, H, W] where float32 may rightly see another face: an edge passes the centre, or two faces are equally
    near."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    corners = points.double()[:, faces.long()][..., None, None, :]  # [B, F, 3, 1, 1, 3]
    dx, dy = corners[..., 0] - x, corners[..., 1] - y
    areas = torch.stack(
        [dx[:, :, i - 2] * dy[:, :, i - 1] - dx[:, :, i - 1] * dy[:, :, i - 2] for i in range(3)], dim=2
    )
    size = (dx.abs() + dy.abs()).amax(2)[:, :, None] ** 2
    near_edge = ((areas.abs() < 1e-5 * size) & (areas.amax(2, keepdim=True) >= -1e-5 * size)).any(2).any(1)
    total = areas.sum(2)
    inside = ((areas >= 0).all(2) | (areas <= 0).all(2)) & (total != 0)
    usable = (corners[..., 0, 0, 2] > 1e-6).all(2)[..., None, None]
    inverse = torch.where(inside & usable, (areas / corners[..., 2]).sum(2) / total, 0.0)
    two = inverse.topk(2, dim=1).values
    return near_edge | ((two[:, 0] - two[:, 1] < 1e-5 * two[:, 0]) & (two[:, 0] > 0))


def drawn(
    ops, points: Tensor, faces: Tensor, attributes: Tensor, size: tuple[int, int], antialias: bool = True
) -> Tensor:
    """The attributes and their coverage as an image, [B, H, W, K + 1]."""
    rasterize, interpolated, crossings, blend = ops
    image = rasterize(points, faces, *size)
    color = interpolated(torch.cat([attributes, attributes.new_ones(*attributes.shape[:-1], 1)], -1), faces, image)
    return blend(color, points, crossings(points, faces, mesh_edges(faces), image.depth)) if antialias else color


def coverage(vertices: Tensor, faces: Tensor, size: int, antialias: bool = True, views: int = 4) -> Tensor:
    """Which part of each pixel the mesh covers, [B, H, W, 1]."""
    points = project(vertices, orbit(views, size=size))
    return drawn(KERNELS, points, faces, vertices.detach()[:, :0], (size, size), antialias)
