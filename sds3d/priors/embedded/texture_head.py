"""A texture head: the colour of each pixel as a function of the 3D point that its ray hits.

The words give the texture; the UNet gives the depth of each pixel's surface and how much of the texture it shows.
Stripes and checks are periodic functions of the point, finer than a block of pixels, and consistent between views.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sds3d.priors.embedded.shading import CHECK, STRIPE

STRIPES, CHECKS = math.pi / STRIPE, math.pi / CHECK  # wave numbers: a period of two stripes, and of two checks
WAVES = 3 + 6 + 6 + 1  # features of a point: itself, stripes, checks along each axis, checks
WORD_HIDDEN, POINT_HIDDEN = 96, 48  # widths of the networks of the words and of a point
FRONT = -0.4  # offset of the UNet's depths, world units: a point on the near side


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
        hidden = nn.functional.silu(self.inside(waves) * (1.0 + scale[:, None]) + shift[:, None])
        colors = waves.to(palette.dtype) @ palette.unflatten(1, (WAVES, 3)) + self.outside(hidden)
        colors = colors * share.flatten(1)[..., None]
        return colors.unflatten(1, depths.shape[1:]).movedim(-1, 1).flatten(1, 2)


def point_features(points: Float[Tensor, "*P 3"]) -> Float[Tensor, "*P 16"]:
    """The point, sines and cosines with the periods of stripes and checks, and the product that checks are made of."""
    checks = torch.sin(CHECKS * points)
    stripes = (torch.sin(STRIPES * points), torch.cos(STRIPES * points))
    return torch.cat([points, *stripes, checks, torch.cos(CHECKS * points), checks.prod(-1, keepdim=True)], dim=-1)
