"""Borders between the colours of a surface: short where the scene left them open, and no islands hardly meant."""

import math

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

PLACES = 30_000  # of a surface, about
AROUND = 16  # places over which one step of the blur goes
REACH = 0.03  # world units: standard deviation of the blur whose threshold is the border
TENSION = 0.04  # world units: what a border's length costs, in area times nats of what lies on its wrong side
MOST_CERTAIN = 4.0  # nats: by how much a place can be against a colour
ROUNDS = 30


def even_places(
    vertices: Float[ndarray, "V 3"], faces: Int[ndarray, "F 3"]
) -> tuple[Float[ndarray, "N 3"], Float[ndarray, " N"]]:
    """About PLACES places of a surface, as far from each other everywhere, and the area that each stands for.

    The middles of its triangles, of which the longest side is halved until all are small: no noise of random ones.
    """
    corners, found = np.asarray(vertices, dtype=np.float64)[faces], []
    most = _areas(corners).sum() / PLACES / 0.7  # areas end between a half of it and it
    while len(corners):
        sides = np.linalg.norm(corners - np.roll(corners, -1, axis=1), axis=2)  # from each corner to the next
        split = (_areas(corners) > most) | (sides.max(axis=1) > 6 * math.sqrt(most))  # or thin
        found.append(corners[~split])
        turn = (sides[split].argmax(axis=1)[:, None] + np.arange(3)) % 3
        a, b, c = np.moveaxis(np.take_along_axis(corners[split], turn[..., None], axis=1), 1, 0)
        middle = (a + b) / 2
        corners = np.concatenate([np.stack([a, middle, c], axis=1), np.stack([middle, b, c], axis=1)])
    corners = np.concatenate(found)
    return corners.mean(axis=1), _areas(corners)


def _areas(corners: Float[ndarray, "F 3 3"]) -> Float[ndarray, " F"]:
    return np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2


def settle(
    places: Float[ndarray, "N 3"], areas: Float[ndarray, " N"], log_parts: Float[ndarray, "N K"]
) -> tuple[Int[ndarray, " N"], Float[ndarray, "N K"]]:
    """The colour of each place, and how much of each colour is around it: where two are even, there is their border.

    A minimum of the Potts energy

        E(l) = sum_i A_i c_i(l_i) + TENSION length of the borders,   c = max(log_parts) - log_parts <= MOST_CERTAIN,

    by threshold dynamics (Esedoglu and Otto 2015): with the blur G of width h = REACH over the surface, and u_k 1 where
    l is k, else 0, l <- argmax_k (G u_k - c_k h / (TENSION sqrt(2 pi))) until nothing changes. Then each connected
    piece takes on the colour of a neighbour if that lowers E, which small steps do not find; and so on. What is finer
    than h would be held for shorter than it is: c is blurred first, by h / 2.
    """
    blur, steps, width = _blur(places, areas)
    cost = np.minimum(log_parts.max(axis=1, keepdims=True) - log_parts, MOST_CERTAIN)
    cost = _blurred(blur, -(-steps // 4), cost)
    rate = TENSION * math.sqrt(2 * math.pi) / width
    labels, kinds = cost.argmin(axis=1), np.arange(cost.shape[1])
    for _ in range(ROUNDS):
        before = labels
        for _ in range(ROUNDS):
            around = _blurred(blur, steps, labels[:, None] == kinds)
            last, labels = labels, (around - cost / rate).argmax(axis=1)
            if (last == labels).all():
                break
        labels = _without_islands(labels, blur, areas, cost, rate * around)
        if (before == labels).all():
            break
    once = _blurred(blur, -(-steps // 2), labels[:, None] == kinds)
    around = (2 * once - _blurred(blur, -(-steps // 2), once)).clip(0, 1)  # no h^2: bent borders stay where they are
    return labels, around / around.sum(axis=1, keepdims=True)


def _blur(places: Float[ndarray, "N 3"], areas: Float[ndarray, " N"]) -> tuple[csr_array, int, float]:
    """Means over neighbours, how often to take them for a blur of REACH, and how wide that is really."""
    distance, near = cKDTree(places).query(places, min(AROUND, len(places)))
    scale = distance[:, -1:].clip(1e-9) / 2
    weights = np.exp(-0.5 * (distance / scale) ** 2) * areas[near]
    weights /= weights.sum(axis=1, keepdims=True)
    square = (weights * distance**2).sum(axis=1)
    step = math.sqrt((square * areas).sum() / areas.sum() / 2)  # along one direction of the surface
    steps = max(1, round((REACH / step) ** 2))
    starts = np.arange(0, near.size + 1, near.shape[1])
    return csr_array((weights.ravel().astype(np.float32), near.ravel(), starts)), steps, step * math.sqrt(steps)


def _blurred(blur: csr_array, steps: int, values: ndarray) -> Float[ndarray, "N K"]:
    values = values.astype(np.float32)
    for _ in range(steps):
        values = blur @ values
    return values


def _without_islands(
    labels: Int[ndarray, " N"],
    blur: csr_array,
    areas: Float[ndarray, " N"],
    cost: Float[ndarray, "N K"],
    touching: Float[ndarray, "N K"],
) -> Int[ndarray, " N"]:
    """Each connected piece of one colour in the colour that it costs least in: its own, or one that it touches."""
    rows = np.arange(len(labels)).repeat(np.diff(blur.indptr))
    same = labels[rows] == labels[blur.indices]
    inside = csr_array((np.ones(same.sum()), (rows[same], blur.indices[same])), shape=blur.shape)
    count, piece = connected_components(inside, directed=False)
    own = np.zeros(count, dtype=labels.dtype)
    own[piece] = labels
    saved = np.where(labels[:, None] == np.arange(cost.shape[1]), 0.0, touching)
    energy = np.stack([np.bincount(piece, each, count) for each in (areas[:, None] * (cost - saved)).T], axis=1)
    return np.where(energy.min(axis=1) < energy[np.arange(count), own], energy.argmin(axis=1), own)[piece]
