"""Triangles of even size and shape over the same surface, with creases, corners and borders kept (Botsch and Kobbelt
2004, A Remeshing Approach to Multiresolution Modeling); and how thick a solid is. CPU only."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sds3d.errors import ConfigError, ExtensionUnavailable
from sds3d.ops.extension import BUILD_COMMAND, backend_info, compiled
from sds3d.ops.triangle_geometry import area_vectors, vertex_normals

MOST_FACES = 1_000_000  # in: about five seconds on one core
MOST_RESULT = 300_000  # out: about ten
FEWER_FACES = 0.94  # remeshed edges come out a little longer than asked for


def remesh(
    vertices: Float[Tensor, "V 3"],
    faces: Int[Tensor, "F 3"],
    edge_length: float,
    iterations: int = 6,
    crease_deg: float = 40.0,
    size: Float[Tensor, " V"] | None = None,
) -> tuple[Float[Tensor, "W 3"], Int[Tensor, "G 3"]]:
    """The surface with edges of about `edge_length`, in the vertices' units; no gradient.

    Each of `iterations` splits edges above 4/3 of the target, collapses those below 4/5, flips edges towards six
    neighbours, evens vertices out within the surface and puts them back onto the given one. Edges that bend by more
    than `crease_deg` (180: none) are creases: their vertices slide along them only, and where creases meet, end or
    turn by more than 50 degrees a corner never moves (of corners nearer to one another than 0.4 of the target one is
    left). Borders are creases. `size` is a target for each vertex, never
    taken above `edge_length`. Pieces, tunnels and borders stay as they are: a closed manifold stays one. Faces wind as
    before; the results have the dtypes and the device of the inputs, and are the same on every run.

    ConfigError: NaN, indices out of range, an edge of three faces or of two that wind differently, more than 1,000,000
    faces in or about 300,000 out. Pitfall: a mesh whose vertices are doubled along seams is taken for several with
    borders; merge them first. A rough surface is full of creases: finish it first, or pass 180.
    """
    if edge_length <= 0 or not math.isfinite(edge_length):
        raise ConfigError(f"remesh: edge_length = {edge_length}", "a length above 0 is needed")
    if iterations < 0 or crease_deg <= 0:
        raise ConfigError(f"remesh: iterations = {iterations}, crease_deg = {crease_deg}", "neither may be negative")
    points, corners = checked_mesh(vertices, faces, "remesh")
    target = points.new_zeros(0)
    if size is not None:
        if size.shape != vertices.shape[:1] or not bool((size > 0).all()):
            raise ConfigError("remesh: size needs a number above 0 for each vertex")
        target = size.detach().cpu().double()
    expected = expected_faces(points, corners, edge_length, size)
    if expected > MOST_RESULT:
        hint = f"{expected:,.0f} faces would be needed, and {MOST_RESULT:,} are allowed"
        raise ConfigError(f"remesh: edge_length = {edge_length:g} is too short for this surface", hint)
    try:
        out = torch.ops.sds3d.remesh(points, corners, target, edge_length, iterations, crease_deg, 4 * MOST_FACES)
    except RuntimeError as error:
        raise ConfigError(f"remesh: {str(error).splitlines()[0]}", "the surface has to be a manifold") from error
    return out[0].to(vertices), out[1].to(faces)


def edge_length_for(vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"], face_count: int) -> float:
    """The edge_length with which `remesh` makes about `face_count` faces: theirs are equilateral, sqrt(3)/4 h^2."""
    area = float(area_vectors(vertices.detach().double(), faces).norm(dim=1).sum()) / 2
    return math.sqrt(FEWER_FACES * area / face_count * 4 / math.sqrt(3))


def expected_faces(points: Tensor, faces: Tensor, edge_length: float, size: Tensor | None) -> float:
    """About how many faces `remesh` makes: the integral of 4 / (sqrt(3) h^2) over the surface."""
    area = area_vectors(points, faces).norm(dim=1) / 2
    h = torch.full_like(area, edge_length)
    if size is not None:
        h = size.detach().cpu().double().clamp(max=edge_length)[faces.long()].mean(1)
    return float((4 / math.sqrt(3) * area / h.square()).sum())


def thickness(vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"]) -> Float[Tensor, " V"]:
    """How thick the solid is at each vertex, which is small only where it is thin in two directions, as a handle is.

    max(depth, width): the median length of seven rays into the solid, in a cone of 20 degrees (after Shapira et al.
    2008, Consistent Mesh Partitioning), and twice the second shortest of eight rays across, from half that depth. In
    the vertices' units; infinite where rays never leave.

    For a size field: `size = (k * thickness(v, f)).clamp(min=shortest)`. Pitfall: faces have to be counter-clockwise
    seen from outside. ConfigError as of `remesh`.
    """
    points, corners = checked_mesh(vertices, faces, "thickness")
    return torch.ops.sds3d.mesh_thickness(points, corners, vertex_normals(points, corners)).to(vertices)


def checked_mesh(vertices: Tensor, faces: Tensor, what: str) -> tuple[Tensor, Tensor]:
    """The mesh as the kernels take it, float64 and int32 on the CPU; ConfigError where it is none."""
    if not compiled():
        raise ExtensionUnavailable(f"{what}: {backend_info().reason}", f"build with: {BUILD_COMMAND}")
    points, corners = vertices.detach().cpu().double().contiguous(), faces.detach().cpu().contiguous()
    if len(corners) == 0:
        raise ConfigError(f"{what}: the mesh has no faces")
    if len(corners) > MOST_FACES:
        raise ConfigError(f"{what}: {len(corners):,} faces, and {MOST_FACES:,} are allowed", "decimate the mesh first")
    if not bool(points.isfinite().all()):
        bad = int((~points.isfinite().all(1)).sum())
        raise ConfigError(f"{what}: {bad} of {len(points)} vertices are not finite")
    low, high = int(corners.min()), int(corners.max())
    if low < 0 or high >= len(points):
        raise ConfigError(f"{what}: faces name vertices {low} to {high}, and there are {len(points)}")
    twice = (corners == corners.roll(1, dims=1)).any(1)
    if bool(twice.any()):
        raise ConfigError(f"{what}: {int(twice.sum())} faces name a vertex twice", "leave them out")
    return points, corners.int()
