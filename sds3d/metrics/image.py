"""Numbers about renders: how two compare, how clean and how colourful one is."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def silhouette_iou(
    first: Float[Tensor, "*shape"], second: Float[Tensor, "*shape"], threshold: float = 0.5
) -> Float[Tensor, ""]:
    """Intersection over union of two opacity maps cut at `threshold`; 1 when both are empty."""
    return mask_iou(first > threshold, second > threshold)


def mask_iou(first: Bool[Tensor, "*shape"], second: Bool[Tensor, "*shape"]) -> Float[Tensor, ""]:
    """Intersection over union of two masks; 1 when both are empty."""
    union = (first | second).sum()
    return torch.where(union > 0, (first & second).sum() / union.clamp_min(1), 1.0)


def soft_fraction(opacity: Float[Tensor, "..."], low: float = 0.1, high: float = 0.9) -> Float[Tensor, ""]:
    """Share of the covered pixels (opacity above `low`) that are neither empty nor solid: fog. 0 when all is empty."""
    covered = (opacity > low).sum()
    return ((opacity > low) & (opacity < high)).sum() / covered.clamp_min(1)


def saturation(rgb: Float[Tensor, "B H W 3"], opacity: Float[Tensor, "B H W 1"]) -> Float[Tensor, ""]:
    """Mean saturation (HSV, [0, 1]) of colours over black, weighted by opacity; 0 where all is empty."""
    from kornia.color import rgb_to_hsv

    colorfulness = rgb_to_hsv(rgb.permute(0, 3, 1, 2))[:, 1, :, :, None]  # black behind does not change it
    return (colorfulness * opacity).sum() / opacity.sum().clamp_min(1e-6)


def diversity(images: Float[Tensor, "N B H W 3"]) -> Float[Tensor, ""]:
    """How different N results look: root mean square difference of their renders from the same cameras, over pairs."""
    first, second = torch.triu_indices(len(images), len(images), offset=1)
    if len(first) == 0:
        return images.new_zeros(())
    return (images[first] - images[second]).square().mean().sqrt()


def psnr(image: Float[Tensor, "*shape"], target: Float[Tensor, "*shape"]) -> Float[Tensor, ""]:
    """Peak signal-to-noise ratio of images in [0, 1], in decibels: -10 log10(mean squared error)."""
    return -10.0 * torch.log10((image - target).square().mean())
