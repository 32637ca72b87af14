"""The Janus meter: does each side of the object look, to the prior, like the side that it is?

A picture of a back is explained best by "back view"; one with a second face is explained best by "front view" again. So
every view is noised, the prior predicts the noise once for each side that it might be, and the side whose prediction is
nearest to the true noise is what the view is read as (a diffusion classifier: Li et al. 2023, "Your Diffusion Model is
Secretly a Zero-Shot Classifier"). Sides are words for priors that read them, and turned cameras for those that are told
the camera.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sds3d.cameras import orbit, orbit_cameras
from sds3d.config.run_config import RunConfig
from sds3d.priors.base import Prior
from sds3d.prompts import VIEW_WORDS, view_index
from sds3d.types import Cameras, RenderOutput, ViewCondition

VIEWS, SIZE, SEED = 8, 128, 0
TIMES = (0.4, 0.55, 0.7)  # coarse shape is decided there
FAR_APART = torch.tensor([0, 2, 4, 6, 1, 3, 5, 7])  # fours that multi-view priors can judge together
OFFSET = math.pi / VIEWS  # no view on the border between two sides
TURNS = (0.0, 0.5 * math.pi, math.pi, 1.5 * math.pi)
BACKGROUND = 0.5
Render = Callable[[Cameras, Tensor], RenderOutput]


@dataclass(frozen=True)
class Janus:
    """Of eight views around the object."""

    agreement: float  # share that is read as the side that it is
    front: float  # share that is read as a front; `truly_front` of a good object
    truly_front: float
    margin: float  # how much worse the other sides explain a view, on average; 0 where all sides look alike

    def to_dict(self) -> dict[str, float]:
        return {name: round(value, 4) for name, value in asdict(self).items()}


@torch.no_grad()
def measure(prior: Prior, config: RunConfig, render: Render, device: torch.device) -> Janus | None:
    """Asks the prior 8 views x 3 or 4 sides x 3 times; None for priors that tell no sides apart, and flat scenes.

    `render` is the scene's.
    """
    if config.scene.is_flat or not (config.prior.reads_views or config.prior.reads_cameras):
        return None
    cameras = turn(orbit(VIEWS, size=SIZE).select(FAR_APART), OFFSET).to(device)
    out = render(cameras, torch.full((VIEWS, 3), BACKGROUND, device=device))
    x = prior.encode(out.image())
    if config.prior.reads_cameras:
        (text,) = prior.embed([config.prompt])
        turned = [turn(cameras, angle) for angle in TURNS]
        sides = [(text.expand(VIEWS, -1, -1), _condition(other, device)) for other in turned]
        true = torch.zeros(VIEWS, dtype=torch.long)
        is_front = torch.stack([_from_front(other) for other in turned], dim=1).cpu()
    else:
        words = prior.embed([f"{config.prompt}, {side}" for side in VIEW_WORDS[:3]])
        sides = [(row.expand(VIEWS, -1, -1), _condition(cameras, device)) for row in words]
        true = view_index(cameras.azimuth, cameras.elevation).cpu()
        is_front = torch.tensor([[True, False, False]]).expand(VIEWS, -1)
    errors = residuals(prior, x, sides)
    return _summary(errors, true, is_front)


def residuals(
    prior: Prior, x: Float[Tensor, "B C h w"], sides: list[tuple[Float[Tensor, "B N D"], ViewCondition]]
) -> Float[Tensor, "B S"]:
    """Mean squared error of the noise predicted for each side, over TIMES; all sides get the same noise."""
    generator, found = torch.Generator().manual_seed(SEED), []
    for time in TIMES:
        t = torch.full((len(x),), time, device=x.device)
        noise = torch.randn(x.shape, generator=generator).to(x)
        alpha, sigma = prior.alpha_sigma(t)
        x_t = alpha * x + sigma * noise
        predicted = [prior.predict_noise(x_t, t, [text], view)[0] for text, view in sides]
        found.append(torch.stack([(eps - noise).square().flatten(1).mean(1) for eps in predicted], dim=1))
    return torch.stack(found).mean(dim=0).cpu()


def turn(cameras: Cameras, angle: float) -> Cameras:
    """The same views from further around the object."""
    height, focal = cameras.height, cameras.intrinsics[:, 0, 0]
    return orbit_cameras(
        cameras.azimuth + angle, cameras.elevation, cameras.distance, 2.0 * torch.atan(height / (2.0 * focal)), height
    )


def _summary(errors: Tensor, true: Tensor, is_front: Tensor) -> Janus:
    views = torch.arange(len(errors))
    read, right = errors.argmin(dim=1), errors[views, true]
    others = (errors.sum(dim=1) - right) / (errors.shape[1] - 1)
    return Janus(
        agreement=float((read == true).float().mean()),
        front=float(is_front[views, read].float().mean()),
        truly_front=float(is_front[views, true].float().mean()),
        margin=float((others / right - 1.0).mean()),
    )


def _condition(cameras: Cameras, device: torch.device) -> ViewCondition:
    return ViewCondition(cameras, torch.full((len(cameras), 3), BACKGROUND, device=device))


def _from_front(cameras: Cameras) -> Tensor:
    return cameras.azimuth.cos() > math.cos(math.radians(50.0))
