"""Samples along rays where an occupancy grid says that there may be something (Mueller et al. 2022)."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class RaySamples:
    """All rays' samples in one axis, ray after ray and front to back; a ray may have none."""

    ray_indices: Int[Tensor, "S"]
    t_starts: Float[Tensor, "S"]  # distances along the ray
    t_ends: Float[Tensor, "S"]
    offsets: Int[Tensor, "O"]  # O = R + 1; samples of ray r are offsets[r] to offsets[r + 1]


@torch.no_grad()
def march_rays(
    rays_o: Float[Tensor, "R 3"],
    rays_d: Float[Tensor, "R 3"],
    near: Float[Tensor, "R"],
    far: Float[Tensor, "R"],
    binaries: Bool[Tensor, "X Y Z"],
    aabb: Float[Tensor, "6"],
    step: float,
    max_samples: int,
    jitter: Float[Tensor, "R"] | None,
) -> RaySamples:
    """Intervals of length `step` whose middle lies in an occupied cell, between near and far and inside the box.

    Interval k of a ray begins at near + (k + jitter - 0.5) step, without jitter at near + k step, for k < max_samples;
    jitter is in [0, 1). Not differentiable. Looks at every interval, so its memory grows with R max_samples.
    """
    number = torch.arange(max_samples, device=near.device)
    moved = near if jitter is None else near + (jitter - 0.5) * step
    starts = moved[:, None] + number * step
    middles = starts + step / 2
    points = rays_o[:, None] + middles[..., None] * rays_d[:, None]
    shape = torch.tensor(binaries.shape, device=near.device)
    place = (points - aabb[:3]) / (aabb[3:] - aabb[:3]) * shape
    kept = (middles < far[:, None]) & (place >= 0).all(dim=-1) & (place < shape).all(dim=-1)
    x, y, z = place.long().clamp_min(0).minimum(shape - 1).unbind(-1)
    kept &= binaries[x, y, z]
    ray_indices, found = kept.nonzero(as_tuple=True)
    t_starts = starts[ray_indices, found]
    offsets = torch.cat([found.new_zeros(1), kept.sum(dim=1).cumsum(0)])
    return RaySamples(ray_indices, t_starts, t_starts + step, offsets)
