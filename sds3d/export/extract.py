"""Scene to mesh: the surface whose renders are most like the scene's, made one clean solid, with colours."""

from dataclasses import dataclass

import numpy as np

from sds3d.cameras import orbit
from sds3d.errors import ExportError
from sds3d.export.config import ExportConfig
from sds3d.export.grid import MORE_STEPS, WORLD, object_bounds, sample_density, solid_density, whole_scene
from sds3d.export.mesh import Mesh
from sds3d.export.shrink import best_inset, with_colors
from sds3d.export.surface import Surface, decimate, is_solid, separated, smooth
from sds3d.export.surface_search import KINDS, Candidates, Choice, Fit, best_choices, candidates, checked_level, fit_to
from sds3d.export.texture import with_texture
from sds3d.export.views import SceneViews, check_finite, join_views, render_views, views_all_around
from sds3d.scenes.base import Scene

BLUR = 0.01  # of the density before meshing, in object sizes
SMOOTHING = 20  # iterations of the surface filter
LEVEL_CELLS = 64  # of the grid on which levels are compared
SWEEP_PIXELS = 160  # of the renders by which levels of one kind are compared
REFERENCE_PIXELS = (
    256  # of those by which kinds are: the projection widens splats by half a pixel, which must not matter
)
FLOATER_DENSITY = 0.1  # of the solid parts' density: from which volume outside the main pieces counts as a floater
MIN_FIT = 0.3  # silhouette IoU; a fair mesh has 0.9, one with big floaters left out 0.6
NUDGES = (1.0, 1.02, 0.98, 1.05, 0.95)  # factors of the level, tried if the surface touches itself


@dataclass(frozen=True)
class Shape:
    """The geometry of an export, and how it was found."""

    surface: Surface
    choice: Choice
    fit: Fit  # to the views by which it was chosen
    dropped_share: float  # share of the scene's volume in floaters that were left out


def extract_mesh(scene: Scene, config: ExportConfig) -> Mesh:
    """One closed, coloured mesh that looks like the scene's renders; ExportError if the scene has none."""
    check_finite(scene)
    views = views_all_around(scene, config.color_size)
    if not (views.opacity > 0.5).any():
        raise ExportError("there is no object to export: no view of the scene is even half opaque", hint=MORE_STEPS)
    reference = _reference_views(scene, min(REFERENCE_PIXELS, config.color_size))
    shape = extract_shape(scene, views, reference, config)
    if config.level is None:
        colored = best_inset(scene, shape.surface, views, reference)
    else:  # a level that a person chose is kept as it is
        colored = with_colors(scene, shape.surface, views, reference)
    mesh = Mesh(
        colored.surface[0].astype(np.float32),
        colored.surface[1],
        colored.colors.at_vertices,
        surface=shape.choice.kind,
        level=shape.choice.level,
        colored_by=colored.colors.source,
        dropped_share=shape.dropped_share,
    )
    if config.color == "vertex":
        return mesh
    return with_texture(mesh, scene, colored.projected, colored.colors.source, config.texture_size)


def extract_shape(scene: Scene, views: SceneViews, reference: SceneViews, config: ExportConfig) -> Shape:
    """The surface: chosen on a coarse grid by its renders, made on a fine one, closed, smoothed and decimated."""
    world = whole_scene(scene)
    low, high = object_bounds(world)
    coarse = sample_density(scene, low, high, min(LEVEL_CELLS, config.resolution)).blurred(BLUR)
    level = checked_level(coarse, config.level)
    kinds = KINDS if level is None else KINDS[:2]  # these have levels
    sweep = _reference_views(scene, min(SWEEP_PIXELS, config.color_size))
    choices = best_choices(candidates(coarse, views), sweep, kinds, level)
    fine = candidates(sample_density(scene, low, high, config.resolution).blurred(BLUR), views)
    solid, choice = _best_solid(fine, choices, reference)
    if np.abs(solid[0]).max() > WORLD - world.spacing:
        raise ExportError(
            f"the scene is larger than the box of {-WORLD} to {WORLD} that it is searched in: it has exploded",
            hint="lower the learning rates or the guidance scale, or try another seed",
        )
    surface = separated(decimate(smooth(solid, SMOOTHING), config.faces))
    fit = fit_to(surface, reference)
    if fit.silhouette_iou < MIN_FIT:
        raise ExportError(
            f"no closed piece looks like the scene: the best covers {100 * fit.silhouette_iou:.0f}% of what the "
            "renders show",
            hint=f"the object is translucent or scattered; {MORE_STEPS}",
        )
    everything = world.surface(min(FLOATER_DENSITY * solid_density(world), 0.9 * float(world.density.max())))
    return Shape(surface, choice, fit, everything[1] if everything else 0.0)


def _best_solid(fields: Candidates, choices: list[Choice], reference: SceneViews) -> tuple[Surface, Choice]:
    """The solid surface that is most like the reference views."""
    best, best_score = None, -np.inf
    for choice in choices:
        solid = _solid_surface(fields, choice)
        if solid is not None and (score := fit_to(solid, reference).score) > best_score:
            best, best_score = (solid, choice), score
    if best is None:
        raise ExportError("the scene has no closed surface", hint=MORE_STEPS)
    return best


def _solid_surface(fields: Candidates, choice: Choice) -> Surface | None:
    """The main pieces at this choice, or at a level close to it if they touch themselves."""
    for nudge in NUDGES:
        surface = fields.surface(choice, nudge)
        if surface is not None and is_solid(surface[0]):
            return surface[0]
    return None


def _reference_views(scene: Scene, size: int) -> SceneViews:
    rings = [orbit(4, elevation_deg=20, size=size), orbit(2, elevation_deg=75, size=size)]
    return render_views(scene, join_views([*rings, orbit(2, elevation_deg=-40, size=size)]))
