"""Scene to mesh: the surface that looks most like the scene, one clean solid, its colours."""

from dataclasses import dataclass

import numpy as np

from sds3d.cameras import orbit
from sds3d.errors import ExportError
from sds3d.export.config import ExportConfig
from sds3d.export.grid import MORE_STEPS, WORLD, object_bounds, sample_density, solid_density, whole_scene
from sds3d.export.mesh import Mesh
from sds3d.export.shrink import best_inset, colored
from sds3d.export.surface import Surface, decimate, is_solid, separated, smooth
from sds3d.export.surface_search import KINDS, Candidates, Choice, Fit, best_choices, candidates, checked_level, fit_to
from sds3d.export.texture import with_texture
from sds3d.export.views import SceneViews, check_finite, join_views, render_views, views_all_around
from sds3d.scenes.base import Scene

LEVEL_CELLS = 64  # of the grid on which levels are compared
SWEEP_PIXELS = 160  # of the renders that levels of one kind are compared with, and then the best of each kind:
JUDGED_PIXELS = 256  # the projection widens splats by half a pixel, which must not count for much
MAX_SKIPPED = 0.1  # of the solid parts' density: what of it is outside the main pieces is a floater
MIN_FIT = 0.3  # silhouette IoU; a fair mesh has 0.9, one with big floaters left out 0.6
NUDGES = (1.0, 1.02, 0.98, 1.05, 0.95)  # of the level, where the surface would touch itself


@dataclass(frozen=True)
class Shape:
    """The geometry of an export, and how it was found."""

    surface: Surface
    choice: Choice
    fit: Fit  # to the views that it was chosen by
    dropped_share: float  # of the scene's volume, in floaters that were left out


def extract_mesh(scene: Scene, config: ExportConfig) -> Mesh:
    """One closed, coloured mesh that looks like the scene's renders; ExportError where there is none to be had."""
    check_finite(scene)
    views = views_all_around(scene, config.color_size)
    if not (views.opacity > 0.5).any():
        raise ExportError("there is no object to export: no view of the scene is even half opaque", hint=MORE_STEPS)
    judged = _judged_views(scene, min(JUDGED_PIXELS, config.color_size))
    shape = extract_shape(scene, views, judged, config)
    if config.level is None:
        found = best_inset(scene, shape.surface, views, judged)
    else:  # a surface that was asked for stays where it is
        found = colored(scene, shape.surface, views, judged)
    mesh = Mesh(
        found.surface[0].astype(np.float32),
        found.surface[1],
        found.colors.at_vertices,
        surface=shape.choice.kind,
        level=shape.choice.level,
        colored_by=found.colors.source,
        dropped_share=shape.dropped_share,
        roughness=config.roughness,
        metallic=config.metallic,
    )
    if config.color == "vertex":
        return mesh
    return with_texture(mesh, scene, found.projected, found.colors.source, config.texture_size)


def extract_shape(scene: Scene, views: SceneViews, judged: SceneViews, config: ExportConfig) -> Shape:
    """The surface alone: chosen on a coarse grid by how it looks, made on a fine one, closed, smooth and light."""
    world = whole_scene(scene)
    low, high = object_bounds(world)
    coarse = sample_density(scene, low, high, min(LEVEL_CELLS, config.resolution)).blurred(config.blur)
    level = checked_level(coarse, config.level)
    kinds = (
        (config.surface,) if config.surface != "best" else KINDS if level is None else KINDS[:2]
    )  # these have levels
    sweep = _judged_views(scene, min(SWEEP_PIXELS, config.color_size))
    choices = best_choices(candidates(coarse, views), sweep, kinds, level)
    fine = candidates(sample_density(scene, low, high, config.resolution).blurred(config.blur), views)
    solid, choice = _best_solid(fine, choices, judged)
    if np.abs(solid[0]).max() > WORLD - world.spacing:
        raise ExportError(
            f"the scene is larger than the box of {-WORLD} to {WORLD} that it is searched in: it has exploded",
            hint="lower the learning rates or the guidance scale, or try another seed",
        )
    surface = separated(decimate(smooth(solid, config.smoothing), config.faces))
    fit = fit_to(surface, judged)
    if fit.silhouette_iou < MIN_FIT:
        raise ExportError(
            f"no closed piece looks like the scene: the best covers {100 * fit.silhouette_iou:.0f}% of what the "
            "renders show",
            hint=f"the object is fog or scattered parts; {MORE_STEPS}",
        )
    around = world.surface(min(MAX_SKIPPED * solid_density(world), 0.9 * float(world.density.max())))
    return Shape(surface, choice, fit, around[1] if around else 0.0)


def _best_solid(found: Candidates, choices: list[Choice], judged: SceneViews) -> tuple[Surface, Choice]:
    """The one of these that looks most like the views among those that are solid."""
    best, score = None, -np.inf
    for choice in choices:
        solid = _solid_surface(found, choice)
        if solid is not None and (now := fit_to(solid, judged).score) > score:
            best, score = (solid, choice), now
    if best is None:
        raise ExportError("the scene has no closed surface", hint=MORE_STEPS)
    return best


def _solid_surface(found: Candidates, choice: Choice) -> Surface | None:
    """The main pieces at this choice; a little beside it where they would touch themselves."""
    for nudge in NUDGES:
        surface = found.surface(choice, nudge)
        if surface is not None and is_solid(surface[0]):
            return surface[0]
    return None


def _judged_views(scene: Scene, size: int) -> SceneViews:
    rings = [orbit(4, elevation_deg=20, size=size), orbit(2, elevation_deg=75, size=size)]
    return render_views(scene, join_views([*rings, orbit(2, elevation_deg=-40, size=size)]))
