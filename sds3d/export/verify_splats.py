"""Checks a splat file: what is read back from it, against the scene."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sds3d.atomic import atomic_folder
from sds3d.errors import ExportError
from sds3d.export.splat_files import SPLAT_BYTES, checked_splats
from sds3d.scenes.base import Scene
from sds3d.scenes.gaussians import Gaussians

TOLERANCE = 1e-5  # of positions in world units, and of logits; the files hold float32
BYTE = 1 / 255 + 1e-6  # resolution of values stored in a byte


def write_verified_splats(
    write: Callable[[Path], int], check: Callable[[Path, Scene], None], scene: Scene, path: Path
) -> int:
    """Write a draft, read it back, and only then put it at `path`; returns the number of splats."""
    with atomic_folder(path) as draft:
        count = write(draft)
        check(draft, scene)
    return count


def check_splats_ply(path: Path, scene: Scene) -> None:
    """ExportError if trimesh reads other positions or opacities from the file than the scene has."""
    import trimesh  # slow to load

    splats = checked_splats(scene)
    read = trimesh.load(path, process=False).metadata["_ply_raw"]["vertex"]["data"]
    positions = np.stack([np.asarray(read[axis]).reshape(-1) for axis in "xyz"], axis=-1)
    _same(path, torch.from_numpy(positions), splats.means, TOLERANCE)
    _same(path, torch.from_numpy(np.array(read["opacity"]).reshape(-1)), splats.raw_opacities, TOLERANCE)


def check_splat(path: Path, scene: Scene) -> None:
    """The same for .splat, whose opacities are bytes and whose most visible splats come first."""
    splats: Gaussians = checked_splats(scene)
    rows = np.frombuffer(path.read_bytes(), np.uint8).reshape(-1, SPLAT_BYTES)
    order = (splats.scales.prod(dim=-1) * splats.opacities).argsort(descending=True, stable=True)
    positions = torch.from_numpy(rows[:, :12].copy().view("<f4"))
    _same(path, positions, splats.means[order], TOLERANCE)
    _same(path, torch.from_numpy(rows[:, 27].copy()).float() / 255, splats.opacities[order], BYTE)


def _same(path: Path, read: Tensor, expected: Tensor, tolerance: float) -> None:
    expected = expected.detach().cpu()
    if read.shape != expected.shape or not torch.allclose(read.float(), expected, atol=tolerance, rtol=1e-5):
        raise ExportError(f"{path.name} does not read back as it was written", hint="this is a bug: please report it")
