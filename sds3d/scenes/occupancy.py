"""Which parts of space are worth marching through: nerfacc's occupancy grid, made reproducible."""

from collections.abc import Callable

import torch
from jaxtyping import Bool
from nerfacc import OccGridEstimator
from torch import Tensor, nn
from torch.nn import functional as F

from sds3d.ops.march_rays import OccupancyGrid

EVERY = 16  # steps between updates (Mueller et al. 2022, appendix E.2)
THRESHOLD = 0.01  # occupied: above this opacity of one marching step, or the mean of all cells (nerfacc's occ_thre)
DECAY = 0.5  # what remains of a cell's old value at an update; 0.95 (nerfacc) keeps what has gone for a whole short run
HIDDEN_DEPTH = 6.0  # samples behind this optical depth are left out: exp(-6) = 0.2% of the light gets through
AT_ONCE = 1 << 18  # points; bounds the memory of an update
EVERY_CELL = 2**31  # steps of nerfacc's warm-up, in which it looks at all cells: the whole run, as the grids are small


class Occupancy(nn.Module):
    """The grid and its updates; both are part of the state, so that a resumed run skips the same space.

    Rays skip cells that are empty (`binaries`), and cells so deep inside the solid that no light reaches them
    (`least`).
    """

    def __init__(self, resolution: int, radius: float, step: float, seed: Tensor) -> None:
        """resolution^3 cells over the ball's box; the opacity of a `step` (world units) decides what is occupied."""
        super().__init__()
        self.step = step
        self.estimator = OccGridEstimator([-radius] * 3 + [radius] * 3, resolution, levels=1)
        self.seed: Tensor = nn.Buffer(seed)
        self.least: Tensor = nn.Buffer(torch.zeros(resolution**3))  # density of a cell and its neighbours

    @property
    def grid(self) -> OccupancyGrid:
        """The grid as `march_rays` takes it."""
        least = self.least.view(self.binaries.shape)
        return OccupancyGrid(self.binaries, self.estimator.aabbs[0], least, HIDDEN_DEPTH)

    @property
    def binaries(self) -> Bool[Tensor, "G G G"]:
        """Whether each cell is occupied."""
        occupied: Tensor = self.estimator.binaries[0]
        return occupied

    def update(self, step: int, density: Callable[[Tensor], Tensor]) -> None:
        """Every EVERY steps: evaluate the density at one random point of every cell.

        nerfacc draws from the global generators: their state is saved, seeded by (seed, step), and restored.
        """
        if step % EVERY:
            return

        def opacity(points: Tensor) -> Tensor:
            """Of one marching step."""
            densities = torch.cat([density(part) for part in points.split(AT_ONCE)])
            return -torch.expm1(-self.step * densities)[:, None]

        device = self.seed.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(int(self.seed) * 1_000_003 + step)
            self.estimator.update_every_n_steps(
                step, opacity, occ_thre=THRESHOLD, ema_decay=DECAY, warmup_steps=EVERY_CELL, n=1
            )
        shape = (1, 1, *self.binaries.shape)
        densities = -torch.log1p(-self.estimator.occs.clamp(max=1 - 1e-6)) / self.step
        # a cell's value is the largest seen in it, not a bound from below: the least of its neighbours' is safe
        self.least.copy_(-F.max_pool3d(-densities.view(shape), 3, stride=1, padding=1).flatten())
