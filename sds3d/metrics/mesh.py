"""Numbers about meshes: how one is built, whether it is closed, what it encloses."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from manifold3d import Manifold
from manifold3d import Mesh as ManifoldMesh
from numpy import ndarray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from sds3d.metrics.roughness import crease_figures


@dataclass(frozen=True)
class MeshStats:
    """A mesh in numbers; lengths in world units, colours in sRGB [0, 1]."""

    vertices: int
    faces: int
    pieces: int
    tunnels: int  # a ball has none, a donut and a mug with a handle have one
    roughness: float  # degrees, between the creases; this and the next as crease_figures
    crease_length: float
    watertight: bool
    extent: tuple[float, ...]  # sides of the box around it along world x, y, z
    radius: float  # of the ball around the origin that holds it
    volume: float
    mean_color: tuple[float, ...]


def mesh_statistics(
    vertices: Float[ndarray, "V 3"], faces: Int[ndarray, "F 3"], colors: Float[ndarray, "V 3"]
) -> MeshStats:
    """Statistics of an indexed mesh. Volume and tunnels mean something only where it is watertight."""
    used = vertices if len(vertices) else np.zeros((1, 3))
    roughness, crease_length = crease_figures(vertices, faces)
    return MeshStats(
        vertices=len(vertices),
        faces=len(faces),
        pieces=int(face_pieces(faces, len(vertices)).max(initial=-1)) + 1,
        tunnels=tunnel_count(vertices, faces),
        roughness=roughness,
        crease_length=crease_length,
        watertight=is_watertight(faces),
        extent=tuple(np.ptp(used, axis=0).tolist()),
        radius=float(np.linalg.norm(used, axis=1).max()),
        volume=enclosed_volume(vertices, faces),
        mean_color=tuple(colors.mean(axis=0).tolist()) if len(colors) else (0.0, 0.0, 0.0),
    )


def is_watertight(faces: Int[ndarray, "F 3"]) -> bool:
    """Whether every edge is walked once in each direction: closed, manifold at edges, consistently wound."""
    if len(faces) == 0:
        return False
    size = int(faces.max()) + 1
    start, end = faces.astype(np.int64).ravel(), np.roll(faces, -1, axis=1).astype(np.int64).ravel()
    there, back = np.sort(start * size + end), np.sort(end * size + start)
    return bool((np.diff(there) > 0).all() and np.array_equal(there, back) and (start != end).all())


def face_pieces(faces: Int[ndarray, "F 3"], vertex_count: int) -> Int[ndarray, " F"]:
    """A number per face, equal for faces that share vertices, directly or through others."""
    if len(faces) == 0:
        return np.zeros(0, dtype=np.int64)
    start, end = faces.ravel(), np.roll(faces, -1, axis=1).ravel()
    graph = coo_matrix((np.ones(len(start), dtype=bool), (start, end)), shape=(vertex_count, vertex_count))
    labels = connected_components(graph, directed=False)[1]
    return np.unique(labels[faces[:, 0]], return_inverse=True)[1].astype(np.int64)


def tunnel_count(vertices: Float[ndarray, "V 3"], faces: Int[ndarray, "F 3"]) -> int:
    """Tunnels through closed surfaces, the sum of their genera: pieces - (V - E + F) / 2, by Euler and Poincare.

    Vertices without faces do not count; those of seams must be welded.
    """
    ends = np.sort(np.stack([faces, np.roll(faces, -1, axis=1)], axis=-1).reshape(-1, 2), axis=1).astype(np.int64)
    edges = np.sort(ends[:, 0] * len(vertices) + ends[:, 1])  # several times as fast as np.unique
    edge_count = int(np.count_nonzero(np.diff(edges, prepend=-1)))
    pieces = int(face_pieces(faces, len(vertices)).max(initial=-1)) + 1
    vertex_count = int(np.count_nonzero(np.bincount(faces.ravel())))
    return pieces - (vertex_count - edge_count + len(faces)) // 2


def enclosed_volume(vertices: Float[ndarray, "V 3"], faces: Int[ndarray, "F 3"]) -> float:
    """Signed volume by the divergence theorem, positive when faces wind outwards."""
    return float(face_volumes(vertices, faces).sum())


def face_volumes(vertices: Float[ndarray, "V 3"], faces: Int[ndarray, "F 3"]) -> Float[ndarray, " F"]:
    """What each face adds to the enclosed volume:  v0 . (v1 x v2) / 6."""
    corners = vertices.astype(np.float64)[faces]
    return np.asarray(np.einsum("fi,fi->f", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6.0)


def as_manifold(vertices: Float[ndarray, "V 3"], faces: Int[ndarray, "F 3"]) -> Manifold:
    """As a solid of manifold3d; an empty one if the surface is not closed."""
    return Manifold(ManifoldMesh(np.ascontiguousarray(vertices, np.float32), np.ascontiguousarray(faces, np.uint32)))


def triangles_of(body: Manifold) -> tuple[Float[ndarray, "V 3"], Int[ndarray, "F 3"]]:
    """The surface of a solid: vertices, float64, and faces, int64."""
    mesh = body.to_mesh()
    return mesh.vert_properties[:, :3].astype(np.float64), mesh.tri_verts.astype(np.int64)


def volume_iou(first: Manifold, second: Manifold) -> float:
    """Volume of the intersection over that of the union."""
    both = (first ^ second).volume()
    return both / (first.volume() + second.volume() - both)
