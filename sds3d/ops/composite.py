"""Volume rendering of packed samples (Max 1995; Mildenhall et al. 2020)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from sds3d.ops.extension import has_kernels, register

MAX_CHANNELS = 8  # of the kernels

PerSample = Float[Tensor, " S"]
PerRay = Float[Tensor, " R"]
Offsets = Int[Tensor, " O"]  # O = R + 1; samples of ray r are offsets[r] to offsets[r + 1]
Composited = tuple[Float[Tensor, "R C"], Float[Tensor, "R 1"], Float[Tensor, "R 1"], PerSample]


def composite(
    densities: PerSample, features: Float[Tensor, "S C"], t_starts: PerSample, t_ends: PerSample, offsets: Offsets
) -> Composited:
    """Features, opacity and distance composited along each ray, and the weights w_i.

    features_r = sum_i w_i features_i,   opacity_r = sum_i w_i,   distance_r = sum_i w_i (t_start + t_end) / 2

    w_i = T_i (1 - exp(-density_i delta_i)),   T_i = exp(-sum_{j < i} density_j delta_j),   delta = t_end - t_start
    Samples are packed, those of ray r from offsets[r] to offsets[r + 1] (O = R + 1), front to back; a ray without
    samples gives 0. Differentiable once, in densities and features. distance_r is not normalized: divide by the opacity
    for the mean.
    """
    if not has_kernels(densities) or features.shape[1] > MAX_CHANNELS:
        return composite_reference(densities, features, t_starts, t_ends, offsets)
    return torch.ops.sds3d.composite(densities, features, t_starts, t_ends, offsets)


def composite_reference(
    densities: PerSample, features: Float[Tensor, "S C"], t_starts: PerSample, t_ends: PerSample, offsets: Offsets
) -> Composited:
    """`composite` in pure torch, for any float type, device and C."""
    rays = len(offsets) - 1
    ray_indices = torch.repeat_interleave(torch.arange(rays, device=offsets.device), offsets.diff())
    depths = densities * (t_ends - t_starts)
    weights = torch.exp(-exclusive_cumsum(depths, ray_indices, offsets)) * -torch.expm1(-depths)
    distances = (t_starts + t_ends) / 2
    values = torch.cat([features, torch.ones_like(features[:, :1]), distances[:, None]], dim=-1)
    totals = values.new_zeros(rays, values.shape[1]).index_add(0, ray_indices, weights[:, None] * values)
    return totals[:, :-2], totals[:, -2:-1], totals[:, -1:], weights


def exclusive_cumsum(values: PerSample, ray_indices: Int[Tensor, " S"], offsets: Offsets) -> PerSample:
    """For each sample, the sum over the samples in front of it on its ray.

    Computed in float64: it is a difference of cumulative sums over all rays.
    """
    sums = F.pad(values.double().cumsum(0), (1, 0))
    return (sums[:-1] - gather_rays(sums[offsets[:-1]], ray_indices)).to(values)


def gather_rays(values: PerRay, ray_indices: Int[Tensor, " S"]) -> PerSample:
    """The value of each sample's ray. Not by indexing, whose backward pass may sum in another order each time."""
    return values.index_select(0, ray_indices)


def composite_fake(
    densities: Tensor, features: Tensor, t_starts: Tensor, t_ends: Tensor, offsets: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rays = offsets.shape[0] - 1
    image, column = features.new_empty(rays, features.shape[1]), features.new_empty(rays, 1)
    return image, column, torch.empty_like(column), torch.empty_like(densities)


def composite_backward_fake(densities: Tensor, features: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(densities), torch.empty_like(features)


def save_for_backward(ctx, inputs: tuple, output: tuple) -> None:
    ctx.save_for_backward(*inputs, output[3])


def composite_backward(ctx, *upstream: Tensor) -> tuple:
    """Analytic gradients to densities and features; there are none to the positions along the ray."""
    grads = torch.ops.sds3d.composite_backward(*ctx.saved_tensors, *upstream)
    return *grads, None, None, None


register("composite", composite_fake, composite_backward_fake, composite_backward, save_for_backward)
