"""Splats as a field in space: density and colour at points and on grids.

density(p) = sum_i opacity_i exp(-1/2 (p - mean_i)^T Sigma_i^-1 (p - mean_i)),   colour = density-weighted mean colour.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sds3d.ops.project_gaussians import rotation_matrices

CUTOFF_SIGMA = 3.0  # on grids a splat ends here: it would add less than 0.012 of its opacity beyond
BLOCKS_AT_ONCE = 64  # whose coefficients are computed together; bounds memory
BLOCK = 8  # grid cells per block edge: small blocks skip empty space, large ones make long matrix products


class SplatField:
    """Activated splats in world units, with what every query of the field needs."""

    def __init__(
        self,
        means: Float[Tensor, "N 3"],
        quats: Float[Tensor, "N 4"],
        scales: Float[Tensor, "N 3"],
        opacities: Float[Tensor, " N"],
        colors: Float[Tensor, "N 3"],
    ) -> None:
        self.means, self.opacities, self.colors = means, opacities, colors
        rotations = rotation_matrices(quats)
        # half radii of the axis-aligned boxes around CUTOFF_SIGMA
        self.half_boxes = CUTOFF_SIGMA * (rotations * scales[:, None, :]).square().sum(dim=-1).sqrt()
        inverse = rotations / scales[:, None, :]
        self.precisions = inverse @ inverse.mT  # Sigma^-1 = R diag(scales^-2) R^T

    def at_points(
        self, points: Float[Tensor, "P 3"], chunk: int = 512
    ) -> tuple[Float[Tensor, " P"], Float[Tensor, "P 3"]]:
        """Density and colour at points, from all splats without cutoff; time P * N, memory chunk * N."""
        center = self.means.mean(dim=0)
        coefficients = self._coefficients(center)
        values = torch.cat([self.colors, torch.ones_like(self.opacities)[:, None]], dim=-1)
        densities, colors = [], []
        for part in points.split(chunk):
            log2_weights = _monomials(part - center) @ coefficients
            peak = log2_weights.amax(dim=-1, keepdim=True)  # far points still get the nearest splats' colour
            sums = (values.T @ log2_weights.sub_(peak).exp2_().T).T
            densities.append(sums[:, 3] * peak[:, 0].exp2())
            colors.append(sums[:, :3] / sums[:, 3:])
        return torch.cat(densities), torch.cat(colors)

    def on_grid(
        self, origin: Float[Tensor, "3"], spacing: float, shape: tuple[int, int, int]
    ) -> Float[Tensor, "X Y Z"]:
        """Density at origin + spacing * (i, j, k) for all i < X, j < Y, k < Z; each splat inside its cutoff box only.

        Each block of BLOCK^3 cells is one matrix product with the splats whose boxes meet it.
        """
        blocks = [-(-size // BLOCK) for size in shape]
        grid = self.means.new_zeros([count * BLOCK for count in blocks])
        splat_ids, starts, block_ids = self._pair_blocks(origin, spacing, blocks)
        steps = (torch.arange(BLOCK, device=grid.device, dtype=grid.dtype) - 0.5 * (BLOCK - 1)) * spacing
        cells = torch.stack(torch.meshgrid(steps, steps, steps, indexing="ij"), dim=-1).reshape(-1, 3)
        monomials = _monomials(cells)  # of a block's cells about its middle: the same for every block
        flat, counts = block_ids.to(grid.device), starts.diff().to(grid.device)
        places = torch.stack([flat // (blocks[1] * blocks[2]), flat // blocks[2] % blocks[1], flat % blocks[2]], dim=-1)
        middles = origin + spacing * (BLOCK * places + 0.5 * (BLOCK - 1))
        for first in range(0, len(flat), BLOCKS_AT_ONCE):
            last = min(first + BLOCKS_AT_ONCE, len(flat))
            ends = (starts[first : last + 1] - starts[first]).tolist()
            pairs = slice(int(starts[first]), int(starts[last]))
            around = middles[first:last].repeat_interleave(counts[first:last], dim=0)
            coefficients = self._coefficients(around, splat_ids[pairs])
            for (x, y, z), start, end in zip((BLOCK * places[first:last]).tolist(), ends, ends[1:], strict=False):
                weights = (monomials @ coefficients[:, start:end]).exp2_()
                grid[x : x + BLOCK, y : y + BLOCK, z : z + BLOCK] = weights.sum(dim=-1).reshape(BLOCK, BLOCK, BLOCK)
        return grid[: shape[0], : shape[1], : shape[2]].contiguous()

    def _coefficients(
        self, center: Float[Tensor, "*K 3"], chosen: slice | Int[Tensor, " K"] = slice(None)
    ) -> Float[Tensor, "10 K"]:
        """monomials(p - center) @ coefficients = log2(opacity_i exp(-1/2 d^T A d)): all splats in one matrix product.

        The square is multiplied out, so float32 loses digits with distance from the center, in units of splat sizes.
        Base 2 because torch's exp, unlike exp2, is many times slower where it underflows, and here it mostly does.
        """
        m = self.means[chosen] - center
        a = self.precisions[chosen]
        am = torch.einsum("nij,nj->ni", a, m)
        squares = -0.5 * torch.stack([a[:, 0, 0], a[:, 1, 1], a[:, 2, 2]], dim=-1)
        mixed = -torch.stack([a[:, 0, 1], a[:, 0, 2], a[:, 1, 2]], dim=-1)
        constant = self.opacities[chosen].clamp_min(1e-12).log() - 0.5 * (am * m).sum(dim=-1)
        return torch.cat([squares, mixed, am, constant[:, None]], dim=-1).T / math.log(2)

    def _pair_blocks(
        self, origin: Float[Tensor, "3"], spacing: float, blocks: list[int]
    ) -> tuple[Int[Tensor, " K"], Int[Tensor, " S"], Int[Tensor, " B"]]:
        """Splat ids grouped by the block they touch, where each group starts, and the blocks' flat ids."""
        edge = spacing * BLOCK
        limit = torch.tensor(blocks, device=origin.device)
        # the last cell of a block lies one spacing before the next block's first: widen by it, then floor
        low = ((self.means - self.half_boxes - origin + spacing) / edge).floor().long().clamp_min(0)
        low = torch.minimum(low, limit)
        high = ((self.means + self.half_boxes - origin) / edge).floor().long() + 1
        high = torch.minimum(high.clamp_min(0), limit)
        size = (high - low).clamp_min(0)
        count = size.prod(dim=-1)
        splat = torch.repeat_interleave(torch.arange(len(count), device=count.device), count)
        first = torch.repeat_interleave(count.cumsum(0) - count, count)
        inside = torch.arange(len(splat), device=count.device) - first
        sy, sz = size[splat, 1], size[splat, 2]
        x = low[splat, 0] + inside // (sy * sz)
        y = low[splat, 1] + inside // sz % sy
        z = low[splat, 2] + inside % sz
        flat = (x * blocks[1] + y) * blocks[2] + z
        order = torch.sort(flat, stable=True)
        ids, counts = torch.unique_consecutive(order.values, return_counts=True)
        starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        return splat[order.indices], starts.cpu(), ids


def _monomials(p: Float[Tensor, "P 3"]) -> Float[Tensor, "P 10"]:
    x, y, z = p.unbind(-1)
    return torch.stack([x * x, y * y, z * z, x * y, x * z, y * z, x, y, z, torch.ones_like(x)], dim=-1)
