"""Signed distances from many renders: to the visual hull of the silhouettes, and to the fused depths (TSDF)."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy.ndimage import distance_transform_edt
from torch import Tensor
from torch.nn.functional import grid_sample

from sds3d.export.views import SceneViews

SOLID = 0.5  # opacity above which a pixel shows the object


@dataclass(frozen=True)
class Fused:
    """Signed distances at points, positive outside the object, in world units."""

    hull: Float[ndarray, "P"]  # to the visual hull: the largest distance to a silhouette's edge over the views
    depth: Float[ndarray, "P"]  # to the surface of the depth maps along the views; clipped at +-truncation


def fuse(views: SceneViews, points: Float[Tensor, "P 3"], truncation: float) -> Fused:
    """Space carving and depth fusion of the same renders.

    hull(p) = max_k d_k(p),   d_k = signed distance of p's pixel to the edge of silhouette k, times its size at p
    depth(p) = mean_k clip(D_k(p) - z_k(p), -s, s)   over views in which p is no deeper than s below the surface D_k
    (Curless and Levoy 1996), with truncation s. What no view sees from near enough is inside: -s.
    """
    hull = torch.full((len(points),), -torch.inf)
    sums, counts = torch.zeros(len(points)), torch.zeros(len(points))
    cameras = views.cameras
    sides = torch.tensor([cameras.width, cameras.height])
    for view in range(len(cameras)):
        pose, intrinsics = cameras.camera_to_world[view].cpu(), cameras.intrinsics[view].cpu()
        local = (points - pose[:3, 3]) @ pose[:3, :3]
        z = local[:, 2].clamp_min(1e-6)
        place = 2.0 * (local @ intrinsics.T)[:, :2] / z[:, None] / sides - 1.0
        solid = views.opacity[view] > SOLID
        edge = _sample(silhouette_distance(solid), place, "bilinear") * z / intrinsics[0, 0]
        hull = torch.maximum(hull, edge)
        gap = _sample(np.where(solid, views.depth[view], np.inf), place, "nearest") - z
        near = (gap > -truncation) & torch.isfinite(gap)  # outside the silhouette, the hull says so already
        sums += torch.where(near, gap.clamp(-truncation, truncation), 0.0)
        counts += near
    depth = torch.where(counts > 0, sums / counts.clamp_min(1), -truncation)
    return Fused(hull.numpy(), depth.numpy())


def silhouette_distance(solid: Bool[ndarray, "H W"]) -> Float[ndarray, "H W"]:
    """Pixels from each pixel's centre to the silhouette's edge, positive outside; the image's width if it is empty."""
    if not solid.any():
        return np.full(solid.shape, float(max(solid.shape)))
    outside, inside = distance_transform_edt(~solid), distance_transform_edt(solid)
    return np.where(solid, 0.5 - inside, outside - 0.5)  # the edge runs between two pixels' centres


def _sample(image: Float[ndarray, "H W"], place: Float[Tensor, "P 2"], mode: str) -> Float[Tensor, "P"]:
    """Values at points in [-1, 1]^2; beyond, those of the border."""
    values = torch.from_numpy(image).float()[None, None]
    return grid_sample(values, place[None, None], mode=mode, padding_mode="border", align_corners=False)[0, 0, 0]
