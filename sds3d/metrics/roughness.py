"""How rough a mesh is between its creases, and how long these are: what an artist sees in clay, and overlaps do not."""

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.sparse import coo_matrix, diags_array, eye_array

from sds3d.ops.creases import CREASE_DEG, edge_angles
from sds3d.ops.outlines import mesh_edges
from sds3d.ops.triangle_geometry import area_vectors, vertex_normals

RIDGE = 1e-3  # of the fits, in squared edge lengths: decides where there are fewer neighbours than coefficients


def crease_figures(vertices: Float[ndarray, "V 3"], faces: Int[ndarray, "F 3"]) -> tuple[float, float]:
    """(roughness in degrees, length of the creases in radii of the bounding ball around the box's centre).

    Roughness: by how much a face turns when every vertex moves, along its normal, onto the quadric that is fitted to
    the vertices within two edges of it; mean over the faces, weighted by area. 0 for planes, next to 0 for balls,
    cylinders and cones, whatever their triangles. Vertices on creases (edges above CREASE_DEG) stay where they are,
    and no fit reaches across one. Seams must be welded; (0, 0) without faces.
    """
    if len(faces) == 0:
        return 0.0, 0.0
    points, corners = vertices.astype(np.float64), torch.from_numpy(faces)
    edges = mesh_edges(corners)
    angles = edge_angles(torch.from_numpy(points), corners, edges).numpy()
    ends = edges[:, :2].long().numpy()
    length = np.linalg.norm(points[ends[:, 0]] - points[ends[:, 1]], axis=1)
    sharp = angles > CREASE_DEG
    used = points[np.unique(faces)]
    radius = np.linalg.norm(used - (used.min(axis=0) + used.max(axis=0)) / 2, axis=1).max()
    fitted = _on_quadrics(points, faces, ends, np.unique(ends[sharp]))
    before, after = (area_vectors(torch.from_numpy(each), corners).numpy() for each in (points, fitted))
    turned = np.arctan2(np.linalg.norm(np.cross(before, after), axis=1), (before * after).sum(axis=1))
    area = np.linalg.norm(before, axis=1)
    roughness = float(np.degrees((turned * area).sum() / max(area.sum(), 1e-300)))
    return roughness, float(length[sharp].sum() / max(radius, 1e-300))


def _on_quadrics(
    points: Float[ndarray, "V 3"], faces: Int[ndarray, "F 3"], ends: Int[ndarray, "E 2"], fixed: Int[ndarray, " C"]
) -> Float[ndarray, "V 3"]:
    """Every vertex moved along its normal n onto  z = a x^2 + b xy + c y^2 + d x + e y + f,  in edge lengths, by least
    squares over itself and the vertices within two edges, on paths that do not pass `fixed` ones; those stay."""
    count = len(points)
    free = np.ones(count)
    free[fixed] = 0.0
    both = np.concatenate([ends, ends[:, ::-1]])
    near = coo_matrix((np.ones(len(both)), tuple(both.T)), shape=(count, count)).tocsr() + eye_array(
        count, format="csr"
    )
    pairs = (diags_array(free) @ near @ diags_array(free) @ near).tocsr()  # the middle of a path is free, too
    pairs.eliminate_zeros()
    rows, columns = pairs.nonzero()
    if len(rows) == 0:
        return points
    normals = vertex_normals(torch.from_numpy(points), torch.from_numpy(faces)).numpy()
    side = np.cross(normals, np.eye(3)[np.abs(normals).argmin(axis=1)])
    side /= np.maximum(np.linalg.norm(side, axis=1, keepdims=True), 1e-300)
    frames = np.stack([side, np.cross(normals, side), normals], axis=1)
    lengths = np.linalg.norm(points[both[:, 0]] - points[both[:, 1]], axis=1)
    scale = np.bincount(both[:, 0], lengths, count) / np.maximum(np.bincount(both[:, 0], minlength=count), 1)
    offsets = (points[columns] - points[rows]) / np.maximum(scale[rows, None], 1e-300)
    x, y, z = np.einsum("pij,pj->ip", frames[rows], offsets)
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=1)
    first = np.flatnonzero(np.diff(rows, prepend=-1))
    squares = np.add.reduceat(terms[:, :, None] * terms[:, None], first) + RIDGE * np.diag([0.0, 1, 1, 1, 1, 1])
    height = np.linalg.solve(squares, np.add.reduceat(terms * z[:, None], first)[..., None])[:, 0, 0]
    moved, who = points.copy(), rows[first]
    moved[who] += (scale[who] * height)[:, None] * normals[who]
    return moved
