"""Rays through the centres of pixels."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sds3d.types import Cameras


@dataclass(frozen=True)
class Rays:
    """One ray for each pixel, view by view and row by row."""

    origins: Float[Tensor, "R 3"]
    directions: Float[Tensor, "R 3"]  # unit length
    depth_scale: Float[Tensor, "R"]  # depth along the camera's z for each unit of distance along the ray

    def __len__(self) -> int:
        return len(self.origins)

    def part(self, chosen: slice) -> "Rays":
        """Some of them."""
        return Rays(self.origins[chosen], self.directions[chosen], self.depth_scale[chosen])


def camera_rays(cameras: Cameras) -> Rays:
    """All rays of a batch: direction = R K^-1 (x + 0.5, y + 0.5, 1), made unit length."""
    views, height, width = len(cameras), cameras.height, cameras.width
    like = cameras.camera_to_world
    rows = torch.arange(height, dtype=like.dtype, device=like.device) + 0.5
    columns = torch.arange(width, dtype=like.dtype, device=like.device) + 0.5
    v, u = torch.meshgrid(rows, columns, indexing="ij")
    pixels = torch.stack([u, v, torch.ones_like(u)], dim=-1).reshape(-1, 3)
    local = pixels @ torch.linalg.inv(cameras.intrinsics).mT  # z = 1
    length = local.norm(dim=-1, keepdim=True)
    directions = (local / length) @ cameras.camera_to_world[:, :3, :3].mT
    origins = cameras.camera_to_world[:, None, :3, 3].expand(views, height * width, 3)
    return Rays(origins.reshape(-1, 3).contiguous(), directions.reshape(-1, 3), (1 / length).reshape(-1))


def ball_interval(rays: Rays, radius: float) -> tuple[Float[Tensor, "R"], Float[Tensor, "R"]]:
    """Where each ray enters and leaves the ball around the origin; an empty interval (0, 0) where it passes by.

    Roots of |o + t d|^2 = radius^2, the near one not behind the origin of the ray.
    """
    middle = -(rays.origins * rays.directions).sum(dim=-1)
    nearest = (rays.origins + middle[:, None] * rays.directions).square().sum(dim=-1)
    half = (radius**2 - nearest).clamp_min(0).sqrt()
    near, far = (middle - half).clamp_min(0), middle + half
    missed = (half == 0) | (far <= near)
    return torch.where(missed, 0.0, near), torch.where(missed, 0.0, far)
