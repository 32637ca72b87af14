"""From a density grid to one closed, smooth, decimated surface.

Slow mesh libraries are imported inside functions, because `import sds3d` imports this module.
"""

import numpy as np
from jaxtyping import Bool, Float
from manifold3d import Error
from numpy import ndarray
from scipy.ndimage import binary_dilation, label
from scipy.sparse import coo_array, diags_array

from sds3d.export.mesh import vertex_normals, without_unused_vertices
from sds3d.export.tunnels import CROSS, enclosed, with_tunnels_closed
from sds3d.metrics.mesh import as_manifold, enclosed_volume, face_pieces, face_volumes, is_watertight, triangles_of

# fast_simplification's "agg": large values fold thin parts onto themselves, small ones stop above the target
AGGRESSIVENESS = (5.0, 4.0, 3.0, 2.0)
FACE_TOLERANCE = 1.05  # times the target number of faces

MIN_VOLUME = 0.05  # of the largest piece: below this, another piece is a floater
MOST_PIECES = 6  # with more, the object is scattered
TOLERANCE = 0.0005  # in object sizes: the first one for manifold3d's simplification

STEP_BACK, MOST_STEPS = 1e-4, 10  # in object sizes

TAUBIN = (0.5, -0.53)  # steps towards the mean of the neighbours, in turn

PINHOLE = 0.03  # in object sizes: narrower openings are gaps between splats

Surface = tuple[ndarray, ndarray]  # vertices [V, 3] float64, faces [F, 3] int64


def closed_surface(
    density: Float[ndarray, "X Y Z"],
    level: float,
    origin: Float[ndarray, "3"],
    spacing: float,
    hidden: Bool[ndarray, "X Y Z"] | None = None,
) -> Surface | None:
    """The level set as closed surfaces without inner shells, in world units; None if nothing is above `level`.

    Cavities are filled: a hollow shell of splats becomes solid, even if it has pinholes. Tunnels are closed by cells
    that are `hidden`, if these are given, see `with_tunnels_closed`, and only the main pieces are left then. Cells
    outside the grid are empty.
    """
    from skimage.measure import marching_cubes

    padded = np.pad(density.astype(np.float64), 1)
    solid = padded > level
    if not solid.any():
        return None
    inside = _cavities(solid)
    # no value exactly on the level: the surface would touch itself at a grid point
    padded = np.where(solid, np.maximum(padded, level * 1.001), np.minimum(padded, level * 0.999))
    padded[inside & ~solid] = 2.0 * level
    if hidden is not None:
        changed = with_tunnels_closed(_main_cells(solid | inside), np.pad(hidden, 1)) != (padded > level)
        # as deep inside as it was outside: the surface stays nearby
        padded[changed] = np.maximum(2.0 * level - padded[changed], 0.0)
    vertices, faces, _, _ = marching_cubes(padded, level, gradient_direction="descent")
    vertices = origin + spacing * (vertices.astype(np.float64) - 1.0)
    faces = faces.astype(np.int64)
    if enclosed_volume(vertices, faces) < 0:
        faces = faces[:, ::-1]
    return vertices, np.ascontiguousarray(faces)


def _cavities(solid: Bool[ndarray, "X Y Z"]) -> Bool[ndarray, "X Y Z"]:
    """What the solid encloses after openings of up to PINHOLE are closed; wider ones, such as a mug's, stay open."""
    reach = max(1, round(0.5 * PINHOLE * max(solid.shape)))
    skin = binary_dilation(np.pad(solid, reach), iterations=reach)
    core = enclosed(skin)
    if core.any():
        core = binary_dilation(core, iterations=reach)  # back to the skin
    return core[reach:-reach, reach:-reach, reach:-reach] | enclosed(solid)


def _main_cells(solid: Bool[ndarray, "X Y Z"]) -> Bool[ndarray, "X Y Z"]:
    """The pieces of at least MIN_VOLUME of the largest one's volume; what touches in edges only is apart."""
    pieces = label(solid, CROSS)[0]
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return (sizes >= MIN_VOLUME * sizes.max())[pieces]


