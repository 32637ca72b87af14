"""A scene's density on a grid sized to the object."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy.ndimage import gaussian_filter
from torch import Tensor

from sds3d.errors import ExportError
from sds3d.export.surface import Surface, closed_surface, main_pieces
from sds3d.export.views import scene_device
from sds3d.scenes.base import Scene
from sds3d.scenes.gaussians import Gaussians

WORLD = 1.15  # half the side of the box that is searched for the object; scenes stay inside the unit ball
SEARCH_CELLS = 56  # along the side of that box
LOW_LEVEL = 0.03  # of the solid parts' density: what the object's box has to contain
MORE_STEPS = "let the run go on for more steps, or try another seed"


@dataclass(frozen=True)
class Grid:
    """Values, such as the density, at origin + spacing * (i, j, k)."""

    density: Float[ndarray, "X Y Z"]
    origin: Float[ndarray, "3"]
    spacing: float

    def blurred(self, size: float) -> "Grid":
        """Smoothed by a Gaussian of `size` times the longest side, so that single splats are no bumps."""
        return replace(self, density=gaussian_filter(self.density, size * max(self.density.shape), mode="constant"))

    def points(self) -> Float[Tensor, "P 3"]:
        """The positions of all values, in the order of density.ravel()."""
        axes = [torch.arange(count) * self.spacing for count in self.density.shape]
        steps = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)
        return steps + torch.from_numpy(self.origin).float()

    def surface(self, level: float, hidden: Bool[ndarray, "X Y Z"] | None = None) -> tuple[Surface, float] | None:
        """The main pieces above `level` and the volume share of the others; None if there is nothing.

        Tunnels through `hidden` cells are closed.
        """
        surface = closed_surface(self.density, level, self.origin, self.spacing, hidden)
        return None if surface is None else main_pieces(surface)


def sample_density(scene: Scene, low: Float[ndarray, "3"], high: Float[ndarray, "3"], cells: int) -> Grid:
    """The scene's density in a box, with `cells` cells along its longest side."""
    spacing = float((high - low).max()) / (cells - 1)
    counts = np.ceil((high - low) / spacing - 1e-6).astype(int) + 1
    shape = (int(counts[0]), int(counts[1]), int(counts[2]))
    device = scene_device(scene)
    with torch.no_grad():
        if isinstance(scene, Gaussians):
            density = scene.density_grid(torch.from_numpy(low).float().to(device), spacing, shape)
        else:
            points = Grid(np.zeros(shape), low, spacing).points().to(device)
            density = torch.cat([scene.density(part) for part in points.split(1 << 18)]).reshape(shape)
    return Grid(density.cpu().numpy(), low, spacing)


def solid_density(grid: Grid) -> float:
    """The density of the solid parts: the 99th percentile over cells that are not empty, robust to a few outliers."""
    highest = float(grid.density.max())
    if highest <= 0:
        raise ExportError("there is no object to export: the scene is empty", hint=MORE_STEPS)
    return float(np.percentile(grid.density[grid.density > 0.01 * highest], 99))


def object_bounds(world: Grid) -> tuple[Float[ndarray, "3"], Float[ndarray, "3"]]:
    """A box with a margin around the main pieces at a low level."""
    main = world.surface(LOW_LEVEL * solid_density(world))
    assert main is not None, "the density of the solid parts is above its own fraction"
    vertices = main[0][0]
    margin = 2.0 * world.spacing
    return np.maximum(vertices.min(axis=0) - margin, -WORLD), np.minimum(vertices.max(axis=0) + margin, WORLD)
