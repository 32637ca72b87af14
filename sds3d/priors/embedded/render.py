"""Ray traces procedural objects, for training data: one ray per sub-pixel, closed-form hits, a fixed light."""

import torch
from jaxtyping import Float
from torch import Tensor

from sds3d.cameras import pixel_directions
from sds3d.priors.embedded.shading import painted
from sds3d.priors.embedded.solids import NEVER, Solid, box, intersect
from sds3d.types import Cameras


def camera_rays(cameras: Cameras, samples: int = 1) -> tuple[Float[Tensor, "B R 3"], Float[Tensor, "B R 3"]]:
    """Origins and unnormalised directions (camera z = 1) through samples x samples points of every pixel.

    R = height * width * samples^2; the samples of one pixel are adjacent on the finer pixel grid (row-major).
    """
    rays_d = pixel_directions(cameras, samples) @ cameras.camera_to_world[:, :3, :3].transpose(1, 2)
    rays_o = cameras.camera_to_world[:, None, :3, 3].expand_as(rays_d)
    return rays_o, rays_d


def render_solids(solids: list[Solid], cameras: Cameras, samples: int = 2) -> Float[Tensor, "B H W 4"]:
    """Premultiplied RGB and coverage of an object, box-filtered from samples x samples rays per pixel."""
    rays_o, rays_d = (rays.reshape(-1, 3) for rays in camera_rays(cameras, samples))
    nearest, normal, owner = _first_hits(solids, rays_o, rays_d)
    rgba = torch.zeros_like(rays_o[:, :1]).repeat(1, 4)
    for number, solid in enumerate(solids):
        rows = (owner == number).nonzero().squeeze(1)
        points = rays_o[rows] + rays_d[rows] * nearest[rows, None]
        rgba[rows, :3] = painted(solid.color, solid.surface, points, normal[rows])
    rgba[:, 3] = (owner >= 0).to(rgba)
    rgba = rgba.reshape(len(cameras), cameras.height, samples, cameras.width, samples, 4)
    return rgba.mean(dim=(2, 4))


def render_depths(solids: list[Solid], cameras: Cameras) -> Float[Tensor, "B H W"]:
    """Depth at which the ray through each pixel's centre first hits the object; 0 for a miss.

    World units along the ray, from its point nearest to the origin; negative on the near side.
    """
    rays_o, rays_d = (rays.reshape(-1, 3) for rays in camera_rays(cameras))
    nearest, _, owner = _first_hits(solids, rays_o, rays_d)
    length = rays_d.norm(dim=1)
    depths = nearest * length + (rays_o * rays_d).sum(1) / length
    return torch.where(owner >= 0, depths, 0.0).reshape(len(cameras), cameras.height, cameras.width)


def _first_hits(solids: list[Solid], rays_o: Tensor, rays_d: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For every ray the first hit: distance in lengths of rays_d, normal, and index of the solid (-1: a miss)."""
    nearest = torch.full_like(rays_o[:, 0], NEVER)
    normal, owner = torch.zeros_like(rays_o), torch.full_like(nearest, -1, dtype=torch.long)
    for number, solid in enumerate(solids):
        rows = _near(solid, rays_o, rays_d)
        distance, outward = intersect(solid, rays_o[rows], rays_d[rows])
        closer = distance < nearest[rows]
        rows = rows[closer]
        nearest[rows], normal[rows], owner[rows] = distance[closer], outward[closer], number
    return nearest, normal, owner


def _near(solid: Solid, rays_o: Tensor, rays_d: Tensor) -> Tensor:
    """Indices of the rays that hit the solid's bounding ball; the others cannot hit the solid."""
    low, high = (corner.to(rays_o) for corner in box([solid]))
    offset = rays_o - (low + high) / 2.0
    along = (offset * rays_d).sum(-1)
    miss = (offset * offset).sum(-1) - along * along / (rays_d * rays_d).sum(-1)
    return (miss <= ((high - low) / 2.0).square().sum() * 1.0001).nonzero().squeeze(1)


def over(rgba: Float[Tensor, "B H W 4"], background: Float[Tensor, "B 3"]) -> Float[Tensor, "B H W 3"]:
    """Premultiplied colours over a solid background."""
    return rgba[..., :3] + (1.0 - rgba[..., 3:]) * background[:, None, None, :]
