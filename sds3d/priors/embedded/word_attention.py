"""Cross-attention from blocks of pixels to the words, and the ray of each block in the frame of the thing it shows.

In "a red sphere beside a blue cube" the blocks on the left attend to "red sphere" and those on the right to "blue
cube". To draw a sphere, a block must know where on the sphere its ray passes: the network predicts the position and
size of the block's thing from the words, and transforms the ray into that frame (`in_frame`). So the same weights draw
a thing that stands alone, on the left, or on a table.
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
WORD_PLANES = READ_HEADS * 24  # what the ray field reads of the words
FIELD_WIDTH, FIELD_PLANES = 112, 48
FRAME = 4  # of a thing: its centre, and log(radius of an object alone / its radius)
RAY_DEPTHS = (-0.72, -0.36, 0.0, 0.36, 0.72)  # points on a ray, from its point nearest to the centre; world units
RAY_WAVES = (0.5 * math.pi, math.pi, 2.0 * math.pi)  # wave numbers for each coordinate of each point
FINE_DEPTHS = (-0.72, -0.36, 0.0)  # the visible near side also gets the wave numbers of stripes and checks
FINE_WAVES = (STRIPES, CHECKS)
COARSE_PLANES, FINE_PLANES = (6 * len(d) * len(k) for d, k in ((RAY_DEPTHS, RAY_WAVES), (FINE_DEPTHS, FINE_WAVES)))
RAY_PLANES = 3 + 1 + COARSE_PLANES + FINE_PLANES


class WordAttention(nn.Module):
    """Attention from every block of pixels to the words: planes for the UNet, and planes for the ray field.

    `told` is the second set of values; attributes are named as in the released weights.
    """

    def __init__(self, width: int, planes: int) -> None:
        super().__init__()
        key = READ_HEADS * READ_KEY
        self.query = nn.Sequential(nn.Conv2d(planes, key, 1), nn.SiLU(), nn.Conv2d(key, key, 1))
        self.key = nn.Linear(width, key, bias=False)
        self.value = nn.Linear(width, READ_PLANES, bias=False)
        self.told = nn.Linear(width, WORD_PLANES, bias=False)

    def forward(
        self, planes: Float[Tensor, "B C H W"], words: Float[Tensor, "B N D"]
    ) -> tuple[Float[Tensor, "B P H W"], Float[Tensor, "B T H W"]]:
        # Blocks come last, so that the softmax over the few words runs along them.
        query = self.query(planes).flatten(2).unflatten(1, (READ_HEADS, READ_KEY))
        key, value, field_value = (
            layer(words).unflatten(2, (READ_HEADS, -1)).transpose(1, 2) for layer in (self.key, self.value, self.told)
        )
        share = (key @ query / READ_KEY**0.5).softmax(2)
        read = (torch.cat([value, field_value], dim=-1).transpose(2, 3) @ share).unflatten(3, planes.shape[2:])
        return read[:, :, :READ_VALUE].flatten(1, 2), read[:, :, READ_VALUE:].flatten(1, 2)


class RayField(nn.Module):
    """Planes for the UNet: a small network of each block's ray, in its thing's frame, and of the attended words."""

    def __init__(self) -> None:
        super().__init__()
        self.frame = nn.Linear(WORD_PLANES, FRAME)
        self.inside = nn.Linear(3 + COARSE_PLANES + WORD_PLANES, FIELD_WIDTH)
        self.between = nn.Linear(FIELD_WIDTH, FIELD_WIDTH)
        self.outside = nn.Linear(FIELD_WIDTH, FIELD_PLANES)
        self.gates = nn.ModuleList(nn.Linear(WORD_PLANES, FIELD_WIDTH) for _ in range(2))
        nn.init.zeros_(self.frame.weight)
        nn.init.zeros_(self.frame.bias)

    def forward(
        self, rays: Float[Tensor, "B H W 7"], words: Float[Tensor, "B T H W"]
    ) -> tuple[Float[Tensor, "B R H W"], Float[Tensor, "B P H W"], Float[Tensor, "B H W 4"]]:
        """`ray_planes` in the thing's frame, the network's planes, and the predicted frame of each block's thing.

        `rays` are those of `pixel_rays`, one for each block. The frame is supervised by true frames and gets no
        gradient from the image.
        """
        words = words.movedim(1, -1)
        frame = self.frame(words)
        planes = ray_planes(in_frame(rays, frame.detach()))
        direction, _, coarse, _ = planes.split((3, 1, COARSE_PLANES, FINE_PLANES), dim=-1)
        hidden = functional.silu(self.inside(torch.cat([direction, coarse, words], dim=-1)))
        hidden = hidden * (1.0 + self.gates[0](words))
        hidden = functional.silu(self.between(hidden)) * (1.0 + self.gates[1](words))
        return planes.movedim(-1, 1), self.outside(hidden).movedim(-1, 1), frame


def in_frame(rays: Float[Tensor, "B H W 7"], frame: Float[Tensor, "B H W 4"]) -> Float[Tensor, "B H W 7"]:
    """The rays in the frame where a thing's centre is the origin and its radius is that of an object alone."""
    nearest, direction, known = rays.split((3, 3, 1), dim=-1)
    center, smaller = frame.to(rays).split((3, 1), dim=-1)
    offset = nearest - center
    offset = (offset - (offset * direction).sum(-1, keepdim=True) * direction) * smaller.exp()
    return torch.cat([offset, direction, known], dim=-1)


def waves_along(
    nearest: Float[Tensor, "*R 3"], direction: Float[Tensor, "*R 3"], depths: Sequence[float], numbers: Sequence[float]
) -> list[Float[Tensor, "*R F"]]:
    """Sines and cosines of points on rays: for each wave number, of the points at `depths` from the nearest one."""
    points = torch.cat([nearest + depth * direction for depth in depths], dim=-1)
    return [wave(k * points) for k in numbers for wave in (torch.sin, torch.cos)]


def ray_planes(rays: Float[Tensor, "B h w 7"]) -> Float[Tensor, "B h w R"]:
    """Features of rays in the layout of `pixel_rays`: direction, flag, and sines and cosines of points along each ray.

    The points are p + s d, with d the unit direction and p the ray's point nearest to the origin.
    """
    nearest, direction, known = rays.split((3, 3, 1), dim=-1)
    waves = waves_along(nearest, direction, RAY_DEPTHS, RAY_WAVES)
    waves += waves_along(nearest, direction, FINE_DEPTHS, FINE_WAVES)
    return torch.cat([direction, torch.ones_like(known), *waves], dim=-1) * known
