"""Which parts of space are worth marching through: nerfacc's occupancy grid, made reproducible."""

from collections.abc import Callable
from typing import Annotated

import torch
from jaxtyping import Bool, Float
from nerfacc import OccGridEstimator
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from sds3d.ops.march_rays import OccupancyGrid
from sds3d.options import Fraction, Options

AT_ONCE = 1 << 18  # points; bounds the memory of an update
EVERY_CELL = 2**31  # nerfacc's warm-up, in which it looks at all cells: for the whole run, the grids are small


class OccupancyConfig(Options):
    """How fine the grid is, and when a cell counts as occupied."""

    resolution: Annotated[int, Field(ge=4, le=256, description="Cells along a side")] = 48
    every: Annotated[int, Field(ge=1, description="Steps between updates")] = 16
    threshold: Annotated[
        float, Field(ge=0, lt=1, description="Occupied is above this opacity of a marching step, or above the mean")
    ] = 0.01
    hidden_depth: Annotated[
        float, Field(gt=0, description="Samples behind this optical depth of the grid are left out; 0.2% get through 6")
    ] = 6.0
    decay: Annotated[Fraction, Field(description="What remains of a cell's old value at an update")] = 0.5


class Occupancy(nn.Module):
    """The grid and its updates; both are part of the state, so that a resumed run skips the same space.

    It tells two things apart: space that is empty, and space that nobody can see because it lies deep in what is solid.
    """

    seed: Tensor
    least: Tensor

    def __init__(self, config: OccupancyConfig, radius: float, step: float, seed: Tensor) -> None:
        """A grid over the ball's box; `step` is the marching step whose opacity decides, in world units."""
        super().__init__()
        self.config, self.radius, self.step = config, radius, step
        low, high = [-radius] * 3, [radius] * 3
        self.estimator = OccGridEstimator(low + high, config.resolution, levels=1)
        self.register_buffer("seed", seed)
        # least density of each cell and those around it
        self.register_buffer("least", torch.zeros(config.resolution**3))

    @property
    def box(self) -> Float[Tensor, "6"]:
        """Low and high corner of the grid in the world."""
        box: Tensor = self.estimator.aabbs[0]
        return box

    @property
    def grid(self) -> OccupancyGrid:
        """What rays are marched by."""
        least = self.least.view(self.binaries.shape)
        return OccupancyGrid(self.binaries, self.box, least, self.config.hidden_depth)

    @property
    def binaries(self) -> Bool[Tensor, "G G G"]:
        """Whether each cell is occupied."""
        occupied: Tensor = self.estimator.binaries[0]
        return occupied

    def update(self, step: int, density: Callable[[Tensor], Tensor]) -> None:
        """Every few steps: look at the density of one drawn point of every cell.

        nerfacc draws from the global generators: they are lent to it, set by (seed, step), and put back.
        """
        if step % self.config.every:
            return
        device = self.seed.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(int(self.seed) * 1_000_003 + step)
            self.estimator.update_every_n_steps(
                step,
                lambda points: -torch.expm1(-self.step * in_parts(density, points))[:, None],
                occ_thre=self.config.threshold,
                ema_decay=self.config.decay,
                warmup_steps=EVERY_CELL,
                n=1,
            )
        shape = (1, 1, *self.binaries.shape)
        densities = -torch.log1p(-self.estimator.occs.clamp(max=1 - 1e-6)) / self.step
        # the largest value seen in a cell says little about its emptiest corner; its neighbours' least is safe
        self.least.copy_(-F.max_pool3d(-densities.view(shape), 3, stride=1, padding=1).flatten())


def in_parts(density: Callable[[Tensor], Tensor], points: Float[Tensor, "P 3"]) -> Float[Tensor, "P"]:
    """The density at many points, AT_ONCE at a time."""
    return torch.cat([density(part) for part in points.split(AT_ONCE)])
