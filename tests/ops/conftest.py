"""Every instruction set of the kernels that this processor has."""

from collections.abc import Iterator

import pytest
import torch

from sds3d.ops.extension import INSTRUCTION_SETS, backend_info, compiled


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
