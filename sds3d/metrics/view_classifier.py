"""The Janus meter: does each side of the object look, to the prior, like the side that it is?

A render of a back is explained best by "back view"; one with a second face is explained best by "front view" again. So
every view is noised, the prior predicts the noise once for each side that the view might show, and the side whose
prediction is nearest to the true noise is the answer: a diffusion classifier (Li et al. 2023, "Your Diffusion Model is
Secretly a Zero-Shot Classifier"). Priors that read words get the sides as words; those that get the camera get them as
cameras rotated around the object.
"""

import math
from dataclasses import asdict, dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sds3d.cameras import orbit, turn_cameras
from sds3d.priors.base import Prior, PriorConfig
from sds3d.prompts import VIEW_WORDS, view_index
from sds3d.scenes.image import ImageScene
from sds3d.types import Cameras, RenderOutput, ViewCondition

VIEWS, SIZE, SEED = 8, 128, 0
TIMES = (0.4, 0.55, 0.7)  # where the coarse shape is decided
FAR_APART = torch.tensor([0, 2, 4, 6, 1, 3, 5, 7])  # in fours that multi-view priors can judge together
OFFSET = math.pi / VIEWS  # no view lies on the border between two sides
TURNS = (0.0, 0.5 * math.pi, math.pi, 1.5 * math.pi)
BACKGROUND = 0.5
FRONT_DEG = 45.0 + 7.5  # a view further from the front is no front view; at the border itself either answer is right


@runtime_checkable
class Renderable(Protocol):
    """What the meter needs of a scene."""

    def render(self, cameras: Cameras, background: Float[Tensor, "B 3"]) -> RenderOutput: ...


@dataclass(frozen=True)
class Janus:
    """Answers for eight views around the object."""

    agreement: float  # share of views that are taken for the side that they show
    front: float  # share that are taken for a front; equal to `truly_front` for a good object
    truly_front: float
    margin: float  # how much worse the other sides explain a view, on average; 0 where all sides look alike

    def to_dict(self) -> dict[str, float]:
        return {name: round(value, 4) for name, value in asdict(self).items()}


@torch.no_grad()
def measure(prior: Prior, facts: PriorConfig, prompt: str, scene: Renderable, device: torch.device) -> Janus | None:
    """Calls the prior for 8 views x 3 or 4 sides x 3 times; None for flat scenes and priors that tell no sides apart.

    `facts` is the config of the prior: whether it reads words for views, or cameras.
    """
    if isinstance(scene, ImageScene) or not (facts.reads_views or facts.reads_cameras):
        return None
    cameras = turn_cameras(orbit(VIEWS, size=SIZE).select(FAR_APART), OFFSET).to(device)
    grey = torch.full((VIEWS, 3), BACKGROUND, device=device)
    x = prior.encode(scene.render(cameras, grey).image())
    if facts.reads_cameras:
        (text,) = prior.embed([prompt])
        candidates = [turn_cameras(cameras, angle) for angle in TURNS]
        sides = [(text.expand(VIEWS, -1, -1), ViewCondition(candidate, grey)) for candidate in candidates]
        true = torch.zeros(VIEWS, dtype=torch.long)
        from_front = [candidate.azimuth.cos() > math.cos(math.radians(50.0)) for candidate in candidates]
        is_front = torch.stack(from_front, dim=1).cpu()
    else:
        words = prior.embed([f"{prompt}, {side}" for side in VIEW_WORDS[:3]])
        sides = [(row.expand(VIEWS, -1, -1), ViewCondition(cameras, grey)) for row in words]
        true = view_index(cameras.azimuth, cameras.elevation).cpu()
        is_front = torch.tensor([[True, False, False]]).expand(VIEWS, -1)
    errors, views = residuals(prior, x, sides), torch.arange(VIEWS)
    predicted, right = errors.argmin(dim=1), errors[views, true]
    others = (errors.sum(dim=1) - right) / (len(sides) - 1)
    return Janus(
        agreement=float((predicted == true).float().mean()),
        front=float(is_front[views, predicted].float().mean()),
        truly_front=float(is_front[views, true].float().mean()),
        margin=float((others / right - 1.0).mean()),
    )


def false_front_share(is_front: Bool[Tensor, " B"], azimuth: Float[Tensor, " B"], counted: Bool[Tensor, " B"]) -> float:
    """Share of the counted views that are not from the front but are taken for one: what a second face raises.

    0 where there are none.
    """
    angle = torch.rad2deg((azimuth + math.pi) % (2.0 * math.pi) - math.pi).abs()
    counted = counted & (angle > FRONT_DEG)
    return float((is_front & counted).sum() / counted.sum().clamp_min(1))


def residuals(
    prior: Prior, x: Float[Tensor, "B C h w"], sides: list[tuple[Float[Tensor, "B N D"], ViewCondition]]
) -> Float[Tensor, "B S"]:
    """Mean squared error of the noise predicted for each side, over TIMES; all sides get the same noise."""
    generator, errors = torch.Generator().manual_seed(SEED), []
    for time in TIMES:
        t = torch.full((len(x),), time, device=x.device)
        noise = torch.randn(x.shape, generator=generator).to(x)
        alpha, sigma = prior.alpha_sigma(t)
        x_t = alpha * x + sigma * noise
        predicted = [prior.predict_noise(x_t, t, [text], view)[0] for text, view in sides]
        errors.append(torch.stack([(eps - noise).square().flatten(1).mean(1) for eps in predicted], dim=1))
    return torch.stack(errors).mean(dim=0).cpu()
