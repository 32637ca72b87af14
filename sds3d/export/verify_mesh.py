"""The last look before a file is handed over: what another reader makes of it, rendered and compared with the scene."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch

from sds3d.cameras import orbit_cameras
from sds3d.export.check import check_mesh
from sds3d.export.mesh import Mesh
from sds3d.export.render_mesh import render_mesh
from sds3d.export.similarity import GOOD_DB, GOOD_IOU, compare_colors, compare_silhouettes
from sds3d.export.views import SceneViews, render_views
from sds3d.metrics.mesh import MeshStats
from sds3d.scenes.base import Scene
from sds3d.types import Cameras

VIEWS, PIXELS = 8, 256
FIRST_AZIMUTH_DEG = 20.0  # between those that the surface and its colours were made from
ELEVATIONS_DEG = (5.0, 25.0, -20.0, 50.0)  # one after the other, around
FEW_USED = 0.3  # of the texture


@dataclass(frozen=True)
class Figures:
    """How a file does, as it was read back; see report.json."""

    silhouette_iou: float  # with the scene's renders, mean over 8 views
    worst_iou: float  # of these views
    psnr: float | None  # dB, of the colours inside both silhouettes; None where the format has none
    pieces: int
    watertight: bool  # after vertices at one place are joined
    faces: int
    texture: tuple[int, int] | None  # width and height in texels
    texture_used: float | None  # share of the texture that lies on the mesh
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for report.json."""
        found = asdict(self)
        rounded = {key: round(value, 4) if isinstance(value, float) else value for key, value in found.items()}
        return {**rounded, "warnings": list(self.warnings)}


def verification_cameras() -> Cameras:
    """8 views around, from high and low, none of which the export was made from."""
    azimuth = torch.arange(VIEWS) * (2 * math.pi / VIEWS) + math.radians(FIRST_AZIMUTH_DEG)
    elevation = torch.deg2rad(torch.tensor(ELEVATIONS_DEG).repeat(VIEWS // len(ELEVATIONS_DEG)))
    return orbit_cameras(azimuth, elevation, torch.full((VIEWS,), 2.9), torch.full((VIEWS,), math.radians(40)), PIXELS)


def verification_views(scene: Scene) -> SceneViews:
    """The scene from there, over black."""
    return render_views(scene, verification_cameras())


def verify(mesh: Mesh, truth: SceneViews, colors_kept: bool = True) -> tuple[MeshStats, Figures]:
    """What is right and wrong with a mesh that was read back; ExportError where nobody would want it.

    `colors_kept` is false for formats that have none: then nothing is said of them.
    """
    stats = check_mesh(mesh)
    seen = render_mesh(mesh, truth.cameras)
    ious = compare_silhouettes(seen, truth)
    psnr = compare_colors(seen, truth) if colors_kept else None
    texture = mesh.texture
    used = texture.used if texture else None
    figures = Figures(
        silhouette_iou=float(ious.mean()),
        worst_iou=float(ious.min()),
        psnr=psnr,
        pieces=stats.pieces,
        watertight=stats.watertight,
        faces=stats.faces,
        texture=(texture.image.shape[1], texture.image.shape[0]) if texture else None,
        texture_used=used,
        warnings=tuple(_warnings(float(ious.mean()), psnr, used)),
    )
    return stats, figures


def _warnings(iou: float, psnr: float | None, used: float | None) -> list[str]:
    """What is wrong and what to try."""
    found = []
    if iou < GOOD_IOU:
        found.append(
            f"the mesh's outline agrees with the scene's by {iou:.2f} (good is {GOOD_IOU}): thin, soft or loose parts "
            "are missing or filled in; try --resolution 192, more steps, or another seed"
        )
    if psnr is not None and psnr < GOOD_DB:
        found.append(
            f"the mesh's colours differ from the scene's: {psnr:.1f} dB (good is {GOOD_DB:g}); try more --faces, a "
            "larger --texture-size, or more steps"
        )
    if used is not None and used < FEW_USED:
        found.append(f"only {100 * used:.0f}% of the texture lies on the mesh: the surface is rough; try fewer --faces")
    return found
