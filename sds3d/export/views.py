"""Renders for exporters: chunked over views, without gradient, as numpy; and how similar two sets of them are."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.ndimage import distance_transform_edt, label
from torch import Tensor
from torch.nn.functional import grid_sample

from sds3d.cameras import orbit
from sds3d.errors import ExportError
from sds3d.export.surface import PINHOLE
from sds3d.export.tunnels import enclosed
from sds3d.metrics.image import mask_iou, psnr
from sds3d.scenes.base import RenderContext, Scene
from sds3d.types import PER_VIEW, Cameras

VIEWS_AT_ONCE = 4  # bounds memory at large sizes
POINTS_AT_ONCE = 1 << 18  # of those that are looked up in views
RINGS = {-10: 8, 15: 8, 40: 8, 70: 5, -45: 5}  # elevation in degrees: views evenly around
SOLID = 0.5  # opacity above which a pixel shows the object
BACKGROUNDS = (0.0, 0.5, 1.0)  # a wrong outline is visible against at least one of them
GOOD_IOU, GOOD_DB = 0.95, 22.0  # from which a mesh passes without a warning


@dataclass(frozen=True)
class SceneViews:
    """Renders on the CPU."""

    cameras: Cameras
    rgb: Float[ndarray, "B H W 3"]  # over the background; over black, premultiplied by opacity
    opacity: Float[ndarray, "B H W"]
    depth: Float[ndarray, "B H W"]  # mean depth in world units along the camera's z; inf where nothing is visible

    @property
    def silhouettes(self) -> Bool[ndarray, "B H W"]:
        """The pixels that show the object."""
        return self.opacity > SOLID

    def project(self, view: int, points: Float[Tensor, "P 3"]) -> tuple[Float[Tensor, "P 2"], Float[Tensor, " P"]]:
        """Where one view shows world points, in [-1, 1]^2 as `sample` takes them, and their depth along its z."""
        to_image, shift = self._projection
        x, y, depth = torch.addmm(shift[view], to_image[view], points.mT)
        return torch.stack([x / depth, y / depth], dim=-1), depth

    @cached_property
    def _projection(self) -> tuple[Float[Tensor, "B 3 3"], Float[Tensor, "B 3 1"]]:
        """As cameras.project, but from -1 to 1, and once for all points."""
        cameras = self.cameras.to("cpu")
        pose, sides = cameras.camera_to_world, [2 / cameras.width, 2 / cameras.height, 1.0]
        to_sides = torch.diag(torch.tensor(sides)) - torch.tensor([[0, 0, 1.0], [0, 0, 1.0], [0, 0, 0]])
        to_image = to_sides @ cameras.intrinsics @ pose[:, :3, :3].mT
        return to_image, -to_image @ pose[:, :3, 3:]

    @cached_property
    def outlines(self) -> list[tuple[Bool[ndarray, "H W"], Float[ndarray, "H W"]]]:
        """Of each view the silhouette, in which gaps between splats are filled, and the distance to its edge."""
        solid = [(seen | enclosed(seen)) & (opening_labels(seen) == 0) for seen in self.silhouettes]
        return [(seen, silhouette_distance(seen)) for seen in solid]

    @property
    def openings(self) -> int:
        """Through how many openings of the object one view sees the background, where it sees most of them."""
        return max(int(opening_labels(solid).max()) for solid in self.silhouettes)

    def silhouette_ious(self, truth: "SceneViews") -> Float[ndarray, " B"]:
        """Intersection over union with the silhouettes of the same views of another object; 1 where both are empty."""
        return mask_iou(torch.from_numpy(self.silhouettes), torch.from_numpy(truth.silhouettes)).numpy()

    def color_psnr(self, truth: "SceneViews") -> float:
        """PSNR in decibels of the object's own colours where both are solid; 0 if they are nowhere.

        Both are over black, so the object's own colour is rgb / opacity.
        """
        both = self.silhouettes & truth.silhouettes
        if not both.any():
            return 0.0
        colors = [np.clip(views.rgb[both] / views.opacity[both][:, None], 0, 1) for views in (self, truth)]
        return psnr(float(np.square(colors[0] - colors[1]).mean()))

    def error(self, truth: "SceneViews") -> float:
        """Mean squared difference of whole images, outlines and colours, over black, grey and white."""
        rgb, opacity = self.rgb - truth.rgb, (self.opacity - truth.opacity)[..., None]
        return float(np.mean([np.square(rgb - opacity * background).mean() for background in BACKGROUNDS]))


def opening_labels(solid: Bool[ndarray, "H W"]) -> Int[ndarray, "H W"]:
    """A number from 1 on for each region of background that a silhouette encloses; 0 elsewhere.

    Regions smaller than a disc of PINHOLE times the silhouette's longest side are gaps between splats, and count as 0.
    """
    regions, count = label(enclosed(solid))
    rows, columns = np.flatnonzero(solid.any(axis=1)), np.flatnonzero(solid.any(axis=0))
    size = max(np.ptp(rows), np.ptp(columns)) + 1 if len(rows) else 0
    wide = np.bincount(regions.ravel(), minlength=count + 1) >= math.pi / 4 * (PINHOLE * size) ** 2
    wide[0] = False
    return np.where(wide, np.cumsum(wide), 0)[regions]


def silhouette_distance(solid: Bool[ndarray, "H W"]) -> Float[ndarray, "H W"]:
    """Pixels from each pixel's centre to the silhouette's edge, positive outside; the image's width if it is empty."""
    if not solid.any():
        return np.full(solid.shape, float(max(solid.shape)))
    outside, inside = distance_transform_edt(~solid), distance_transform_edt(solid)
    return np.where(solid, 0.5 - inside, outside - 0.5)  # the edge runs between two pixels' centres


