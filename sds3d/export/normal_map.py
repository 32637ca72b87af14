"""What decimation took from a surface, as a normal map in tangent space.

    texel = (n . t, n . b, n . m) / 2 + 1/2,   b = sign cross(m, t)

with n the surface's normal before, m the mesh's own there, and t its tangent towards +u, as MikkTSpace has it
(Mikkelsen 2008). Green is up in the image, towards row 0, as glTF, USD and Blender read it.
"""

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree

from sds3d.export.mesh import Mesh, SplitMesh, corner_normals, split
from sds3d.export.png import to_uint8
from sds3d.export.render_mesh import MeshView
from sds3d.export.surface import Surface

LOST_DEG = 5.0  # mean angle between the normals before and after, from where on there is a map; less is mostly noise
PROBES = 4000  # texels by which it is measured
NEAREST = 6  # faces of which the nearest that faces the same way is taken
POINTS_AT_ONCE = 1 << 16


def tangents(mesh: Mesh, parts: SplitMesh) -> Float[ndarray, "S 4"]:
    """Unit tangents of the split vertices, at right angles to their normals, and the sign of the bitangent.

    The mean of the faces' directions of +u, weighted by the angle at the vertex.
    """
    assert mesh.texture is not None
    places = mesh.vertices[parts.vertices].astype(np.float64)[parts.faces]
    uvs = (mesh.texture.uvs.astype(np.float64) * [1, -1])[parts.uvs][parts.faces]
    sides, (u, v) = places[:, 1:] - places[:, :1], np.moveaxis(uvs[:, 1:] - uvs[:, :1], -1, 0)
    area = u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]
    along = (sides[:, 0] * v[:, 1:] - sides[:, 1] * v[:, :1]) * np.sign(area)[:, None]
    sums, signs = np.zeros((len(parts.vertices), 3)), np.zeros(len(parts.vertices))
    for corner in range(3):
        vertex = parts.faces[:, corner]
        normal = parts.normals[vertex].astype(np.float64)
        ahead, behind = (_flat(places[:, (corner + step) % 3] - places[:, corner], normal) for step in (1, 2))
        angle = np.arccos((ahead * behind).sum(-1).clip(-1, 1))
        np.add.at(sums, vertex, _flat(along, normal) * angle[:, None])
        np.add.at(signs, vertex, area)
    normals = parts.normals.astype(np.float64)
    other = np.eye(3)[np.abs(normals).argmin(axis=1)]  # where all UVs fall together
    sums = np.where((np.linalg.norm(sums, axis=1) > 1e-9)[:, None], sums, other)
    return np.concatenate([_flat(sums, normals), np.where(signs < 0, -1.0, 1.0)[:, None]], axis=1).astype(np.float32)


def _flat(vectors: Float[ndarray, "Q 3"], normals: Float[ndarray, "Q 3"]) -> Float[ndarray, "Q 3"]:
    """Unit vectors without their part along the normals; 0 where nothing is left."""
    flat = vectors - (vectors * normals).sum(-1, keepdims=True) * normals
    return np.asarray(flat / np.maximum(np.linalg.norm(flat, axis=-1, keepdims=True), 1e-12))


def normal_map(mesh: Mesh, hits: MeshView, before: Surface) -> tuple[UInt8[ndarray, "h w 3"] | None, float]:
    """The map, and the mean angle in degrees that it takes away; None where that is below LOST_DEG.

    `hits` is the mesh laid flat on its texture, `before` the surface before decimation.
    """
    parts, covered = split(mesh), hits.face >= 0
    tangent, lost = tangents(mesh, parts), _Normals(mesh, before)
    corners, weights = parts.faces[hits.face[covered]], hits.barycentric[covered][..., None]
    points = (mesh.vertices[parts.vertices[corners]] * weights).sum(axis=1)
    own = (parts.normals[corners] * weights).sum(axis=1)
    own /= np.maximum(np.linalg.norm(own, axis=-1, keepdims=True), 1e-12)
    chosen = np.random.default_rng(0).integers(0, max(len(points), 1), min(PROBES, len(points)))
    cosine = (lost.at(points[chosen], own[chosen]) * own[chosen]).sum(axis=1)
    angle = float(np.degrees(np.arccos(cosine.clip(-1, 1))).mean()) if len(chosen) else 0.0
    if angle < LOST_DEG:
        return None, angle
    normals = lost.at(points, own)
    right = _flat((tangent[corners, :3] * weights).sum(axis=1), own)
    up = np.cross(own, right) * tangent[corners[:, 0], 3:]
    image = np.zeros((*hits.face.shape, 3), dtype=np.float32)
    image[covered] = np.stack([(normals * axis).sum(axis=1) for axis in (right, up, own)], axis=-1) / 2 + 0.5
    nearest = distance_transform_edt(~covered, return_distances=False, return_indices=True)
    return to_uint8(image[tuple(nearest)]), angle


class _Normals:
    """Those of a surface, smooth or with the creases that the mesh has, at the points nearest to others."""

    def __init__(self, mesh: Mesh, surface: Surface) -> None:
        like = Mesh(
            surface[0].astype(np.float32), surface[1], surface[0].astype(np.float32), crease_deg=mesh.crease_deg
        )
        normals, corners = corner_normals(like)
        self.corners, self.normals = surface[0][surface[1]], normals[corners].astype(np.float64)
        self.near = cKDTree(self.corners.mean(axis=1))

    def at(self, points: Float[ndarray, "P 3"], facing: Float[ndarray, "P 3"]) -> Float[ndarray, "P 3"]:
        """Unit normals; `facing` itself where no face nearby faces the same way: it may be the other side of a wall."""
        found = [np.zeros((0, 3))]
        for begin in range(0, len(points), POINTS_AT_ONCE):
            part = slice(begin, begin + POINTS_AT_ONCE)
            found.append(self._at(points[part].astype(np.float64), facing[part].astype(np.float64)))
        return np.concatenate(found)

    def _at(self, points: Float[ndarray, "P 3"], facing: Float[ndarray, "P 3"]) -> Float[ndarray, "P 3"]:
        faces = self.near.query(points, min(NEAREST, len(self.corners)))[1].reshape(len(points), -1)
        corners = self.corners[faces]
        inside = _feet(points[:, None], corners)[..., None]
        normals = (self.normals[faces] * inside).sum(axis=2)
        normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)
        distance = np.linalg.norm((corners * inside).sum(axis=2) - points[:, None], axis=-1)
        distance[(normals * facing[:, None]).sum(axis=-1) <= 0] = np.inf
        best, rows = distance.argmin(axis=1), np.arange(len(points))
        seen = np.isfinite(distance[rows, best])[:, None]
        return np.where(seen, normals[rows, best], facing)


def _feet(points: Float[ndarray, "P 1 3"], corners: Float[ndarray, "P K 3 3"]) -> Float[ndarray, "P K 3"]:
    """Barycentrics of the points' feet on triangles, moved to the border where they are outside."""
    ab, ac, ap = (side - corners[..., 0, :] for side in (corners[..., 1, :], corners[..., 2, :], points))
    bb, bc, cc, pb, pc = ((x * y).sum(axis=-1) for x, y in ((ab, ab), (ab, ac), (ac, ac), (ap, ab), (ap, ac)))
    area = np.maximum(bb * cc - bc * bc, 1e-30)
    v, w = (cc * pb - bc * pc) / area, (bb * pc - bc * pb) / area
    inside = np.stack([1 - v - w, v, w], axis=-1).clip(0)
    return np.asarray(inside / inside.sum(axis=-1, keepdims=True))
