"""Numbers about renders: how two compare, how clean and how colourful one is."""

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

MAX_PSNR_DB = 60.0  # of images that are equal


def mask_iou(first: Bool[Tensor, "*views H W"], second: Bool[Tensor, "*views H W"]) -> Float[Tensor, "*views"]:
    """Intersection over union of the masks of each view, float64; 1 where both are empty."""
    union = (first | second).sum((-2, -1))
    return torch.where(union > 0, (first & second).sum((-2, -1)).double() / union.clamp_min(1), 1.0)


def psnr(mean_squared_error: float) -> float:
    """Peak signal-to-noise ratio of images in [0, 1], in decibels: -10 log10(mse), at most MAX_PSNR_DB."""
    return float(min(-10.0 * np.log10(max(mean_squared_error, 1e-12)), MAX_PSNR_DB))


def translucency(opacity: Float[Tensor, "..."], low: float = 0.1, high: float = 0.9) -> Float[Tensor, ""]:
    """Share of the covered pixels (opacity above `low`) that are neither empty nor solid; 0 where all is empty.

    A clean object has such pixels at its outline only.
    """
    covered = (opacity > low).sum()
    return ((opacity > low) & (opacity < high)).sum() / covered.clamp_min(1)


def saturation(rgb: Float[Tensor, "B H W 3"], opacity: Float[Tensor, "B H W 1"]) -> Float[Tensor, ""]:
    """Mean saturation (HSV, [0, 1]) of colours over black, weighted by opacity; 0 where all is empty."""
    from kornia.color import rgb_to_hsv

    colorfulness = rgb_to_hsv(rgb.permute(0, 3, 1, 2))[:, 1, :, :, None]  # black behind does not change it
    return (colorfulness * opacity).sum() / opacity.sum().clamp_min(1e-6)


def diversity(images: Float[Tensor, "N B H W 3"]) -> Float[Tensor, ""]:
    """Root mean square difference of the renders of N results from the same cameras, over all pairs; 0 for one."""
    first, second = torch.triu_indices(len(images), len(images), offset=1)
    if len(first) == 0:
        return images.new_zeros(())
    return (images[first] - images[second]).square().mean().sqrt()