def sample(images: Float[Tensor, "C H W"], places: Float[Tensor, "P 2"], mode: str) -> Float[Tensor, "P C"]:
    """Values of images at points in [-1, 1]^2; beyond, those of the border."""
    values = grid_sample(images[None], places[None, None], mode=mode, padding_mode="border", align_corners=False)
    return values[0, :, 0].T


def scene_device(scene: Scene) -> torch.device:
    """The device of the scene's parameters."""
    return torch.device(scene.param_groups()[0].parameters[0].device)


def check_finite(scene: Scene) -> None:
    """ExportError if the scene is empty, or names the first parameters that are not finite."""
    for group in scene.param_groups():
        for parameter in group.parameters:
            if parameter.numel() == 0:
                raise ExportError(
                    f"there is no object to export: the scene is empty, it has no {group.name}",
                    hint="start the run again, with another seed or a lower loss_weights.sparsity",
                )
            if not torch.isfinite(parameter).all():
                raise ExportError(
                    f"the scene's {group.name} are not finite: the run has diverged",
                    hint="resume from an earlier checkpoint, or lower the learning rates",
                )


def render_views(
    scene: Scene, cameras: Cameras, background: tuple[float, float, float] = (0.0, 0.0, 0.0), lit: bool = True
) -> SceneViews:
    """Every view over one background colour, a few views at a time; unlit for exports, to which viewers bring light."""
    device = scene_device(scene)
    context = RenderContext(lit=lit)
    images, opacities, depths = [], [], []
    with torch.no_grad():
        for batch in batches(cameras, VIEWS_AT_ONCE):
            part = batch.to(device)
            out = scene.render(part, torch.tensor(background, device=device).expand(len(part), 3), context)
            images.append(out.rgb.clamp(0, 1).cpu().numpy())
            opacities.append(out.opacity[..., 0].cpu().numpy())
            depths.append(out.mean_depth()[..., 0].cpu().numpy())
    return SceneViews(cameras, np.concatenate(images), np.concatenate(opacities), np.concatenate(depths))


def views_all_around(scene: Scene, size: int, rings: Mapping[int, int] = RINGS) -> SceneViews:
    """Renders over black; of RINGS 34: three rings of 8 around the horizon, 5 from above, 5 from below."""
    cameras = [orbit(count, elevation_deg=elevation, size=size) for elevation, count in rings.items()]
    joined: dict[str, Any] = {name: torch.cat([getattr(ring, name) for ring in cameras]) for name in PER_VIEW}
    return render_views(scene, replace(cameras[0], **joined), lit=False)


def batches(cameras: Cameras, count: int) -> Iterator[Cameras]:
    """The cameras, at most `count` at a time."""
    for views in torch.arange(len(cameras)).split(count):
        yield cameras.select(views)
