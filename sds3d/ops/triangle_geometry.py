"""Normals of a triangle mesh, and points drawn on it; plain torch, any device. Corners are counter-clockwise seen from
outside."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F


def area_vectors(vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"]) -> Float[Tensor, "F 3"]:
    """(b - a) x (c - a): outwards, twice the face's area long."""
    # index_select: the backward pass of indexing may sum in another order each time
    a, b, c = (vertices.index_select(0, corner) for corner in faces.long().unbind(1))
    return torch.linalg.cross(b - a, c - a)


def face_normals(vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"]) -> Float[Tensor, "F 3"]:
    """Unit normals, outwards."""
    return F.normalize(area_vectors(vertices, faces), dim=-1, eps=1e-12)


def vertex_normals(vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"]) -> Float[Tensor, "V 3"]:
    """Unit normals: the faces' around each vertex, weighted by area."""
    vectors = area_vectors(vertices, faces)
    sums = torch.zeros_like(vertices)
    for corner in faces.long().unbind(1):
        sums = sums.index_add(0, corner, vectors)
    return F.normalize(sums, dim=-1, eps=1e-12)


def surface_samples(
    vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"], count: int, generator: torch.Generator
) -> tuple[Int[Tensor, " N"], Float[Tensor, "N 3"]]:
    """`count` points drawn uniformly from the surface: the face of each, and the weights of its corners, of sum 1.

    Weights -log(u) / sum of them are uniform over a triangle (a Dirichlet distribution of ones). No gradient.
    """
    areas = area_vectors(vertices.detach(), faces).norm(dim=-1)
    face = torch.multinomial(areas, count, replacement=True, generator=generator)
    shares = -torch.rand(count, 3, generator=generator).clamp_min(1e-12).log()  # 0 is drawn now and then
    return face, shares / shares.sum(dim=1, keepdim=True)
