"""Renders of the result, its mesh and the truth from the same cameras, and numbers that need no classifier."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray
from scipy.ndimage import label
from torch import Tensor

from sds3d.cameras import orbit
from sds3d.export.mesh import Mesh
from sds3d.export.png import to_uint8
from sds3d.export.render_mesh import render_mesh
from sds3d.export.views import render_views
from sds3d.metrics.image import psnr, saturation, translucency
from sds3d.priors.embedded.render import render_solids
from sds3d.priors.embedded.solids import Solid
from sds3d.scenes import Scene
from sds3d.types import Cameras

SCORED_VIEWS, SIZE = 12, 128  # views, 30 degrees apart, and their width in pixels
GREY = 0.6  # their background; the classifier's accuracy was measured over the same
PAPER = 0.92  # the background of the strips
MIN_COVERAGE = 0.01  # share of pixels above half opacity from which a view shows something
STRAY = 0.25  # opacity from which a patch beside the object counts as a floater
EIGHT_CONNECTED = np.ones((3, 3), dtype=int)
THUMBS, THUMB_SIZE = 4, 96


@dataclass(frozen=True)
class Renders:
    """Renders over black: colours are premultiplied by opacity."""

    cameras: Cameras
    rgb: Float[Tensor, "B H W 3"]
    opacity: Float[Tensor, "B H W"]

    def over(self, value: float) -> Float[Tensor, "B 3 H W"]:
        """The renders over a grey of this value."""
        return (self.rgb + (1.0 - self.opacity[..., None]) * value).permute(0, 3, 1, 2).clamp(0, 1)

    def looks(self) -> dict[str, float]:
        """Mean saturation (HSV, [0, 1]), and the share of the covered pixels that are neither empty nor solid."""
        return {
            "saturation": float(saturation(self.rgb, self.opacity[..., None])),
            "translucency": float(translucency(self.opacity)),
        }

    def floaters(self, bodies: int) -> float:
        """Share of the pixels above STRAY that lie outside the `bodies` largest patches of their view."""
        outside = total = 0
        for view in (self.opacity > STRAY).numpy():
            patches, _ = label(view, EIGHT_CONNECTED)
            areas = np.sort(np.bincount(patches.ravel())[1:])[::-1]
            outside, total = outside + int(areas[bodies:].sum()), total + int(areas.sum())
        return outside / max(total, 1)

    def visible(self) -> Bool[Tensor, " B"]:
        """For each view, whether it shows anything."""
        return (self.opacity > 0.5).float().mean((1, 2)) > MIN_COVERAGE


def scored_cameras() -> Cameras:
    """The views that are scored."""
    return orbit(SCORED_VIEWS, size=SIZE)


def scene_renders(scene: Scene, cameras: Cameras, lit: bool = True) -> Renders:
    """The result."""
    seen = render_views(scene, cameras, lit=lit)
    return Renders(cameras, torch.from_numpy(seen.rgb), torch.from_numpy(seen.opacity))


def true_renders(solids: list[Solid], cameras: Cameras) -> Renders:
    """The truth, as in the prior's training data."""
    rgba = render_solids(solids, cameras)
    return Renders(cameras, rgba[..., :3].clamp(0, 1), rgba[..., 3].clamp(0, 1))


def mesh_psnr(mesh: Mesh, scene: Scene, cameras: Cameras) -> float:
    """Of the mesh's renders against the scene's, in decibels, over grey, both without light."""
    seen, truth = render_mesh(mesh, cameras), scene_renders(scene, cameras, lit=False)
    mine = Renders(cameras, torch.from_numpy(seen.rgb), torch.from_numpy(seen.opacity))
    return psnr(float((mine.over(GREY) - truth.over(GREY)).square().mean()))


def strip(scene: Scene, solids: Sequence[Solid] | None) -> UInt8[ndarray, "H W 3"]:
    """THUMBS views of the result and of the truth in one row; white without a truth."""
    cameras = orbit(THUMBS, size=THUMB_SIZE)
    rows = [scene_renders(scene, cameras).over(PAPER)]
    rows.append(true_renders(list(solids), cameras).over(PAPER) if solids else torch.ones_like(rows[0]))
    tiles = torch.cat(rows).permute(0, 2, 3, 1).numpy()
    return to_uint8(np.concatenate(list(tiles), axis=1))
