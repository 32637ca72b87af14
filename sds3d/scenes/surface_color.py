"""Colour as a function of the place on a surface: a hash grid and a small network, free or from a palette."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from sds3d.ops.hash_encode import HashGrid, hash_encode
from sds3d.scenes.borders import even_places, settle
from sds3d.scenes.optimizer import SceneAdam
from sds3d.scenes.palette import MOST, to_shades

FEATURES = 2  # numbers in each entry of the table
INIT_TABLE = 1e-4  # entries start in +- this: one flat colour
FIT_BATCH = 4096  # points a step
POINTS_AT_ONCE = 1 << 14  # of pictures: what is computed of them stays in the cache
FIRST_CHOICE = 0.1  # weights of a palette's choice start in +- this
SHARPEN_FROM, SHARPNESS = 0.2, 10.0  # of a palette: from which part of the run, and to which value at its end
SETTLE_STEPS, SETTLE_LR = 300, 0.01
CLEAR = 0.98  # part of one colour around a place from which on no border is near
BORDER_STEP = 0.025  # world units, about a pixel of the embedded prior


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

    def finished(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, "P 3"]:
        """Colours at world points, for pictures and exports."""
        return torch.cat([self._finished(part) for part in points.split(POINTS_AT_ONCE)])

    def _finished(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, "P 3"]:
        return self(points)

    def loss(self, points: Float[Tensor, "P 3"], colors: Float[Tensor, "P 3"]) -> Float[Tensor, ""]:
        """Mean squared error against given colours."""
        return (self(points) - colors).square().mean()

    def fit(
        self, points: Float[Tensor, "P 3"], colors: Float[Tensor, "P 3"], generator: torch.Generator, steps: int = 150
    ) -> None:
        """Take on given colours at given points, by Adam on batches of them."""
        optimizer = SceneAdam(self.parameters(), 0.01, eps=1e-15)
        for _ in range(steps):
            chosen = torch.randint(len(points), (min(FIT_BATCH, len(points)),), generator=generator).to(points.device)
            optimizer.zero_grad()
            self.loss(points[chosen], colors[chosen]).backward()
            optimizer.step()


class PaletteField(ColorField):
    """color(p) = sum_k w_k(p) palette_k,   w = softmax(sharpness m(p)):  a soft choice, sharp where it changes.

    A border between two colours is as sharp as the choice, not as the grid's cells: at `sharpness` 1 it begins soft,
    and it hardens as the sharpness rises. A look of its own: right for flat colours, wrong for photographs. Until
    `choose` gives it a palette it is a ColorField.
    """

    size: Tensor
    sharpness: Tensor

    def __init__(self, grid: HashGrid, hidden: int, radius: float, generator: torch.Generator) -> None:
        super().__init__(grid, hidden, radius, generator, outputs=MOST)  # of which the first K, or 3, are in use
        self.raw_palette = nn.Parameter(torch.zeros(MOST, 3))
        self.register_buffer("size", torch.zeros((), dtype=torch.long))  # K
        self.register_buffer("sharpness", torch.ones(()))

    @property
    def has_palette(self) -> bool:
        """Whether there are colours to choose from yet."""
        return int(self.size) > 0

    @property
    def palette(self) -> Float[Tensor, "K 3"]:
        """The colours to choose from, sRGB."""
        return self.raw_palette[: int(self.size)].sigmoid()

    def raw(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, "P K"]:
        """The network's outputs that are in use."""
        return super().raw(points)[:, : int(self.size) or 3]

    @torch.no_grad()
    def choose(self, palette: Float[Tensor, "K 3"], generator: torch.Generator) -> None:
        """From now on a choice of these colours, undecided everywhere: `fit` it. Moments of an optimizer are void."""
        self.size.fill_(len(palette))
        self.raw_palette[: len(palette)] = palette.clamp(0.02, 0.98).logit()
        drawn = FIRST_CHOICE * (2 * torch.rand(self.weights[1].shape, generator=generator) - 1)
        self.weights[1].copy_(drawn)
        self.biases[1].zero_()

    def harden(self, progress: float) -> None:
        """Set the sharpness of a part of the run, from 1 at SHARPEN_FROM to SHARPNESS at its end."""
        share = max(0.0, progress - SHARPEN_FROM) / (1 - SHARPEN_FROM)
        self.sharpness.fill_(1 + (SHARPNESS - 1) * share)

    def choice(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, "P K"]:
        """w: each colour's part at world points."""
        return (self.sharpness * self.raw(points)).softmax(-1)

    def forward(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, "P 3"]:
        """Colours at world points, as soft as training wants them."""
        return self.choice(points) @ self.palette if self.has_palette else super().forward(points)

    def _finished(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, "P 3"]:
        """With hard borders: the colour that is chosen most."""
        return self.palette[self.raw(points).argmax(-1)] if self.has_palette else super().forward(points)

    def border(self, points: Float[Tensor, "P 3"], generator: torch.Generator) -> Float[Tensor, ""]:
        """How much border there is around world points: mean |w(p) - w(p + d)|_1, d of length BORDER_STEP.

        Over directions of d drawn anew. 0 in flat colour, 2 times the share of the steps that cross a hard border.
        """
        step = F.normalize(torch.randn(len(points), 3, generator=generator), dim=-1).to(points) * BORDER_STEP
        return (self.choice(points) - self.choice(points + step)).abs().sum(-1).mean()

    def settle(self, vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"], generator: torch.Generator) -> None:
        """Short borders and no islands on a surface (see borders.py), where the choice leaves them open."""
        places, areas = even_places(vertices.cpu().numpy(), faces.cpu().numpy())
        points = torch.from_numpy(places).to(self.table)
        with torch.no_grad():
            log_parts = (self.sharpness * self.raw(points)).log_softmax(-1)
        around = settle(places, areas, log_parts.cpu().double().numpy())[1]
        parts = torch.from_numpy(around).to(points)
        near = (parts.amax(dim=1) < CLEAR).nonzero()[:, 0]
        often = near.repeat(len(points) // max(1, len(near)))  # half of a batch
        points, parts = torch.cat([points, points[often]]), torch.cat([parts, parts[often]])
        optimizer = SceneAdam([self.table, *self.weights, *self.biases], SETTLE_LR, eps=1e-15)
        for step in range(SETTLE_STEPS):
            optimizer.param_groups[0]["lr"] = SETTLE_LR * (1 - step / SETTLE_STEPS)
            chosen = torch.randint(len(points), (FIT_BATCH,), generator=generator).to(points.device)
            optimizer.zero_grad()
            F.cross_entropy(self.raw(points[chosen]), parts[chosen]).backward()
            optimizer.step()

    def loss(self, points: Float[Tensor, "P 3"], colors: Float[Tensor, "P 3"]) -> Float[Tensor, ""]:
        """Cross entropy of the choice against the palette's colour that has the shade nearest to each given one."""
        if not self.has_palette:
            return super().loss(points, colors)
        with torch.no_grad():
            nearest = to_shades(colors, self.palette).argmin(dim=1)
        return F.cross_entropy(self.raw(points), nearest, label_smoothing=0.1)
