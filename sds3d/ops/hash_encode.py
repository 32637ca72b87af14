"""Multi-resolution hash encoding (Mueller et al. 2022, instant-ngp)."""

import itertools
import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from sds3d.ops.extension import has_kernels, register

PRIMES = (1, 2_654_435_761, 805_459_861)  # section 3 of the paper


@dataclass(frozen=True)
class HashGrid:
    """Grids over the unit cube whose resolutions grow geometrically, and the layout of their corners in one table."""

    levels: int
    features: int
    base_resolution: int  # cells along a side of the coarsest grid
    finest_resolution: int  # and of the finest
    log2_table: int  # a grid has at most 2^log2_table entries; finer ones share them by a hash

    @property
    def resolutions(self) -> tuple[int, ...]:
        """Cells along a side, level by level: floor(base (finest / base)^(l / (L - 1)))."""
        ratio, last = self.finest_resolution / self.base_resolution, max(self.levels - 1, 1)
        # 1e-6: rounding must not make the finest grid one cell coarser
        return tuple(math.floor(self.base_resolution * ratio ** (level / last) + 1e-6) for level in range(self.levels))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Entries of each level: all corners where they fit, else 2^log2_table."""
        return tuple(min((cells + 1) ** 3, 1 << self.log2_table) for cells in self.resolutions)

    @property
    def entries(self) -> int:
        """Rows of the table."""
        return sum(self.sizes)


def hash_encode(points: Float[Tensor, "P 3"], table: Float[Tensor, "E F"], grid: HashGrid) -> Float[Tensor, "P K"]:
    """Table entries at points of the unit cube, trilinearly interpolated, level after level (K = L F).

    Points outside are clamped to the cube. Differentiable once, in `table` and `points`; at the border of two cells the
    gradient to points is that of the upper cell. CPU gradients do not depend on the number of threads; CUDA gradients
    repeat exactly under torch.use_deterministic_algorithms(True).
    """
    assert table.shape == (grid.entries, grid.features), f"a table of {tuple(table.shape)} for {grid}"
    if not has_kernels(table):
        return hash_encode_reference(points, table, grid)
    return torch.ops.sds3d.hash_encode(points, table, list(grid.resolutions), list(grid.sizes))


def hash_encode_reference(
    points: Float[Tensor, "P 3"], table: Float[Tensor, "E F"], grid: HashGrid
) -> Float[Tensor, "P K"]:
    """`hash_encode` in pure torch, for any float type and device. Points must be finite."""
    features, first = [], 0
    for cells, size in zip(grid.resolutions, grid.sizes, strict=True):
        place = points.clamp(0, 1) * cells
        low = place.detach().floor().clamp(max=cells - 1)
        above = place - low
        total = table.new_zeros(len(points), grid.features)
        for corner in itertools.product((0, 1), repeat=3):
            offset = torch.tensor(corner, device=points.device)
            weight = torch.where(offset.bool(), above, 1 - above).prod(dim=-1)
            entry = first + corner_entry(low.long() + offset, cells, size)
            # not table[entry], whose backward pass may sum in another order each time
            total = total + weight[:, None] * F.embedding(entry, table)
        features.append(total)
        first += size
    return torch.cat(features, dim=-1)


def corner_entry(corners: Int[Tensor, "P 3"], cells: int, size: int) -> Int[Tensor, " P"]:
    """Entry of each corner within its level: x-major where all corners fit, else (x ^ y p_2 ^ z p_3) mod size."""
    x, y, z = corners.unbind(-1)
    if (cells + 1) ** 3 <= size:
        return (x * (cells + 1) + y) * (cells + 1) + z
    return (x * PRIMES[0] ^ y * PRIMES[1] ^ z * PRIMES[2]) & (size - 1)


def hash_fake(points: Tensor, table: Tensor, resolutions: list[int], sizes: list[int]) -> Tensor:
    return table.new_empty(points.shape[0], len(sizes) * table.shape[1])


def hash_backward_fake(points: Tensor, table: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    for_points = rest[3]
    return torch.empty_like(table), table.new_empty(points.shape[0] if for_points else 0, 3)


def save_for_backward(ctx, inputs: tuple, output: Tensor) -> None:
    """Keep the inputs: the backward pass computes the corners again."""
    points, table, ctx.resolutions, ctx.sizes = inputs
    ctx.save_for_backward(points, table)


def hash_backward(ctx, grad: Tensor) -> tuple:
    """Gradients to the table, and to points only if needed: that costs as much again."""
    points, table = ctx.saved_tensors
    for_points = ctx.needs_input_grad[0]
    deterministic = grad.is_cuda and torch.are_deterministic_algorithms_enabled()
    largest = float(grad.abs().amax()) if deterministic and grad.numel() else 0.0
    grad_table, grad_points = torch.ops.sds3d.hash_encode_backward(
        points, table, ctx.resolutions, ctx.sizes, grad, for_points, deterministic, largest
    )
    return grad_points if for_points else None, grad_table, None, None


register("hash_encode", hash_fake, hash_backward_fake, hash_backward, save_for_backward)
