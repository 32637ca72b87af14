"""Loads sds3d._C once and says which kernels exist; nothing is ever compiled here."""

import os
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from sds3d.errors import ExtensionUnavailable

INSTRUCTION_SETS = ("baseline", "avx2", "avx512")  # as numbered in cuda_ext/cpu_features.h
BUILD_COMMAND = "pip install --no-build-isolation -e ."
CUDA_BUILD_COMMAND = "SDS3D_BUILD_CUDA=1 " + BUILD_COMMAND


@dataclass(frozen=True)
class BackendInfo:
    """Which kernels the ops run on, for `sds3d doctor` and reports."""

    cpu: str  # "avx512", "avx2", "baseline", or "reference" (pure torch)
    cuda: bool  # CUDA kernels are compiled in; says nothing about a device being present
    reason: str  # why cpu is "reference"; empty otherwise
    path: str  # the loaded library; empty when none


@cache
def backend_info() -> BackendInfo:
    """The kernels in use, found on the first call and fixed for the process.

    SDS3D_DISABLE_EXTENSION=1 in the environment acts as if nothing had been built.
    """
    if os.environ.get("SDS3D_DISABLE_EXTENSION", "0") not in ("", "0"):
        return BackendInfo("reference", False, "SDS3D_DISABLE_EXTENSION is set", "")
    found = sorted(Path(__file__).parent.parent.glob("_C*.so"))
    if not found:
        return BackendInfo("reference", False, "sds3d._C has not been built", "")
    try:
        torch.ops.load_library(found[0])
    except OSError as error:
        return BackendInfo("reference", False, f"{found[0].name} does not load: {error}", "")
    cpu = INSTRUCTION_SETS[torch.ops.sds3d.limit_instruction_set(len(INSTRUCTION_SETS))]
    return BackendInfo(cpu, bool(torch.ops.sds3d.has_cuda_kernels()), "", str(found[0]))


def compiled() -> bool:
    """Whether sds3d._C is loaded, so that torch.ops.sds3d has operators to register autograd for."""
    return backend_info().cpu != "reference"


def use_compiled(device: torch.device, op: str) -> bool:
    """True if `op` has compiled kernels for `device`; False means the torch reference, after one warning.

    Only CPU tensors may fall back: on CUDA the reference would be slow enough to be taken for a hang.
    """
    info = backend_info()
    if device.type == "cuda":
        if not info.cuda:
            message = f"{op} has no CUDA kernels here: {info.reason or 'sds3d._C was built without CUDA'}"
            raise ExtensionUnavailable(message, f"build them with: {CUDA_BUILD_COMMAND}")
        return True
    if not compiled():
        warn_fallback()
        return False
    return True


@cache
def warn_fallback() -> None:
    """Warn, once per process, that the slow pure-torch ops are in use."""
    reason = backend_info().reason
    warnings.warn(f"{reason}; using the slow torch ops. Build the kernels with: {BUILD_COMMAND}", stacklevel=3)
