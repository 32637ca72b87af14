"""What a block of pixels reads of the words, and what its ray meets by what it has read.

Of "a red sphere beside a blue cube" the blocks on the left find "red sphere" and those on the right "blue cube". To
draw a sphere there, a block must know where on the sphere its ray goes: it guesses from the words where their thing
stands and how large it is, and looks at its ray from there (`in_frame`). So one thing alone, on the left or on a table
is drawn by the same weights.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from sds3d.priors.embedded.texture_head import CHECKS, STRIPES

READ_HEADS, READ_KEY, READ_VALUE = 4, 16, 12  # of the attention from pixel blocks to words
READ_PLANES = READ_HEADS * READ_VALUE
TOLD = READ_HEADS * 24  # what the field is told of the words
FIELD_WIDTH, FIELD_PLANES = 112, 48
FRAME = 4  # of a thing: its middle, and the logarithm of how much smaller it is than an object alone
RAY_DEPTHS = (-0.72, -0.36, 0.0, 0.36, 0.72)  # places on a ray, from the one nearest to the middle; world units
RAY_WAVES = (0.5 * math.pi, math.pi, 2.0 * math.pi)  # of each coordinate of each place
FINE_DEPTHS = (-0.72, -0.36, 0.0)  # the near side, which is seen, also in these
FINE_WAVES = (STRIPES, CHECKS)
COARSE_PLANES, FINE_PLANES = (6 * len(d) * len(k) for d, k in ((RAY_DEPTHS, RAY_WAVES), (FINE_DEPTHS, FINE_WAVES)))
RAY_PLANES = 3 + 1 + COARSE_PLANES + FINE_PLANES


class WordReader(nn.Module):
    """Attention from every pixel block to the words: planes for the UNet, and what the field is told."""

    def __init__(self, width: int, planes: int) -> None:
        super().__init__()
        key = READ_HEADS * READ_KEY
        self.query = nn.Sequential(nn.Conv2d(planes, key, 1), nn.SiLU(), nn.Conv2d(key, key, 1))
        self.key = nn.Linear(width, key, bias=False)
        self.value = nn.Linear(width, READ_PLANES, bias=False)
        self.told = nn.Linear(width, TOLD, bias=False)

    def forward(
        self, planes: Float[Tensor, "B C H W"], words: Float[Tensor, "B N D"]
    ) -> tuple[Float[Tensor, "B P H W"], Float[Tensor, "B T H W"]]:
        # Blocks come last, so that the softmax over the few words runs along them.
        query = self.query(planes).flatten(2).unflatten(1, (READ_HEADS, READ_KEY))
        key, value, told = (
            layer(words).unflatten(2, (READ_HEADS, -1)).transpose(1, 2) for layer in (self.key, self.value, self.told)
        )
        share = (key @ query / READ_KEY**0.5).softmax(2)
        read = (torch.cat([value, told], dim=-1).transpose(2, 3) @ share).unflatten(3, planes.shape[2:])
        return read[:, :, :READ_VALUE].flatten(1, 2), read[:, :, READ_VALUE:].flatten(1, 2)


class RayField(nn.Module):
    """Planes for the UNet: a small network of each block's ray, as its thing meets it, and of what the block reads."""

    def __init__(self) -> None:
        super().__init__()
        self.frame = nn.Linear(TOLD, FRAME)
        self.inside = nn.Linear(3 + COARSE_PLANES + TOLD, FIELD_WIDTH)
        self.between = nn.Linear(FIELD_WIDTH, FIELD_WIDTH)
        self.outside = nn.Linear(FIELD_WIDTH, FIELD_PLANES)
        self.gates = nn.ModuleList(nn.Linear(TOLD, FIELD_WIDTH) for _ in range(2))
        nn.init.zeros_(self.frame.weight)
        nn.init.zeros_(self.frame.bias)

    def forward(
        self, rays: Float[Tensor, "B H W 7"], told: Float[Tensor, "B T H W"]
    ) -> tuple[Float[Tensor, "B R H W"], Float[Tensor, "B P H W"], Float[Tensor, "B H W 4"]]:
        """`ray_planes` as the thing meets them, what the network makes of them, and its guess of the thing's frame.

        `rays` are those of `pixel_rays`, one for each block. The frame is learned from true ones alone.
        """
        told = told.movedim(1, -1)
        frame = self.frame(told)
        planes = ray_planes(in_frame(rays, frame.detach()))
        direction, _, coarse, _ = planes.split((3, 1, COARSE_PLANES, FINE_PLANES), dim=-1)
        hidden = functional.silu(self.inside(torch.cat([direction, coarse, told], dim=-1))) * (
            1.0 + self.gates[0](told)
        )
        hidden = functional.silu(self.between(hidden)) * (1.0 + self.gates[1](told))
        return planes.movedim(-1, 1), self.outside(hidden).movedim(-1, 1), frame


def in_frame(rays: Float[Tensor, "B H W 7"], frame: Float[Tensor, "B H W 4"]) -> Float[Tensor, "B H W 7"]:
    """The same rays where the middle of a thing is the origin and its radius that of an object alone."""
    nearest, direction, known = rays.split((3, 3, 1), dim=-1)
    center, smaller = frame.to(rays).split((3, 1), dim=-1)
    offset = nearest - center
    offset = (offset - (offset * direction).sum(-1, keepdim=True) * direction) * smaller.exp()
    return torch.cat([offset, direction, known], dim=-1)


def waves_along(
    nearest: Float[Tensor, "*R 3"], direction: Float[Tensor, "*R 3"], depths: Sequence[float], numbers: Sequence[float]
) -> list[Float[Tensor, "*R F"]]:
    """Sines and cosines of places on rays: for each wave number, of all places at `depths` from the nearest one."""
    places = torch.cat([nearest + depth * direction for depth in depths], dim=-1)
    return [wave(k * places) for k in numbers for wave in (torch.sin, torch.cos)]


def ray_planes(rays: Float[Tensor, "B h w 7"]) -> Float[Tensor, "B h w R"]:
    """Of rays as `pixel_rays` has them: direction, flag, and waves of places along each.

    The places are p + s d, with d the unit direction and p the ray's point nearest to the origin.
    """
    nearest, direction, known = rays.split((3, 3, 1), dim=-1)
    waves = waves_along(nearest, direction, RAY_DEPTHS, RAY_WAVES)
    waves += waves_along(nearest, direction, FINE_DEPTHS, FINE_WAVES)
    return torch.cat([direction, torch.ones_like(known), *waves], dim=-1) * known
