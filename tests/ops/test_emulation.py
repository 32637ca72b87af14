"""The emulation itself: it must tell kernels with a mistake from kernels without, and really vary the order."""

import ctypes
from pathlib import Path

import pytest
import torch

from tests.ops.emulation import build
from tests.ops.test_cuda import splat_arguments

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("emulation"),
    pytest.mark.skipif(bool(build.why_not()), reason=build.why_not()),
]


def run(kernel: str, seed: int) -> tuple[str, list[int]]:
    """What the emulation says against a kernel of self_test.cu, and what the kernel made of 0, 1, ... 63."""
    library = build.load()
    library.emulation_seed(seed)
    library.emulation_self_test.restype = ctypes.c_char_p
    numbers = torch.arange(64, dtype=torch.int32)
    said = library.emulation_self_test(kernel.encode(), ctypes.c_void_p(numbers.data_ptr()))
    return said.decode(), numbers.tolist()


@pytest.mark.parametrize("seed", range(5))
def test_kernels_without_a_mistake_run(seed):
    assert run("reverse", seed) == ("", list(range(63, -1, -1)))
    assert run("sum_warps", seed) == ("", [sum(range(32))] * 32 + [sum(range(32, 64))] * 32)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("kernel", "complaint"),
    [
        ("barrier_in_a_branch", "barrier"),
        ("two_barriers", "different barriers"),
        ("vote_of_half_a_warp", "warp operation with lanes that have left|deadlock"),
        ("shuffle_from_outside", "a lane that is not in the mask"),
    ],
)
def test_a_mistake_is_named(kernel, complaint, seed):
    said, _ = run(kernel, seed)
    assert any(part in said for part in complaint.split("|")), said


def test_a_missing_barrier_shows_in_the_result():
    said, numbers = run("missing_barrier", 0)
    assert not said
    assert numbers != list(range(63, -1, -1))


@pytest.mark.parametrize("deterministic", [False, True])
def test_the_order_of_threads_reaches_the_last_bits_of_summed_gradients_unless_they_are_deterministic(deterministic):
    """Atomics add in the order in which fibers come; the image has no such sum."""
    library, op = build.load(), torch.ops.sds3d_emulated
    arguments = splat_arguments(1, 48, 48, count=200)
    generator = torch.Generator().manual_seed(0)
    upstream = [torch.randn(1, 48, 48, c, generator=generator) for c in (3, 1)]
    inputs = [arguments[name] for name in ("conics", "opacities", "features")]
    images, gradients = [], []
    for seed in range(2):
        library.emulation_seed(seed)
        outputs = op.rasterize_gaussians(*arguments.values(), 48, 48, 0)
        grads = op.rasterize_gaussians_backward(*inputs, *outputs, *upstream, deterministic)
        images.append(outputs[0])
        gradients.append(torch.cat([grad.flatten() for grad in grads]))
    assert torch.equal(*images)
    assert torch.equal(*gradients) == deterministic
    assert torch.allclose(*gradients, rtol=1e-4, atol=1e-4)


def test_every_kernel_file_is_emulated_or_has_a_twin():
    compiled = {path.stem for path, _ in build.sources()}
    assert {path.stem for path in Path(build.EXTENSION).rglob("*.cu")} <= compiled
