"""Colour as a function of the place on a surface: a hash grid and a small network, free or from a palette."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from sds3d.ops.hash_encode import HashGrid, hash_encode

FEATURES = 2  # numbers in each entry of the table
INIT_TABLE = 1e-4  # entries start in +- this: one flat colour
FIT_BATCH = 8192  # points a step


class ColorField(nn.Module):
    """color(p) = sigmoid(m(p)), m a network of one hidden layer on the grid's features at p. sRGB, [0, 1]."""

    def __init__(
        self, grid: HashGrid, hidden: int, radius: float, generator: torch.Generator, outputs: int = 3
    ) -> None:
        super().__init__()
        self.grid, self.radius = grid, radius
        self.table = nn.Parameter(INIT_TABLE * (2 * torch.rand(grid.entries, FEATURES, generator=generator) - 1))
        self.weights = nn.ParameterList(
            nn.Parameter(math.sqrt(6 / inputs) * (2 * torch.rand(width, inputs, generator=generator) - 1))
            for inputs, width in ((grid.levels * FEATURES, hidden), (hidden, outputs))
        )
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(width)) for width in (hidden, outputs))

    def raw(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, "P K"]:
        """The network's outputs at world points of the ball."""
        features = hash_encode((points / self.radius + 1) / 2, self.table, self.grid)
        hidden = F.linear(features, self.weights[0], self.biases[0]).relu()
        return F.linear(hidden, self.weights[1], self.biases[1])

    def forward(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, "P 3"]:
        """Colours at world points."""
        return self.raw(points).sigmoid()

    def loss(self, points: Float[Tensor, "P 3"], colors: Float[Tensor, "P 3"]) -> Float[Tensor, ""]:
        """Mean squared error against given colours."""
        return (self(points) - colors).square().mean()

    def fit(
        self, points: Float[Tensor, "P 3"], colors: Float[Tensor, "P 3"], generator: torch.Generator, steps: int = 150
    ) -> None:
        """Take on given colours at given points, by Adam on batches of them."""
        optimizer = torch.optim.Adam(self.parameters(), 0.01, eps=1e-15)
        for _ in range(steps):
            chosen = torch.randint(len(points), (min(FIT_BATCH, len(points)),), generator=generator).to(points.device)
            optimizer.zero_grad()
            self.loss(points[chosen], colors[chosen]).backward()
            optimizer.step()


class PaletteField(ColorField):
    """color(p) = sum_k w_k(p) palette_k,   w = softmax(sharpness m(p)):  a soft choice, sharp where it changes.

    A border between two colours is as sharp as the choice, not as the grid's cells: at `sharpness` 1 it begins soft,
    and it hardens as the sharpness rises. A look of its own: right for flat colours, wrong for photographs.
    """

    sharpness: Tensor

    def __init__(
        self,
        palette: Float[Tensor, "K 3"],
        grid: HashGrid,
        hidden: int,
        radius: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__(grid, hidden, radius, generator, outputs=len(palette))
        self.raw_palette = nn.Parameter(palette.clamp(0.02, 0.98).logit())
        self.register_buffer("sharpness", torch.ones(()))

    @property
    def palette(self) -> Float[Tensor, "K 3"]:
        """The colours to choose from, sRGB."""
        return self.raw_palette.sigmoid()

    def choice(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, "P K"]:
        """w: each colour's part at world points."""
        return (self.sharpness * self.raw(points)).softmax(-1)

    def forward(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, "P 3"]:
        """Colours at world points."""
        return self.choice(points) @ self.palette

    def loss(self, points: Float[Tensor, "P 3"], colors: Float[Tensor, "P 3"]) -> Float[Tensor, ""]:
        """Cross entropy of the choice against the palette's colour that is nearest to each given one."""
        with torch.no_grad():
            nearest = torch.cdist(colors, self.palette).argmin(dim=1)
        return F.cross_entropy(self.raw(points), nearest, label_smoothing=0.1)
