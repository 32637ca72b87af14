"""How much two sets of pictures from the same cameras agree."""

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from sds3d.export.tsdf import SOLID
from sds3d.export.views import SceneViews

BACKGROUNDS = (0.0, 0.5, 1.0)  # an outline that is wrong shows before at least one of them
GOOD_IOU, GOOD_DB = 0.95, 22.0  # what a mesh is to reach against its scene
MOST_DB = 60.0  # of pictures that are equal


def compare_silhouettes(first: SceneViews, second: SceneViews) -> Float[ndarray, "B"]:
    """Intersection over union of the silhouettes in each view; 1 where both are empty."""
    mine, theirs = first.opacity > SOLID, second.opacity > SOLID
    both, either = (mine & theirs).sum(axis=(1, 2)), (mine | theirs).sum(axis=(1, 2))
    return np.where(either > 0, both / np.maximum(either, 1), 1.0)


def compare_colors(first: SceneViews, second: SceneViews) -> float:
    """PSNR in decibels where both show something solid, of the colours without what is behind them; 0 if nowhere.

    Both are over black, so that colour / opacity is the object's own.
    """
    both = (first.opacity > SOLID) & (second.opacity > SOLID)
    if not both.any():
        return 0.0
    mine, theirs = (views.rgb[both] / views.opacity[both][:, None] for views in (first, second))
    error = float(np.square(np.clip(mine, 0, 1) - np.clip(theirs, 0, 1)).mean())
    return float(min(-10.0 * np.log10(max(error, 1e-12)), MOST_DB))


def picture_error(first: SceneViews, second: SceneViews) -> float:
    """Mean squared difference of the whole pictures, outlines and colours, before black, grey and white."""
    rgb, opacity = first.rgb - second.rgb, (first.opacity - second.opacity)[..., None]
    return float(np.mean([np.square(rgb - opacity * background).mean() for background in BACKGROUNDS]))
