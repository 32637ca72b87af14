"""Selective Adam: the reference against torch's Adam, the kernels against the reference."""

import pytest
import torch
from torch import Tensor

from sds3d.ops.extension import compiled
from sds3d.ops.selective_adam import selective_adam_, selective_adam_reference_
from tests.ops.splat_cases import assert_agrees

BOTH = pytest.mark.parametrize("update", [selective_adam_, selective_adam_reference_])
BETAS, EPS, LR = (0.9, 0.99), 1e-15, 0.02


def numbers(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def run(update, visible: list[Tensor], shape: tuple[int, ...], dtype: torch.dtype, device: str = "cpu") -> list[Tensor]:
    """Parameter and moments after one step for each mask; gradients of different sizes."""
    tensors = [numbers(0, *shape, dtype=dtype).to(device), *(torch.zeros(shape, dtype=dtype).to(device) for _ in "mv")]
    for step, rows in enumerate(visible, start=1):
        grad = (numbers(step, *shape) * torch.exp(2 * numbers(step + 100, *shape))).to(dtype)
        update(*tensors, grad.to(device), rows.to(device), LR, *BETAS, EPS, step)
    return [t.cpu() for t in tensors]


@BOTH
@pytest.mark.parametrize("shape", [(1, 3), (50, 3), (50,), (7, 4, 2), (300, 1)])
def test_rows_that_are_always_seen_move_as_torchs_adam_moves_them(update, shape):
    visible = [torch.ones(shape[0], dtype=torch.bool)] * 6
    got = run(update, visible, shape, torch.float32)
    parameter = numbers(0, *shape).requires_grad_()
    optimizer = torch.optim.Adam([parameter], lr=LR, betas=BETAS, eps=EPS, foreach=False)
    for step in range(1, 7):
        parameter.grad = numbers(step, *shape) * torch.exp(2 * numbers(step + 100, *shape))
        optimizer.step()
    state = optimizer.state[parameter]
    for a, b in zip(got, (parameter.detach(), state["exp_avg"], state["exp_avg_sq"]), strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-7)


@BOTH
def test_rows_that_are_not_seen_keep_every_bit(update):
    shape = (40, 3)
    tensors = [numbers(i, *shape) for i in range(3)]
    tensors[2] = tensors[2].square()
    before = [t.clone() for t in tensors]
    visible = torch.arange(40) % 3 == 0
    update(*tensors, numbers(9, *shape), visible, LR, *BETAS, EPS, 5)
    for a, b in zip(tensors, before, strict=True):
        assert torch.equal(a[~visible], b[~visible])
        assert (a[visible] != b[visible]).all()


@pytest.mark.skipif(not compiled(), reason="sds3d._C is not built")
@pytest.mark.parametrize("count", [0, 1, 2, 17, 40_000])
def test_the_kernel_agrees_with_the_float64_reference(count):
    generator = torch.Generator().manual_seed(count)
    visible = [torch.rand(count, generator=generator) < share for share in (0.1, 0.5, 0.9, 1.0)]
    got = run(selective_adam_, visible, (count, 3), torch.float32)
    want = run(selective_adam_reference_, visible, (count, 3), torch.float64)
    for a, b, name in zip(got, want, ("parameter", "exp_avg", "exp_avg_sq"), strict=True):
        assert a.shape == b.shape == (count, 3)
        if count:
            assert_agrees(a, b, name, relative=1e-6)


def test_the_cuda_kernel_is_the_cpus(cuda_kernels):
    visible = [torch.arange(70) % 7 < step for step in range(1, 5)]
    got = run(selective_adam_, visible, (70, 4), torch.float32, cuda_kernels)
    want = run(selective_adam_reference_, visible, (70, 4), torch.float64)
    for a, b, name in zip(got, want, ("parameter", "exp_avg", "exp_avg_sq"), strict=True):
        assert_agrees(a, b, name, relative=1e-6)


@pytest.mark.skipif(not compiled(), reason="sds3d._C is not built")
def test_threads_make_no_difference():
    visible = [torch.rand(60_000, generator=torch.Generator().manual_seed(0)) < 0.7] * 2
    alone = run(selective_adam_, visible, (60_000, 3), torch.float32)
    torch.set_num_threads(2)
    try:
        together = run(selective_adam_, visible, (60_000, 3), torch.float32)
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


@pytest.mark.skipif(not compiled(), reason="sds3d._C is not built")
def test_what_is_written_to_must_be_contiguous_and_of_one_shape():
    op, seen = torch.ops.sds3d.selective_adam, torch.ones(4, dtype=torch.bool)
    tail = (LR, *BETAS, EPS, 1)
    with pytest.raises(RuntimeError, match="exp_avg: expected a contiguous tensor"):
        op(torch.ones(4, 3), torch.ones(3, 4).T, torch.ones(4, 3), torch.ones(4, 3), seen, *tail)
    with pytest.raises(RuntimeError, match=r"grad: expected a float32 tensor \[ 4 3 \]"):
        op(torch.ones(4, 3), torch.ones(4, 3), torch.ones(4, 3), torch.ones(3, 3), seen, *tail)
    with pytest.raises(RuntimeError, match="visible: expected a bool tensor"):
        op(torch.ones(4, 3), torch.ones(4, 3), torch.ones(4, 3), torch.ones(4, 3), torch.ones(4), *tail)
    with pytest.raises(RuntimeError, match="steps count from 1"):
        op(*torch.ones(4, 4, 3), seen, LR, *BETAS, EPS, 0)
