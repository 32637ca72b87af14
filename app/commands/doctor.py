"""sds3d doctor: what is installed, built and found on this machine, with one fix for each thing that is not."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. `needed`: without it no run is possible."""

    name: str
    ok: bool
    found: str
    fix: str = ""
    needed: bool = True


def all_checks() -> list[Check]:
    """Everything, in the order in which to fix it."""
    return [python(), torch(), *kernels(), *cuda(), *priors(), *tools(), *extras(), output_folder()]


def python() -> Check:
    version = platform.python_version()
    return Check("python", sys.version_info >= (3, 10), f"{version} ({sys.executable})", "install Python 3.10 or newer")


def torch() -> Check:
    try:
        import torch as library
    except ImportError as error:
        return Check("torch", False, str(error), "pip install torch==2.13.0, then install sds3d again")
    return Check("torch", True, f"{library.__version__}, {library.get_num_threads()} threads")


def kernels() -> Iterator[Check]:
    if not importlib.util.find_spec("torch"):
        return
    from sds3d.ops import backend_info
    from sds3d.ops.extension import BUILD_COMMAND

    info = backend_info()
    built = info.cpu != "reference"
    found = f"{info.cpu} ({info.path})" if built else f"slow torch ops instead: {info.reason}"
    yield Check("kernels (CPU)", built, found, f"with a C++ compiler: {BUILD_COMMAND}", needed=False)


def cuda() -> Iterator[Check]:
    """A graphics card is never needed; for one that is there, each thing that keeps it unused."""
    if not importlib.util.find_spec("torch"):
        return
    import torch as library

    from sds3d.ops import backend_info
    from sds3d.ops.extension import CUDA_BUILD_COMMAND

    version, seen = library.version.cuda, library.cuda.is_available()
    device = f"{library.cuda.get_device_name()}, CUDA {version}" if seen else "none seen"
    if not seen:
        device += f"; torch is built for CUDA {version}" if version else "; this torch is built without CUDA"
    fix = "none needed without an NVIDIA card; with one, install its driver and a CUDA build of torch"
    yield Check("CUDA device", seen, device, fix, needed=False)
    toolkit = shutil.which("nvcc")
    if seen or toolkit:
        fix = f"install the CUDA {version} toolkit so that nvcc is on PATH"
        yield Check("CUDA toolkit", bool(toolkit), toolkit or "no nvcc", fix, needed=False)
    if seen:
        built = backend_info().cuda
        yield Check("kernels (CUDA)", built, "built" if built else "not built", CUDA_BUILD_COMMAND, needed=False)


def priors() -> Iterator[Check]:
    """Every prior without required options, loaded for real."""
    if not importlib.util.find_spec("torch"):
        return
    from sds3d.config.run_config import RunConfig
    from sds3d.errors import Sds3dError
    from sds3d.priors import PRIORS

    default = RunConfig.model_fields["prior"].default.name
    for name, config in PRIORS.items():
        if any(field.is_required() for field in config.model_fields.values()):
            continue
        try:
            shape = config.model_validate({"name": name}).build("cpu").latent_shape
            yield Check(f"prior {name}", True, f"loads; images of {shape[1]} x {shape[2]}", needed=name == default)
        except Sds3dError as error:
            yield Check(f"prior {name}", False, error.args[0], error.hint, needed=name == default)


def tools() -> Iterator[Check]:
    try:
        import imageio_ffmpeg

        yield Check("ffmpeg", True, imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError) as error:
        yield Check("ffmpeg", False, str(error), "pip install imageio-ffmpeg")
    missing = missing_packages(importlib.metadata.requires("sds3d") or [], extra=None)
    found = f"missing: {', '.join(missing)}" if missing else "all installed"
    yield Check("packages", not missing, found, f"pip install {' '.join(missing)}")


def extras() -> Iterator[Check]:
    """The optional parts that this version of sds3d declares, with the packages that each still lacks."""
    for extra in importlib.metadata.metadata("sds3d").get_all("Provides-Extra") or []:
        missing = missing_packages(importlib.metadata.requires("sds3d") or [], extra)
        found = f"missing: {', '.join(missing)}" if missing else "installed"
        yield Check(f"extra {extra}", not missing, found, f'pip install "sds3d[{extra}]"', needed=False)


def missing_packages(requirements: list[str], extra: str | None) -> list[str]:
    """Names in `requirements` (PEP 508) that this machine needs for `extra` (None: for no extra) and does not have."""
    from packaging.requirements import Requirement

    def applies(requirement: Requirement, extra: str) -> bool:
        return requirement.marker is None or requirement.marker.evaluate({"extra": extra})

    parsed = [Requirement(text) for text in requirements]
    parsed = [one for one in parsed if applies(one, extra or "") and (extra is None or not applies(one, ""))]
    return [one.name for one in parsed if not is_installed(one.name)]


def is_installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def output_folder() -> Check:
    here = Path.cwd()
    free = shutil.disk_usage(here).free / 2**30
    writable = os.access(here, os.W_OK)
    found = f"{here}, {free:.1f} GiB free" if writable else f"{here} is read-only"
    return Check("output folder", writable and free > 0.5, found, "change to a folder with space, or use --out")


def report(checks: list[Check]) -> dict[str, Any]:
    """What `sds3d doctor --json` prints."""
    return {"ready": is_ready(checks), "checks": [asdict(check) for check in checks]}


def show(checks: list[Check]) -> None:
    """One line for each thing, and below it the fix if something is wrong."""
    for check in checks:
        mark = "ok" if check.ok else "MISSING" if check.needed else "no"
        print(f"{mark:8} {check.name:16} {check.found}")
        if not check.ok:
            print(f"{'':8} {'':16} fix: {check.fix}")
    print("ready: sds3d generate works here" if is_ready(checks) else "not ready: fix what is MISSING")


def is_ready(checks: list[Check]) -> bool:
    """True when a run is possible, however slow."""
    return all(check.ok or not check.needed for check in checks)
