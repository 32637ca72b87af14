"""Tunnels of a solid on a grid: how many it has, and the solid without most of those that nobody sees through.

Rough or hollow splats leave pinholes in walls and loops between bumps. Each is a tunnel of the mesh that is made of the
solid. What closes them is chosen from morphological closings: that finds no fewest number for certain, and no tunnel
wider than the largest closing is closed.
"""

from itertools import product

import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray
from scipy.ndimage import binary_dilation, binary_erosion, generate_binary_structure, label

REACHES = (0.01, 0.02, 0.04, 0.06)  # of the closings, one after another, in object sizes
CUBE, CROSS = generate_binary_structure(3, 3), generate_binary_structure(3, 1)
CORNERS = list(product((0, 1), repeat=3))  # the eight cells around a grid point, in the order of their bits


def _euler_share(cells: int) -> float:
    """What a grid point adds to the Euler characteristic, by which of the eight cells around it are solid.

    The mean of two values: solid cells that touch in a corner count as joined (each grid point, edge, side and cell
    that touches a solid cell, shared among its corners), or as apart (the same of the cells' centres). A smooth
    surface between them lies in between.
    """
    solid = np.array([cells >> bit & 1 for bit in range(8)], dtype=bool).reshape(2, 2, 2)
    joined = apart = 0.0
    for along in product((0, 1), repeat=3):  # the directions in which a block of cells is two cells long
        joint: Bool[ndarray, "a b c"] = solid
        full: Bool[ndarray, "a b c"] = solid
        for axis in range(3):
            if along[axis]:
                joint = np.logical_or.reduce(joint, axis=axis, keepdims=True)
                full = np.logical_and.reduce(full, axis=axis, keepdims=True)
        size = sum(along)
        joined += (-1) ** (3 - size) * joint.sum() / 2.0 ** (3 - size)
        apart += (-1) ** size * full.sum() / 2.0 ** (3 - size)
    return (joined + apart) / 2.0


EULER = np.array([_euler_share(cells) for cells in range(256)])


def _around(solid: Bool[ndarray, "X Y Z"]) -> UInt8[ndarray, "X-1 Y-1 Z-1"]:
    """For each point between cells, which of the eight around it are solid, as bits."""
    size = [count - 1 for count in solid.shape]
    bits = np.zeros(size, dtype=np.uint8)
    for bit, (x, y, z) in enumerate(CORNERS):
        bits |= solid[x : x + size[0], y : y + size[1], z : z + size[2]].view(np.uint8) << bit
    return bits


def grid_tunnels(solid: Bool[ndarray, "X Y Z"]) -> float:
    """pieces + cavities - Euler characteristic: 1 for a mug's handle; a half or so where cells touch in corners only.

    The outermost cells are empty.
    """
    euler = float(np.bincount(_around(solid).ravel(), minlength=256) @ EULER)
    return label(solid, CUBE)[1] + label(~solid, CROSS)[1] - 1 - euler


def with_tunnels_closed(solid: Bool[ndarray, "X Y Z"], hidden: Bool[ndarray, "X Y Z"]) -> Bool[ndarray, "X Y Z"]:
    """The solid with fewer tunnels, closed by `hidden` cells; without cavities, too.

    Morphological closings, from small to large, propose cells. Of each connected group of them, the change of the
    Euler characteristic is a sum over the grid points that it touches, so all groups are judged at once: those that
    raise it are taken, except for one that only seals a cavity: the last opening of a hollow body is its mouth. Cells
    that are not hidden are seen to be empty by some view: what is closed costs nothing in the silhouettes.

    Loose cells are left out before, as what joins them lowers the Euler characteristic,
    like a tunnel. The outermost cells are empty, more of them than the largest closing reaches.
    """
    whole = solid | enclosed(solid)
    fewest = grid_tunnels(whole | hidden)
    for reach in REACHES:
        if grid_tunnels(whole) <= fewest:
            break
        closed = _closed(whole, max(1, round(reach * max(solid.shape))))
        groups, count = label(closed & hidden & ~whole, CUBE)
        whole = whole | _raising(whole, groups, _gains(whole, groups, count))
    return whole


def _closed(solid: Bool[ndarray, "X Y Z"], reach: int) -> Bool[ndarray, "X Y Z"]:
    """Closed by a cube and an octahedron one after the other, which together are nearly a ball of this many cells."""
    for dilate_or_erode in (binary_dilation, binary_erosion):
        solid = dilate_or_erode(solid, CUBE, iterations=(reach + 1) // 2)
        if reach > 1:
            solid = dilate_or_erode(solid, CROSS, iterations=reach // 2)
    return solid


def enclosed(solid: Bool[ndarray, "*shape"]) -> Bool[ndarray, "*shape"]:
    """Empty cells of a grid or an image that no path of sides joins with its border."""
    empty = label(np.pad(~solid, 1, constant_values=True))[0]
    inner = empty[(slice(1, -1),) * solid.ndim]
    return (inner > 0) & (inner != empty.flat[0])


def _gains(whole: Bool[ndarray, "X Y Z"], groups: ndarray, count: int) -> Float[ndarray, " G"]:
    """By how much each group raises the Euler characteristic; that of group 0, which is none, is 0."""
    before, after = _around(whole), _around(whole | (groups > 0))
    touched = np.nonzero(before != after)
    group = np.max([groups[tuple(t + c for t, c in zip(touched, corner, strict=True))] for corner in CORNERS], axis=0)
    gains = EULER[after[touched]] - EULER[before[touched]]
    return np.bincount(group, gains, minlength=count + 1).astype(np.float64)  # integers, if there is no group


def _raising(whole: Bool[ndarray, "X Y Z"], groups: ndarray, gains: Float[ndarray, " G"]) -> Bool[ndarray, "X Y Z"]:
    """The cells of the groups that raise the Euler characteristic, without lids: where groups seal a cavity together,
    the largest of those that close nothing else is left out. A cavity without any becomes solid."""
    sizes, taken = np.bincount(groups.ravel(), minlength=len(gains)), gains > 1e-9
    while True:
        cells = taken[groups]
        cavities = enclosed(whole | cells)
        around = np.unique(groups[binary_dilation(cavities, CROSS) & cells])
        lids = around[gains[around] < 2]
        if len(lids) == 0:
            return cells | cavities
        taken[lids[np.argmax(sizes[lids])]] = False
