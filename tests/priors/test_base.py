"""Conversions between what networks predict, and what precision a GPU has."""

from contextlib import nullcontext

import pytest
import torch

from sds3d.priors.base import eps_from_sample, eps_from_v, has_bfloat16, sample_from_eps


def test_eps_v_and_sample_say_the_same() -> None:  # T15
    """v = alpha eps - sigma x, x_t = alpha x + sigma eps: every way back to eps and x is exact in float64."""
    generator = torch.Generator().manual_seed(0)
    x, eps = (torch.randn(9, 4, 5, 5, dtype=torch.float64, generator=generator) for _ in range(2))
    alpha = torch.linspace(0.05, 0.999, 9, dtype=torch.float64)[:, None, None, None]
    sigma = (1 - alpha.square()).sqrt()
    x_t, v = alpha * x + sigma * eps, alpha * eps - sigma * x
    assert (eps_from_v(v, x_t, alpha, sigma) - eps).abs().max() < 4e-15
    assert (alpha * x_t - sigma * v - x).abs().max() < 4e-15
    assert (sample_from_eps(eps, x_t, alpha, sigma) - x).abs().max() < 1e-13
    assert (eps_from_sample(x, x_t, alpha, sigma) - eps).abs().max() < 1e-13


@pytest.mark.parametrize("native", [True, False])
def test_bfloat16_only_where_the_gpu_has_it(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch says yes for older GPUs as well, on which it is emulated."""
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or native)
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    assert has_bfloat16(cuda) == native
    assert not has_bfloat16(cpu)
