"""A rough surface made one that an artist would hand over: flat where it is nearly flat, with straight creases."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sds3d.ops.outlines import mesh_edges
from sds3d.ops.remesh import checked_mesh, edge_length_for, remesh, thickness

ROUNDS = 3
CREASE_DEG = 30.0
COARSER = 0.75  # of the faces: a filter's reach is one ring, and has to be as wide as the roughness
PER_THICKNESS = 6.0  # edges across a thin part, about 19 around it
FINEST = 0.4  # of the edge length elsewhere
SPREAD_STEPS = 3  # over which a thickness is shared with the neighbours, so that sizes change gradually
KEEP_DEG = 35.0  # creases that the last remeshing keeps; above CREASE_DEG, whose edges may have come out blunter


def finish(
    vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"], face_count: int, rounds: int = ROUNDS
) -> tuple[Float[Tensor, "W 3"], Int[Tensor, "G 3"]]:
    """The surface without its roughness, of about `face_count` even faces (more where parts are thin); no gradient.

    1. Remeshed, with edges of a sixth of the thickness where a part is thin in two directions (a handle, a leg).
    2. `rounds` times: face normals n filtered 20 times over one ring, n_i = unit(sum_j w_ij n_j + 0.02 n_i(start)),
       w_ij = A_j exp(-|c_i - c_j|^2 / (2 s_i s_j)) exp(-|n_i - n_j|^2 / (2 (0.2^2 + b_i^2))), where s are edge lengths
       and b = 2 s / thickness is how much a tube bends along an edge (bilateral: Zheng et al. 2011, Bilateral Normal
       Filtering for Mesh Denoising); edges at which they bend by more than 30 degrees become creases and are
       straightened along themselves, corners kept; vertices move to fit the normals (Sun et al. 2007, Fast and
       Effective Feature-Preserving Mesh Denoising), at most half an edge and 4% of the thickness in all.
    3. Scaled to the volume at the start, where the surface is closed, and remeshed with its creases kept.

    Pieces and tunnels stay, also those that noise made: close them before. Lengths are in the vertices' units, results
    in their dtypes and on their device, the same on every run. ConfigError as of `remesh`. Pitfall: what is as small as
    the roughness goes with it, such as eaves that stick out by less than two edges; compare silhouettes before
    accepting the result, or pass fewer rounds.
    """
    points, corners = checked_mesh(vertices, faces, "finish")
    before = _volume(points, corners)
    points, corners = resized(points, corners, round(COARSER * face_count), 180.0)
    points = torch.ops.sds3d.finish_mesh(points, corners, _spread_thickness(points, corners), rounds, CREASE_DEG)
    points, corners = resized(points, corners, face_count, KEEP_DEG)
    if before is not None:
        after, middle = _volume(points, corners), points.mean(dim=0)
        if after is not None and before * after > 0:
            points = middle + (before / after) ** (1 / 3) * (points - middle)
    return points.to(vertices), corners.to(faces)


def resized(points: Tensor, faces: Tensor, face_count: int, crease_deg: float) -> tuple[Tensor, Tensor]:
    """Remeshed, with shorter edges where parts are thin."""
    length = edge_length_for(points, faces, face_count)
    size = (_spread_thickness(points, faces) / PER_THICKNESS).clamp(FINEST * length, length)
    return remesh(points, faces, length, crease_deg=crease_deg, size=size)


def _spread_thickness(points: Tensor, faces: Tensor) -> Tensor:
    """The thickness, no more than the object is wide, evened out between neighbours."""
    widest = float((points.amax(dim=0) - points.amin(dim=0)).norm())
    values = thickness(points, faces).clamp(max=widest)
    a, b = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).long().unbind(1)
    a, b = torch.cat([a, b]), torch.cat([b, a])
    count = torch.zeros_like(values).index_add(0, a, torch.ones_like(values[a])).clamp(min=1)
    for _ in range(SPREAD_STEPS):
        values = (values + torch.zeros_like(values).index_add(0, a, values[b]) / count) / 2
    return values


def _volume(points: Tensor, faces: Tensor) -> float | None:
    """Sum of a . (b x c) / 6 over the faces; None for a surface with borders."""
    if bool((mesh_edges(faces)[:, 3] < 0).any()):
        return None
    a, b, c = points[faces.long()].unbind(1)
    return float((a * torch.linalg.cross(b, c)).sum()) / 6
