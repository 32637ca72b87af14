"""Noise that sticks to the surface of the scene, so that all views of a place are judged with the same noise."""

import math
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from sds3d.guidance.noise.base import Noise, NoiseRequest

SUBPIXELS = 6  # along a pixel's side; enough to hit nearly all the texels that a pixel sees
SHELLS = 8  # by distance from the origin
SOLID = 0.1  # opacity above which there is a surface


class Surface(Noise):
    """Noise that belongs to the surface in 3D (Yan et al. 2025, Consistent Flow Distillation).

    eps(pixel) = sum of the N texels of white noise that the pixel sees / sqrt(N)

    A texel is a small place in space, and at most one pixel of a view sees it. So a view's eps is exactly white, its
    pixels independent and of variance 1, and in two views the noise of a place agrees by the share of texels they have
    in common: about half, where their pixels overlap by half. Interpolated noise would be neither white nor of
    variance 1 (Chang et al. 2024, "How I Warped Your Noise").

    The atlas is a cube map of directions from the origin in eight shells of distance. Shells are thick: a depth that is
    unsure along its ray, as that of fog is, mostly finds the same texel. The published code has six maps of
    hemispheres, 1024 or 2048 texels wide, in four shells, and rasterizes the pixels' outlines into them; here 36 points
    of every pixel ask which texel they lie in. Where a surface runs straight towards the origin, or the camera is so
    near that pixels are smaller than texels, some pixels find no texel of their own. They, and those whose opacity is
    at most 0.1, get `background` noise.

    gamma > 0 changes the noise slowly, n <- sqrt(1 - gamma) n + sqrt(gamma) N(0, I) at every step. That is meant to
    make the flow an SDE, but is only near one for small gamma, because the exact form also raises the noise level: on
    exact mixtures and over 1000 steps, 1e-4 is harmless, 0.01 narrows what runs arrive at, and 0.1 collapses almost as
    SDS does, which is gamma = 1. (The published code refreshes its background twice a step: double gamma there.)

    Particles of one run have an atlas and a background each: with the same noise they would follow the same flow.
    """

    name: Literal["surface"] = "surface"
    fineness: Annotated[
        int, Field(ge=1, le=16, description="texels along a side of the cube map, for each pixel along the view's")
    ] = 2
    gamma: Annotated[float, Field(ge=0, le=1, description="part of the noise's variance renewed each step")] = 0.0
    background: Annotated[
        Literal["fixed", "fresh"], Field(description="noise where no surface is: one image for all views, or new ones")
    ] = "fixed"

    def init(self, shape: tuple[int, int, int], generator: torch.Generator, particles: int = 1) -> "Atlas":
        """The texels and the background's image; 3.8 MB for each particle and views of 3 x 64 x 64."""
        seed = torch.randint(2**62, (), generator=generator)
        return Atlas(shape, self.fineness, seed, changes=self.gamma > 0, particles=particles)

    @torch.no_grad()
    def sample(self, request: NoiseRequest, state: Any) -> Float[Tensor, "B C h w"]:
        """Draws nothing from the generator where gamma = 0 and the background is fixed."""
        state.refresh(self.gamma, request.generator)
        (channels, height, width), views = request.shape, len(request.cameras)
        pixels, texels = views * height * width, state.texels.shape[1]
        points, pixel = surface_points(request)
        seen = pixel // (height * width) * texels + state.texel_at(points)
        owner = torch.full((views * texels,), pixels, device=pixel.device)  # of each view's texels; `pixels` is nobody
        owner.scatter_reduce_(0, seen, pixel, "amin")
        (owned,) = (owner < pixels).nonzero(as_tuple=True)
        total = state.texels.new_zeros(pixels, channels)
        total.index_add_(0, owner[owned], state.texels[request.particle[owned // texels], owned % texels])
        count = owner[owned].bincount(minlength=pixels)[:, None]
        behind = state.background[request.particle]
        if self.background == "fresh":
            behind = torch.randn(behind.shape, generator=request.generator).to(behind)
        eps = torch.where(count > 0, total / count.clamp_min(1).sqrt(), behind.reshape(pixels, channels))
        return eps.view(views, height, width, channels).permute(0, 3, 1, 2).contiguous()


class Atlas(nn.Module):
    """White noise over the cube map and shells, and over one background image, for each particle.

    The noise follows from `seed`; it is saved only where it `changes`.
    """

    seed: Tensor
    sides: Tensor
    first: Tensor
    texels: Tensor
    background: Tensor

    def __init__(
        self, shape: tuple[int, int, int], fineness: int, seed: Int[Tensor, ""], changes: bool, particles: int = 1
    ) -> None:
        super().__init__()
        channels, height, width = shape
        # an inner shell has fewer texels, for they are to be as large in space as those of the outer ones
        sides = torch.arange(1, SHELLS + 1) * fineness * max(height, width) // SHELLS
        sizes = 6 * sides.square()
        self.changes = changes
        self.register_buffer("seed", seed)
        self.register_buffer("sides", sides, persistent=False)
        self.register_buffer("first", sizes.cumsum(0) - sizes, persistent=False)
        self.register_buffer("texels", torch.empty(particles, int(sizes.sum()), channels), persistent=changes)
        self.register_buffer("background", torch.empty(particles, height * width, channels), persistent=changes)
        self._draw()

    def _draw(self) -> None:
        own = torch.Generator().manual_seed(int(self.seed))
        for noise in (self.texels, self.background):
            noise.copy_(torch.randn(noise.shape, generator=own))

    def refresh(self, gamma: float, generator: torch.Generator) -> None:
        """Renews the part gamma of the variance; once a step, however many views there are."""
        if gamma > 0:
            for noise in (self.texels, self.background):
                noise.copy_(refreshed(noise, gamma, generator))

    def texel_at(self, points: Float[Tensor, "P 3"]) -> Int[Tensor, "P"]:
        """Index of the texel that each point in the world lies in."""
        axis = points.abs().argmax(dim=1)[:, None]
        major = points.gather(1, axis)
        others = torch.cat([points.gather(1, (axis + 1) % 3), points.gather(1, (axis + 2) % 3)], dim=1)
        shell = (points.norm(dim=1) * SHELLS).long().clamp(0, SHELLS - 1)
        side = self.sides[shell]
        face = (others / major.abs()).nan_to_num().atan() * (
            4 / math.pi
        )  # in [-1, 1]; the angle makes all texels equal within 20%
        column, row = ((face + 1) / 2 * side[:, None]).long().clamp_min(0).minimum(side[:, None] - 1).unbind(1)
        chart = 2 * axis[:, 0] + (major[:, 0] > 0)
        return self.first[shell] + (chart * side + row) * side + column

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        """Noise that was not saved is made again from the seed that was."""
        super()._load_from_state_dict(*args, **kwargs)  # type: ignore[no-untyped-call]
        if not self.changes:
            self._draw()


def refreshed(noise: Tensor, gamma: float, generator: torch.Generator) -> Tensor:
    """sqrt(1 - gamma) n + sqrt(gamma) N(0, I): as white as n, and correlated with it by sqrt(1 - gamma)."""
    fresh = torch.randn(noise.shape, generator=generator, dtype=noise.dtype).to(noise.device)
    return math.sqrt(1 - gamma) * noise + math.sqrt(gamma) * fresh


def surface_points(request: NoiseRequest) -> tuple[Float[Tensor, "P 3"], Int[Tensor, "P"]]:
    """Points of the surface in the world, and which pixel sees each: (view * h + row) * w + column.

    A regular grid of SUBPIXELS^2 points per pixel, at the mean depth along their rays, without those where the opacity
    is low. Depth and opacity are interpolated, so renders may have another size than the pixels.
    """
    cameras, (_, height, width) = request.cameras, request.shape
    maps = torch.cat([request.out.depth, request.out.opacity], dim=-1).permute(0, 3, 1, 2).contiguous()
    grid = (SUBPIXELS * height, SUBPIXELS * width)
    depth, opacity = F.interpolate(maps, size=grid, mode="bilinear").unbind(dim=1)
    found = (opacity > SOLID).flatten().nonzero()[:, 0]
    z = depth.flatten()[found] / opacity.flatten()[found]
    view, place = found // (grid[0] * grid[1]), found % (grid[0] * grid[1])
    row, column = place // grid[1], place % grid[1]
    x, y = (column + 0.5) * (cameras.width / grid[1]), (row + 0.5) * (cameras.height / grid[0])
    # world = R K^-1 (x z, y z, z) + o
    rays = cameras.camera_to_world[:, :3, :3] @ torch.linalg.inv(cameras.intrinsics)
    frames = torch.cat([rays, cameras.camera_to_world[:, :3, 3:]], dim=2)
    image = torch.stack([x * z, y * z, z, torch.ones_like(z)], dim=1)
    points = (frames.index_select(0, view) * image[:, None]).sum(dim=2)
    return points, (view * height + row // SUBPIXELS) * width + column // SUBPIXELS
