"""Regularizers as pure functions of what a scene renders or holds; each is a scalar, 0 at best."""

import torch
from jaxtyping import Float
from torch import Tensor


def opacity_entropy(opacity: Float[Tensor, "..."]) -> Float[Tensor, ""]:
    """Binary entropy: pushes coverage to 0 or 1 (the "opaque" loss of threestudio).

    mean(-o log o - (1 - o) log(1 - o)),   o clamped to [1e-3, 1 - 1e-3]
    Early in a run it freezes fog or emptiness: give it a schedule that starts late.
    """
    o = opacity.clamp(1e-3, 1 - 1e-3)
    return (-o * o.log() - (1 - o) * (1 - o).log()).mean()


def opacity_sparsity(opacity: Float[Tensor, "..."]) -> Float[Tensor, ""]:
    """Penalty on coverage that is steepest near empty, so that haze goes first (DreamFusion's published code).

    mean(sqrt(o^2 + 0.01)) - 0.1
    """
    return (opacity.square() + 0.01).sqrt().mean() - 0.1


def scale_penalty(scales: Float[Tensor, "N 3"]) -> Float[Tensor, ""]:
    """Mean splat size in world units: keeps splats from growing into fog (the "scales" loss of threestudio-3dgs)."""
    return scales.mean()


def total_variation(image: Float[Tensor, "B H W C"]) -> Float[Tensor, ""]:
    """Mean squared difference of neighbouring pixels, down plus across (Rudin et al. 1992, squared form)."""
    down = (image[:, 1:] - image[:, :-1]).square().mean()
    across = (image[:, :, 1:] - image[:, :, :-1]).square().mean()
    return down + across


def weighted_sum(losses: dict[str, Float[Tensor, ""]], weights: dict[str, float]) -> Float[Tensor, ""]:
    """sum_k weights[k] losses[k]; losses of weight 0 are left out, so that their gradient is not computed."""
    terms = [weights[name] * loss for name, loss in losses.items() if weights[name] != 0]
    return torch.stack(terms).sum()
