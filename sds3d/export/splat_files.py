"""Splat files: PLY in the layout of the 3DGS reference viewer, and .splat of web viewers."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sds3d.atomic import atomic_folder, write_atomic
from sds3d.errors import ExportError
from sds3d.export.info import PLY_COMMENT, comment
from sds3d.export.views import check_finite
from sds3d.ops.spherical_harmonics import SH_C0
from sds3d.scenes.base import Scene
from sds3d.scenes.gaussians import Gaussians

COLUMNS = (
    *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"),
    *("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
)
HARMONICS_AT = COLUMNS.index("opacity")  # f_rest_* come before it, as in the reference
HARMONICS = 15  # of degree 1 to 3: there are columns for all, because strict importers (Unity's) want 62 in each row
SPLAT_BYTES = 32  # a row of .splat: position, scale, RGBA, rotation
TOLERANCE = 1e-5  # of positions in world units, and of logits; the files hold float32
BYTE = 1 / 255 + 1e-6  # resolution of values stored in a byte


def checked_splats(scene: Scene) -> Gaussians:
    """The scene as splats; ExportError if it is no scene of splats, or not finite."""
    if not isinstance(scene, Gaussians):
        raise ExportError("this format needs a scene of splats", hint="export a mesh instead: --format glb")
    check_finite(scene)
    return scene


def write_splats_ply(scene: Scene, path: Path, metadata: Mapping[str, Any]) -> int:
    """Little-endian floats, one row of 62 for each splat, in world axes (+z up); returns the number of splats.

    As viewers expect: opacity is a logit, scale a logarithm, f_dc = (colour - 0.5) / SH_C0, rot wxyz, normals 0.
    Harmonics are f_rest_0 to f_rest_44 before the opacity: 15 of red, then green, then blue; 0 where there are none.
    """
    splats = checked_splats(scene)
    with torch.no_grad():
        parts = [
            splats.means,
            torch.zeros_like(splats.means),
            (splats.colors - 0.5) / SH_C0,
            F.pad(splats.harmonics, (0, 0, 0, HARMONICS - splats.harmonics.shape[1])).transpose(1, 2).flatten(1),
            splats.raw_opacities[:, None],
            splats.raw_scales,
            splats.quats,
        ]
        rows = torch.cat(parts, dim=-1).cpu().numpy().astype("<f4")
    names = (*COLUMNS[:HARMONICS_AT], *rest_columns(HARMONICS), *COLUMNS[HARMONICS_AT:])
    properties = "".join(f"property float {name}\n" for name in names)
    made = f"comment {comment(metadata, PLY_COMMENT)}\n"
    header = f"ply\nformat binary_little_endian 1.0\n{made}element vertex {len(rows)}\n{properties}end_header\n"
    write_atomic(path, header.encode("ascii") + rows.tobytes())
    return len(rows)


def rest_columns(terms: int) -> list[str]:
    """The columns of `terms` harmonics beyond the constant one."""
    return [f"f_rest_{index}" for index in range(3 * terms)]


def write_splat(scene: Scene, path: Path) -> int:
    """32 bytes for each splat, the most visible first: position and scale as floats, RGBA and wxyz as bytes.

    In world axes (+z up), without harmonics or metadata. Returns the number of splats.
    """
    splats = checked_splats(scene)
    with torch.no_grad():
        order = most_visible_first(splats)
        floats = torch.cat([splats.means, splats.scales], dim=-1)[order].cpu().numpy().astype("<f4")
        rgba = torch.cat([splats.colors, splats.opacities[:, None]], dim=-1)[order]
        colors = (rgba * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
        rotations = (splats.quats[order] * 128 + 128).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    rows = np.concatenate([floats.view(np.uint8), colors, rotations], axis=-1)
    write_atomic(path, rows.tobytes())
    return len(rows)


def most_visible_first(splats: Gaussians) -> Tensor:
    """The order of the splats in .splat, by volume times opacity."""
    return (splats.scales.prod(dim=-1) * splats.opacities).argsort(descending=True, stable=True)


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
    splats = checked_splats(scene)
    rows = np.frombuffer(path.read_bytes(), np.uint8).reshape(-1, SPLAT_BYTES)
    order = most_visible_first(splats)
    positions = torch.from_numpy(rows[:, :12].copy().view("<f4"))
    _same(path, positions, splats.means[order], TOLERANCE)
    _same(path, torch.from_numpy(rows[:, 27].copy()).float() / 255, splats.opacities[order], BYTE)


def _same(path: Path, read: Tensor, expected: Tensor, tolerance: float) -> None:
    expected = expected.detach().cpu()
    if read.shape != expected.shape or not torch.allclose(read.float(), expected, atol=tolerance, rtol=1e-5):
        raise ExportError(f"{path.name} does not read back as it was written", hint="this is a bug: please report it")
