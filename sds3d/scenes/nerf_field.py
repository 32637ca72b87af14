"""The field of a NeRF: density and colour at every point, from a hash grid and a small network."""

import itertools
import math
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from sds3d.ops.hash_encode import HashGrid, hash_encode
from sds3d.options import Fraction, Options

EXP_LIMIT = 15.0  # far above any density that makes a difference, and far from overflow
START = 1e-4  # the table's entries are drawn from +- this (Mueller et al. 2022, section 4)


class FieldConfig(Options):
    """How fine the field is, and what it looks like before the first step.

    The defaults are for the embedded prior, which sees 64 pixels: the finest cells are half of one. For large priors on
    a GPU, instant-ngp's are a start: 16 levels up to 2048, log2_table 19, hidden 64.
    """

    levels: Annotated[int, Field(ge=1, le=24, description="Grids, from coarse to fine")] = 8
    features: Annotated[Literal[1, 2, 4, 8], Field(description="Numbers in each entry of the table")] = 2
    base_resolution: Annotated[int, Field(ge=2, le=512, description="Cells along a side of the coarsest grid")] = 8
    finest_resolution: Annotated[int, Field(ge=2, le=8192, description="The same of the finest grid")] = 96
    log2_table: Annotated[int, Field(ge=4, le=24, description="log2 of the most entries of one grid")] = 15
    hidden: Annotated[int, Field(ge=4, le=256, description="Width of the network")] = 16
    layers: Annotated[int, Field(ge=1, le=4, description="Hidden layers of the network")] = 1
    activation: Annotated[Literal["softplus", "exp"], Field(description="From the network to density")] = "softplus"
    density_scale: Annotated[float, Field(gt=0, description="Factor on the density, 1 / world units")] = 40.0
    density_bias: Annotated[float, Field(description="Added before the activation")] = 0.0
    blob_strength: Annotated[float, Field(ge=0, description="Start: density before the activation at the origin")] = 4.0
    blob_radius: Annotated[float, Field(gt=0, description="Start: where it has fallen to 0, world units")] = 0.5
    start_levels: Annotated[int, Field(ge=1, description="Coarse grids that count from the first step on")] = 24
    all_levels_at: Annotated[Fraction, Field(description="Part of the run after which all of them count")] = 0.5

    def grid(self) -> HashGrid:
        """The table's layout."""
        return HashGrid(
            levels=self.levels,
            features=self.features,
            base_resolution=self.base_resolution,
            finest_resolution=self.finest_resolution,
            log2_table=self.log2_table,
        )


class NerfField(nn.Module):
    """density(p) = scale a(m_0(p) + bias + strength (1 - |p| / blob_radius)) inside the ball, a = softplus or exp
    color(p) = sigmoid(m_1..3(p)), the same from everywhere

    m is a small network's answer to the hash grid's features at p; density and colour share its hidden layers. The last
    term, a soft ball around the origin (Lin et al. 2023, Magic3D), stays for the whole run.
    """

    level_weights: Tensor

    def __init__(self, config: FieldConfig, radius: float, generator: torch.Generator) -> None:
        super().__init__()
        self.config, self.radius, self.grid = config, radius, config.grid()
        table = START * (2 * torch.rand(self.grid.entries, config.features, generator=generator) - 1)
        self.table = nn.Parameter(table)
        sizes = [config.levels * config.features, *[config.hidden] * config.layers, 1 + 3]
        self.network = nn.ParameterList(
            nn.Parameter(math.sqrt(6 / inputs) * (2 * torch.rand(outputs, inputs, generator=generator) - 1))
            for inputs, outputs in itertools.pairwise(sizes)  # He et al. 2015; without biases, as in instant-ngp
        )
        self.register_buffer("level_weights", torch.zeros(config.levels))
        self.show_levels(0.0)

    def show_levels(self, progress: float) -> None:
        """Let the finer grids in one after the other (Park et al. 2021, Nerfies, with straight ramps).

        weight_l = clamp(n - l, 0, 1),   n from `start_levels` to `levels`
        """
        config, levels = self.config, self.config.levels
        start = min(config.start_levels, levels)
        done = min(progress / config.all_levels_at, 1.0) if config.all_levels_at > 0 else 1.0
        count = start + done * (levels - start)
        self.level_weights.copy_((count - torch.arange(levels)).clamp(0, 1))

    def features(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, "P K"]:
        """What the grids hold at world points, levels in order."""
        found = hash_encode((points / self.radius + 1) / 2, self.table, self.grid)
        if bool((self.level_weights == 1).all()):
            return found
        return found * self.level_weights.repeat_interleave(self.config.features)

    def forward(self, points: Float[Tensor, "P 3"]) -> tuple[Float[Tensor, "P"], Float[Tensor, "P 3"]]:
        """Density per world unit, 0 outside the ball, and sRGB colour, at world points."""
        raw, color = F.linear(self._hidden(points), self.network[-1]).split([1, 3], dim=-1)
        return self._activated(raw.squeeze(-1), points), color.sigmoid()

    def density(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, "P"]:
        """The density alone."""
        return self._activated(self._hidden(points) @ self.network[-1][0], points)

    def _hidden(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, "P K"]:
        values = self.features(points)
        for weight in self.network[:-1]:
            values = F.linear(values, weight).relu_()
        return values

    def _activated(self, raw: Float[Tensor, "P"], points: Float[Tensor, "P 3"]) -> Float[Tensor, "P"]:
        config, distance = self.config, points.norm(dim=-1)
        raw = raw + config.density_bias + config.blob_strength * (1 - distance / config.blob_radius)
        density = F.softplus(raw) if config.activation == "softplus" else raw.clamp_max(EXP_LIMIT).exp()
        return config.density_scale * density * (distance < self.radius)

    def normals(self, points: Float[Tensor, "P 3"], step: float) -> Float[Tensor, "P 3"]:
        """Unit vectors against the density's gradient, 0 where it has none.

        Without autograd (pictures) from the hash grid's own gradient to points. With it (losses, shading) from central
        differences over `step` world units, six more densities: a gradient of the gradient need not exist.
        """
        if torch.is_grad_enabled():
            offsets = step * torch.eye(3, dtype=points.dtype, device=points.device)
            near = torch.stack([points + offset for sign in (1, -1) for offset in sign * offsets])
            density = self.density(near.flatten(0, 1)).view(2, 3, -1)
            return F.normalize((density[1] - density[0]).T, dim=-1, eps=1e-6)
        with torch.enable_grad():
            at = points.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.density(at).sum(), at)
        return F.normalize(-gradient, dim=-1, eps=1e-6)
