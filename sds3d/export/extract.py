"""Scene to mesh: density on a grid, the isosurface that fits the renders best, one clean solid, colours."""

from dataclasses import dataclass, replace
from typing import Annotated, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from pydantic import Field
from scipy.ndimage import gaussian_filter
from torch import Tensor

from sds3d.cameras import orbit
from sds3d.errors import ExportError
from sds3d.export.colors import vertex_colors
from sds3d.export.mesh import Mesh
from sds3d.export.rasterize_mesh import rasterize_mesh
from sds3d.export.surface import Surface, closed_surface, decimate, is_solid, main_pieces, smooth
from sds3d.export.views import SceneViews, join_views, render_views, scene_device, views_all_around
from sds3d.options import Options
from sds3d.scenes.base import Scene

WORLD = 1.15  # half the side of the box that is searched for the object; scenes stay inside the unit ball
SEARCH_CELLS = 56  # grid on which levels are compared
SEARCH_PIXELS = 128  # the projection widens splats by half a pixel, which must not count for much
COARSE_LEVELS, FINE_LEVELS = 8, 4
MIN_FIT = 0.3  # silhouette IoU; a fair mesh has 0.9, one with big floaters left out 0.6
MORE_STEPS = "let the run go on for more steps, or try another seed"


class ExportConfig(Options):
    """How fine the exported mesh is."""

    resolution: Annotated[int, Field(ge=16, le=512, description="grid cells along the longest side")] = 128
    level: Annotated[
        float | None,
        Field(gt=0, description="density of the surface; the one that fits the renders best where not given"),
    ] = None
    blur: Annotated[
        float, Field(ge=0, le=0.1, description="softening of the density before meshing, in object sizes")
    ] = 0.014
    faces: Annotated[int, Field(ge=100, le=2_000_000, description="triangles, at most about this many")] = 40_000
    smoothing: Annotated[int, Field(ge=0, le=100, description="passes of the surface filter")] = 20
    color_size: Annotated[int, Field(ge=32, le=2048, description="pixels of the renders colours are taken from")] = 256


@runtime_checkable
class GridScene(Protocol):
    """A scene that fills grids faster than point by point."""

    def density_grid(
        self, origin: Float[Tensor, "3"], spacing: float, shape: tuple[int, int, int]
    ) -> Float[Tensor, "X Y Z"]: ...


@dataclass(frozen=True)
class Grid:
    """Density at origin + spacing * (i, j, k)."""

    density: Float[ndarray, "X Y Z"]
    origin: Float[ndarray, "3"]
    spacing: float

    def blurred(self, size: float) -> "Grid":
        """Smoothed by a Gaussian of `size` times the longest side: single splats stop showing as bumps."""
        return replace(self, density=gaussian_filter(self.density, size * max(self.density.shape), mode="constant"))

    def surface(self, level: float) -> tuple[Surface, float] | None:
        """The main pieces above `level` and the volume share of the others; None if there is nothing."""
        surface = closed_surface(self.density, level, self.origin, self.spacing)
        return None if surface is None else main_pieces(surface)


def extract_mesh(scene: Scene, config: ExportConfig) -> Mesh:
    """One closed, coloured mesh that looks like the scene's renders; ExportError where there is none to be had."""
    _check_finite(scene)
    silhouettes = _silhouettes(scene)
    if not (silhouettes.opacity > 0.5).any():
        raise ExportError("there is no object to export: no view of the scene is even half opaque", hint=MORE_STEPS)
    world = sample_density(scene, np.full(3, -WORLD), np.full(3, WORLD), SEARCH_CELLS)
    low, high = _bounds(world)
    search = sample_density(scene, low, high, SEARCH_CELLS).blurred(config.blur)
    level = best_level(search, silhouettes) if config.level is None else _chosen_level(search, config.level)
    surface = _solid_surface(sample_density(scene, low, high, config.resolution).blurred(config.blur), level)
    vertices, faces = decimate(smooth(surface, config.smoothing), config.faces)
    colors = vertex_colors(scene, vertices, faces, views_all_around(scene, config.color_size))
    fit = _fit((vertices, faces), silhouettes)
    if fit < MIN_FIT:
        raise ExportError(
            f"no closed piece looks like the scene: the best covers {100 * fit:.0f}% of what the renders show",
            hint=f"the object is fog or scattered parts; {MORE_STEPS}",
        )
    pieces = world.surface(level)
    return Mesh(
        vertices.astype(np.float32),
        faces,
        colors,
        dropped_share=pieces[1] if pieces else 0.0,
        silhouette_iou=fit,
    )


