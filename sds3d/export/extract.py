"""Scene to mesh: the surface whose renders are most like the scene's, made one clean solid, with colours."""

from collections.abc import Iterator
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from sds3d.errors import ExportError
from sds3d.export.colors import best_inset, field_colors, with_colors
from sds3d.export.grid import MORE_STEPS, SEARCH_CELLS, WORLD, object_bounds, sample_density, solid_density
from sds3d.export.mesh import Mesh
from sds3d.export.placement import Up
from sds3d.export.surface import Surface, decimate, is_solid, separated, smooth
from sds3d.export.surface_search import KINDS, Candidates, Choice, best_choices, candidates, fit_to
from sds3d.export.texture import with_texture
from sds3d.export.views import SceneViews, check_finite, views_all_around
from sds3d.metrics.mesh import tunnel_count
from sds3d.ops.creases import CREASE_DEG
from sds3d.options import Options
from sds3d.scenes.base import HasSurface, Scene

BLUR = 0.01  # of the density before meshing, in object sizes
SMOOTHING = 20  # iterations of the surface filter
LEVEL_CELLS = 64  # of the grid on which levels are compared
SWEEP_PIXELS = 160  # of the renders by which levels of one kind are compared
# of those by which kinds are: the projection widens splats by half a pixel, which must not matter
REFERENCE_PIXELS = 256
REFERENCE_RINGS = {20: 4, 75: 2, -40: 2}  # of both, as views.RINGS
FLOATER_DENSITY = 0.1  # of the solid parts' density: from which volume outside the main pieces counts as a floater
MIN_FIT = 0.3  # silhouette IoU; a fair mesh has 0.9, one with big floaters left out 0.6
TUNNEL_COST = 0.001  # of silhouette IoU, for each tunnel beyond those that the renders show
NUDGES = (1.0, 1.02, 0.98, 1.05, 0.95)  # factors of the level, tried if the surface touches itself


class ExportConfig(Options):
    """How fine the exported mesh and its colours are."""

    resolution: Annotated[int, Field(ge=16, le=512, description="grid cells along the longest side")] = 128
    level: Annotated[
        float | None,
        Field(gt=0, description="density of the surface; if not set, the one whose renders are most like the scene's"),
    ] = None
    faces: Annotated[int, Field(ge=100, le=2_000_000, description="number of triangles, at most about this")] = 20_000
    color: Annotated[
        Literal["texture", "vertex"], Field(description="colours as a texture, or one for each vertex")
    ] = "texture"
    texture_size: Annotated[int, Field(ge=32, le=8192, description="longest side of the texture, in texels")] = 1024
    color_size: Annotated[int, Field(ge=32, le=2048, description="pixels of the renders colours are taken from")] = 256
    size: Annotated[
        float | None,
        Field(ge=1e-4, le=1e6, description="longest side of the mesh in its file, in the file's units: metres in glTF"),
    ] = None
    pivot: Annotated[
        Literal["center", "base"], Field(description="origin of the mesh's file: the middle, or under it on the ground")
    ] = "center"
    up: Annotated[
        Up | None, Field(description="axis that points up in splats, OBJ, PLY and STL; glTF and USDZ have +y")
    ] = None


def extract_mesh(scene: Scene, config: ExportConfig) -> Mesh:
    """One closed, coloured mesh that looks like the scene's renders; ExportError if the scene has none."""
    check_finite(scene)
    if isinstance(scene, HasSurface):
        (mesh, before), projected = _own_surface(scene, config.faces), None
    else:
        views = views_all_around(scene, config.color_size)
        if not views.silhouettes.any():
            raise ExportError("there is no object to export: no view of the scene is even half opaque", hint=MORE_STEPS)
        reference = views_all_around(scene, min(REFERENCE_PIXELS, config.color_size), REFERENCE_RINGS)
        surface, before, choice, dropped_share = extract_surface(scene, views, reference, config)
        colored_by = best_inset if config.level is None else with_colors  # a level that a person chose is kept as it is
        colored = colored_by(scene, surface, views, reference)
        projected = colored.projected if colored.source == "projection" else None
        mesh = Mesh(
            colored.surface[0].astype(np.float32),
            colored.surface[1],
            colored.at_vertices,
            surface=choice.kind,
            level=choice.level,
            colored_by=colored.source,
            dropped_share=dropped_share,
        )
    if config.color == "vertex":
        return mesh
    is_whole = len(before[1]) == len(mesh.faces)
    return with_texture(mesh, scene, projected, config.texture_size, None if is_whole else before)


