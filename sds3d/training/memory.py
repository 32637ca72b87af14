"""Which memory mode of the prior a run needs: measured before the run by real steps, not estimated."""

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from sds3d.config.run_config import RunConfig
from sds3d.errors import ConfigError, NumericsError, PriorUnavailable, is_out_of_memory
from sds3d.ops.extension import CUDA_BUILD_COMMAND, backend_info
from sds3d.priors.base import MemoryModes, Prior
from sds3d.scenes.particles import build_scene
from sds3d.training.trainer import Trainer

SHARE = 0.92  # of the free memory that a step may take: allocators lose some to fragments
GIB = 2**30
GPUS = Path("/proc/driver/nvidia/gpus")  # a folder for each NVIDIA GPU of the machine, whether torch can use it or not


@dataclass(frozen=True)
class Probe:
    """One step as it was measured."""

    mode: str
    peak: int | None  # bytes that the step needs beside the loaded model; None if the system does not tell
    seconds: float
    fits: bool


@dataclass(frozen=True)
class Plan:
    """The memory modes that were measured, from the fastest on; the last is in use, if it fits."""

    probes: tuple[Probe, ...]  # at least one
    available: int | None  # bytes that were free; None if the system does not tell
    refused: tuple[tuple[str, str], ...] = ()  # (mode, why the run cannot use it)

    @property
    def fits(self) -> bool:
        return self.probes[-1].fits

    def __str__(self) -> str:
        last = self.probes[-1]
        need = "an unknown amount" if last.peak is None else f"{last.peak / GIB:.2f} GiB"
        free = "" if self.available is None else f" of {self.available / GIB:.2f} GiB that are free"
        refused = "" if self.fits else "".join(f"; not with {mode}, because {reason}" for mode, reason in self.refused)
        return f"a step takes {need}{free}, with {last.mode}{refused}"


def plan_memory(config: RunConfig, prior: MemoryModes, device: torch.device) -> Plan:
    """Set the prior to its first memory mode with which the run's largest step fits; each is tried with a real step.

    ConfigError if the run can use none of the modes, which says why the first was refused.
    """
    available, probes, refused = free_memory(device), list[Probe](), list[tuple[str, str, str]]()
    for level, mode in enumerate(prior.memory_modes()):
        try:
            prior.set_memory_mode(level)
            peak, seconds = measure_step(config, prior, device)
        except PriorUnavailable as error:  # such as offloading a network whose weights a critic shares
            refused.append((mode, error.args[0], error.hint))
            continue
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            probes.append(Probe(mode, None, 0.0, fits=False))
            continue
        fits = peak is None or available is None or peak <= SHARE * available
        probes.append(Probe(mode, peak, seconds, fits))
        if fits:
            break
    if not probes:
        _, reason, hint = refused[0]
        raise ConfigError(f"the prior cannot be used as it is configured: {reason}", hint)
    return Plan(tuple(probes), available, tuple((mode, reason) for mode, reason, _ in refused))


def make_room(config: RunConfig, prior: Prior, device: torch.device) -> list[str]:
    """Choose the memory mode of a prior that has some, by the stage with the most pixels in a step; one line for the
    user about it.

    ConfigError, before anything is written, if no mode is small enough.
    """
    if not isinstance(prior, MemoryModes) or not prior.plans:
        return []
    config = max((config.in_stage(number) for number in range(len(config.stages) + 1)), key=pixels_of_step)
    plan = plan_memory(config, prior, device)
    if not plan.fits:
        views = config.cameras.views
        fewer = f", fewer than cameras.views={views}" if views > 1 else ""
        raise ConfigError(
            f"the run does not fit into memory: {plan}",
            hint=f"use a smaller prior.image_size or cameras.size{fewer}, or prior.dtype=bfloat16",
        )
    return [f"memory: {plan}"]


def measure_step(config: RunConfig, prior: Prior, device: torch.device) -> tuple[int | None, float]:
    """(bytes beyond what is in use, seconds) of one step at the run's largest views. The run itself is not touched."""
    cameras = config.cameras.model_copy(update={"size": largest_size(config), "later_sizes": ()})
    config = config.model_copy(update={"cameras": cameras})
    generator = torch.Generator().manual_seed(config.seed)
    reset_peak(device)
    before, begun = used_memory(device), time.perf_counter()
    scene = build_scene(config.scene, config.particles, generator).to(device)  # type: ignore[union-attr]
    with suppress(NumericsError):  # the memory that a step needs does not depend on the numbers
        Trainer(config, scene, prior, generator, device).advance()
    peak, seconds = used_memory(device, peak=True), time.perf_counter() - begun
    del scene
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return (None if peak is None or before is None else max(0, peak - before)), seconds


def largest_size(config: RunConfig) -> int:
    """The side of the largest views, in pixels."""
    return max([config.cameras.size, *(later.size for later in config.cameras.later_sizes)])


def pixels_of_step(config: RunConfig) -> int:
    """The most pixels that a step of a config without stages renders."""
    return config.cameras.views * largest_size(config) ** 2


def find_device(name: str) -> torch.device:
    """The device that a config names; "auto" is CUDA if there is any, and kernels for it. ConfigError if this machine
    does not have it."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() and backend_info().cuda else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device = {name!r} is not there: torch sees {torch.cuda.device_count()} CUDA devices")
    return device


def unused_gpu_warnings(name: str, device: torch.device) -> list[str]:
    """A warning if "auto" means the CPU on a machine with GPUs, unless CUDA_VISIBLE_DEVICES is empty on purpose."""
    if name == "auto" and device.type == "cpu" and torch.cuda.is_available():
        problem = backend_info().reason or "sds3d._C was built without CUDA"
        return [f"this runs on the CPU although torch sees a GPU: {problem}; build its kernels: {CUDA_BUILD_COMMAND}"]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = len(list(GPUS.iterdir())) if GPUS.is_dir() else 0
    if name != "auto" or device.type != "cpu" or gpus == 0 or visible in ("", "-1"):
        return []
    reason = "torch can use none of them" if visible is None else f"CUDA_VISIBLE_DEVICES={visible} names none of them"
    return [f"this runs on the CPU although the machine has {gpus} GPU{'s' * (gpus > 1)}: {reason} (see sds3d doctor)"]


def free_memory(device: torch.device) -> int | None:
    """Bytes that a run could still allocate; None if the system does not tell."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    return _kib(Path("/proc/meminfo"), "MemAvailable")


def used_memory(device: torch.device, peak: bool = False) -> int | None:
    """Bytes in use now, or the most since `reset_peak`."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return int(torch.cuda.max_memory_allocated(device) if peak else torch.cuda.memory_allocated(device))
    return _kib(Path("/proc/self/status"), "VmHWM" if peak else "VmRSS")


def reset_peak(device: torch.device) -> None:
    """Start the peak anew. If the system cannot, the peak stays that of the whole process: never too little."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # see proc(5): resets VmHWM


def _kib(path: Path, name: str) -> int | None:
    """The line `name: N kB` of a file of /proc, in bytes."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), None)
