"""Paint: the colour of each pixel at the place where its ray meets the object.

The UNet says how deep on its ray each pixel's surface lies, and some colours for each block. Waves of the place, and a
small network of them that is told the words, mix the colours: stripes and checks are waves of the place, finer than a
block, and what is painted on an object at its places looks right from every side.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

STRIPES, CHECKS = 4.0 * math.pi, 3.0 * math.pi  # wave numbers: a period of two stripes, and of two checks
PAINTS = 3 + 6 + 6 + 1  # colours that the UNet says for a block beside its pixels: one for each wave of a place
PAINT_WIDTH = 48
FRONT = -0.4  # a depth on the near side, from which those that the UNet says begin; world units


class Painter(nn.Module):
    """How much each pixel has of each colour that the UNet says for its block, by the place that it shows.

    The shares begin as the waves themselves and the UNet's colours as zeros: were both zero, neither would ever learn.
    """

    def __init__(self, told: int) -> None:
        super().__init__()
        self.told = nn.Linear(told, 3 + 2 * PAINT_WIDTH)  # where the waves are centred; scales and shifts
        self.inside = nn.Linear(PAINTS, PAINT_WIDTH)
        self.outside = nn.Linear(PAINT_WIDTH, PAINTS)
        for layer in (self.told, self.outside):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self,
        rays: Float[Tensor, "B 16 h w 7"],
        depths: Float[Tensor, "B 16 h w"],
        told: Float[Tensor, "B T"],
        colors: Float[Tensor, "B K3 h w"],
    ) -> Float[Tensor, "B 48 h w"]:
        """sum_k share_k(place) colour_k, as `pixel_unshuffle` orders blocks.

        `rays` are those of `pixel_rays`, `depths` in world units from each ray's point nearest to the origin.
        """
        nearest, direction, known = rays.float().split((3, 3, 1), dim=-1)
        center, scale, shift = (x[:, None, None, None] for x in self.told(told).split((3, PAINT_WIDTH, PAINT_WIDTH), 1))
        waves = place_waves((nearest + depths[..., None] * direction - center).float()) * known
        waves = waves.to(rays)
        shares = waves + self.outside(nn.functional.silu(self.inside(waves) * (1.0 + scale) + shift))
        colors = colors.unflatten(1, (PAINTS, 3))
        return torch.einsum("bkchw,bphwk->bcphw", colors, shares.to(colors.dtype)).flatten(1, 2)


def place_waves(places: Float[Tensor, "*P 3"]) -> Float[Tensor, "*P 16"]:
    """The place, waves of it as wide as stripes and as checks, and the checks themselves."""
    checks = torch.sin(CHECKS * places)
    stripes = (torch.sin(STRIPES * places), torch.cos(STRIPES * places))
    return torch.cat([places, *stripes, checks, torch.cos(CHECKS * places), checks.prod(-1, keepdim=True)], dim=-1)
