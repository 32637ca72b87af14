"""Camera poses and rays: random orbits for training, evenly spaced ones for sheets and videos.

World +z is up; azimuth 0 is the front (+x), counter-clockwise from above. Cameras look at the origin, OpenCV axes.
"""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import AfterValidator, Field, model_validator
from torch import Tensor

from sds3d.options import Fraction, Options, Range
from sds3d.types import Cameras, PerView


def _within(low: float, high: float) -> AfterValidator:
    def check(value: tuple[float, float]) -> tuple[float, float]:
        if value[0] < low or value[1] > high:
            raise ValueError(f"both numbers must be in [{low:g}, {high:g}]")
        return value

    return AfterValidator(check)


Size = Annotated[int, Field(ge=16, le=1024, description="image side in pixels")]


class SizeStage(Options):
    """Training views of another size from some part of the run on."""

    begin_at: Annotated[Fraction, Field(description="part of the run after which the views have this size")]
    size: Size


class CamerasConfig(Options):
    """How training views are drawn: uniformly from each range, the azimuth stratified over the batch."""

    views: Annotated[int, Field(ge=1, le=64, description="views per step")] = 4
    size: Size = 64
    later_sizes: Annotated[tuple[SizeStage, ...], Field(description="sizes to change to on the way, in order")] = ()
    azimuth_deg: Annotated[Range, _within(-360, 360)] = (-180.0, 180.0)
    elevation_deg: Annotated[Range, _within(-89, 89)] = (-15.0, 60.0)
    distance: Annotated[Range, _within(1.05, 100)] = (2.8, 3.2)
    fov_deg: Annotated[Range, _within(1, 150)] = (40.0, 40.0)
    orthogonal_views: Annotated[
        bool, Field(description="views evenly around the object from one height, as multi-view priors want them")
    ] = False

    @model_validator(mode="after")
    def _in_order(self) -> "CamerasConfig":
        starts = [stage.begin_at for stage in self.later_sizes]
        if starts != sorted(starts):
            raise ValueError("later_sizes: begin_at must rise from one to the next")
        return self

    def size_at(self, progress: float) -> int:
        """The views' side in pixels when the part `progress` of the run is done."""
        begun = [stage.size for stage in self.later_sizes if progress >= stage.begin_at]
        return begun[-1] if begun else self.size


def sample_cameras(config: CamerasConfig, generator: torch.Generator, progress: float = 0.0) -> Cameras:
    """One training batch, on the CPU. With `orthogonal_views` all views share one draw and are evenly spaced.

    azimuth_i = low + (high - low) (i + u_i) / B,   u_i ~ U(0, 1): every step sees every part of the range.
    """
    draws = 1 if config.orthogonal_views else config.views

    def uniform(limits: tuple[float, float]) -> Tensor:
        low, high = limits
        return (low + (high - low) * torch.rand(draws, generator=generator)).expand(config.views)

    low, high = config.azimuth_deg
    strata = torch.arange(config.views) + torch.rand(draws, generator=generator)
    azimuth = low + (high - low) * strata / config.views
    elevation, distance, fov = (uniform(limits) for limits in (config.elevation_deg, config.distance, config.fov_deg))
    size = config.size_at(progress)
    return orbit_cameras(torch.deg2rad(azimuth), torch.deg2rad(elevation), distance, torch.deg2rad(fov), size)


def orbit(
    n: int, elevation_deg: float = 15.0, distance: float = 2.9, fov_deg: float = 40.0, size: int = 256
) -> Cameras:
    """`n` evenly spaced views around the object, the first from the front; for sheets and videos."""
    azimuth = torch.arange(n) * (2 * math.pi / n)
    elevation, fov = torch.full((n,), math.radians(elevation_deg)), torch.full((n,), math.radians(fov_deg))
    return orbit_cameras(azimuth, elevation, torch.full((n,), float(distance)), fov, size)


def orbit_cameras(azimuth: PerView, elevation: PerView, distance: PerView, fov: PerView, size: int) -> Cameras:
    """Square views that look at the origin; angles and the full field of view are in radians."""
    flat = torch.cos(elevation)
    direction = torch.stack([flat * torch.cos(azimuth), flat * torch.sin(azimuth), torch.sin(elevation)], dim=-1)
    position = distance[:, None] * direction
    poses = look_at(position, torch.zeros_like(position))
    return Cameras(poses, intrinsics(fov, size), azimuth, elevation, distance, height=size, width=size)


