"""Silhouettes against the truth: what fits best over its draws, up to scale and yaw.

The search, in full. Eight views of the run, 45 degrees apart. The first draw of the truth is seen from 24 azimuths, as
it is and scaled so that its silhouettes have the run's area on average; each of the 24 turns is tried with both, and
the smallest turn within TIE of the best is taken: what looks alike from two sides is not said to be turned. At that
turn every other draw is tried as it is and scaled to the run's area.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sds3d.cameras import orbit, turn_cameras
from sds3d.evaluation.ground_truth import DRAWS
from sds3d.priors.embedded.render import render_solids
from sds3d.priors.embedded.solids import Solid
from sds3d.types import Cameras

VIEWS, TURNS, SIZE = 8, 24, 96
TIE = 0.01
SCALES = (0.5, 2.0)  # what is searched: half the true size to double


@dataclass(frozen=True)
class Placement:
    """How the truth is to be turned and scaled to cover what the run shows."""

    silhouette_iou: float  # mean over the views, of the draw that fits best
    draw: int
    yaw_deg: float  # the run's object is turned by this, counter-clockwise from above, against the truth
    scales: list[float]  # of each draw

    @property
    def scale(self) -> float:
        """Of the draw that fits best."""
        return self.scales[self.draw]


def silhouette_cameras(azimuth_deg: float = 0.0) -> Cameras:
    """The eight views that silhouettes are compared in, or the same from farther around."""
    return turn_cameras(orbit(VIEWS, size=SIZE), math.radians(azimuth_deg))


def place(masks: Bool[Tensor, "B H W"], truths: list[list[Solid]]) -> Placement:
    """The best fit of the truth's silhouettes to the run's in the `silhouette_cameras`."""
    assert len(truths) == DRAWS, f"{len(truths)} draws, not {DRAWS}"
    if not masks.any():
        return Placement(0.0, 0, 0.0, [1.0] * DRAWS)
    all_around = _masks(truths[0], orbit(TURNS, size=SIZE))
    scale = _area_ratio(masks, all_around)
    tried = torch.stack([_over_turns(masks, all_around), _over_turns(masks, _masks(truths[0], scale=scale))])
    best = tried.amax(0)  # by turn
    good = [turn for turn in range(TURNS) if float(best[turn]) >= float(best.max()) - TIE]
    turn = min(good, key=lambda k: (min(k, TURNS - k), k))
    yaw_deg = (turn * 360.0 / TURNS + 180.0) % 360.0 - 180.0
    found = [(float(tried[0, turn]), 1.0), (float(tried[1, turn]), scale)]
    fits = [max(found)]
    for solids in truths[1:]:
        fits.append(_fit(masks, solids, yaw_deg))
    draw = max(range(DRAWS), key=lambda k: fits[k][0])
    return Placement(fits[draw][0], draw, yaw_deg, [found_scale for _, found_scale in fits])


def _fit(masks: Tensor, solids: list[Solid], yaw_deg: float) -> tuple[float, float]:
    """(IoU, scale) at one turn, the better of two scales."""
    cameras = silhouette_cameras(-yaw_deg)
    plain = _masks(solids, cameras)
    scale = _area_ratio(masks, plain)
    return max((float(mean_iou(masks, plain)), 1.0), (float(mean_iou(masks, _masks(solids, cameras, scale))), scale))


def mean_iou(first: Bool[Tensor, "B H W"], second: Bool[Tensor, "B H W"]) -> Float[Tensor, ""]:
    """Intersection over union of each view's masks, averaged; a view that is empty in both counts as 1."""
    both, either = (first & second).sum((1, 2)), (first | second).sum((1, 2))
    return torch.where(either > 0, both / either.clamp_min(1), 1.0).mean()


def _over_turns(masks: Tensor, all_around: Tensor) -> Float[Tensor, "T"]:
    """Mean IoU with the truth for each turn of the run: its view at azimuth a shows the truth's at a - turn."""
    step = TURNS // VIEWS
    views = torch.arange(VIEWS) * step
    return torch.stack([mean_iou(masks, all_around[(views - turn) % TURNS]) for turn in range(TURNS)])


def _masks(solids: list[Solid], cameras: Cameras | None = None, scale: float = 1.0) -> Bool[Tensor, "B H W"]:
    """Which pixels' centres the scaled object covers; from all TURNS sides where no cameras are given."""
    scaled = [solid.moved(scale, (0.0, 0.0, 0.0)) for solid in solids]
    return render_solids(scaled, cameras or orbit(TURNS, size=SIZE), samples=1)[..., 3] > 0.5


def _area_ratio(mine: Tensor, true: Tensor) -> float:
    """The scale at which the truth covers as much as the run does, within SCALES."""
    ratio = math.sqrt(float(mine.float().mean()) / float(true.float().mean()))
    return min(max(ratio, SCALES[0]), SCALES[1])
