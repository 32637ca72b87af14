"""Loads sds3d._C once and says which kernels exist; nothing is ever compiled here."""

import importlib.util
import os
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from sds3d.errors import ConfigError, ExtensionUnavailable

INSTRUCTION_SETS = ("baseline", "avx2", "avx512")  # as numbered in cuda_ext/cpu_features.h
BUILD_COMMAND = "pip install --no-build-isolation -e ."
GSPLAT_COMMAND = "pip install gsplat"
CUDA_BUILD_COMMAND = "SDS3D_BUILD_CUDA=1 " + BUILD_COMMAND

Rasterizer = Literal["auto", "native", "gsplat", "torch"]


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
        warn_fallback(info.reason, BUILD_COMMAND)
        return False
    return True


def has_kernels(values: Tensor) -> bool:
    """Whether sds3d._C computes with `values`: float32, on a device that it was built for.

    Else the caller's pure torch does, which is right on every device and in every precision; for float32 after one
    warning.
    """
    if values.dtype != torch.float32:
        return False
    if values.is_cuda and compiled() and not backend_info().cuda:
        warn_fallback("sds3d._C was built without CUDA", CUDA_BUILD_COMMAND)
        return False
    if not compiled():
        warn_fallback(backend_info().reason, BUILD_COMMAND)
    return compiled()


def choose_rasterizer(wanted: Rasterizer, device: torch.device, op: str) -> Rasterizer:
    """What renders splats on `device`: "native" (sds3d._C), "gsplat" or "torch" (the references).

    "auto" is native where it is built, else gsplat on CUDA and torch on the CPU. ExtensionUnavailable where what is
    wanted is not there; ConfigError for gsplat on the CPU, because it composites CUDA tensors only.
    """
    on_cuda, built = device.type == "cuda", compiled()
    if wanted == "gsplat":
        if not on_cuda:
            message = f"rasterizer = 'gsplat' is asked for on {device}, and gsplat's kernels take CUDA tensors only"
            raise ConfigError(message, "use rasterizer auto, native or torch here")
        if importlib.util.find_spec("gsplat") is None:
            raise ExtensionUnavailable(
                "rasterizer = 'gsplat' is asked for, and gsplat is not installed", GSPLAT_COMMAND
            )
        return "gsplat"
    if wanted == "native" and not on_cuda and not built:
        raise ExtensionUnavailable(f"rasterizer = 'native': {backend_info().reason}", f"build with: {BUILD_COMMAND}")
    if wanted == "auto" and on_cuda and not backend_info().cuda and importlib.util.find_spec("gsplat") is not None:
        return "gsplat"
    return "torch" if wanted == "torch" or not use_compiled(device, op) else "native"


@cache
def warn_fallback(reason: str, command: str) -> None:
    """Warn, once per process and reason, that the slow pure-torch ops are in use."""
    warnings.warn(f"{reason}; using the slow torch ops. Build the kernels with: {command}", stacklevel=3)
