"""Every instruction set of the CPU kernels that this processor has; the CUDA kernels on a GPU and emulated."""

import zlib
from collections.abc import Iterator

import pytest
import torch

from sds3d.ops.extension import INSTRUCTION_SETS, backend_info, compiled
from tests.ops.emulation import build
from tests.ops.emulation.autograd import register_autograd


@pytest.fixture(params=INSTRUCTION_SETS)
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    """Limits the CPU kernels to one instruction set for the test."""
    if not compiled():
        pytest.skip(f"no compiled kernels: {backend_info().reason}")
    level = INSTRUCTION_SETS.index(request.param)
    if torch.ops.sds3d.limit_instruction_set(level) != level:
        pytest.skip(f"this processor has no {request.param}")
    yield request.param
    torch.ops.sds3d.limit_instruction_set(len(INSTRUCTION_SETS))


# One worker compiles the emulation and runs all that needs it.
EMULATED = pytest.param("emulated", marks=[pytest.mark.xdist_group("emulation"), pytest.mark.slow])


@pytest.fixture(params=[EMULATED, pytest.param("cuda", marks=pytest.mark.cuda)])
def cuda_kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The device whose tensors the ops of the test hand to the CUDA kernels: a GPU, or the CPU with them emulated."""
    if request.param == "cuda":
        return "cuda"
    if not compiled() or build.why_not():
        pytest.skip(build.why_not() or f"no compiled kernels: {backend_info().reason}")
    library = build.load()
    register_autograd()
    monkeypatch.setattr(torch.ops, "sds3d", torch.ops.sds3d_emulated)
    library.emulation_seed(zlib.crc32(request.node.nodeid.encode()))
    return "cpu"
