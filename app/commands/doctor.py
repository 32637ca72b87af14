"""sds3d doctor: what is installed, built and found on this machine, with one fix for each thing that is not."""

import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from typer import Option

from ..arguments import require
from ..exit_codes import DONE, FAILED
from ..shared_options import AsJson
from .priors import plan


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. `needed`: without it no run is possible."""

    name: str
    ok: bool
    found: str
    fix: str = ""
    needed: bool = True


def doctor(
    prior: Annotated[str | None, Option(metavar="MODEL", help="measure what a step with this model needs here")] = None,
    device: Annotated[
        str | None, Option(metavar="NAME", help="for --prior: auto (default), cpu, cuda or cuda:N")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Print what is installed, built and found here, and how to mend what is not."""
    require("--prior", prior is not None, {"--device": device})
    if prior is not None:
        return plan(prior, device or "auto", as_json)
    with_torch = [*kernels(), *priors()] if find_spec("torch") else []
    checks = [python(), torch(), *with_torch, ffmpeg(), *packages(), output_folder()]  # in the order in which to fix it
    if as_json:
        print(json.dumps({"ready": is_ready(checks), "checks": [asdict(check) for check in checks]}, indent=2))
    else:
        show(checks)
    return DONE if is_ready(checks) else FAILED


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
    """A graphics card is never needed; for one that is there, each thing that keeps it unused."""
    import torch as library

    from sds3d.ops import backend_info
    from sds3d.ops.extension import BUILD_COMMAND, CUDA_BUILD_COMMAND

    info = backend_info()
    built = info.cpu != "reference"
    found = f"{info.cpu} ({info.path})" if built else f"slow torch ops instead: {info.reason}"
    yield Check("kernels (CPU)", built, found, f"with a C++ compiler: {BUILD_COMMAND}", needed=False)
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
        found = "built" if info.cuda else "not built"
        yield Check("kernels (CUDA)", info.cuda, found, CUDA_BUILD_COMMAND, needed=False)


def priors() -> Iterator[Check]:
    """Every prior without required options, loaded for real."""
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


def ffmpeg() -> Check:
    try:
        import imageio_ffmpeg

        return Check("ffmpeg", True, imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError) as error:
        return Check("ffmpeg", False, str(error), "pip install imageio-ffmpeg")


def packages() -> Iterator[Check]:
    """What this version of sds3d needs, and each optional part that it declares, with the packages that are lacking."""
    requirements = metadata.requires("sds3d") or []
    for extra in (None, *(metadata.metadata("sds3d").get_all("Provides-Extra") or [])):
        missing = missing_packages(requirements, extra)
        found = f"missing: {', '.join(missing)}" if missing else "installed"
        name, wanted = ("packages", " ".join(missing)) if extra is None else (f"extra {extra}", f'"sds3d[{extra}]"')
        yield Check(name, not missing, found, f"pip install {wanted}", needed=extra is None)


def missing_packages(requirements: list[str], extra: str | None) -> list[str]:
    """Names in `requirements` (PEP 508) that this machine needs for `extra` (None: for no extra) and does not have."""
    from packaging.requirements import Requirement

    def applies(requirement: Requirement, extra: str) -> bool:
        return requirement.marker is None or requirement.marker.evaluate({"extra": extra})

    parsed = [Requirement(text) for text in requirements]
    parsed = [one for one in parsed if applies(one, extra or "") and (extra is None or not applies(one, ""))]
    return [one.name for one in parsed if not any(metadata.distributions(name=one.name))]


def output_folder() -> Check:
    here = Path.cwd()
    free = shutil.disk_usage(here).free / 2**30
    writable = os.access(here, os.W_OK)
    found = f"{here}, {free:.1f} GiB free" if writable else f"{here} is read-only"
    return Check("output folder", writable and free > 0.5, found, "change to a folder with space, or use --out")


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
