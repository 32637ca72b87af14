"""Loads sds3d._C once and reports which kernels exist; nothing is compiled here."""

import importlib.util
import os
import warnings
from collections.abc import Callable
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
    cuda: bool  # CUDA kernels are compiled in; a device may be absent
    reason: str  # why cpu is "reference"; empty otherwise
    path: str  # the loaded library; empty when none


@cache
def backend_info() -> BackendInfo:
    """The kernels in use, determined on the first call and fixed for the process.

    With SDS3D_DISABLE_EXTENSION=1 in the environment it is as if nothing had been built.
    """
    if os.environ.get("SDS3D_DISABLE_EXTENSION", "0") not in ("", "0"):
        return BackendInfo("reference", False, "SDS3D_DISABLE_EXTENSION is set", "")
    libraries = sorted(Path(__file__).parent.parent.glob("_C*.so"))
    if not libraries:
        return BackendInfo("reference", False, "sds3d._C has not been built", "")
    try:
        torch.ops.load_library(libraries[0])
    except OSError as error:
        return BackendInfo("reference", False, f"{libraries[0].name} does not load: {error}", "")
    cpu = INSTRUCTION_SETS[torch.ops.sds3d.limit_instruction_set(len(INSTRUCTION_SETS))]
    return BackendInfo(cpu, bool(torch.ops.sds3d.has_cuda_kernels()), "", str(libraries[0]))


def compiled() -> bool:
    """Whether sds3d._C is loaded, so that torch.ops.sds3d has operators to register autograd for."""
    return backend_info().cpu != "reference"


def register(op: str, shapes: Callable, backward_shapes: Callable, backward: Callable, save: Callable) -> None:
    """Autograd of an op of sds3d._C: what is saved, and `op`_backward; and for torch.compile the shapes of both."""
    if compiled():
        torch.library.register_fake(f"sds3d::{op}", shapes)
        torch.library.register_fake(f"sds3d::{op}_backward", backward_shapes)
        torch.library.register_autograd(f"sds3d::{op}", backward, setup_context=save)


def use_compiled(device: torch.device, op: str) -> bool:
    """True if `op` has compiled kernels for `device`; False means the torch reference, after one warning.

    Only CPU tensors may fall back: on CUDA the reference is so slow that a run would seem to hang.
    """
    info = backend_info()
    if device.type == "cuda":
        if not info.cuda:
            message = f"{op} has no CUDA kernels here: {info.reason or 'sds3d._C was built without CUDA'}"
            raise ExtensionUnavailable(message, f"build them with: {CUDA_BUILD_COMMAND}; or use device=cpu")
        return True
    if not compiled():
        warn_fallback(info.reason, BUILD_COMMAND)
    return compiled()


def has_kernels(values: Tensor) -> bool:
    """Whether sds3d._C can compute with `values`: float32, on a device that it was built for.

    If not, the caller uses its torch reference, which works on every device and in every precision; for float32 after
    one warning.
    """
    if values.dtype != torch.float32:
        return False
    if values.is_cuda and compiled() and not backend_info().cuda:
        warn_fallback("sds3d._C was built without CUDA", CUDA_BUILD_COMMAND)
        return False
    if not compiled():
        warn_fallback(backend_info().reason, BUILD_COMMAND)
    return compiled()


def choose_rasterizer(requested: Rasterizer, device: torch.device, op: str) -> Rasterizer:
    """What renders splats on `device`: "native" (sds3d._C), "gsplat" or "torch" (the references).

    "auto" is native if it is built, else gsplat on CUDA and torch on the CPU. ExtensionUnavailable if the requested one
    is missing; ConfigError for gsplat on the CPU, because its kernels take CUDA tensors only.
    """
    on_cuda, built = device.type == "cuda", compiled()
    if requested == "gsplat":
        if not on_cuda:
            message = f"rasterizer = 'gsplat' does not go with {device}: gsplat's kernels take CUDA tensors only"
            raise ConfigError(message, "use rasterizer auto, native or torch here")
        if importlib.util.find_spec("gsplat") is None:
            raise ExtensionUnavailable("rasterizer = 'gsplat': gsplat is not installed", GSPLAT_COMMAND)
        return "gsplat"
    if requested == "native" and not on_cuda and not built:
        raise ExtensionUnavailable(f"rasterizer = 'native': {backend_info().reason}", f"build with: {BUILD_COMMAND}")
    if requested == "auto" and on_cuda and not backend_info().cuda and importlib.util.find_spec("gsplat") is not None:
        return "gsplat"
    return "torch" if requested == "torch" or not use_compiled(device, op) else "native"


@cache
def warn_fallback(reason: str, command: str) -> None:
    """Warn once per process and reason that the slow torch references are in use."""
    warnings.warn(f"{reason}; using the slow torch ops. Build the kernels with: {command}", stacklevel=3)
