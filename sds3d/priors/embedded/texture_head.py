"""Paint: the pattern of each pixel at the place where its ray meets the object.

The words say the paint, the UNet where it is seen: how deep on its ray each pixel's surface lies, and how much of the
paint it shows. Stripes and checks are waves of the place, finer than a block, and what is painted on an object at its
places looks right from every side.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sds3d.priors.embedded.shading import CHECK, STRIPE

STRIPES, CHECKS = math.pi / STRIPE, math.pi / CHECK  # wave numbers: a period of two stripes, and of two checks
WAVES = 3 + 6 + 6 + 1  # of a place, and the place itself
PAINT_TOLD, PAINT_WIDTH = 96, 48  # of the words, and of the small network of a place
FRONT = -0.4  # a depth on the near side, from which those that the UNet says begin; world units


class Painter(nn.Module):
    """Colours of places: a palette with a colour for each wave, and a small network of all, both told by the words."""

    def __init__(self, words: int) -> None:
        super().__init__()
        said = nn.Linear(PAINT_TOLD, 3 * WAVES + 2 * PAINT_WIDTH)
        self.told = nn.Sequential(nn.Linear(words, PAINT_TOLD), nn.SiLU(), said)
        self.inside = nn.Linear(WAVES, PAINT_WIDTH)
        self.outside = nn.Linear(PAINT_WIDTH, 3)
        for layer in (said, self.outside):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self,
        rays: Float[Tensor, "B 16 h w 7"],
        depths: Float[Tensor, "B 16 h w"],
        shown: Float[Tensor, "B 16 h w"],
        words: Float[Tensor, "B T"],
    ) -> Float[Tensor, "B 48 h w"]:
        """Of each pixel `shown`, a share, times the colour of its place, as `pixel_unshuffle` orders blocks.

        `rays` are those of `pixel_rays`, `depths` in world units from each ray's point nearest to the origin.
        """
        nearest, direction, known = rays.float().split((3, 3, 1), dim=-1)
        palette, scale, shift = self.told(words).split((3 * WAVES, PAINT_WIDTH, PAINT_WIDTH), 1)
        waves = (place_waves((nearest + depths[..., None] * direction).float()) * known).to(rays).flatten(1, 3)
        hidden = nn.functional.silu(self.inside(waves) * (1.0 + scale[:, None]) + shift[:, None])
        colors = waves.to(palette.dtype) @ palette.unflatten(1, (WAVES, 3)) + self.outside(hidden)
        colors = colors * shown.flatten(1)[..., None]
        return colors.unflatten(1, depths.shape[1:]).movedim(-1, 1).flatten(1, 2)


def place_waves(places: Float[Tensor, "*P 3"]) -> Float[Tensor, "*P 16"]:
    """The place, waves of it as wide as stripes and as checks, and the checks themselves."""
    checks = torch.sin(CHECKS * places)
    stripes = (torch.sin(STRIPES * places), torch.cos(STRIPES * places))
    return torch.cat([places, *stripes, checks, torch.cos(CHECKS * places), checks.prod(-1, keepdim=True)], dim=-1)
