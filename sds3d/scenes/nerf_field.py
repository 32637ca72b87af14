"""The field of a NeRF: density and colour at every point, from a hash grid and a small network."""

import itertools
import math
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from sds3d.ops.hash_encode import HashGrid, hash_encode
from sds3d.options import Options

BASE_RESOLUTION = 8  # cells along a side of the coarsest grid
FEATURES = 2  # numbers per entry of the table (Mueller et al. 2022, table 1)
INIT_TABLE = 1e-4  # the table's entries are drawn from +- this (Mueller et al. 2022, section 4)
DENSITY_SCALE = 40.0  # 1 / world units, the scene's length scale: a softplus of 1 is opaque within a few hundredths
BLOB_RADIUS = 0.5  # world units: of the ball that the field starts from
BLOB_STRENGTH = 4.0  # softplus argument at the origin before the first step: solid, and not too far to carve away
ALL_LEVELS_AT = 0.5  # part of the run after which all grids count, where `start_levels` begins with fewer
NORMAL_STEP = 0.02  # world units between the densities that normals are differences of: a cell of the finest grid


class FieldConfig(Options):
    """How fine the field is, and what it looks like before the first step.

    The defaults suit the embedded prior, which sees 64 pixels: the finest cells are half a pixel. For large priors on a
    GPU start from instant-ngp's values: 16 levels up to 2048, log2_table 19, hidden 64.
    """

    levels: Annotated[int, Field(ge=1, le=24, description="Number of grids, from coarse to fine")] = 8
    finest_resolution: Annotated[
        int, Field(ge=BASE_RESOLUTION, le=8192, description="Cells along a side of the finest grid")
    ] = 96
    log2_table: Annotated[int, Field(ge=4, le=24, description="log2 of the largest number of entries of one grid")] = 15
    hidden: Annotated[int, Field(ge=4, le=256, description="Width of the network")] = 16
    start_levels: Annotated[
        int,
        Field(ge=1, description="Grids that count from the first step on, the finer ones later; all if above levels"),
    ] = 24

    def grid(self) -> HashGrid:
        return HashGrid(self.levels, FEATURES, BASE_RESOLUTION, self.finest_resolution, self.log2_table)


class NerfField(nn.Module):
    """density(p) = DENSITY_SCALE softplus(m_0(p) + BLOB_STRENGTH (1 - |p| / BLOB_RADIUS)) inside the ball, else 0
    color(p) = sigmoid(m_1..3(p)), independent of the direction of view

    m(p) is the output of a small network on the hash grid's features at p; density and colour share its hidden layer.
    The last term, a soft ball around the origin (Lin et al. 2023, Magic3D), stays for the whole run.
    """

    def __init__(self, config: FieldConfig, radius: float, generator: torch.Generator) -> None:
        super().__init__()
        self.config, self.radius, self.grid = config, radius, config.grid()
        table = INIT_TABLE * (2 * torch.rand(self.grid.entries, FEATURES, generator=generator) - 1)
        self.table = nn.Parameter(table)
        sizes = [config.levels * FEATURES, config.hidden, 1 + 3]
        self.network = nn.ParameterList(
            nn.Parameter(math.sqrt(6 / inputs) * (2 * torch.rand(outputs, inputs, generator=generator) - 1))
            for inputs, outputs in itertools.pairwise(sizes)  # He et al. 2015; without biases, as in instant-ngp
        )
        self.level_weights: Tensor = nn.Buffer(torch.zeros(config.levels))
        self.show_levels(0.0)

    def show_levels(self, progress: float) -> None:
        """Fade the finer grids in one after the other (Park et al. 2021, Nerfies, with linear ramps).

        weight_l = clamp(n - l, 0, 1),   n from `start_levels` to `levels` over the first half of the run
        """
        levels = self.config.levels
        start = min(self.config.start_levels, levels)
        count = start + min(progress / ALL_LEVELS_AT, 1.0) * (levels - start)
        self.level_weights.copy_((count - torch.arange(levels)).clamp(0, 1))

    def features(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, "P K"]:
        """Interpolated grid entries at world points, level after level."""
        features = hash_encode((points / self.radius + 1) / 2, self.table, self.grid)
        if bool((self.level_weights == 1).all()):
            return features
        return features * self.level_weights.repeat_interleave(FEATURES)

    def forward(self, points: Float[Tensor, "P 3"]) -> tuple[Float[Tensor, " P"], Float[Tensor, "P 3"]]:
        """Density per world unit, 0 outside the ball, and sRGB colour, at world points."""
        raw, color = F.linear(self._hidden(points), self.network[-1]).split([1, 3], dim=-1)
        return self._activated(raw.squeeze(-1), points), color.sigmoid()

    def density(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, " P"]:
        return self._activated(self._hidden(points) @ self.network[-1][0], points)

    def _hidden(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, "P K"]:
        values = self.features(points)
        for weight in self.network[:-1]:
            values = F.linear(values, weight).relu_()
        return values

    def _activated(self, raw: Float[Tensor, " P"], points: Float[Tensor, "P 3"]) -> Float[Tensor, " P"]:
        distance = points.norm(dim=-1)
        raw = raw + BLOB_STRENGTH * (1 - distance / BLOB_RADIUS)
        return DENSITY_SCALE * F.softplus(raw) * (distance < self.radius)

    def normals(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, "P 3"]:
        """Unit vectors -grad density / |grad density|; 0 where the gradient is 0.

        Under no_grad from the hash grid's gradient to points. Otherwise (losses, shading) from central differences over
        NORMAL_STEP, which takes six more densities: the hash grid cannot be differentiated twice.
        """
        if torch.is_grad_enabled():
            offsets = NORMAL_STEP * torch.eye(3, dtype=points.dtype, device=points.device)
            near = torch.stack([points + offset for sign in (1, -1) for offset in sign * offsets])
            density = self.density(near.flatten(0, 1)).view(2, 3, -1)
            return F.normalize((density[1] - density[0]).T, dim=-1, eps=1e-6)
        with torch.enable_grad():
            at = points.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.density(at).sum(), at)
        return F.normalize(-gradient, dim=-1, eps=1e-6)
