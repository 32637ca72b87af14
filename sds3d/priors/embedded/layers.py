"""The layers of our own around the UNet: words to blocks of pixels, the ray of each block, and the texture of surfaces.

Word attention: in "a red sphere beside a blue cube" the blocks on the left attend to "red sphere" and those on the
right to "blue cube". Ray field: to draw a sphere, a block must know where on the sphere its ray passes: the network
predicts the position and size of the block's thing from the words, and transforms the ray into that frame (`in_frame`).
So the same weights draw a thing that stands alone, on the left, or on a table.

Texture head: the words give a texture, the colour of each pixel as a function of the 3D point that its ray hits; the
UNet gives the depth of each pixel's surface and how much of the texture it shows. Stripes and checks are periodic
functions of the point, finer than a block of pixels, and consistent between views.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from sds3d.priors.embedded.shading import CHECK, STRIPE

STRIPES, CHECKS = math.pi / STRIPE, math.pi / CHECK  # wave numbers: a period of two stripes, and of two checks
WAVES = 3 + 6 + 6 + 1  # features of a point: itself, stripes, checks along each axis, checks
WORD_HIDDEN, POINT_HIDDEN = 96, 48  # widths of the networks of the words and of a point
FRONT = -0.4  # offset of the UNet's depths, world units: a point on the near side
READ_HEADS, READ_KEY, READ_VALUE = 4, 16, 12  # of the attention from pixel blocks to words
READ_PLANES = READ_HEADS * READ_VALUE
WORD_PLANES = READ_HEADS * 24  # what the ray field reads of the words
FIELD_WIDTH, FIELD_PLANES = 112, 48
FRAME = 4  # of a thing: its centre, and log(radius of an object alone / its radius)
RAY_DEPTHS = (-0.72, -0.36, 0.0, 0.36, 0.72)  # points on a ray, from its point nearest to the centre; world units
RAY_WAVES = (0.5 * math.pi, math.pi, 2.0 * math.pi)  # wave numbers for each coordinate of each point
FINE_DEPTHS = (-0.72, -0.36, 0.0)  # the visible near side also gets the wave numbers of stripes and checks
FINE_WAVES = (STRIPES, CHECKS)
_LEVELS = ((RAY_DEPTHS, RAY_WAVES), (FINE_DEPTHS, FINE_WAVES))
COARSE_PLANES, FINE_PLANES = (6 * len(depths) * len(numbers) for depths, numbers in _LEVELS)
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


def ray_planes(rays: Float[Tensor, "B h w 7"]) -> Float[Tensor, "B h w R"]:
    """Features of rays in the layout of `pixel_rays`: direction, flag, and sines and cosines of points along each ray.

    The points are p + s d, with d the unit direction and p the ray's point nearest to the origin.
    """
    nearest, direction, known = rays.split((3, 3, 1), dim=-1)
    planes = [direction, torch.ones_like(known)]
    for depths, numbers in _LEVELS:
        points = torch.cat([nearest + depth * direction for depth in depths], dim=-1)
        planes += [wave(k * points) for k in numbers for wave in (torch.sin, torch.cos)]
    return torch.cat(planes, dim=-1) * known


class TextureHead(nn.Module):
    """Colour of points: a palette (one colour for each feature) plus a small network, both conditioned on the words.

    Attributes are named as in the released weights: `told` maps the words to palette, scale and shift.
    """

    def __init__(self, words: int) -> None:
        super().__init__()
        last = nn.Linear(WORD_HIDDEN, 3 * WAVES + 2 * POINT_HIDDEN)
        self.told = nn.Sequential(nn.Linear(words, WORD_HIDDEN), nn.SiLU(), last)
        self.inside = nn.Linear(WAVES, POINT_HIDDEN)
        self.outside = nn.Linear(POINT_HIDDEN, 3)
        for layer in (last, self.outside):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self,
        rays: Float[Tensor, "B 16 h w 7"],
        depths: Float[Tensor, "B 16 h w"],
        share: Float[Tensor, "B 16 h w"],
        words: Float[Tensor, "B T"],
    ) -> Float[Tensor, "B 48 h w"]:
        """The colour of each pixel's point, times its `share` in [0, 1]; in the order of `pixel_unshuffle`.

        `rays` are those of `pixel_rays`; `depths` are world units from each ray's point nearest to the origin.
        """
        nearest, direction, known = rays.float().split((3, 3, 1), dim=-1)
        palette, scale, shift = self.told(words).split((3 * WAVES, POINT_HIDDEN, POINT_HIDDEN), 1)
        waves = (point_features((nearest + depths[..., None] * direction).float()) * known).to(rays).flatten(1, 3)
        hidden = functional.silu(self.inside(waves) * (1.0 + scale[:, None]) + shift[:, None])
        colors = waves.to(palette.dtype) @ palette.unflatten(1, (WAVES, 3)) + self.outside(hidden)
        colors = colors * share.flatten(1)[..., None]
        return colors.unflatten(1, depths.shape[1:]).movedim(-1, 1).flatten(1, 2)


def point_features(points: Float[Tensor, "*P 3"]) -> Float[Tensor, "*P 16"]:
    """The point, sines and cosines with the periods of stripes and checks, and the product that checks are made of."""
    checks = torch.sin(CHECKS * points)
    stripes = (torch.sin(STRIPES * points), torch.cos(STRIPES * points))
    return torch.cat([points, *stripes, checks, torch.cos(CHECKS * points), checks.prod(-1, keepdim=True)], dim=-1)
