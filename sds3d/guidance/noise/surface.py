"""Noise attached to the surface of the scene, so that the prior judges a place with the same noise in all views."""

import math
from typing import Annotated, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from sds3d.guidance.noise.base import Noise, NoiseRequest
from sds3d.types import Latents

TEXELS_PER_PIXEL = 2  # along the cube map's side, per pixel along the view's side
SHELLS = 8  # of distance from the origin; thick, so small depth errors (fog) usually fall into the same texel
SUBPIXELS = 6  # along a pixel's side; enough to hit nearly all texels that a pixel sees
MIN_OPACITY = 0.1  # below it there is no surface; the published value


class Atlas(nn.Module):
    """White noise on texels in space, and one background image, for each particle.

    Texels are the cells of a cube map of directions from the origin, in SHELLS shells of distance. All noise follows
    from `seed`, the only tensor that is saved.
    """

    def __init__(self, shape: tuple[int, int, int], seed: Int[Tensor, ""], particles: int = 1) -> None:
        super().__init__()
        channels, height, width = shape
        # inner shells have fewer texels, so that texels have about the same size in space in all shells
        sides = torch.arange(1, SHELLS + 1) * TEXELS_PER_PIXEL * max(height, width) // SHELLS
        sizes = 6 * sides.square()
        self.seed: Tensor = nn.Buffer(seed)
        self.sides: Tensor = nn.Buffer(sides, persistent=False)
        self.first: Tensor = nn.Buffer(sizes.cumsum(0) - sizes, persistent=False)
        self.texels: Tensor = nn.Buffer(torch.empty(particles, int(sizes.sum()), channels), persistent=False)
        self.background: Tensor = nn.Buffer(torch.empty(particles, height * width, channels), persistent=False)
        self._draw()
        self.register_load_state_dict_post_hook(Atlas._draw)  # again, from the seed that was loaded

    def _draw(self, *_: object) -> None:
        own = torch.Generator().manual_seed(int(self.seed))
        for noise in (self.texels, self.background):
            noise.copy_(torch.randn(noise.shape, generator=own))

    def texel_at(self, points: Float[Tensor, "P 3"]) -> Int[Tensor, " P"]:
        """Index of the texel that each point in the world lies in."""
        axis = points.abs().argmax(dim=1)[:, None]
        major = points.gather(1, axis)
        others = torch.cat([points.gather(1, (axis + 1) % 3), points.gather(1, (axis + 2) % 3)], dim=1)
        shell = (points.norm(dim=1) * SHELLS).long().clamp(0, SHELLS - 1)
        side = self.sides[shell]
        # in [-1, 1]; by angle, which makes the areas of all texels equal within 20%
        face = (others / major.abs()).nan_to_num().atan() * (4 / math.pi)
        column, row = ((face + 1) / 2 * side[:, None]).long().clamp_min(0).minimum(side[:, None] - 1).unbind(1)
        chart = 2 * axis[:, 0] + (major[:, 0] > 0)
        return self.first[shell] + (chart * side + row) * side + column


class Surface(Noise[Atlas]):
    """Noise attached to the surface in 3D (Yan et al. 2025, Consistent Flow Distillation, arXiv 2501.05445).

    eps(pixel) = sum of the N texels of white noise that the pixel sees / sqrt(N)

    A texel is a small cell in space that at most one pixel of a view sees. So each view's eps is exactly white with
    variance 1, and the noise of a place in two views is correlated by the share of texels its pixels have in common.

    Pitfall: pixels without a surface (opacity at most 0.1), and those that see no texel of their own, get `background`
    noise. Interpolating noise instead would make it neither white nor of variance 1.
    """

    name: Literal["surface"] = "surface"
    background: Annotated[
        Literal["fixed", "fresh"], Field(description="noise without a surface: one image for all views, or new ones")
    ] = "fixed"

    def init(self, shape: tuple[int, int, int], generator: torch.Generator, particles: int = 1) -> Atlas:
        """The noise of a run; 3.8 MB per particle for views of 3 x 64 x 64."""
        return Atlas(shape, torch.randint(2**62, (), generator=generator), particles)

    @torch.no_grad()
    def sample(self, request: NoiseRequest, state: Atlas) -> Latents:
        """eps of each view; draws from the generator only if the background is fresh."""
        (channels, height, width), views = request.shape, len(request.cameras)
        pixels, texels = views * height * width, state.texels.shape[1]
        # which texel each point of the surface lies in, and the one pixel that owns each texel of a view
        points, pixel = surface_points(request)
        visible = pixel // (height * width) * texels + state.texel_at(points)
        owner = torch.full((views * texels,), pixels, device=pixel.device)  # `pixels`: no owner
        owner.scatter_reduce_(0, visible, pixel, "amin")
        (owned,) = (owner < pixels).nonzero(as_tuple=True)
        # sum of the N texels / sqrt(N)
        total = state.texels.new_zeros(pixels, channels)
        total.index_add_(0, owner[owned], state.texels[request.particle[owned // texels], owned % texels])
        count = owner[owned].bincount(minlength=pixels)[:, None]
        background = state.background[request.particle]
        if self.background == "fresh":
            background = torch.randn(background.shape, generator=request.generator).to(background)
        eps = torch.where(count > 0, total / count.clamp_min(1).sqrt(), background.reshape(pixels, channels))
        return eps.view(views, height, width, channels).permute(0, 3, 1, 2).contiguous()


def surface_points(request: NoiseRequest) -> tuple[Float[Tensor, "P 3"], Int[Tensor, " P"]]:
    """Points on the surface in world space, and the pixel (view * h + row) * w + column that sees each.

    A regular grid of SUBPIXELS^2 points per pixel, at the mean depth along their rays, where there is a surface. Depth
    and opacity are interpolated, so renders may have another size than eps.
    """
    cameras, (_, height, width) = request.cameras, request.shape
    maps = torch.cat([request.out.depth, request.out.opacity], dim=-1).permute(0, 3, 1, 2).contiguous()
    grid = (SUBPIXELS * height, SUBPIXELS * width)
    depth, opacity = F.interpolate(maps, size=grid, mode="bilinear").unbind(dim=1)
    solid = (opacity > MIN_OPACITY).flatten().nonzero()[:, 0]
    z = depth.flatten()[solid] / opacity.flatten()[solid]
    view, position = solid // (grid[0] * grid[1]), solid % (grid[0] * grid[1])
    row, column = position // grid[1], position % grid[1]
    x, y = (column + 0.5) * (cameras.width / grid[1]), (row + 0.5) * (cameras.height / grid[0])
    # world = R K^-1 (x z, y z, z) + o
    rays = cameras.camera_to_world[:, :3, :3] @ torch.linalg.inv(cameras.intrinsics)
    frames = torch.cat([rays, cameras.camera_to_world[:, :3, 3:]], dim=2)
    image = torch.stack([x * z, y * z, z, torch.ones_like(z)], dim=1)
    points = (frames.index_select(0, view) * image[:, None]).sum(dim=2)
    return points, (view * height + row // SUBPIXELS) * width + column // SUBPIXELS
