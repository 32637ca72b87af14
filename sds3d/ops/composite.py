"""Volume rendering of packed samples (Max 1995; Mildenhall et al. 2020)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F


def composite(
    densities: Float[Tensor, "S"],
    features: Float[Tensor, "S C"],
    t_starts: Float[Tensor, "S"],
    t_ends: Float[Tensor, "S"],
    offsets: Int[Tensor, "O"],
) -> tuple[Float[Tensor, "R C"], Float[Tensor, "R 1"], Float[Tensor, "R 1"], Float[Tensor, "S"]]:
    """Sums over each ray of w_i times features, 1 and distance, and the weights w_i themselves.

    w_i = T_i (1 - exp(-density_i delta_i)),   T_i = exp(-sum_{j < i} density_j delta_j),   delta = t_end - t_start
    The distance of a sample is its middle. Samples are packed, those of ray r from offsets[r] to offsets[r + 1] (O =
    R + 1), front to back; 0 for a ray without samples. Differentiable in densities and features.
    """
    return composite_reference(densities, features, t_starts, t_ends, offsets)


def composite_reference(
    densities: Float[Tensor, "S"],
    features: Float[Tensor, "S C"],
    t_starts: Float[Tensor, "S"],
    t_ends: Float[Tensor, "S"],
    offsets: Int[Tensor, "O"],
) -> tuple[Float[Tensor, "R C"], Float[Tensor, "R 1"], Float[Tensor, "R 1"], Float[Tensor, "S"]]:
    """`composite` in pure torch, for any float type and device."""
    rays = len(offsets) - 1
    ray_indices = torch.repeat_interleave(torch.arange(rays, device=offsets.device), offsets.diff())
    depths = densities * (t_ends - t_starts)
    sums = F.pad(depths.double().cumsum(0), (1, 0))  # a ray's share is a difference of sums over all rays
    in_front = (sums[:-1] - sums[offsets[:-1]][ray_indices]).to(depths)
    weights = torch.exp(-in_front) * -torch.expm1(-depths)
    distances = (t_starts + t_ends) / 2
    values = torch.cat([features, torch.ones_like(features[:, :1]), distances[:, None]], dim=-1)
    totals = values.new_zeros(rays, values.shape[1]).index_add(0, ray_indices, weights[:, None] * values)
    return totals[:, :-2], totals[:, -2:-1], totals[:, -1:], weights
