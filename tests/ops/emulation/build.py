"""Compiles the CUDA kernels and their glue for the CPU, over the fibers of this folder, and loads them.

Every `.cu` file of cuda_ext/ takes part by itself, except those that call CUB: they need a twin of the same name here.
Every bindings*.cpp takes part too, except those of the CPU, and registers its operators as torch.ops.sds3d_emulated.
"""

import ctypes
import hashlib
import os
import platform
import runpy
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from unittest import mock

import setuptools
import torch

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
EXTENSION = ROOT / "cuda_ext"
OBJECTS = ROOT / "build" / "emulation"
FLAGS = ["-O1", "-g0", "-DSDS3D_CUDA=1", f"-I{HERE}", f"-I{EXTENSION}"]


def why_not() -> str:
    """The reason why nothing can be emulated here; empty if it can."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return f"the emulation's register switch is written for x86-64, and this is {platform.machine()}"
    return "" if shutil.which(compiler()) else f"no C++ compiler ({compiler()})"


def compiler() -> str:
    return os.environ.get("CXX", "c++")


def sources() -> list[tuple[Path, list[str]]]:
    """Each file with the flags that only it gets."""
    kernels = [p for p in sorted(EXTENSION.rglob("*.cu")) if "<cub/" not in p.read_text()]
    bindings = [p for p in sorted(EXTENSION.glob("bindings*.cpp")) if "cpu" not in p.stem]
    torch_headers = Path(torch.__file__).parent / "include"
    glue = ["-include", str(HERE / "glue.h"), "-isystem", str(torch_headers)]
    own = [HERE / "self_test.cu", *sorted(HERE.glob("*.cpp"))]
    plain = [*kernels, *own, EXTENSION / "cpu_features.cpp"]
    return [(path, ["-x", "c++"]) for path in plain] + [(path, glue) for path in bindings]


def build_flags() -> list[str]:
    """Those of setup.py, so that the arithmetic is that of the CPU kernels."""
    with mock.patch.object(setuptools, "setup"):
        names = runpy.run_path(str(ROOT / "setup.py"))
    kept = [flag for flag in names["CXX_FLAGS"] if not flag.startswith("-O")]
    return [*kept, *names["ABI"], *FLAGS]


@cache
def load() -> ctypes.CDLL:
    """The library, compiled where anything changed since the last time; its operators are then registered."""
    OBJECTS.mkdir(parents=True, exist_ok=True)
    shared = hashlib.sha256(torch.__version__.encode())
    for header in sorted([*EXTENSION.rglob("*.h"), *HERE.glob("*.h")]):
        shared.update(header.read_bytes())
    flags = build_flags()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(lambda item: compile_one(item[0], [*flags, *item[1]], shared.hexdigest()), sources()))
    torch_libraries = Path(torch.__file__).parent / "lib"
    link = ["-shared", "-Wl,-z,noexecstack", f"-L{torch_libraries}", f"-Wl,-rpath,{torch_libraries}", "-ltorch_cpu"]
    command = [compiler(), *map(str, sorted(objects)), *link]
    library = OBJECTS / f"emulation-{hashlib.sha256(' '.join(command).encode()).hexdigest()[:16]}.so"
    if not library.exists():
        replace_with(library, command)
    torch.ops.load_library(library)
    return ctypes.CDLL(str(library))


def compile_one(source: Path, flags: list[str], shared: str) -> Path:
    """The object file, from the cache if source, headers and flags are those of last time."""
    text = source.read_bytes() + shared.encode() + " ".join([compiler(), *flags]).encode()
    target = OBJECTS / f"{source.stem}-{hashlib.sha256(text).hexdigest()[:16]}.o"
    if not target.exists():
        replace_with(target, [compiler(), *flags, "-fPIC", "-c", str(source)])
    return target


def replace_with(target: Path, command: list[str]) -> None:
    """Runs the compiler; the target is whole or absent, whoever else builds it at the same time."""
    part = target.with_suffix(f".{os.getpid()}.tmp")
    done = subprocess.run([*command, "-o", str(part)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        part.unlink(missing_ok=True)
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
    os.replace(part, target)