def _own_surface(scene: Scene, faces: int) -> tuple[Mesh, Surface]:
    """The scene's own mesh, decimated where it has too many faces, coloured by its field; and before decimation."""
    assert isinstance(scene, HasSurface)
    vertices, corners = (t.cpu().numpy() for t in scene.surface())
    before = vertices.astype(np.float64), corners.astype(np.int64)
    surface = separated(decimate(before, faces))
    colors = field_colors(scene, surface[0])
    vertices = surface[0].astype(np.float32)
    crease_deg = CREASE_DEG if scene.is_finished else None  # a rough surface is full of them
    mesh = Mesh(vertices, surface[1], colors, crease_deg=crease_deg, surface="mesh", colored_by="field")
    return mesh, before


def extract_surface(
    scene: Scene, views: SceneViews, reference: SceneViews, config: ExportConfig
) -> tuple[Surface, Surface, Choice, float]:
    """The surface, what it was before decimation, how it was found, and the share of the scene's volume in floaters
    that were left out.

    Chosen on a coarse grid by its renders, made on a fine one, closed, smoothed and decimated.
    """
    world = sample_density(scene, np.full(3, -WORLD), np.full(3, WORLD), SEARCH_CELLS)
    low, high = object_bounds(world)
    coarse = sample_density(scene, low, high, min(LEVEL_CELLS, config.resolution)).blurred(BLUR)
    if config.level is not None and coarse.density.max() <= config.level:
        raise ExportError(
            f"export.level = {config.level:g} is above the scene's density everywhere",
            hint=f"it reaches {coarse.density.max():.3g}; leave export.level out to have the best one found",
        )
    kinds = KINDS if config.level is None else KINDS[:2]  # these have levels
    sweep = views_all_around(scene, min(SWEEP_PIXELS, config.color_size), REFERENCE_RINGS)
    coarse_fields = candidates(coarse, views)
    choices = best_choices(coarse_fields, sweep, kinds, config.level)
    fine = candidates(sample_density(scene, low, high, config.resolution).blurred(BLUR), views, coarse_fields)
    solid, choice = _best_solid(fine, choices, views, reference)
    if np.abs(solid[0]).max() > WORLD - world.spacing:
        raise ExportError(
            f"the scene is larger than the box of {-WORLD} to {WORLD} that it is searched in: it has exploded",
            hint="lower the learning rates or the guidance scale, or try another seed",
        )
    before = smooth(solid, SMOOTHING)
    surface = separated(decimate(before, config.faces))
    covered = fit_to(surface, reference).silhouette_iou
    if covered < MIN_FIT:
        raise ExportError(
            f"no closed piece looks like the scene: the best covers {100 * covered:.0f}% of what the renders show",
            hint=f"the object is translucent or scattered; {MORE_STEPS}",
        )
    everything = world.surface(min(FLOATER_DENSITY * solid_density(world), 0.9 * float(world.density.max())))
    return surface, before, choice, everything[1] if everything else 0.0


def _best_solid(
    fields: Candidates, choices: list[Choice], views: SceneViews, reference: SceneViews
) -> tuple[Surface, Choice]:
    """The solid surface that is most like the reference views.

    Each is at its choice's level, or at one close to it if it touches itself there. Tunnels that the views do not show
    count against it.
    """
    shown = views.openings

    def first_of(choice: Choice, nudges: Iterator[float]) -> Iterator[tuple[float, Surface, Choice, Iterator[float]]]:
        for nudge in nudges:
            if (found := fields.surface(choice, nudge, close_tunnels=True)) is not None:
                false_tunnels = max(0, tunnel_count(*found[0]) - shown)
                score = fit_to(found[0], reference).score - TUNNEL_COST * false_tunnels
                yield score, found[0], choice, nudges
                return

    found = [each for choice in choices for each in first_of(choice, iter(NUDGES))]
    while found:
        best = max(found, key=lambda each: each[0])
        _, surface, choice, nudges = best
        if is_solid(surface):  # slow to find out: asked of the best only
            return surface, choice
        found = [each for each in found if each is not best] + list(first_of(choice, nudges))
    raise ExportError("the scene has no closed surface", hint=MORE_STEPS)
