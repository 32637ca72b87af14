"""Reads splat files as a viewer does, for tests: activated values, from columns in any order."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sds3d.errors import ConfigError
from sds3d.export.info import MAX_HEADER
from sds3d.export.splat_files import COLUMNS, rest_columns
from sds3d.ops.spherical_harmonics import SH_C0


@dataclass(frozen=True)
class SplatCloud:
    """Splats after activation."""

    means: Float[Tensor, "N 3"]
    quats: Float[Tensor, "N 4"]  # wxyz, unit length
    scales: Float[Tensor, "N 3"]
    opacities: Float[Tensor, " N"]
    colors: Float[Tensor, "N 3"]  # sRGB
    harmonics: Float[Tensor, "N K 3"]  # beyond the constant one, see Gaussians.harmonics; K is 0, 3, 8 or 15


def read_splats_ply(path: Path) -> SplatCloud:
    """Read a file with our columns in any order, and others; ConfigError if it is anything else."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    head, marker, body = data[:MAX_HEADER].partition(b"end_header\n")
    lines = head.decode("ascii", errors="replace").split("\n")
    if not marker or lines[:2] != ["ply", "format binary_little_endian 1.0"]:
        raise ConfigError(f"{path} is not a binary little-endian PLY file")
    elements = [line.split() for line in lines if line.startswith("element ")]
    names = [line.removeprefix("property float ") for line in lines if line.startswith("property ")]
    if len(elements) != 1 or elements[0][1:2] != ["vertex"] or not elements[0][-1].isdecimal():
        raise ConfigError(f"{path} has other elements than splats")
    if not set(COLUMNS) - {"nx", "ny", "nz"} <= set(names) or len(set(names)) < len(names):
        raise ConfigError(f"{path} has not the columns of a splat file")
    body = data[len(head) + len(marker) :]
    expected = int(elements[0][-1]) * len(names) * 4
    if len(body) != expected:  # before any allocation: the header may claim any number
        raise ConfigError(f"{path} has {len(body)} bytes of splats where its header promises {expected}")
    table = np.frombuffer(body, dtype="<f4").reshape(-1, len(names)).astype(np.float32)

    def take(*wanted: str) -> Tensor:
        return torch.from_numpy(table[:, [names.index(name) for name in wanted]])

    terms = max(count for count in (0, 3, 8, 15) if set(rest_columns(count)) <= set(names))
    return SplatCloud(
        means=take("x", "y", "z"),
        quats=torch.nn.functional.normalize(take("rot_0", "rot_1", "rot_2", "rot_3"), dim=-1),
        scales=take("scale_0", "scale_1", "scale_2").exp(),
        opacities=take("opacity")[:, 0].sigmoid(),
        colors=(take("f_dc_0", "f_dc_1", "f_dc_2") * SH_C0 + 0.5).clamp(0, 1),
        harmonics=take(*rest_columns(terms)).view(len(table), 3, terms).transpose(1, 2),
    )
