"""A fake accelerator, "strict": it computes as the CPU does, but refuses what CUDA refuses and counts what would wait.

PyTorch's PrivateUse1 backend with host memory (strict_device.cpp). Refused are operators on tensors of two devices
where CUDA refuses them (by native_functions.yaml: codegen's check, or TensorIterator's), generators of another device,
`.numpy()`, and operators without a CUDA kernel, our own among them. Autocast has CUDA's lists. No CUDA kernel is run,
and code behind `device.type == "cuda"` is not reached.

`start` changes torch for the whole process, so it belongs into a process of its own.
"""

import ctypes
import hashlib
import os
import re
import threading
import traceback
import types
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch
import yaml

from tests.ops.emulation.build import ROOT, compiler, replace_with

NAME = "strict"
HERE = Path(__file__).resolve().parent
BUILD = ROOT / "build" / "strict_device"
FLAGS = ["-std=c++20", "-O0", "-w", "-fPIC", "-shared"]  # torch's headers take 30 seconds without optimization already
WAITS: Counter[tuple[str, str]] = Counter()  # (kind and operator, lines of sds3d that it was called from)


def build() -> Path:
    """The library, compiled where anything changed since the last time."""
    source, torch_folder = HERE / "strict_device.cpp", Path(torch.__file__).parent
    libraries = torch_folder / "lib"
    headers = [f"-isystem{torch_folder / name}" for name in ("include", "include/torch/csrc/api/include")]
    link = [f"-L{libraries}", f"-Wl,-rpath,{libraries}", "-ltorch_cpu", "-lc10"]
    command = [compiler(), *FLAGS, *headers, str(source), *link]
    key = hashlib.sha256(source.read_bytes() + f"{torch.__version__} {command}".encode()).hexdigest()[:16]
    target = BUILD / f"strict_device-{key}.so"
    if not target.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        replace_with(target, command)
    return target


def torch_rules() -> tuple[list[str], list[str]]:
    """torch's operators whose CUDA kernels lack codegen's check of devices, and those that have none for CUDA."""
    import torchgen

    path = Path(torchgen.__file__).parent / "packaged/ATen/native/native_functions.yaml"
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    entries = {entry["func"].split("(")[0].strip(): entry for entry in yaml.load(path.read_text(), loader)}

    def keys(entry: dict) -> set[str]:
        kernels = entries[entry["structured_delegate"]] if "structured_delegate" in entry else entry
        return {key.strip() for listed in kernels.get("dispatch") or {} for key in listed.split(",")}

    unchecked = [name for name, entry in entries.items() if str(entry.get("device_check", "")).startswith("NoCheck")]
    found = {name: keys(entry) for name, entry in entries.items()}
    cpu_only = [name for name, on in found.items() if "CPU" in on and "CUDA" not in on and "Composite" not in str(on)]
    return [f"aten::{name}" for name in unchecked], [f"aten::{name}" for name in cpu_only]


def own_cpu_only() -> list[str]:
    """Operators of sds3d._C that are registered for the CPU and not for CUDA."""
    on: dict[str, set[str]] = {"CPU": set(), "CUDA": set()}
    for path in (ROOT / "cuda_ext").glob("bindings*.cpp"):
        for key, body in re.findall(
            r"LIBRARY_IMPL\(sds3d, (CPU|CUDA), m\) \{(.*?)\n?\}$", path.read_text(), re.S | re.M
        ):
            on[key] |= set(re.findall(r'm\.impl\("(\w+)"', body))
    return [f"sds3d::{name}" for name in on["CPU"] - on["CUDA"]]


def start() -> torch.device:
    """Register the device with this process, which has run nothing backward yet."""
    torch.utils.rename_privateuse1_backend(NAME)
    torch.ops.load_library(build())
    library().strict_register()
    unchecked, cpu_only = torch_rules()
    lists = unchecked, cpu_only + own_cpu_only()
    library().strict_rules(*("".join(f"{name}\n" for name in names).encode() for names in lists))
    torch._register_device_module(NAME, module())
    torch.utils.generate_methods_for_privateuse1_backend()
    return torch.device(NAME, 0)


@cache
def library() -> ctypes.CDLL:
    return ctypes.CDLL(str(build()))


def module() -> types.ModuleType:
    """torch.strict, with what torch and the product ask a device's module for."""
    names = types.ModuleType(f"torch.{NAME}")
    answers = {
        "is_available": True, "is_initialized": True, "device_count": 1, "current_device": 0, "set_device": None,
        "synchronize": None, "_is_in_bad_fork": False, "manual_seed": None, "manual_seed_all": None,
        "set_rng_state": None, "get_amp_supported_dtype": [torch.float16, torch.bfloat16, torch.float32],
    }  # fmt: skip
    for name, answer in answers.items():
        setattr(names, name, lambda *_, answer=answer, **__: answer)
    names.get_rng_state = lambda device=0: torch.zeros(1, dtype=torch.uint8)  # type: ignore[attr-defined]
    return names


_LISTENER = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p)


@_LISTENER
def _heard(kind: bytes, what: bytes) -> None:
    WAITS[kind.decode() + " " + what.decode(), _where()] += 1


def _where() -> str:
    lines = [
        f"{frame.filename.removeprefix(str(ROOT) + os.sep)}:{frame.lineno}"
        for frame in traceback.extract_stack()
        if frame.filename.startswith((str(ROOT / "sds3d"), str(ROOT / "app")))
    ]
    thread = "" if threading.current_thread() is threading.main_thread() else "backward"
    return " < ".join(lines[:-4:-1]) or thread


@contextmanager
def counting() -> Iterator[Counter[tuple[str, str]]]:
    """Inside, everything that would make the host wait for a real device is counted, with its place.

    item: a number read; d2h: a copy to the host; wait: an operator whose result's size the host asks for; h2d: a
    copy from the host, which waits for the device too, for the memory is not pinned.
    """
    WAITS.clear()
    library().strict_listen(_heard)
    try:
        yield WAITS
    finally:
        library().strict_listen(None)
