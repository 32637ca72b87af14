"""From a density grid to one closed, smooth, light surface.

The mesh libraries are imported where they are used: `import sds3d` reads the export options and stays quick.
"""

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy.ndimage import binary_dilation, binary_fill_holes

from sds3d.export.mesh import vertex_normals, without_unused_vertices
from sds3d.metrics.mesh import enclosed_volume, face_pieces, is_watertight

# fast_simplification's "agg": hasty collapses fold thin parts onto themselves, slow ones stop short of the count
DECIMATION_HASTE = (5.0, 4.0, 3.0, 2.0)
ALLOWED = 1.05  # times the faces that were asked for

KEPT = 0.05  # of the largest piece: the volume from which another one is a thing of its own
MOST_PIECES = 6  # more are no object but a scattered one
TOLERANCE = 0.0005  # in object sizes: where manifold3d's simplification starts

STEP_BACK, MOST_STEPS = 1e-4, 10  # in object sizes

PINHOLE = 0.03  # in object sizes

Surface = tuple[ndarray, ndarray]  # vertices [V, 3] float64, faces [F, 3] int64


def closed_surface(
    density: Float[ndarray, "X Y Z"], level: float, origin: Float[ndarray, "3"], spacing: float
) -> Surface | None:
    """Everything above `level` as closed surfaces without inner shells, in world units; None if there is nothing.

    Cavities are filled, so that a hollow cloud of splats becomes solid, also where its skin has pinholes. Cells outside
    the grid count as empty.
    """
    from skimage.measure import marching_cubes

    padded = np.pad(density.astype(np.float64), 1)
    solid = padded > level
    if not solid.any():
        return None
    inside = _cavities(solid)
    # neither side exactly on the level: the surface would touch itself in a grid point
    padded = np.where(solid, np.maximum(padded, level * 1.001), np.minimum(padded, level * 0.999))
    padded[inside & ~solid] = 2.0 * level
    vertices, faces, _, _ = marching_cubes(padded, level, gradient_direction="descent")
    vertices = origin + spacing * (vertices.astype(np.float64) - 1.0)
    faces = faces.astype(np.int64)
    if enclosed_volume(vertices, faces) < 0:
        faces = faces[:, ::-1]
    return vertices, np.ascontiguousarray(faces)


def _cavities(solid: Bool[ndarray, "X Y Z"]) -> Bool[ndarray, "X Y Z"]:
    """What the solid encloses once openings of up to PINHOLE are closed; wider ones (a mug's) stay open."""
    reach = max(1, round(0.5 * PINHOLE * max(solid.shape)))
    skin = binary_dilation(np.pad(solid, reach), iterations=reach)
    core = binary_fill_holes(skin) & ~skin
    if core.any():
        core = binary_dilation(core, iterations=reach)  # back to the skin it was kept away from
    return core[reach:-reach, reach:-reach, reach:-reach] | binary_fill_holes(solid)


def main_pieces(surface: Surface) -> tuple[Surface, float]:
    """The pieces that enclose at least KEPT of what the largest does, and the share of the volume that the others had.

    One piece for one thing without loose parts; two for two things side by side; floaters are small. Of a scene that
    fell into more than MOST_PIECES only the largest, which then does not look like its renders and is refused.
    """
    vertices, faces = surface
    piece = face_pieces(faces, len(vertices))
    volumes = np.array([enclosed_volume(vertices, faces[piece == index]) for index in range(int(piece.max()) + 1)])
    kept = volumes >= max(KEPT * volumes.max(), 0.0)
    if not 1 <= kept.sum() <= MOST_PIECES:
        kept = volumes == volumes.max()
    whole = float(volumes.clip(0.0).sum())
    share = float(volumes[~kept].clip(0.0).sum()) / whole if whole > 0 else 0.0
    return without_unused_vertices(vertices, faces[kept[piece]]), share


def is_solid(surface: Surface) -> bool:
    """Whether the surface is closed, wound consistently, touches itself in no edge, and manifold3d accepts it."""
    import manifold3d

    vertices, faces = surface
    if not is_watertight(faces):
        return False
    solid = manifold3d.Manifold(manifold3d.Mesh(vertices.astype(np.float32), faces.astype(np.uint32)))
    return solid.status() == manifold3d.Error.NoError and not solid.is_empty()


def smooth(surface: Surface, iterations: int) -> Surface:
    """Taubin's low-pass filter: takes out the grid's steps and does not shrink (Taubin 1995)."""
    import trimesh

    vertices, faces = surface
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    trimesh.smoothing.filter_taubin(mesh, lamb=0.5, nu=0.53, iterations=iterations)
    return np.asarray(mesh.vertices, dtype=np.float64), faces


def decimate(surface: Surface, face_count: int) -> Surface:
    """At most about `face_count` faces: by quadric edge collapse, the first result that is still solid.

    Where the surface is too rough for that, by manifold3d, whose collapses keep any solid a solid; the tolerance grows
    until the faces are few enough.
    """
    import fast_simplification
    import manifold3d

    vertices, faces = surface
    if face_count >= len(faces):
        return surface
    for haste in DECIMATION_HASTE:
        fewer_vertices, fewer_faces = fast_simplification.simplify(vertices, faces, target_count=face_count, agg=haste)
        fewer = without_unused_vertices(fewer_vertices, fewer_faces.astype(np.int64))
        few = len(fewer[1]) <= ALLOWED * face_count
        if few and is_solid(fewer) and _piece_count(fewer) == _piece_count(surface):
            return fewer
    solid = manifold3d.Manifold(manifold3d.Mesh(vertices.astype(np.float32), faces.astype(np.uint32)))
    tolerance = TOLERANCE * float(np.ptp(vertices, axis=0).max())
    while solid.num_tri() > face_count:
        solid = solid.simplify(tolerance)
        tolerance *= 1.5
    mesh = solid.to_mesh()
    return main_pieces((mesh.vert_properties[:, :3].astype(np.float64), mesh.tri_verts.astype(np.int64)))[0]


def separated(surface: Surface) -> Surface:
    """The same with no two vertices at one place, in float32: readers that join vertices by place would tear the solid.

    Vertices that others share their place with step back along their normals, by little, until none do.
    """
    vertices, faces = surface[0].astype(np.float32).astype(np.float64), surface[1]
    step = STEP_BACK * float(np.ptp(vertices, axis=0).max())
    for attempt in range(1, MOST_STEPS + 1):
        _, owner, count = np.unique(vertices.astype(np.float32), axis=0, return_inverse=True, return_counts=True)
        shared = np.flatnonzero(count[owner.reshape(-1)] > 1)
        if len(shared) == 0:
            break
        normals = vertex_normals(vertices, faces)[shared]
        far = step * (attempt + np.arange(len(shared)) / len(shared))  # each its own way, also along equal normals
        vertices[shared] -= far[:, None] * normals
    return vertices, faces


def _piece_count(surface: Surface) -> int:
    return int(face_pieces(surface[1], len(surface[0])).max()) + 1
