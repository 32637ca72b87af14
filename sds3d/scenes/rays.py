"""Rays through the centres of pixels."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sds3d.cameras import pixel_directions
from sds3d.types import Cameras


@dataclass(frozen=True)
class Rays:
    """One ray per pixel, view after view and row by row."""

    origins: Float[Tensor, "R 3"]
    directions: Float[Tensor, "R 3"]  # unit length
    depth_scale: Float[Tensor, "R"]  # cos of the angle to the camera's z: distance along the ray to depth along z

    def __len__(self) -> int:
        return len(self.origins)

    def part(self, chosen: slice) -> "Rays":
        """A slice of the rays."""
        return Rays(self.origins[chosen], self.directions[chosen], self.depth_scale[chosen])


def camera_rays(cameras: Cameras) -> Rays:
    """All rays of a batch: direction = R K^-1 (x + 0.5, y + 0.5, 1) for pixel column x and row y, made unit length."""
    local = pixel_directions(cameras)
    length = local.norm(dim=-1, keepdim=True)
    directions = (local / length) @ cameras.camera_to_world[:, :3, :3].mT
    origins = cameras.camera_to_world[:, None, :3, 3].expand_as(directions)
    return Rays(origins.reshape(-1, 3).contiguous(), directions.reshape(-1, 3), (1 / length).reshape(-1))


def ball_interval(rays: Rays, radius: float) -> tuple[Float[Tensor, "R"], Float[Tensor, "R"]]:
    """Distances at which each ray enters and leaves the ball around the origin; (0, 0) for a ray that misses it.

    The roots t of |o + t d|^2 = radius^2, the near one clamped to 0 for a camera inside the ball.
    """
    middle = -(rays.origins * rays.directions).sum(dim=-1)
    nearest = (rays.origins + middle[:, None] * rays.directions).square().sum(dim=-1)
    half = (radius**2 - nearest).clamp_min(0).sqrt()
    near, far = (middle - half).clamp_min(0), middle + half
    missed = (half == 0) | (far <= near)
    return torch.where(missed, 0.0, near), torch.where(missed, 0.0, far)
