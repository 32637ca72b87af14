"""What is looked at: the run, its mesh and the truth from the same cameras, and numbers from pictures alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from scipy.ndimage import label
from torch import Tensor

from sds3d.cameras import orbit
from sds3d.export import Mesh, to_uint8
from sds3d.export.render_mesh import render_mesh
from sds3d.export.views import render_views
from sds3d.metrics.image import psnr, saturation, soft_fraction
from sds3d.priors.embedded.render import render_solids
from sds3d.priors.embedded.solids import Solid
from sds3d.scenes import Scene
from sds3d.types import Cameras

JUDGED, SIZE = 12, 128  # views that are judged, 30 degrees apart, and their sides in pixels
GREY = 0.6  # what lies behind them: the classifier's own accuracy was measured over the same
SEEN = 0.01  # a view shows something if more of its pixels are more than half covered
STRAY = 0.25  # opacity from which something beside the object counts as a floater
EIGHT_CONNECTED = np.ones((3, 3), dtype=int)
THUMBS, THUMB_SIZE = 4, 96


@dataclass(frozen=True)
class Pictures:
    """Renders over black, so premultiplied by their opacity."""

    cameras: Cameras
    rgb: Float[Tensor, "B H W 3"]
    opacity: Float[Tensor, "B H W"]

    def over(self, value: float) -> Float[Tensor, "B 3 H W"]:
        """The pictures over a grey."""
        return (self.rgb + (1.0 - self.opacity[..., None]) * value).permute(0, 3, 1, 2).clamp(0, 1)

    def saturation(self) -> float:
        """Mean colour saturation (HSV, [0, 1]) where the object is."""
        return float(saturation(self.rgb, self.opacity[..., None]))

    def translucency(self) -> float:
        """Share of the covered pixels that are neither empty nor solid; a clean object has them at its outline only."""
        return float(soft_fraction(self.opacity))

    def floaters(self, bodies: int) -> float:
        """Share of the pixels above STRAY that lie outside the `bodies` largest patches of their view; 0 is clean."""
        outside = total = 0
        for view in (self.opacity > STRAY).numpy():
            patches, _ = label(view, EIGHT_CONNECTED)
            areas = np.sort(np.bincount(patches.ravel())[1:])[::-1]
            outside, total = outside + int(areas[bodies:].sum()), total + int(areas.sum())
        return outside / max(total, 1)

    def shown(self) -> list[bool]:
        """For each view whether there is anything to see."""
        return ((self.opacity > 0.5).float().mean((1, 2)) > SEEN).tolist()


def scored_cameras() -> Cameras:
    """The views whose pictures are judged."""
    return orbit(JUDGED, size=SIZE)


def scene_pictures(scene: Scene, cameras: Cameras) -> Pictures:
    """The scene as it is rendered."""
    seen = render_views(scene, cameras)
    return Pictures(cameras, torch.from_numpy(seen.rgb), torch.from_numpy(seen.opacity))


def true_pictures(solids: list[Solid], cameras: Cameras) -> Pictures:
    """The truth as the prior was shown it."""
    rgba = render_solids(solids, cameras)
    return Pictures(cameras, rgba[..., :3].clamp(0, 1), rgba[..., 3].clamp(0, 1))


def mesh_pictures(mesh: Mesh, cameras: Cameras) -> Pictures:
    """A mesh as it is, unlit: its colours were taken from renders that had their light already."""
    seen = render_mesh(mesh, cameras)
    return Pictures(cameras, torch.from_numpy(seen.rgb), torch.from_numpy(seen.opacity))


def pictures_psnr(first: Pictures, second: Pictures) -> float:
    """In decibels, over grey; 60 where they are equal."""
    return min(float(psnr(first.over(GREY), second.over(GREY))), 60.0)


def strip(scene: Scene, solids: Sequence[Solid] | None) -> UInt8[ndarray, "H W 3"]:
    """THUMBS views of the scene and as many of the truth in one row; white where there is no truth."""
    cameras = orbit(THUMBS, size=THUMB_SIZE)
    rows = [scene_pictures(scene, cameras).over(0.92)]
    rows.append(true_pictures(list(solids), cameras).over(0.92) if solids else torch.ones_like(rows[0]))
    tiles = torch.cat(rows).permute(0, 2, 3, 1).numpy()
    return to_uint8(np.concatenate(list(tiles), axis=1))
