"""The mesh formats: the writer and the reader of each, and the check that every file passes before it gets its name.

A file is checked as another reader reads it: the geometry, and renders of it against the scene's.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy import ndarray

from sds3d.atomic import atomic_folder
from sds3d.cameras import orbit_cameras
from sds3d.errors import ExportError
from sds3d.export.extract import ExportConfig
from sds3d.export.glb import WORLD_TO_GLTF, read_glb, write_glb, write_gltf
from sds3d.export.grid import MORE_STEPS
from sds3d.export.mesh import Mesh
from sds3d.export.obj_ply_stl import write_mesh_ply, write_obj, write_stl
from sds3d.export.placement import WORLD_TO_Z_UP, placement
from sds3d.export.read_mesh import read_with_trimesh
from sds3d.export.render_mesh import render_mesh
from sds3d.export.usd import read_usdz, write_usdz
from sds3d.export.views import GOOD_DB, GOOD_IOU, SceneViews, render_views
from sds3d.metrics.mesh import MeshStats, mesh_statistics
from sds3d.scenes.base import Scene
from sds3d.types import Cameras

VIEWS, PIXELS = 8, 256
FIRST_AZIMUTH_DEG = 20.0  # between those that the surface and its colours were made from
ELEVATIONS_DEG = (5.0, 25.0, -20.0, 50.0)  # in turn, around the object
LOW_TEXTURE_USE = 0.3  # share of the texture below which there is a warning
FALSE_TUNNELS, SPONGE = 3, 20  # beyond those that are seen: more than the first is poor, from the second on refused
FEWER_TUNNELS = f"try a lower --resolution or --level, or another seed; or {MORE_STEPS}"
MAX_RADIUS = 1.2  # the object belongs inside the unit ball
MIN_EXTENT = 0.05
BLACK = 0.02  # sRGB; the prior lights even a black object, so that it has brighter places
AS_IT_IS = ExportConfig()


@dataclass(frozen=True)
class MeshFormat:
    """One way to store a mesh."""

    write: Callable[[Mesh, Path, Mapping[str, Any]], None]
    read: Callable[[Path], Mesh]  # in world axes and sRGB
    textured: bool = True
    colored: bool = True
    world_to_file: ndarray | None = None  # its turn, where it does not say which axis is up


read_z_up = partial(read_with_trimesh, world_to_file=WORLD_TO_Z_UP)
MESH_FORMATS = {
    "glb": MeshFormat(write_glb, read_glb),
    "gltf": MeshFormat(write_gltf, read_glb),
    "obj": MeshFormat(write_obj, partial(read_with_trimesh, world_to_file=WORLD_TO_GLTF), world_to_file=WORLD_TO_GLTF),
    "ply": MeshFormat(write_mesh_ply, read_z_up, textured=False, world_to_file=WORLD_TO_Z_UP),
    "stl": MeshFormat(write_stl, read_z_up, textured=False, colored=False, world_to_file=WORLD_TO_Z_UP),
    "usdz": MeshFormat(write_usdz, read_usdz),
}


@dataclass(frozen=True)
class MeshFigures:
    """How a mesh compares with its scene; in report.json."""

    silhouette_iou: float  # with the scene's renders, mean over 8 views
    worst_iou: float  # over these views
    false_tunnels: int  # tunnels of the mesh, less the openings that one of these views shows of the scene
    psnr: float | None  # dB, of the colours inside both silhouettes; None for a format without colours
    texture: tuple[int, int] | None  # width and height in texels
    texture_used: float | None  # share of the texture that lies on the mesh
    scale: float = 1.0  # units of the file for one of the world

    @property
    def warnings(self) -> list[str]:
        """What is below its limit, and what to try."""
        warnings = []
        if self.false_tunnels > FALSE_TUNNELS:
            warnings.append(
                f"the mesh has {self.false_tunnels} tunnels that the scene's renders do not show: its surface is "
                f"spongy; {FEWER_TUNNELS}"
            )
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
    return render_views(scene, verification_cameras(), lit=False)


def write_verified(
    mesh: Mesh,
    file_format: str,
    path: Path,
    metadata: Mapping[str, Any],
    truth: SceneViews,
    config: ExportConfig = AS_IT_IS,
) -> tuple[MeshStats, MeshFigures]:
    """Write a mesh where and as large as `config` says, read the file back and compare it with `truth`, the
    `verification_views`; only then has it `path`. The figures are of the mesh in world axes and units.

    ExportError as `check_geometry`, and if the mesh is full of tunnels that `truth` does not show. After any error,
    `path` is what it was before.
    """
    chosen = MESH_FORMATS[file_format]
    with atomic_folder(path) as draft:
        placed = placement(mesh.vertices, chosen.world_to_file, config.size, config.pivot, config.up)
        body = placed.place(mesh if chosen.textured else replace(mesh, texture=None))
        chosen.write(body, draft, {**metadata, **placed.told()})
        read = placed.undo(chosen.read(draft))
        stats, renders, texture = check_geometry(read), render_mesh(read, truth.cameras), read.texture
        ious = renders.silhouette_ious(truth)
        false_tunnels = max(0, stats.tunnels - truth.openings)
        if false_tunnels >= SPONGE:
            raise ExportError(
                f"the mesh is a sponge: it has {stats.tunnels} tunnels, the scene's renders show {truth.openings}",
                hint=FEWER_TUNNELS,
            )
        return stats, MeshFigures(
            silhouette_iou=float(ious.mean()),
            worst_iou=float(ious.min()),
            false_tunnels=false_tunnels,
            psnr=renders.color_psnr(truth) if chosen.colored else None,
            texture=(texture.image.shape[1], texture.image.shape[0]) if texture else None,
            texture_used=texture.used if texture else None,
            scale=placed.scale,
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
