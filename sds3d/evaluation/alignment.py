"""Aligns the true object with the result by silhouettes: yaw, scale, and which draw of the proportions fits best.

1. The result is rendered from 8 sides, 45 degrees apart.
2. The first draw of the truth is rendered from 24 azimuths, at its own size and at the size at which its silhouettes
   have the result's area. Each yaw is tried with both sizes.
3. The smallest yaw within TIE of the best IoU is taken, so that an object that looks alike from two sides counts as not
   rotated.
4. At that yaw, every other draw is tried at its own size and at the result's area.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sds3d.cameras import orbit, turn_cameras
from sds3d.evaluation.ground_truth import DRAWS
from sds3d.metrics.image import mask_iou
from sds3d.priors.embedded.render import render_solids
from sds3d.priors.embedded.solids import Solid
from sds3d.types import Cameras

VIEWS, TURNS, SIZE = 8, 24, 96
TIE = 0.01
MIN_SCALE, MAX_SCALE = 0.5, 2.0


@dataclass(frozen=True)
class Alignment:
    """The rotation and scale of the truth at which its silhouettes overlap most with the result's."""

    silhouette_iou: float  # mean over the views, for the best draw
    draw: int  # the best one
    yaw_deg: float  # of the result against the truth, counter-clockwise from above
    scales: list[float]  # one for each draw

    @property
    def scale(self) -> float:
        """Scale of the best draw."""
        return self.scales[self.draw]


def silhouette_cameras(azimuth_deg: float = 0.0) -> Cameras:
    """The eight views in which silhouettes are compared, rotated around +z by `azimuth_deg`."""
    return turn_cameras(orbit(VIEWS, size=SIZE), math.radians(azimuth_deg))


def align(masks: Bool[Tensor, "B H W"], truths: list[list[Solid]]) -> Alignment:
    """The best fit of the draws `truths` to the result's silhouettes in the `silhouette_cameras`."""
    assert len(truths) == DRAWS, f"{len(truths)} draws, not {DRAWS}"
    if not masks.any():
        return Alignment(0.0, 0, 0.0, [1.0] * DRAWS)
    all_around = _masks(truths[0], orbit(TURNS, size=SIZE))
    scale = _area_ratio(masks, all_around)
    ious = torch.stack([_iou_by_turn(masks, all_around), _iou_by_turn(masks, _masks(truths[0], scale=scale))])
    best = ious.amax(0)  # for each turn
    good = [turn for turn in range(TURNS) if float(best[turn]) >= float(best.max()) - TIE]
    turn = min(good, key=lambda k: (min(k, TURNS - k), k))
    yaw_deg = (turn * 360.0 / TURNS + 180.0) % 360.0 - 180.0
    first = max((float(ious[0, turn]), 1.0), (float(ious[1, turn]), scale))
    fits = [first, *(_fit(masks, solids, yaw_deg) for solids in truths[1:])]
    draw = max(range(DRAWS), key=lambda k: fits[k][0])
    return Alignment(fits[draw][0], draw, yaw_deg, [fitted_scale for _, fitted_scale in fits])


def _fit(masks: Tensor, solids: list[Solid], yaw_deg: float) -> tuple[float, float]:
    """(IoU, scale) at one yaw, the better of two scales."""
    cameras = silhouette_cameras(-yaw_deg)
    unscaled = _masks(solids, cameras)
    scale = _area_ratio(masks, unscaled)
    scaled = _masks(solids, cameras, scale)
    return max((float(_mean_iou(masks, unscaled)), 1.0), (float(_mean_iou(masks, scaled)), scale))


def _mean_iou(first: Bool[Tensor, "B H W"], second: Bool[Tensor, "B H W"]) -> Float[Tensor, ""]:
    return mask_iou(first, second).float().mean()


def _iou_by_turn(masks: Tensor, all_around: Tensor) -> Float[Tensor, "T"]:
    """Mean IoU with the truth for each turn of the result: its view at azimuth a shows the truth's at a - turn."""
    views = torch.arange(VIEWS) * (TURNS // VIEWS)
    return torch.stack([_mean_iou(masks, all_around[(views - turn) % TURNS]) for turn in range(TURNS)])


def _masks(solids: list[Solid], cameras: Cameras | None = None, scale: float = 1.0) -> Bool[Tensor, "B H W"]:
    """Pixels whose centres the scaled object covers; from all TURNS sides without `cameras`."""
    scaled = [solid.moved(scale, (0.0, 0.0, 0.0)) for solid in solids]
    return render_solids(scaled, cameras or orbit(TURNS, size=SIZE), samples=1)[..., 3] > 0.5


def _area_ratio(masks: Tensor, truth: Tensor) -> float:
    """The scale at which the truth covers as many pixels as the result, within [MIN_SCALE, MAX_SCALE]."""
    ratio = math.sqrt(float(masks.float().mean()) / float(truth.float().mean()))
    return min(max(ratio, MIN_SCALE), MAX_SCALE)
