"""The last look at a mesh before it is handed over."""

import numpy as np

from sds3d.errors import ExportError
from sds3d.export.mesh import Mesh
from sds3d.metrics.mesh import MeshStats, mesh_statistics

MAX_RADIUS = 1.2  # the object belongs inside the unit ball
MIN_EXTENT = 0.05
BLACK = 0.02  # sRGB; a black object that is lit by the prior's light still has brighter places
RETRY = "let the run go on for more steps, or try another seed"


def check_mesh(mesh: Mesh) -> MeshStats:
    """Statistics of a mesh as it was read back; ExportError with the reason where nobody would want it."""
    if len(mesh.faces) == 0 or len(mesh.vertices) == 0:
        raise ExportError("the mesh is empty", hint=RETRY)
    if not (np.isfinite(mesh.vertices).all() and np.isfinite(mesh.colors).all()):
        raise ExportError("the mesh has coordinates or colours that are not finite", hint=RETRY)
    stats = mesh_statistics(mesh.vertices, mesh.faces, mesh.colors)
    if stats.radius > MAX_RADIUS:
        raise ExportError(
            f"the mesh has exploded: it reaches {stats.radius:.2f} from the centre, where 1 is the most",
            hint="lower the learning rates or the guidance scale, or try another seed",
        )
    if max(stats.extent) < MIN_EXTENT:
        raise ExportError(f"the mesh is only {max(stats.extent):.3f} across, where 1 to 2 is usual", hint=RETRY)
    if float(np.percentile(mesh.colors.max(axis=-1), 99)) < BLACK:
        raise ExportError("the mesh is black all over", hint="try another seed or a lower guidance scale")
    if not stats.watertight:
        raise ExportError("the mesh has holes", hint="try another export.resolution")
    return stats
