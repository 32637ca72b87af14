"""Does the strict device refuse what CUDA refuses, allow what it allows, compute as the CPU does, and count?"""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.strict_device import device as strict

pytestmark = pytest.mark.xdist_group("strict device")


def calls() -> tuple[dict[str, Callable[[], object]], dict[str, Callable[[], object]]]:
    """What has to be refused, and what allowed."""
    here = torch.device(strict.NAME)
    x, c, i = torch.randn(4, 4, device=here), torch.randn(4, 4), torch.tensor([0, 2])
    number, op = torch.tensor(1.0), torch.ops.sds3d
    flat = torch.zeros(4, 3), torch.zeros(1, 3, dtype=torch.int32)
    refused = {
        "add": lambda: x + c,
        "mul_": lambda: x.clone().mul_(c),
        "matmul": lambda: x @ c,
        "cat": lambda: torch.cat([x, c]),
        "where": lambda: torch.where(x > 0, x, c),
        "stack with a number": lambda: torch.stack([x.sum(), number]),
        "out": lambda: torch.add(x, x, out=c),
        "index_add": lambda: x.index_add(0, i, x[:2]),
        "gather": lambda: x.gather(0, torch.zeros(4, 4, dtype=torch.long)),
        "index_select": lambda: x.index_select(0, i),
        "CPU indexed by the device": lambda: c[i.to(here)],
        "index_put values": lambda: x.clone().__setitem__(i, c[:2]),
        "linear": lambda: F.linear(x, c),
        "conv": lambda: F.conv2d(x[None, None], c[None, None]),
        "embedding": lambda: F.embedding(i, x),
        "group_norm": lambda: F.group_norm(x[None], 2, c[0], c[1]),
        "attention": lambda: F.scaled_dot_product_attention(x[None], x[None], c[None]),
        "grid_sample": lambda: F.grid_sample(x[None, None], torch.zeros(1, 2, 2, 2)),
        "generator of the CPU": lambda: torch.randn(3, generator=torch.Generator(), device=here),
        "generator of the device": lambda: torch.randn(3, generator=torch.Generator(here)),
        "numpy": x.numpy,
        "half @ float": lambda: x.half() @ x,
        "ours": lambda: op.rasterize_triangles(torch.zeros(1, 3, 3, device=here), flat[1], 4, 4),
        "ours, without a CUDA kernel": lambda: op.mesh_thickness(*(t.to(here) for t in (flat[0], flat[1], flat[0]))),
        "torch's, without a CUDA kernel": lambda: torch.histogram(x, 3),
    }
    allowed = {
        "add a number": lambda: x + number,
        "CPU index": lambda: x[i],
        "CPU mask": lambda: x[c > 0],
        "index_put of a number": lambda: x.clone().__setitem__(i, number),
        "copy_": lambda: x.clone().copy_(c),
        "back": lambda: x.cpu() + c,
        "generator": lambda: torch.randn(3, generator=torch.Generator(here), device=here),
        "inverse": lambda: torch.linalg.inv(x + 9 * torch.eye(4, device=here)),
        "views": lambda: x.view(2, 8).t()[1:].reshape(-1).unfold(0, 2, 1),
    }
    return refused, allowed


def check_refusals() -> tuple[list[str], list[str]]:
    """Those that were not refused, and those that were."""
    missed, wrong = [], []
    refused, allowed = calls()
    for name, call in refused.items():
        try:
            call()
            missed.append(name)
        except (RuntimeError, TypeError):
            pass
    for name, call in allowed.items():
        try:
            call()
        except Exception as error:
            wrong.append(f"{name}: {error}")
    return missed, wrong


def numbers(name: str) -> tuple[torch.Tensor, ...]:
    """Of a computation with views, in-place operators, a convolution and a backward pass."""
    torch.manual_seed(0)
    weights = nn.Parameter(torch.randn(6, 5).to(name))
    y = (weights @ torch.randn(5, 7).to(name)).relu().view(3, 14)[:, ::2]
    z = torch.zeros(7, device=name)
    z += y.detach().sum(0)
    z[1:3].mul_(2)
    conv = F.conv2d(y[None, None], weights[None, None, :3, :3].contiguous(), padding=1)
    (conv.square().sum() + (y * z).sum()).backward()
    assert weights.grad is not None
    return weights.grad.cpu(), z.cpu()


def same_numbers() -> bool:
    return all(map(torch.equal, numbers(strict.NAME), numbers("cpu")))


def waits() -> list[str]:
    x = torch.arange(4.0, device=strict.NAME)
    with strict.counting() as counted:
        x.sum().item()
        x.cpu()
        x.nonzero()
        x.copy_(torch.ones(4))
        x.mul_(2)
    return sorted(kind.split()[0] for kind, _ in counted.elements())


def test_it_refuses_what_cuda_refuses(on_device) -> None:
    assert on_device(check_refusals) == ([], [])


def test_it_computes_as_the_cpu_does(on_device) -> None:
    assert on_device(same_numbers)


def test_it_counts_what_would_wait(on_device) -> None:
    assert on_device(waits) == ["d2h", "h2d", "item", "wait"]
