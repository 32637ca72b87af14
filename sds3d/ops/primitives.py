"""Surfaces made exact: what nearly is a plane, a sphere or a cone becomes one, upright where it nearly is upright."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.optimize import least_squares
from scipy.sparse import coo_matrix, csc_matrix, csr_matrix, diags, identity, kron
from scipy.sparse.csgraph import breadth_first_order, connected_components
from scipy.sparse.linalg import cg, splu
from torch import Tensor

from sds3d.ops.finish import KEEP_DEG, resized
from sds3d.ops.large_steps import graph_laplacian
from sds3d.ops.outlines import mesh_edges
from sds3d.ops.remesh import checked_mesh
from sds3d.ops.triangle_geometry import area_vectors, face_normals

# Lengths are in extents: the root of a sixth of the surface's area, which for a cube is its side.
NEAR = 0.025  # how far from a primitive the faces may lie that make it one; noise is half of that
LOOSER = 2.0  # times as far may lie what is beside these and faces as it does
GROWTH = 1.3  # times as far may lie what was rounded off at its edges, whatever its direction
REACH = 0.08  # no vertex moves farther
EXACT = 0.005  # how near its primitive is what was moved there
TURN = math.cos(math.radians(25.0))  # between a face and the primitive below it
ROUGH = math.radians(10.0)  # root mean square of these turns; a plane through a duck's body has more
FLAT = math.cos(math.radians(15.0))  # length of the mean direction above which what is curved is to be a plane
WHOLE = 0.9  # part of a sphere from which on the rest is added: a piece of its height by a fifth of its radius
COVERED, TURNS = 0.5, 24  # part of a sphere, or of a turn in so many parts, that there has to be of it
SMALLEST, MADE_OF, POCKET = 0.03, 0.75, 0.02  # parts of the surface: a primitive, all of them, a torn place
COST = {"plane": 0.0, "sphere": 0.1, "cone": 0.15}  # part of the faces by which a freer primitive has to have more
UPRIGHT = math.sin(math.radians(10.0))
CYLINDER = math.radians(6.0)  # a cone with less taper is a cylinder
SEED_COUNT, SEED_PARTS = 40, (0.04, 0.15)  # places around which to look, and the parts of the surface looked at there
FIT_POINTS, FIT_ROUNDS, TRIES = 500, 4, 5  # tries: of the best candidates of each kind
PASSES = 3  # what one could not move without folds, the next can
PULL = 300.0  # of a primitive, against the stiffness of an edge
RELEASES = 6  # times that what would fold is let go
FOLDED = math.cos(math.radians(60.0))  # between a face and where it has to look


class Primitive(NamedTuple):
    """The points x with axis . x = size: a plane (unit axis); |x - middle| = size: a sphere; and a cone, or a cylinder
    where taper = 0: cos(taper) |x - middle, across the axis| + sin(taper) (x - middle, along it) = size."""

    kind: str
    axis: Float[ndarray, "3"]
    middle: Float[ndarray, "3"]
    size: float
    taper: float = 0.0
    sign: float = 1.0  # -1: the surface's outside is the primitive's inside

    def distance(self, points: Float[ndarray, "P 3"]) -> tuple[Float[ndarray, " P"], Float[ndarray, "P 3"]]:
        """Signed distances, and the unit direction in which each grows."""
        if self.kind == "plane":
            return points @ self.axis - self.size, np.broadcast_to(self.axis, points.shape)
        offset = points - self.middle
        if self.kind == "sphere":
            length = np.linalg.norm(offset, axis=1)
            return self.sign * (length - self.size), self.sign * offset / np.maximum(length, 1e-12)[:, None]
        along = offset @ self.axis
        across = offset - along[:, None] * self.axis
        radius = np.linalg.norm(across, axis=1)
        outwards = across / np.maximum(radius, 1e-12)[:, None]
        height, width = math.sin(self.taper), math.cos(self.taper)
        distance = width * radius + height * along - self.size
        return self.sign * distance, self.sign * (width * outwards + height * self.axis)


class _Surface(NamedTuple):
    center: Float[ndarray, "F 3"]
    normal: Float[ndarray, "F 3"]
    area: Float[ndarray, " F"]  # parts of the whole
    size: float  # the whole area
    beside: csr_matrix  # [F, F], 1 where two faces share an edge


def with_primitives(
    vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"]
) -> tuple[Float[Tensor, "W 3"], Int[Tensor, "G 3"], list[Primitive]]:
    """The surface with its planes, spheres and cones made exact, in about as many faces, and these; no gradient.

    1. Candidates are fitted around places spread over the surface; the one with the largest connected area within
       2.5% of the extent (the root of a sixth of the area: a cube's side) and 25 degrees is taken out, with what is
       connected within twice that, until none has 3% of the surface (Schnabel et al. 2007, Efficient RANSAC for
       Point-Cloud Shape Detection; places are spread evenly here, not drawn). What bends within it by more than 10
       degrees (root mean square) is none, nor is less than half of a sphere or of a turn. Where all of them together
       are less than 75% of the surface, the object is not made of such things: it is returned as it is, with no
       primitives. A sphere of which nine tenths are there gets the rest, such as the bottom, which the fewest cameras
       see.
    2. Axes within 10 degrees of a world axis, or of being at right angles to one, become that; cones that taper by less
       than 6 degrees become cylinders (after GlobFit, Li et al. 2011).
    3. Vertices move by the least of sum over edges |shift_i - shift_j|^2 + 300 sum over their primitives of distance^2,
       none by more than 8% of the extent; what would fold is let go and smoothed. Remeshed, and again where it tore.

    The surface has to be a closed manifold, as `finish` leaves it. The same on every run; results have the dtypes and
    device of what came in. Pitfall: what stands out by less than the tolerance, such as eaves, goes.
    """
    points, corners = checked_mesh(vertices, faces, "with_primitives")
    points, corners, primitives = _exact(points, corners)
    return points.to(vertices), corners.to(faces), primitives


def _exact(vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor, list[Primitive]]:
    count = len(faces)
    extent = math.sqrt(float(area_vectors(vertices, faces).norm(dim=1).sum()) / 12)
    surface = _surface(vertices, faces)
    owner, primitives = _segment(surface, NEAR * extent)
    if surface.area[owner >= 0].sum() < MADE_OF:
        return vertices, faces, []
    primitives = [_upright(p, surface, owner == number) for number, p in enumerate(primitives)]
    vertices = _whole(vertices, faces, owner, primitives, surface)
    surface, left = _surface(vertices, faces), np.unique(owner[owner >= 0])
    owner, primitives = np.where(owner < 0, -1, np.searchsorted(left, owner)), [primitives[k] for k in left]
    allowed = np.ones(len(faces), dtype=bool)
    for number in range(PASSES):
        if number > 0:
            surface = _surface(vertices, faces)
            owner = _nearest(surface, primitives, EXACT * extent)
            allowed = _pockets(surface, owner < 0)
            if not allowed.any():
                break
        _grow(owner, primitives, surface, GROWTH * NEAR * extent, allowed)
        vertices = _moved(vertices, faces, owner, primitives, REACH * extent)
        vertices, faces = resized(vertices, faces, count, KEEP_DEG)
    return vertices, faces, primitives


def _nearest(surface: _Surface, primitives: list[Primitive], near: float) -> Int[ndarray, " F"]:
    """The nearest primitive of each face that faces as it does; -1 for none."""
    distances = np.stack([np.abs(p.distance(surface.center)[0]) for p in primitives], axis=1)
    beside = np.stack([_near(surface, p, near) for p in primitives], axis=1)
    return np.where(beside.any(axis=1), np.where(beside, distances, np.inf).argmin(axis=1), -1)


def _pockets(surface: _Surface, free: Bool[ndarray, " F"]) -> Bool[ndarray, " F"]:
    """The free faces in small parts: what was torn, and no handle."""
    faces, part, areas = _parts(surface, free)
    pockets = np.zeros(len(free), dtype=bool)
    pockets[faces] = areas[part] < POCKET
    return pockets


def _surface(vertices: Tensor, faces: Tensor) -> _Surface:
    points, corners = vertices.double().numpy(), faces.long().numpy()
    vectors = area_vectors(vertices.double(), faces).numpy()
    length = np.linalg.norm(vectors, axis=1)
    edges = mesh_edges(faces).long().numpy()
    inner = edges[edges[:, 3] >= 0, 2:]
    both = np.concatenate([inner, inner[:, ::-1]])
    beside = coo_matrix((np.ones(len(both)), (both[:, 0], both[:, 1])), shape=(len(corners), len(corners))).tocsr()
    return _Surface(
        points[corners].mean(axis=1),
        vectors / np.maximum(length, 1e-30)[:, None],
        length / length.sum(),
        length.sum() / 2,
        beside,
    )


def _segment(surface: _Surface, near: float) -> tuple[Int[ndarray, " F"], list[Primitive]]:
    """Which primitive each face belongs to, -1 for none."""
    owner, primitives = np.full(len(surface.area), -1), list[Primitive]()
    candidates = [fit for seed in _seeds(surface) for fit in _fits(surface, seed)]
    while True:
        free = owner < 0
        areas = [float(surface.area[free & _near(surface, c, near)].sum()) for c in candidates]
        best: tuple[float, Primitive, ndarray] | None = None
        for kind in FITS:
            of_kind = [k for k, c in enumerate(candidates) if c.kind == kind and areas[k] > SMALLEST / 2]
            for k in sorted(of_kind, key=lambda k: -areas[k])[:TRIES]:
                found = _refined(surface, candidates[k], free, near)
                if found is not None and (best is None or found[0] > best[0]):
                    best = found
        if best is None:
            return owner, primitives
        loose = _largest_part(surface, free & _near(surface, best[1], LOOSER * near))
        owner[loose] = len(primitives)
        primitives.append(best[1])


def _seeds(surface: _Surface) -> list[Int[ndarray, " N"]]:
    """Connected faces around places far from each other, some near and some wide."""
    count = min(SEED_COUNT, len(surface.area))
    chosen = [int(surface.area.argmax())]
    distance = np.full(len(surface.area), np.inf)
    look = np.concatenate([surface.center / np.ptp(surface.center, axis=0).max(), 0.3 * surface.normal], axis=1)
    for _ in range(count - 1):
        distance = np.minimum(distance, np.linalg.norm(look - look[chosen[-1]], axis=1))
        chosen.append(int(distance.argmax()))
    regions = []
    for face in chosen:
        order = breadth_first_order(surface.beside, face, directed=False, return_predecessors=False)
        reached = surface.area[order].cumsum()
        regions += [order[: max(6, int(np.searchsorted(reached, part)))] for part in SEED_PARTS]
    return regions


def _fits(surface: _Surface, faces: ndarray) -> list[Primitive]:
    step = max(1, len(faces) // FIT_POINTS)
    p, n, w = (values[faces[::step]] for values in (surface.center, surface.normal, surface.area))
    return [fit for fit in (fitted(p, n, w) for fitted in FITS.values()) if fit is not None]


def _near(surface: _Surface, primitive: Primitive, near: float) -> Bool[ndarray, " F"]:
    distance, direction = primitive.distance(surface.center)
    return (np.abs(distance) < near) & ((direction * surface.normal).sum(axis=1) > TURN)


def _refined(
    surface: _Surface, primitive: Primitive, free: Bool[ndarray, " F"], near: float
) -> tuple[float, Primitive, Int[ndarray, " N"]] | None:
    """(score, the primitive fitted to all of its faces, these); None if it has too few or they bend."""
    for _ in range(FIT_ROUNDS):
        mine = _largest_part(surface, free & _near(surface, primitive, near))
        if surface.area[mine].sum() < SMALLEST:
            return None
        step = max(1, len(mine) // FIT_POINTS)
        p, n, w = (values[mine[::step]] for values in (surface.center, surface.normal, surface.area))
        distance, direction = primitive.distance(p)
        if primitive.kind != "plane" and np.linalg.norm(w @ direction) > FLAT * w.sum():
            return None  # before it costs anything: most of the cones on walls
        fit = FITS[primitive.kind](p, n, w * (1 - (distance / near) ** 2).clip(0) ** 2, primitive)
        if fit is None:
            return None
        primitive = fit
    mine = _largest_part(surface, free & _near(surface, primitive, near))
    area = surface.area[mine]
    direction = primitive.distance(surface.center[mine])[1]
    turn = np.arccos((direction * surface.normal[mine]).sum(axis=1).clip(-1, 1))
    if area.sum() < SMALLEST or math.sqrt((area * turn**2).sum() / area.sum()) > ROUGH:
        return None
    if primitive.kind != "plane":
        covered = _covered(primitive, surface.center[mine], float(area.sum()) * surface.size)
        if covered < COVERED or np.linalg.norm(area @ direction) > FLAT * area.sum():
            return None
    return float(area.sum()) * (1 - COST[primitive.kind]), primitive, mine


def _covered(primitive: Primitive, points: Float[ndarray, "P 3"], area: float) -> float:
    """The part of a whole sphere that `area` is, or of a turn around a cone's axis where it has points."""
    if primitive.kind == "sphere":
        return area / (4 * math.pi * primitive.size**2)
    first, second = _across(primitive.axis)
    offset = points - primitive.middle
    turn = np.arctan2(offset @ second, offset @ first)
    return float((np.histogram(turn, TURNS, (-math.pi, math.pi))[0] > 0).mean())


def _largest_part(surface: _Surface, mask: Bool[ndarray, " F"]) -> Int[ndarray, " N"]:
    faces, part, areas = _parts(surface, mask)
    return faces[part == areas.argmax()]


def _parts(
    surface: _Surface, mask: Bool[ndarray, " F"]
) -> tuple[Int[ndarray, " N"], Int[ndarray, " N"], Float[ndarray, " P"]]:
    """The faces of a mask, the connected part that each is of, and the parts' areas, at least one."""
    faces = mask.nonzero()[0]
    part = connected_components(surface.beside[faces][:, faces], directed=False)[1]
    return faces, part, np.bincount(part, weights=surface.area[faces], minlength=1).astype(np.float64)  # int if empty


def _plane(p: ndarray, n: ndarray, w: ndarray, _: Primitive | None = None) -> Primitive | None:
    middle = np.average(p, axis=0, weights=w)
    axis = np.linalg.eigh(((p - middle) * w[:, None]).T @ (p - middle))[1][:, 0]
    axis = axis if (w @ n) @ axis > 0 else -axis
    return Primitive("plane", axis, middle, float(middle @ axis))


def _sphere(p: ndarray, n: ndarray, w: ndarray, _: Primitive | None = None) -> Primitive | None:
    """|x|^2 = 2 c x + (r^2 - |c|^2), linear in c and the rest."""
    root = np.sqrt(w)[:, None]
    solution = np.linalg.lstsq(np.c_[2 * p, np.ones(len(p))] * root, (p**2).sum(axis=1) * root[:, 0], rcond=None)[0]
    middle, square = solution[:3], float(solution[3] + solution[:3] @ solution[:3])
    if square <= 0:
        return None
    sign = 1.0 if (w * ((p - middle) * n).sum(axis=1)).sum() > 0 else -1.0
    return Primitive("sphere", np.array([0.0, 0.0, 1.0]), middle, math.sqrt(square), sign=sign)


def _cone(p: ndarray, n: ndarray, w: ndarray, old: Primitive | None = None) -> Primitive | None:
    """Normals of a cone lie on a circle around its axis; from there on by least squares of distances."""
    share = w / w.sum()
    if old is None:
        mean = share @ n
        axis = np.linalg.eigh(((n - mean) * share[:, None]).T @ (n - mean))[1][:, 0]
        first, second = _across(axis)
        flat, facing = np.c_[p @ first, p @ second], np.c_[n @ first, n @ second]
        # seen along the axis every normal's line meets it
        left = np.c_[facing[:, 1], -facing[:, 0]] * np.sqrt(share)[:, None]
        right = (facing[:, 1] * flat[:, 0] - facing[:, 0] * flat[:, 1]) * np.sqrt(share)
        place = np.linalg.lstsq(left, right, rcond=None)[0]
        middle = ((share @ p) @ axis) * axis + place[0] * first + place[1] * second
        outside = ((p - middle) - ((p - middle) @ axis)[:, None] * axis) * n
        sign = 1.0 if share @ outside.sum(axis=1) > 0 else -1.0
        taper = math.asin(float(np.clip(sign * (mean @ axis), -0.98, 0.98)))
        start = Primitive("cone", axis, middle, 0.0, taper, sign)
        return start._replace(size=float(share @ start.distance(p)[0]) * sign)
    start = old
    first, second = _across(start.axis)

    def of(x: ndarray) -> Primitive:
        axis = start.axis + x[0] * first + x[1] * second
        middle = start.middle + x[2] * first + x[3] * second
        return Primitive("cone", axis / np.linalg.norm(axis), middle, x[5], x[4], start.sign)

    begin = np.array([0, 0, 0, 0, start.taper, start.size])
    found = least_squares(lambda x: of(x).distance(p)[0] * np.sqrt(share), begin, max_nfev=8)
    return of(found.x) if abs(found.x[4]) < 1.4 else None


FITS: dict[str, Callable[..., Primitive | None]] = {"plane": _plane, "sphere": _sphere, "cone": _cone}


def _across(axis: Float[ndarray, "3"]) -> tuple[Float[ndarray, "3"], Float[ndarray, "3"]]:
    """Two directions at right angles to the axis and each other."""
    first = np.cross(axis, np.eye(3)[np.abs(axis).argmin()])
    first /= np.linalg.norm(first)
    return first, np.cross(axis, first)


def _upright(primitive: Primitive, surface: _Surface, mine: Bool[ndarray, " F"]) -> Primitive:
    """With its axis straightened, through the same faces."""
    axis = np.where(np.abs(primitive.axis) < UPRIGHT, 0.0, primitive.axis)
    taper = 0.0 if abs(primitive.taper) < CYLINDER else primitive.taper
    straight = primitive._replace(axis=axis / np.linalg.norm(axis), taper=taper)
    if primitive.kind == "sphere":
        return primitive
    if primitive.kind == "cone":  # around the same place
        middle = np.average(surface.center[mine], axis=0, weights=surface.area[mine])
        on_axis = primitive.middle + ((middle - primitive.middle) @ primitive.axis) * primitive.axis
        straight = straight._replace(middle=on_axis)
    off = np.average(straight.distance(surface.center[mine])[0], weights=surface.area[mine])
    return straight._replace(size=straight.size + straight.sign * float(off))


def _whole(
    vertices: Float[Tensor, "V 3"],
    faces: Int[Tensor, "F 3"],
    owner: Int[ndarray, " F"],
    primitives: list[Primitive],
    surface: _Surface,
) -> Float[Tensor, "V 3"]:
    """The vertices, moved onto a nearly whole sphere where a piece of it is cut off; `owner` says so, too."""
    points, corners = vertices.double().numpy().copy(), faces.long().numpy()
    for number, sphere in enumerate(primitives):
        there = float(surface.area[owner == number].sum()) * surface.size
        if sphere.kind != "sphere" or _covered(sphere, surface.center, there) < WHOLE:
            continue
        distance = sphere.distance(points)[0][corners].max(axis=1)
        rest, part, _ = _parts(surface, owner != number)
        for piece in (rest[part == k] for k in range(part.max(initial=-1) + 1)):
            if -0.2 * sphere.size < distance[piece].min() and distance[piece].max() < NEAR * sphere.size:
                owner[piece] = number
                moved = np.unique(corners[piece])
                away, direction = sphere.distance(points[moved])
                points[moved] -= away[:, None] * direction
    return torch.from_numpy(points).to(vertices)


def _grow(
    owner: Int[ndarray, " F"], primitives: list[Primitive], surface: _Surface, near: float, allowed: Bool[ndarray, " F"]
) -> None:
    """Faces beside a primitive that lie as near belong to it, whatever their direction: edges that were rounded off."""
    distances = np.stack([np.abs(p.distance(surface.center)[0]) for p in primitives], axis=1)
    while True:
        free = (allowed & (owner < 0)).nonzero()[0]
        options = np.full((len(free), len(primitives)), np.inf)
        rows = surface.beside[free].tocoo()
        beside = owner[rows.col]
        known = beside >= 0
        options[rows.row[known], beside[known]] = distances[free[rows.row[known]], beside[known]]
        choice = options.argmin(axis=1)
        taken = options[np.arange(len(free)), choice] < near
        if not taken.any():
            return
        owner[free[taken]] = choice[taken]


def _moved(
    vertices: Float[Tensor, "V 3"],
    faces: Int[Tensor, "F 3"],
    owner: Int[ndarray, " F"],
    primitives: list[Primitive],
    reach: float,
) -> Float[Tensor, "V 3"]:
    points, corners = vertices.double().numpy(), faces.long().numpy()
    member = np.zeros((len(points), len(primitives)), dtype=bool)
    for corner in corners.T:
        member[corner[owner >= 0], owner[owner >= 0]] = True
    graph = graph_laplacian(faces, len(points)) + 1e-6 * identity(len(points))
    laplacian = kron(graph, identity(3), format="csc")
    moved, released = points, np.zeros(len(points), dtype=bool)
    for _ in range(RELEASES):
        for _ in range(2):
            moved = _step(points, moved, member, primitives, laplacian)
        turned = (_facing(points, moved, faces, owner, primitives) * _normals(moved, faces)).sum(axis=1) < FOLDED
        loose = np.zeros(len(points), dtype=bool)
        loose[corners[turned].ravel()] = True
        loose |= np.linalg.norm(moved - points, axis=1) > reach
        if not (loose & member.any(axis=1)).any():
            break
        released |= loose & member.any(axis=1)
        member[loose] = False
    if released.any():  # a torn place becomes a smooth one
        inner, outer = graph[released][:, released].tocsc(), graph[released][:, ~released]
        moved[released] = splu(inner).solve(-(outer @ moved[~released]))
    return torch.from_numpy(moved).to(vertices)


def _step(
    points: Float[ndarray, "V 3"],
    moved: Float[ndarray, "V 3"],
    member: Bool[ndarray, "V K"],
    primitives: list[Primitive],
    laplacian: csc_matrix,
) -> Float[ndarray, "V 3"]:
    """A Gauss-Newton step to the least of sum over neighbours |shift_i - shift_j|^2 + PULL sum of distances^2."""
    blocks = np.zeros((len(points), 3, 3))
    right = np.zeros((len(points), 3))
    for number, primitive in enumerate(primitives):
        rows = member[:, number]
        distance, direction = primitive.distance(moved[rows])
        blocks[rows] += direction[:, :, None] * direction[:, None, :]
        right[rows] -= (distance - ((moved - points)[rows] * direction).sum(axis=1))[:, None] * direction
    row = np.arange(3 * len(points)).reshape(-1, 3)
    pulls = coo_matrix(
        (blocks.ravel(), (row.repeat(3, axis=1).ravel(), np.tile(row, 3).ravel())), shape=laplacian.shape
    )
    matrix = (laplacian + PULL * pulls).tocsc()
    jacobi = diags(1.0 / matrix.diagonal())
    shift = cg(matrix, PULL * right.ravel(), (moved - points).ravel(), rtol=1e-4, maxiter=500, M=jacobi)[0]
    return points + shift.reshape(-1, 3)


def _facing(
    points: Float[ndarray, "V 3"],
    moved: Float[ndarray, "V 3"],
    faces: Int[Tensor, "F 3"],
    owner: Int[ndarray, " F"],
    primitives: list[Primitive],
) -> Float[ndarray, "F 3"]:
    """Where each face has to look: as its primitive does, or as it did."""
    facing, centers = _normals(points, faces), moved[faces.long().numpy()].mean(axis=1)
    for number, primitive in enumerate(primitives):
        facing[owner == number] = primitive.distance(centers[owner == number])[1]
    return facing


def _normals(points: Float[ndarray, "V 3"], faces: Int[Tensor, "F 3"]) -> Float[ndarray, "F 3"]:
    return face_normals(torch.from_numpy(points), faces).numpy()