def sample_density(scene: Scene, low: Float[ndarray, "3"], high: Float[ndarray, "3"], cells: int) -> Grid:
    """The scene's density in a box, with `cells` cells along its longest side."""
    spacing = float((high - low).max()) / (cells - 1)
    counts = np.ceil((high - low) / spacing - 1e-6).astype(int) + 1
    shape = (int(counts[0]), int(counts[1]), int(counts[2]))
    origin = torch.from_numpy(low).float().to(scene_device(scene))
    with torch.no_grad():
        if isinstance(scene, GridScene):
            density = scene.density_grid(origin, spacing, shape)
        else:
            axes = [torch.arange(count, device=origin.device) * spacing for count in shape]
            points = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3) + origin
            density = torch.cat([scene.density(part) for part in points.split(1 << 18)]).reshape(shape)
    return Grid(density.cpu().numpy(), low, spacing)


def best_level(grid: Grid, silhouettes: SceneViews) -> float:
    """The density whose isosurface has the silhouettes of the scene's own renders, by mean IoU over the views.

    Levels are tried evenly on a log scale, then more finely around the best one. Density has no unit and how it
    becomes opacity depends on the scene, so no fixed level can be right.
    """
    top, tried = np.log(_peak(grid.density)), dict[float, float]()

    def best_of(candidates: Float[ndarray, "K"]) -> float:
        for candidate in candidates.tolist():
            found = grid.surface(float(np.exp(candidate)))
            tried[candidate] = _fit(found[0], silhouettes) if found else 0.0
        return max(tried, key=lambda key: tried[key])

    coarse = np.linspace(top - np.log(50.0), top, COARSE_LEVELS)
    step = coarse[1] - coarse[0]
    between = np.linspace(-step, step, FINE_LEVELS + 2)[1:-1]
    return float(np.exp(best_of(best_of(coarse) + between)))


def _chosen_level(grid: Grid, level: float) -> float:
    """The level that was asked for; ExportError where the scene is nowhere as dense."""
    if grid.density.max() <= level:
        raise ExportError(
            f"export.level = {level:g} is above the scene's density everywhere",
            hint=f"it reaches {grid.density.max():.3g}; leave export.level out to have the best one found",
        )
    return level


def _solid_surface(grid: Grid, level: float) -> Surface:
    """The largest piece near `level`; a little beside it where the surface would touch itself."""
    for factor in (1.0, 1.02, 0.98, 1.05, 0.95):
        found = grid.surface(level * factor)
        if found is not None and is_solid(found[0]):
            return found[0]
    raise ExportError("the scene has no closed surface", hint=MORE_STEPS)


def _peak(density: Float[ndarray, "X Y Z"]) -> float:
    """The density of the solid parts: 99th percentile over cells that are not empty, so that a few hot ones pass."""
    highest = float(density.max())
    if highest <= 0:
        raise ExportError("there is no object to export: the scene is empty", hint=MORE_STEPS)
    return float(np.percentile(density[density > 0.01 * highest], 99))


def _bounds(world: Grid) -> tuple[Float[ndarray, "3"], Float[ndarray, "3"]]:
    """A box with room around the largest piece at a low level."""
    found = world.surface(0.03 * _peak(world.density))
    assert found is not None, "the peak is above its own fraction"
    vertices = found[0][0]
    room = 2.0 * world.spacing
    return np.maximum(vertices.min(axis=0) - room, -WORLD), np.minimum(vertices.max(axis=0) + room, WORLD)


def _silhouettes(scene: Scene) -> SceneViews:
    rings = [orbit(4, elevation_deg=20, size=SEARCH_PIXELS), orbit(2, elevation_deg=75, size=SEARCH_PIXELS)]
    cameras = join_views([*rings, orbit(2, elevation_deg=-40, size=SEARCH_PIXELS)])
    return render_views(scene, cameras)


def _fit(surface: Surface, silhouettes: SceneViews) -> float:
    """Mean over the views of the IoU of the surface's silhouette with the render's."""
    scores = []
    for view in range(len(silhouettes.cameras)):
        mine = rasterize_mesh(*surface, silhouettes.cameras, view).face >= 0
        theirs = silhouettes.opacity[view] > 0.5
        union = (mine | theirs).sum()
        scores.append(1.0 if union == 0 else float((mine & theirs).sum() / union))
    return float(np.mean(scores))


def _check_finite(scene: Scene) -> None:
    for group in scene.param_groups():
        for parameter in group.parameters:
            if not torch.isfinite(parameter).all():
                raise ExportError(
                    f"the scene's {group.name} are not finite: the run has diverged",
                    hint="resume from an earlier checkpoint, or lower the learning rates",
                )
