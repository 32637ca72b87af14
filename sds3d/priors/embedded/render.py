"""Ray traces procedural objects, for training data: one ray per sub-pixel, closed-form hits, a fixed light.

`draw` runs compiled (cuda_ext/render_solids); `draw_reference` is the same in torch, over a hundred times slower.
"""

from collections.abc import Sequence
from typing import NamedTuple, get_args

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from sds3d.cameras import pixel_directions
from sds3d.ops.extension import has_kernels
from sds3d.priors.embedded.object_kinds import MATERIALS, PATTERNS
from sds3d.priors.embedded.shading import Surface, painted
from sds3d.priors.embedded.solids import NEVER, Shape, Solid, box, intersect
from sds3d.types import Cameras

SHAPES = get_args(Shape)  # as numbered in cuda_ext/render_solids/render_solids.h; PATTERNS and MATERIALS too
PLAIN = Surface("plain", (0.0, 0.0, 0.0), "matte", 0, (0.0, 0.0, 0.0))


class Drawn(NamedTuple):
    """Views of objects."""

    rgba: Float[Tensor, "B H W 4"]  # premultiplied colours and coverage
    depths: Float[Tensor, "B H W"]  # of the first hit, world units along the ray from its point nearest to the origin
    parts: Int32[Tensor, "B H W"]  # 2 k where the object's k-th solid is seen, 2 k + 1 for a cup's inside; a miss is -1


def camera_rays(cameras: Cameras, samples: int = 1) -> tuple[Float[Tensor, "B R 3"], Float[Tensor, "B R 3"]]:
    """Origins and unnormalised directions (camera z = 1) through samples x samples points of every pixel.

    R = height * width * samples^2; the samples of one pixel are adjacent on the finer pixel grid (row-major).
    """
    rays_d = pixel_directions(cameras, samples) @ cameras.camera_to_world[:, :3, :3].transpose(1, 2)
    rays_o = cameras.camera_to_world[:, None, :3, 3].expand_as(rays_d)
    return rays_o, rays_d


def draw(objects: Sequence[Sequence[Solid]], cameras: Cameras, samples: int = 3) -> Drawn:
    """Views of each object in turn, as many of one as of another: `cameras` has them all, B = objects * views.

    Colours are box-filtered from samples x samples rays per pixel; depths and parts are those of pixels' centres, the
    depth 0 and the part -1 where there is nothing. Bits depend on no number of threads and on no instruction set.
    """
    views = len(cameras) // max(len(objects), 1)
    if views * len(objects) != len(cameras):
        raise ValueError(f"{len(cameras)} cameras cannot be shared out among {len(objects)} objects")
    if cameras.intrinsics.is_cuda or not has_kernels(cameras.intrinsics):
        return draw_reference(objects, cameras, samples)
    rows = torch.tensor([_numbers(solid) for solids in objects for solid in solids]).reshape(-1, 25)
    ends = torch.tensor([0, *(len(solids) for solids in objects)]).cumsum(0)
    ranges = torch.stack([ends[:-1], ends[1:]], dim=1).repeat_interleave(views, dim=0)
    to_camera = torch.linalg.inv(cameras.intrinsics)
    size = (cameras.height, cameras.width, samples)
    return Drawn(*torch.ops.sds3d.render_solids(rows, ranges, cameras.camera_to_world, to_camera, *size))


def _numbers(solid: Solid) -> list[float]:
    """The solid as the kernel reads it."""
    paint = solid.surface or PLAIN
    placed = [*solid.center, *solid.size, solid.yaw, solid.pitch, solid.roll, solid.bottom, solid.top, solid.tube]
    pattern = [PATTERNS.index(paint.pattern), *paint.second, MATERIALS.index(paint.material), paint.axis]
    return [SHAPES.index(solid.shape), *placed, *solid.color, *pattern, *paint.center]


def draw_reference(objects: Sequence[Sequence[Solid]], cameras: Cameras, samples: int = 3) -> Drawn:
    """`draw` in torch, on any device and in any precision."""
    drawn = []
    for solids, chosen in zip(objects, torch.arange(len(cameras)).chunk(len(objects)), strict=True):
        views = cameras.select(chosen)
        drawn.append((_colors(solids, views, samples), *_centers(solids, views)))
    return Drawn(*(torch.cat(column) for column in zip(*drawn, strict=True)))


def render_solids(solids: Sequence[Solid], cameras: Cameras, samples: int = 2) -> Float[Tensor, "B H W 4"]:
    """Premultiplied RGB and coverage of one object; see `draw`."""
    return draw([solids], cameras, samples).rgba


def _colors(solids: Sequence[Solid], cameras: Cameras, samples: int) -> Float[Tensor, "B H W 4"]:
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


def _centers(solids: Sequence[Solid], cameras: Cameras) -> tuple[Tensor, Tensor]:
    """Depths and parts."""
    rays_o, rays_d = (rays.reshape(-1, 3) for rays in camera_rays(cameras))
    nearest, _, owner = _first_hits(solids, rays_o, rays_d)
    length = rays_d.norm(dim=1)
    depths = torch.where(owner >= 0, nearest * length + (rays_o * rays_d).sum(1) / length, 0.0)
    parts = torch.where(owner >= 0, 2 * owner, -1)
    for number, solid in enumerate(solids):
        if solid.shape == "cup":  # just before it hits the inside, a ray is between the walls
            rows = (owner == number).nonzero().squeeze(1)
            before = rays_o[rows] + rays_d[rows] * nearest[rows, None] * 0.9995
            turn, center = (torch.tensor(values).to(rays_o) for values in (solid.rotation(), solid.center))
            x, y, z = (((before - center) @ turn) / torch.tensor(solid.size).to(rays_o)).unbind(1)
            wall = solid.bottom + (solid.top - solid.bottom) * (z + 1.0) / 2.0
            parts[rows] += (torch.hypot(x, y) < wall) & (z > -1.0)
    shape = (len(cameras), cameras.height, cameras.width)
    return depths.reshape(shape), parts.int().reshape(shape)


def _first_hits(solids: Sequence[Solid], rays_o: Tensor, rays_d: Tensor) -> tuple[Tensor, Tensor, Tensor]:
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
    low, high = (torch.tensor(corner).to(rays_o) for corner in box([solid]))
    offset = rays_o - (low + high) / 2.0
    along = (offset * rays_d).sum(-1)
    miss = (offset * offset).sum(-1) - along * along / (rays_d * rays_d).sum(-1)
    return (miss <= ((high - low) / 2.0).square().sum() * 1.0001).nonzero().squeeze(1)


def over(rgba: Float[Tensor, "B H W 4"], background: Float[Tensor, "B 3"]) -> Float[Tensor, "B H W 3"]:
    """Premultiplied colours over a solid background."""
    return rgba[..., :3] + (1.0 - rgba[..., 3:]) * background[:, None, None, :]
