"""The scene as it is now, in a small file that a canvas draws while the run goes on: `live_bytes` has its layout.

A run makes it only while somebody looks (RunFolder.watch), and at most once in EVERY seconds.
"""

import math
import struct
import time
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from sds3d.errors import ExportError
from sds3d.export.grid import WORLD, sample_density, solid_density
from sds3d.export.splat_files import most_visible_first
from sds3d.export.views import scene_device
from sds3d.run.folder import RunFolder
from sds3d.scenes import Scene
from sds3d.scenes.gaussians import Gaussians
from sds3d.scenes.image import ImageScene
from sds3d.scenes.mesh import Mesh

EVERY, FIELD_EVERY = 1.0, 3.0  # seconds between two files; of a radiance field, which has to be searched for a surface
MAGIC, VERSION = b"SDSL", 1
HEADER = struct.Struct("<4sBBHIII2ff")  # 32 bytes
SPLATS, MESH = 0, 1  # kinds
SPLAT_BYTES = 16
FIELD_CELLS = 48  # along the side of the box in which the surface of a radiance field is found
FIELD_LEVEL = 0.25  # of the density of its solid parts
SPLAT = np.dtype([("xyz", "<u2", 3), ("scale", "u1", 3), ("rgb", "u1", 3), ("opacity", "u1"), ("quat", "u1", 3)])


class LiveView:
    """Keeps the file of one run up to date."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder, self._due = folder, -math.inf

    def show(self, scenes: Sequence[Scene], step: int) -> None:
        """Write the file if it is due and somebody looks. Of several particles, and of a flat image, there is none."""
        if time.monotonic() < self._due or len(scenes) > 1 or not self._folder.is_watched():
            return
        data = live_bytes(scenes[0], step)
        if data is not None:
            self._folder.write_live(data)
        self._due = time.monotonic() + (EVERY if isinstance(scenes[0], Gaussians | Mesh) else FIELD_EVERY)


@torch.no_grad()
def live_bytes(scene: Scene, step: int) -> bytes | None:
    """The scene in 32 bytes and those of its parts, little-endian; None where there is nothing to be seen in space.

    Header: magic "SDSL", version, kind, 2 bytes 0, step, count, faces (uint32 each), low and high of the logarithms of
    scales, and bound, the largest coordinate (float32 each, world units, +z up).

    Kind 0 has `count` rows of SPLAT, the most visible splats first: xyz = (q / 65535 * 2 - 1) bound, log scale =
    low + q / 255 (high - low), rgb and opacity q / 255, quaternion (q - 128) / 127 of x, y, z with w >= 0 left out.

    Kind 1 has `faces` rows of three uint32, then `count` places as xyz above, then as many rgb: the vertices' sRGB
    colours with the scene's own light.
    """
    if isinstance(scene, Gaussians):
        return _splat_bytes(scene, step)
    if isinstance(scene, ImageScene):
        return None
    surface = _mesh(scene) if isinstance(scene, Mesh) else _field_surface(scene)
    if surface is None:
        return None
    vertices, faces, colors = (t.cpu().numpy() for t in surface)
    places, bound = _places(vertices)
    header = HEADER.pack(MAGIC, VERSION, MESH, 0, step, len(vertices), len(faces), 0.0, 0.0, bound)
    return header + faces.astype("<u4").tobytes() + places.tobytes() + _bytes(colors).tobytes()


def _splat_bytes(scene: Gaussians, step: int) -> bytes:
    order = most_visible_first(scene)
    quats = scene.quats[order]
    quats = torch.where(quats[:, :1] < 0, -quats, quats)[:, 1:]
    scales = scene.raw_scales[order].cpu().numpy()
    low, high = (float(scales.min()), float(scales.max())) if len(scales) else (0.0, 0.0)
    rows = np.zeros(len(scales), SPLAT)
    rows["xyz"], bound = _places(scene.means[order].cpu().numpy())
    rows["scale"] = _bytes((scales - low) / max(high - low, 1e-6))
    rows["rgb"] = _bytes(scene.colors[order].cpu().numpy())
    rows["opacity"] = _bytes(scene.opacities[order].cpu().numpy())
    rows["quat"] = (quats * 127 + 128).round().cpu().numpy()
    return HEADER.pack(MAGIC, VERSION, SPLATS, 0, step, len(rows), 0, low, high, bound) + rows.tobytes()


Surface = tuple[Float[Tensor, "V 3"], Int[Tensor, "F 3"], Float[Tensor, "V 3"]]  # vertices, faces, colours


def _mesh(scene: Mesh) -> Surface:
    vertices, faces = scene.surface()
    colors, light = scene.color(vertices), scene.config.light
    return vertices, faces, colors if light is None else colors * light.on(scene.normals(vertices))[:, None]


def _field_surface(scene: Scene) -> Surface | None:
    """A coarse surface of a density field; None while there is none."""
    grid = sample_density(scene, np.full(3, -WORLD), np.full(3, WORLD), FIELD_CELLS)
    try:
        found = grid.surface(FIELD_LEVEL * solid_density(grid))
    except ExportError:  # it is empty
        return None
    if found is None:
        return None
    vertices, faces = (torch.from_numpy(np.ascontiguousarray(part)) for part in found[0])
    places = vertices.float().to(scene_device(scene))
    return places, faces, scene.color(places)


def _places(points: Float[ndarray, "P 3"]) -> tuple[ndarray, float]:
    bound = max(float(np.abs(points).max(initial=0.0)), 1e-6)
    return np.round((points / bound + 1) / 2 * 65535).astype("<u2"), bound


def _bytes(values: ndarray) -> ndarray:
    return np.round(np.clip(values, 0, 1) * 255).astype("u1")


def first_splats(data: bytes, most: int) -> bytes:
    """The same file with its `most` most visible splats only, for a slow line. A mesh stays as it is."""
    magic, version, kind, zero, step, count, *rest = HEADER.unpack_from(data)
    if kind != SPLATS or count <= most:
        return data
    return HEADER.pack(magic, version, kind, zero, step, most, *rest) + data[HEADER.size :][: most * SPLAT_BYTES]
