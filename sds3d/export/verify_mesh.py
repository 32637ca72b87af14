"""Checks a mesh file as another reader reads it: the geometry, and renders of it against the scene's."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from sds3d.cameras import orbit_cameras
from sds3d.errors import ExportError
from sds3d.export.grid import MORE_STEPS
from sds3d.export.mesh import Mesh
from sds3d.export.render_mesh import render_mesh
from sds3d.export.views import GOOD_DB, GOOD_IOU, SceneViews, color_psnr, render_views, silhouette_ious
from sds3d.metrics.mesh import MeshStats, mesh_statistics
from sds3d.scenes.base import Scene
from sds3d.types import Cameras

VIEWS, PIXELS = 8, 256
FIRST_AZIMUTH_DEG = 20.0  # between those that the surface and its colours were made from
ELEVATIONS_DEG = (5.0, 25.0, -20.0, 50.0)  # in turn, around the object
LOW_TEXTURE_USE = 0.3  # share of the texture below which there is a warning
MAX_RADIUS = 1.2  # the object belongs inside the unit ball
MIN_EXTENT = 0.05
BLACK = 0.02  # sRGB; the prior lights even a black object, so that it has brighter places


@dataclass(frozen=True)
class MeshFigures:
    """How a mesh compares with its scene; in report.json."""

    silhouette_iou: float  # with the scene's renders, mean over 8 views
    worst_iou: float  # over these views
    psnr: float | None  # dB, of the colours inside both silhouettes; None for a format without colours
    texture: tuple[int, int] | None  # width and height in texels
    texture_used: float | None  # share of the texture that lies on the mesh

    @property
    def warnings(self) -> list[str]:
        """What is below its limit, and what to try."""
        warnings = []
        if self.silhouette_iou < GOOD_IOU:
            warnings.append(
                f"the mesh's outline agrees with the scene's by {self.silhouette_iou:.2f} (good is {GOOD_IOU}): thin, "
                "soft or loose parts are missing or filled in; try --resolution 192, more steps, or another seed"
            )
        if self.psnr is not None and self.psnr < GOOD_DB:
            warnings.append(
                f"the mesh's colours differ from the scene's: {self.psnr:.1f} dB (good is {GOOD_DB:g}); try more "
                "--faces, a larger --texture-size, or more steps"
            )
        if self.texture_used is not None and self.texture_used < LOW_TEXTURE_USE:
            warnings.append(
                f"only {100 * self.texture_used:.0f}% of the texture lies on the mesh: the surface is rough; try fewer "
                "--faces"
            )
        return warnings

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for report.json."""
        values = {key: round(value, 4) if isinstance(value, float) else value for key, value in asdict(self).items()}
        return {**values, "warnings": self.warnings}


def verification_cameras() -> Cameras:
    """8 views around, from high and low, none of which the export was made from."""
    azimuth = torch.arange(VIEWS) * (2 * math.pi / VIEWS) + math.radians(FIRST_AZIMUTH_DEG)
    elevation = torch.deg2rad(torch.tensor(ELEVATIONS_DEG).repeat(VIEWS // len(ELEVATIONS_DEG)))
    return orbit_cameras(azimuth, elevation, torch.full((VIEWS,), 2.9), torch.full((VIEWS,), math.radians(40)), PIXELS)


def verification_views(scene: Scene) -> SceneViews:
    """The scene in the `verification_cameras`, over black."""
    return render_views(scene, verification_cameras())


def verify_mesh(mesh: Mesh, truth: SceneViews, has_colors: bool = True) -> tuple[MeshStats, MeshFigures]:
    """Statistics of a mesh that was read back, and how it compares with `truth`, the `verification_views`.

    ExportError as `check_geometry`. `has_colors` is false for formats without any.
    """
    stats = check_geometry(mesh)
    renders = render_mesh(mesh, truth.cameras)
    ious = silhouette_ious(renders, truth)
    height, width = mesh.texture.image.shape[:2] if mesh.texture else (0, 0)
    return stats, MeshFigures(
        silhouette_iou=float(ious.mean()),
        worst_iou=float(ious.min()),
        psnr=color_psnr(renders, truth) if has_colors else None,
        texture=(width, height) if mesh.texture else None,
        texture_used=mesh.texture.used if mesh.texture else None,
    )


def check_geometry(mesh: Mesh) -> MeshStats:
    """Statistics of a mesh; ExportError with the reason if it is empty, exploded, tiny, black or open."""
    if len(mesh.faces) == 0 or len(mesh.vertices) == 0:
        raise ExportError("the mesh is empty", hint=MORE_STEPS)
    if not (np.isfinite(mesh.vertices).all() and np.isfinite(mesh.colors).all()):
        raise ExportError("the mesh has coordinates or colours that are not finite", hint=MORE_STEPS)
    stats = mesh_statistics(mesh.vertices, mesh.faces, mesh.colors)
    if stats.radius > MAX_RADIUS:
        raise ExportError(
            f"the mesh has exploded: it reaches {stats.radius:.2f} from the centre, where 1 is the most",
            hint="lower the learning rates or the guidance scale, or try another seed",
        )
    if max(stats.extent) < MIN_EXTENT:
        raise ExportError(f"the mesh is only {max(stats.extent):.3f} across, where 1 to 2 is usual", hint=MORE_STEPS)
    if float(np.percentile(mesh.colors.max(axis=-1), 99)) < BLACK:
        raise ExportError("the mesh is black all over", hint="try another seed or a lower guidance scale")
    if not stats.watertight:
        raise ExportError("the mesh has holes", hint="try another export.resolution")
    return stats
