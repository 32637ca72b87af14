"""How similar two sets of renders from the same cameras are."""

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from sds3d.export.tsdf import SOLID
from sds3d.export.views import SceneViews
from sds3d.metrics.image import mask_iou, psnr

BACKGROUNDS = (0.0, 0.5, 1.0)  # a wrong outline is visible against at least one of them
GOOD_IOU, GOOD_DB = 0.95, 22.0  # from which a mesh passes without a warning


def silhouette_ious(first: SceneViews, second: SceneViews) -> Float[ndarray, "B"]:
    """Intersection over union of the silhouettes in each view; 1 where both are empty."""
    return mask_iou(*(torch.from_numpy(views.opacity > SOLID) for views in (first, second))).numpy()


def color_psnr(first: SceneViews, second: SceneViews) -> float:
    """PSNR in decibels of the object's own colours where both are solid; 0 if they are nowhere.

    Both are over black, so the object's own colour is rgb / opacity.
    """
    both = (first.opacity > SOLID) & (second.opacity > SOLID)
    if not both.any():
        return 0.0
    colors = [np.clip(views.rgb[both] / views.opacity[both][:, None], 0, 1) for views in (first, second)]
    return psnr(float(np.square(colors[0] - colors[1]).mean()))


def render_error(first: SceneViews, second: SceneViews) -> float:
    """Mean squared difference of whole images, outlines and colours, over black, grey and white."""
    rgb, opacity = first.rgb - second.rgb, (first.opacity - second.opacity)[..., None]
    return float(np.mean([np.square(rgb - opacity * background).mean() for background in BACKGROUNDS]))
