"""Renders for exporters: chunked over views, without gradient, as numpy."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from sds3d.cameras import orbit
from sds3d.errors import ExportError
from sds3d.scenes.base import Scene
from sds3d.types import PER_VIEW, Cameras

VIEWS_AT_ONCE = 4  # bounds memory at large sizes
RINGS = {-10: 8, 15: 8, 40: 8, 70: 5, -45: 5}  # elevation in degrees: views evenly around


@dataclass(frozen=True)
class SceneViews:
    """Renders on the CPU."""

    cameras: Cameras
    rgb: Float[ndarray, "B H W 3"]  # over the background; over black, premultiplied by opacity
    opacity: Float[ndarray, "B H W"]
    depth: Float[ndarray, "B H W"]  # mean depth in world units along the camera's z; inf where nothing is visible


def scene_device(scene: Scene) -> torch.device:
    """The device of the scene's parameters."""
    device: torch.device = scene.param_groups()[0].parameters[0].device
    return device


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
    scene: Scene, cameras: Cameras, background: tuple[float, float, float] = (0.0, 0.0, 0.0)
) -> SceneViews:
    """Every view over one background colour, a few views at a time."""
    device = scene_device(scene)
    images, opacities, depths = [], [], []
    with torch.no_grad():
        for batch in batches(cameras, VIEWS_AT_ONCE):
            part = batch.to(device)
            out = scene.render(part, torch.tensor(background, device=device).expand(len(part), 3))
            images.append(out.rgb.clamp(0, 1).cpu().numpy())
            opacities.append(out.opacity[..., 0].cpu().numpy())
            depths.append(out.mean_depth()[..., 0].cpu().numpy())
    return SceneViews(cameras, np.concatenate(images), np.concatenate(opacities), np.concatenate(depths))


def views_all_around(scene: Scene, size: int) -> SceneViews:
    """34 renders over black: three rings of 8 around the horizon, 5 from above, 5 from below."""
    rings = [orbit(count, elevation_deg=elevation, size=size) for elevation, count in RINGS.items()]
    return render_views(scene, join_views(rings))


def batches(cameras: Cameras, count: int) -> Iterator[Cameras]:
    """The cameras, at most `count` at a time."""
    for views in torch.arange(len(cameras)).split(count):
        yield cameras.select(views)


def join_views(rings: list[Cameras]) -> Cameras:
    """Cameras of one image size as one batch."""
    joined: dict[str, Any] = {name: torch.cat([getattr(ring, name) for ring in rings]) for name in PER_VIEW}
    return replace(rings[0], **joined)
