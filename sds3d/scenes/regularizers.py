"""Regularizers as pure functions of a scene's renders or parameters, 0 at best: scalars, or one number per ray.

Those of rays take their packed samples and the compositing weight of each.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from sds3d.ops.composite import PerRay, PerSample, exclusive_cumsum, gather_rays
from sds3d.ops.march_rays import RaySamples
from sds3d.types import PerPixel, Scalar


def opacity_entropy(opacity: Float[Tensor, "..."]) -> Scalar:
    """Binary entropy: pushes coverage to 0 or 1 (the "opaque" loss of threestudio).

    mean(-o log o - (1 - o) log(1 - o)),   o clamped to [1e-3, 1 - 1e-3]
    Early in a run it freezes haze or emptiness: give it a schedule that starts late.
    """
    o = opacity.clamp(1e-3, 1 - 1e-3)
    return (-o * o.log() - (1 - o) * (1 - o).log()).mean()


def opacity_sparsity(opacity: Float[Tensor, "..."]) -> Scalar:
    """Penalty on coverage, steepest near empty, so that haze goes first (the "sparsity" loss of threestudio).

    mean(sqrt(o^2 + 0.01)) - 0.1
    """
    return (opacity.square() + 0.01).sqrt().mean() - 0.1


def depth_spread(opacity: PerPixel, sum_z: PerPixel, sum_zz: PerPixel, size: float) -> Scalar:
    """Bounded variance of the depths that a pixel sees: 0 for a thin surface (HiFA's z-variance, from rendered sums).

    mean(o v / (v + size^2)),   v = sum_i w_i z_i^2 / o - (sum_i w_i z_i / o)^2,   o = sum_i w_i
    The bound (Geman and McClure 1985) lets pixels that see two surfaces keep both; without it gaps between parts are
    filled. The o in front is detached, or the object would fade.
    """
    o = opacity.clamp_min(1e-3)
    variance = (sum_zz / o - (sum_z / o).square()).clamp_min(0)
    return (opacity.detach() * variance / (variance + size**2)).mean()


def total_variation(image: Float[Tensor, "B H W C"]) -> Scalar:
    """Mean squared difference of neighbouring pixels, down plus across (Rudin et al. 1992, squared form)."""
    down = (image[:, 1:] - image[:, :-1]).square().mean()
    across = (image[:, :, 1:] - image[:, :, :-1]).square().mean()
    return down + across


def anisotropic_variation(image: Float[Tensor, "B H W C"]) -> Scalar:
    """Mean absolute difference of neighbouring pixels, down plus across (Rudin et al. 1992): keeps edges."""
    from kornia.losses import total_variation  # slow to import

    return total_variation(image.permute(0, 3, 1, 2), reduction="mean").mean()


def segment_sum(values: PerSample, samples: RaySamples) -> PerRay:
    """Sum over the samples of each ray; 0 for a ray without samples."""
    return values.new_zeros(len(samples.offsets) - 1).index_add(0, samples.ray_indices, values)


def orientation(
    weights: PerSample, normals: Float[Tensor, "S 3"], directions: Float[Tensor, "S 3"], samples: RaySamples
) -> PerRay:
    """Penalty on visible samples whose normals face away from the camera (Verbin et al. 2022, Ref-NeRF, equation 11).

    sum_i w_i max(0, n_i . d)^2,   d from the camera to the sample
    As in DreamFusion the weights are detached, or parts would vanish instead of turning.
    """
    away = (normals * directions).sum(dim=-1).clamp_min(0)
    return segment_sum(weights.detach() * away.square(), samples)


def z_variance(weights: PerSample, samples: RaySamples) -> PerRay:
    """Variance of the distance along each ray (Zhu et al. 2023, HiFA): 0 for a thin surface.

    sum_i v_i (z_i - sum_j v_j z_j)^2,   v_i = w_i / sum_j w_j,   z the samples' middles
    The weights are normalized on each ray, so that haze cannot lower it by becoming fainter; 0 for empty rays.
    """
    distances, indices = (samples.t_starts + samples.t_ends) / 2, samples.ray_indices
    normalized = weights / gather_rays(segment_sum(weights, samples).clamp_min(1e-6), indices)
    mean = segment_sum(normalized * distances, samples)
    return segment_sum(normalized * (distances - gather_rays(mean, indices)).square(), samples)


def distortion(weights: PerSample, samples: RaySamples) -> PerRay:
    """How far the weights of each ray are spread out (Barron et al. 2022, mip-NeRF 360, equation 15).

    sum_ij w_i w_j |m_i - m_j| + 1/3 sum_i w_i^2 (end_i - start_i),   m the samples' middles, in world units
    Linear in the number of samples, by running sums over those in front. Published weights are for normalized
    distances: here the unit is that of the world.
    """
    starts, ends = samples.t_starts, samples.t_ends
    middles = (starts + ends) / 2
    in_front = exclusive_cumsum(weights, samples.ray_indices, samples.offsets)
    moment_in_front = exclusive_cumsum(weights * middles, samples.ray_indices, samples.offsets)
    pairs = 2 * weights * (middles * in_front - moment_in_front)
    return segment_sum(pairs + weights.square() * (ends - starts) / 3, samples)


def weighted_sum(losses: dict[str, Scalar], weights: dict[str, float]) -> Scalar:
    """sum_k weights[k] losses[k]; losses of weight 0 are left out, so that their gradient is not computed.

    0 without a gradient if all weights are 0: such a sum cannot be differentiated (`requires_grad` is False).
    """
    terms = [weights[name] * loss for name, loss in losses.items() if weights[name] != 0]
    return torch.stack(terms).sum() if terms else torch.zeros(())