def main_pieces(surface: Surface) -> tuple[Surface, float]:
    """The pieces of at least MIN_VOLUME of the largest one's volume, and the volume share of the others.

    One piece for a single object, two for two objects side by side; floaters are small. Of more than MOST_PIECES only
    the largest is kept, which then does not look like the renders and is refused.
    """
    vertices, faces = surface
    piece = face_pieces(faces, len(vertices))
    volumes = np.bincount(piece, face_volumes(vertices, faces))
    main = volumes >= max(MIN_VOLUME * volumes.max(), 0.0)
    if not 1 <= main.sum() <= MOST_PIECES:
        main = volumes == volumes.max()
    whole = float(volumes.clip(0.0).sum())
    share = float(volumes[~main].clip(0.0).sum()) / whole if whole > 0 else 0.0
    return without_unused_vertices(vertices, faces[main[piece]]), share


def is_solid(surface: Surface) -> bool:
    """Whether the surface is closed, consistently wound, touches itself at no edge, and manifold3d accepts it."""
    if not is_watertight(surface[1]):
        return False
    solid = as_manifold(*surface)
    return solid.status() == Error.NoError and not solid.is_empty()


def smooth(surface: Surface, iterations: int) -> Surface:
    """Taubin's low-pass filter (1995) of a closed surface: removes the steps of the grid without shrinking."""
    vertices, faces = surface
    start, end = faces.ravel(), np.roll(faces, -1, axis=1).ravel()  # every edge of a closed surface, both ways
    ones = coo_array((np.ones(len(start)), (start, end)), shape=(len(vertices),) * 2).tocsr()
    mean = diags_array(1.0 / np.maximum(ones.sum(axis=1), 1)) @ ones
    for step in TAUBIN * (iterations // 2):
        vertices = vertices + step * (mean @ vertices - vertices)
    return vertices, faces


def decimate(surface: Surface, face_count: int) -> Surface:
    """At most about `face_count` faces, by quadric edge collapse: the first result that is still solid.

    If there is none, because the surface is too rough, by manifold3d, which keeps solids solid: its tolerance is raised
    until there are few enough faces.
    """
    import fast_simplification

    vertices, faces = surface
    if face_count >= len(faces):
        return surface
    for aggressiveness in AGGRESSIVENESS:
        fewer_vertices, fewer_faces = fast_simplification.simplify(
            vertices, faces, target_count=face_count, agg=aggressiveness
        )
        fewer = without_unused_vertices(fewer_vertices, fewer_faces.astype(np.int64))
        few = len(fewer[1]) <= FACE_TOLERANCE * face_count
        if few and is_solid(fewer) and _piece_count(fewer) == _piece_count(surface):
            return fewer
    solid = as_manifold(vertices, faces)
    tolerance = TOLERANCE * float(np.ptp(vertices, axis=0).max())
    while solid.num_tri() > face_count:
        solid = solid.simplify(tolerance)
        tolerance *= 1.5
    return main_pieces(triangles_of(solid))[0]


def separated(surface: Surface) -> Surface:
    """The surface without two vertices at one position in float32: readers that merge them would tear the solid.

    Vertices that share a position move back along their normals, by little, until none do.
    """
    vertices, faces = surface[0].astype(np.float32).astype(np.float64), surface[1]
    step = STEP_BACK * float(np.ptp(vertices, axis=0).max())
    for attempt in range(1, MOST_STEPS + 1):
        _, owner, count = np.unique(vertices.astype(np.float32), axis=0, return_inverse=True, return_counts=True)
        shared = np.flatnonzero(count[owner.reshape(-1)] > 1)
        if len(shared) == 0:
            break
        normals = vertex_normals(vertices, faces)[shared]
        distance = step * (attempt + np.arange(len(shared)) / len(shared))  # different, even for equal normals
        vertices[shared] -= distance[:, None] * normals
    return vertices, faces


def _piece_count(surface: Surface) -> int:
    return int(face_pieces(surface[1], len(surface[0])).max()) + 1