def turn_cameras(cameras: Cameras, azimuth: float) -> Cameras:
    """The same square views from `azimuth` radians further around +z, counter-clockwise seen from above."""
    size, focal = cameras.height, cameras.intrinsics[:, 0, 0]
    fov = 2.0 * torch.atan(size / (2.0 * focal))
    return orbit_cameras(cameras.azimuth + azimuth, cameras.elevation, cameras.distance, fov, size)


def pixel_directions(cameras: Cameras, samples: int = 1) -> Float[Tensor, "B R 3"]:
    """K^-1 (x, y, 1) for every pixel, in the camera's axes: not unit length, z is 1.

    Row by row. With `samples` above 1 a pixel has samples x samples points on a finer grid (R = H W samples^2).
    """
    like = cameras.intrinsics
    rows = (torch.arange(cameras.height * samples, dtype=like.dtype, device=like.device) + 0.5) / samples
    columns = (torch.arange(cameras.width * samples, dtype=like.dtype, device=like.device) + 0.5) / samples
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    pixels = torch.stack([x, y, torch.ones_like(x)], dim=-1).reshape(-1, 3)
    inverse = torch.linalg.inv_ex(cameras.intrinsics)[0]  # always invertible: a check would wait for the device
    return pixels @ inverse.mT


def project(points: Float[Tensor, "V 3"], cameras: Cameras) -> Float[Tensor, "B V 3"]:
    """World points in each view: (x, y) in pixels from the upper left corner, and depth along the camera's z.

    Differentiable in the points. Behind the camera depth is negative and (x, y) means nothing.
    """
    pose = cameras.camera_to_world
    to_image = cameras.intrinsics @ pose[:, :3, :3].mT
    shift = to_image @ pose[:, :3, 3:]
    # One product for all views, coordinates apart: several times as fast as a small product for each view.
    image = torch.addmm(-shift.flatten()[:, None], to_image.flatten(0, 1), points.mT)
    x, y, depth = image.view(len(pose), 3, -1).unbind(1)
    divisor = torch.where(depth == 0, 1e-12, depth)
    return torch.stack([x / divisor, y / divisor, depth], dim=-1)


@dataclass(frozen=True)
class Rays:
    """One ray per pixel, view after view and row by row."""

    origins: Float[Tensor, "R 3"]
    directions: Float[Tensor, "R 3"]  # unit length
    depth_scale: Float[Tensor, " R"]  # cos of the angle to the camera's z: distance along the ray to depth along z

    def __len__(self) -> int:
        return len(self.origins)

    def part(self, chosen: slice) -> "Rays":
        return Rays(self.origins[chosen], self.directions[chosen], self.depth_scale[chosen])


def camera_rays(cameras: Cameras) -> Rays:
    """All rays of a batch: direction = R K^-1 (x + 0.5, y + 0.5, 1) for pixel column x and row y, made unit length."""
    local = pixel_directions(cameras)
    length = local.norm(dim=-1, keepdim=True)
    directions = (local / length) @ cameras.camera_to_world[:, :3, :3].mT
    origins = cameras.camera_to_world[:, None, :3, 3].expand_as(directions)
    return Rays(origins.reshape(-1, 3).contiguous(), directions.reshape(-1, 3), (1 / length).reshape(-1))


def look_at(position: Float[Tensor, "B 3"], target: Float[Tensor, "B 3"]) -> Float[Tensor, "B 4 4"]:
    """Camera-to-world transforms: +z (forward) points from position to target, +y (down) away from the world's up.

    Straight up or down, where "up" does not define the roll, +x points along the world's +y, as from the front.
    """
    forward = torch.nn.functional.normalize(target - position, dim=-1)
    up = forward.new_tensor([0.0, 0.0, 1.0]).expand_as(forward)
    right = torch.linalg.cross(forward, up)
    vertical = right.norm(dim=-1, keepdim=True) < 1e-6
    right = torch.where(vertical, forward.new_tensor([0.0, 1.0, 0.0]), right)
    right = torch.nn.functional.normalize(right, dim=-1)
    down = torch.linalg.cross(forward, right)
    pose = torch.eye(4, dtype=position.dtype, device=position.device).repeat(len(position), 1, 1)
    pose[:, :3] = torch.stack([right, down, forward, position], dim=-1)
    return pose


def intrinsics(fov: PerView, size: int) -> Float[Tensor, "B 3 3"]:
    """Pinhole matrices of square images, in pixels: focal = size / (2 tan(fov / 2)), principal point in the middle."""
    matrix = torch.zeros(len(fov), 3, 3, dtype=fov.dtype, device=fov.device)
    matrix[:, 0, 0] = matrix[:, 1, 1] = size / (2 * torch.tan(fov / 2))
    matrix[:, 0, 2] = matrix[:, 1, 2] = size / 2
    matrix[:, 2, 2] = 1
    return matrix
