"""Creases: the edges at which a surface bends sharply, and normals that do not smooth them over."""

import math

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from sds3d.ops.outlines import mesh_edges
from sds3d.ops.triangle_geometry import area_vectors

CREASE_DEG = 35.0


def edge_angles(
    vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"], edges: Int[Tensor, "E 4"]
) -> Float[Tensor, " E"]:
    """By how many degrees the surface bends at each of its `mesh_edges`; 0 at borders and beside faces without area."""
    normals = area_vectors(vertices, faces)
    first, second = normals[edges[:, 2].long()], normals[edges[:, 3].clamp_min(0).long()]
    angles = torch.atan2(torch.linalg.cross(first, second).norm(dim=1), (first * second).sum(1))
    return torch.where(edges[:, 3] >= 0, angles * (180 / math.pi), 0.0)


def crease_normals(
    vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"], crease_deg: float = CREASE_DEG
) -> tuple[Float[Tensor, "N 3"], Int[Tensor, "F 3"]]:
    """Unit normals, and which of them each corner of each face has: smooth but for edges above `crease_deg`.

    The faces around a vertex are parted by the creases that meet there; each part has the sum of its faces' normals,
    weighted by area (+z where that is 0). A crease that ends at a vertex parts nothing. Not differentiable.
    """
    vertices, corners = vertices.detach(), faces.long()
    edges = mesh_edges(faces)
    smooth = edges[(edges[:, 3] >= 0) & (edge_angles(vertices, faces, edges) <= crease_deg)].long()
    pairs = []
    for end in (0, 1):  # the corners that the edge's two faces have at this end of it belong together
        pairs.append(
            [3 * face + (corners[face] == smooth[:, end : end + 1]).int().argmax(1) for face in smooth[:, 2:].T]
        )
    one, other = (torch.cat(side).cpu().numpy() for side in zip(*pairs, strict=True))
    graph = coo_matrix((np.ones(len(one), dtype=bool), (one, other)), shape=(corners.numel(), corners.numel()))
    count, part = connected_components(graph, directed=False)
    parts = torch.from_numpy(part).to(corners)
    sums = vertices.new_zeros(count, 3).index_add(0, parts, area_vectors(vertices, faces).repeat_interleave(3, dim=0))
    length = sums.norm(dim=1, keepdim=True)
    normals = torch.where(length > 0, sums / length, vertices.new_tensor([0.0, 0.0, 1.0]))
    return normals, parts.reshape(-1, 3).to(faces)
