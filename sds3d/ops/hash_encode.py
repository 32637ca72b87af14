"""Multi-resolution hash encoding (Mueller et al. 2022, instant-ngp)."""

import itertools
import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

PRIMES = (1, 2_654_435_761, 805_459_861)  # section 3 of the paper


@dataclass(frozen=True)
class HashGrid:
    """Grids over the unit cube whose resolutions grow geometrically, and where their corners lie in one table."""

    levels: int
    features: int
    base_resolution: int  # cells along a side of the coarsest grid
    finest_resolution: int  # and of the finest
    log2_table: int  # no grid has more than 2^log2_table entries; finer ones share theirs by a hash

    @property
    def resolutions(self) -> tuple[int, ...]:
        """Cells along a side, level by level: floor(base (finest / base)^(l / (L - 1)))."""
        ratio, last = self.finest_resolution / self.base_resolution, max(self.levels - 1, 1)
        # the least nudge upwards, so that the finest comes out as it was asked for
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
    """What the table holds at points of the unit cube, trilinearly interpolated, levels one after the other (K = L F).

    Points outside count as on the cube's surface. Differentiable in `table` and `points`; at a cell's border the
    gradient to points is that of the cell above.
    """
    assert table.shape == (grid.entries, grid.features), f"a table of {tuple(table.shape)} for {grid}"
    found, first = [], 0
    for cells, size in zip(grid.resolutions, grid.sizes, strict=True):
        place = points.clamp(0, 1) * cells
        low = place.detach().floor().clamp(max=cells - 1)
        above = place - low
        total = table.new_zeros(len(points), grid.features)
        for corner in itertools.product((0, 1), repeat=3):
            offset = torch.tensor(corner, device=points.device)
            weight = torch.where(offset.bool(), above, 1 - above).prod(dim=-1)
            entry = first + corner_entry(low.long() + offset, cells, size)
            # not table[entry], whose gradient torch may add up in another order each time
            total = total + weight[:, None] * F.embedding(entry, table)
        found.append(total)
        first += size
    return torch.cat(found, dim=-1)


def corner_entry(corners: Int[Tensor, "P 3"], cells: int, size: int) -> Int[Tensor, "P"]:
    """Entry of each corner within its level: x-major where all corners fit, else (x ^ y p_2 ^ z p_3) mod size."""
    x, y, z = corners.unbind(-1)
    if (cells + 1) ** 3 <= size:
        return (x * (cells + 1) + y) * (cells + 1) + z
    return (x * PRIMES[0] ^ y * PRIMES[1] ^ z * PRIMES[2]) & (size - 1)
