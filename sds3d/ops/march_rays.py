"""Samples along rays in the cells of an occupancy grid that may be visible (Mueller et al. 2022)."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sds3d.ops.composite import Offsets, PerRay, PerSample, exclusive_cumsum
from sds3d.ops.extension import compiled, has_kernels


@dataclass(frozen=True)
class OccupancyGrid:
    """Which cells of a box rays need not be sampled in."""

    binaries: Bool[Tensor, "X Y Z"]  # whether a cell is occupied
    aabb: Float[Tensor, "6"]  # low and high corner in the world
    least: Float[Tensor, "X Y Z"] | None = None  # lower bound of the density in each cell, 1 / world units; None: 0
    hidden_depth: float = math.inf  # samples behind this optical depth, computed from `least`, are left out


@dataclass(frozen=True)
class RaySamples:
    """All rays' samples in one axis, ray after ray and front to back; a ray may have none."""

    ray_indices: Int[Tensor, " S"]
    t_starts: PerSample  # distances along the ray
    t_ends: PerSample
    points: Float[Tensor, "S 3"]  # their middles, world units
    offsets: Offsets


@torch.no_grad()
def march_rays(
    rays_o: Float[Tensor, "R 3"],
    rays_d: Float[Tensor, "R 3"],
    near: PerRay,
    far: PerRay,
    grid: OccupancyGrid,
    step: float,
    max_samples: int,
    jitter: PerRay | None,
) -> RaySamples:
    """Intervals of length `step` between near and far whose middle lies in an occupied and visible cell.

    Interval k < max_samples of a ray begins at near + (k + jitter - 0.5) step with jitter in [0, 1), without jitter at
    near + k step. It is hidden if `step` times the sum of `least` over the samples in front of it is `hidden_depth` or
    more. Not differentiable. Waits for the device, to learn the number of samples.
    """
    if not has_kernels(rays_o):
        return march_rays_reference(rays_o, rays_d, near, far, grid, step, max_samples, jitter)
    starts = near if jitter is None else near + (jitter - 0.5) * step
    least = rays_o.new_empty(0) if grid.least is None else grid.least
    counts, kept = torch.ops.sds3d.march_rays_count(
        rays_o, rays_d, starts, far, grid.binaries, grid.aabb, least, step, max_samples, grid.hidden_depth
    )
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    total = int(offsets[-1])
    ray_indices, t_starts, points = torch.ops.sds3d.march_rays_fill(rays_o, rays_d, starts, kept, offsets, step, total)
    return RaySamples(ray_indices, t_starts, t_starts + step, points, offsets)


@torch.no_grad()
def march_rays_reference(
    rays_o: Float[Tensor, "R 3"],
    rays_d: Float[Tensor, "R 3"],
    near: PerRay,
    far: PerRay,
    grid: OccupancyGrid,
    step: float,
    max_samples: int,
    jitter: PerRay | None,
) -> RaySamples:
    """`march_rays` in pure torch, for any float type and device; its memory grows with R max_samples."""
    first = near if jitter is None else near + (jitter - 0.5) * step
    number = torch.arange(max_samples, device=first.device)
    starts = first[:, None] + number * step
    middles = starts + step / 2
    points = rays_o[:, None] + middles[..., None] * rays_d[:, None]
    shape = torch.tensor(grid.binaries.shape, device=first.device)
    place = (points - grid.aabb[:3]) * (shape / (grid.aabb[3:] - grid.aabb[:3]))
    kept = (middles < far[:, None]) & (place >= 0).all(dim=-1) & (place < shape).all(dim=-1)
    x, y, z = place.long().clamp_min(0).minimum(shape - 1).unbind(-1)
    kept &= grid.binaries[x, y, z]
    samples = _packed(kept, starts, points, step)
    if grid.least is None:
        return samples
    depths = grid.least[x, y, z][kept] * (samples.t_ends - samples.t_starts)
    seen = exclusive_cumsum(depths.double(), samples.ray_indices, samples.offsets) < grid.hidden_depth
    return _packed(kept.masked_scatter(kept, seen), starts, points, step)


def _packed(
    kept: Bool[Tensor, "R K"], starts: Float[Tensor, "R K"], points: Float[Tensor, "R K 3"], step: float
) -> RaySamples:
    ray_indices, numbers = kept.nonzero(as_tuple=True)
    t_starts = starts[ray_indices, numbers]
    offsets = torch.cat([numbers.new_zeros(1), kept.sum(dim=1).cumsum(0)])
    return RaySamples(ray_indices, t_starts, t_starts + step, points[ray_indices, numbers], offsets)


def march_count_fake(rays_o: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    """How many intervals of each ray are kept, and which, 64 to a word."""
    *_, max_samples, _hidden_depth = rest
    rays, words = rays_o.shape[0], (max_samples + 63) // 64
    return rays_o.new_empty(rays, dtype=torch.int64), rays_o.new_empty(rays, words, dtype=torch.int64)


def march_fill_fake(rays_o: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    """ray_indices, t_starts and points."""
    total = rest[-1]
    return rays_o.new_empty(total, dtype=torch.int64), rays_o.new_empty(total), rays_o.new_empty(total, 3)


if compiled():
    torch.library.register_fake("sds3d::march_rays_count", march_count_fake)
    torch.library.register_fake("sds3d::march_rays_fill", march_fill_fake)
