"""Spherical harmonics: orthonormal, the reference by finite differences, the kernels against the reference."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from sds3d.ops.extension import compiled
from sds3d.ops.spherical_harmonics import harmonics, spherical_harmonics, spherical_harmonics_reference
from tests.ops.splat_cases import assert_agrees, gradients, leaves, ring_of_cameras

needs_kernels = pytest.mark.skipif(not compiled(), reason="sds3d._C is not built")
BOTH = pytest.mark.parametrize("evaluate", [spherical_harmonics, spherical_harmonics_reference])
TERMS = pytest.mark.parametrize("terms", [1, 4, 9, 16])
NAMES = ("colors", "grad_coefficients", "grad_means")


def case(seed: int, count: int, terms: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(count, terms, 3, generator=generator), torch.randn(count, 3, generator=generator)]


def test_the_harmonics_are_orthonormal_on_the_sphere():
    heights, weights = np.polynomial.legendre.leggauss(8)  # exact for the products, which have degree 6
    azimuth = torch.arange(16, dtype=torch.float64) * 2 * math.pi / 16
    z = torch.from_numpy(heights)[:, None].expand(8, 16)
    radius = (1 - z * z).sqrt()
    values = harmonics(torch.stack([radius * azimuth.cos(), radius * azimuth.sin(), z], dim=-1), 16)
    area = torch.from_numpy(weights)[:, None] * 2 * math.pi / 16
    products = torch.einsum("ij,ijk,ijl->kl", area.expand(8, 16), values, values)
    assert torch.allclose(products, torch.eye(16, dtype=torch.float64), atol=1e-12)


def test_order_and_signs_are_those_of_the_file_format():
    x, y, z = (harmonics(axis, 16) for axis in torch.eye(3, dtype=torch.float64))
    assert x[3] < 0 < z[2]
    assert y[1] < 0
    assert z[6] > 0 > x[6]
    assert x[8] > 0 > y[8]
    assert z[12] > 0
    assert x[15] < 0 < y[9]
    xyz = harmonics(torch.ones(3, dtype=torch.float64) / math.sqrt(3), 16)
    assert xyz[4] > 0 > xyz[5]
    assert xyz[10] > 0 > xyz[7]
    assert xyz[13] < 0
    assert xyz[11] < 0


@BOTH
def test_a_constant_term_is_the_same_from_all_sides(evaluate):
    coefficients, means = case(0, 5, 1)
    colors = evaluate(coefficients, means, ring_of_cameras(3, 8, 8).camera_to_world)
    assert torch.allclose(colors, (coefficients[:, 0] * 0.5 / math.sqrt(math.pi)).expand(3, 5, 3))


@BOTH
@TERMS
def test_without_a_direction_only_the_constant_counts_and_gradients_stay_finite(evaluate, terms):
    cameras = ring_of_cameras(1, 8, 8).camera_to_world
    coefficients, means = case(1, 4, terms)
    means[0] = cameras[0, :3, 3]
    means[1, 2], means[2, 0] = math.nan, math.inf
    inputs = leaves([coefficients, means], torch.float32)
    colors = evaluate(*inputs, cameras)
    want = coefficients[:3, 0] * 0.5 / math.sqrt(math.pi)
    assert torch.allclose(colors[0, :3], want)
    (colors * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert (inputs[1].grad[:3] == 0).all()
    assert (inputs[0].grad[:3, 1:] == 0).all()
    assert torch.isfinite(inputs[0].grad).all()


@TERMS
def test_the_reference_passes_gradcheck(terms):
    cameras = ring_of_cameras(2, 8, 8, torch.float64).camera_to_world
    inputs = leaves(case(2, 1, terms), torch.float64)
    assert torch.autograd.gradcheck(lambda c, m: spherical_harmonics_reference(c, m, cameras), inputs)


def compare(terms: int, device: str = "cpu") -> None:
    tensors, cameras = case(3, 50, terms), ring_of_cameras(3, 8, 8).camera_to_world
    upstream = torch.randn(3, 50, 3, generator=torch.Generator().manual_seed(4))

    def run(evaluate, dtype: torch.dtype, place: str) -> list[Tensor]:
        inputs = [t.detach().to(place, dtype).requires_grad_() for t in tensors]
        outputs = gradients(lambda *t: (evaluate(*t, cameras.to(place, dtype)),), inputs, [upstream.to(place)])
        return [t.cpu() for t in outputs]

    got = run(spherical_harmonics, torch.float32, device)
    want = run(spherical_harmonics_reference, torch.float64, "cpu")
    for name, a, b in zip(NAMES, got, want, strict=True):
        if terms > 1 or name != "grad_means":
            assert_agrees(a, b, name, relative=1e-5)
        else:
            assert (a == 0).all()


@needs_kernels
@TERMS
def test_the_kernel_agrees_with_the_float64_reference(terms):
    compare(terms)


@TERMS
def test_cuda_agrees_with_the_reference(cuda_kernels, terms):
    compare(terms, cuda_kernels)


@needs_kernels
@pytest.mark.parametrize("count", [0, 1, 3000])
def test_any_number_of_splats_and_threads(count):
    tensors, cameras = case(5, count, 16), ring_of_cameras(2, 8, 8).camera_to_world
    upstream = [torch.randn(2, count, 3, generator=torch.Generator().manual_seed(6))]

    def run() -> list[Tensor]:
        return gradients(lambda *t: (spherical_harmonics(*t, cameras),), leaves(tensors, torch.float32), upstream)

    alone = run()
    torch.set_num_threads(2)
    try:
        together = run()
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


@needs_kernels
def test_operator_is_registered_consistently():
    inputs = leaves(case(7, 6, 9), torch.float32)
    cameras = ring_of_cameras(2, 8, 8).camera_to_world
    torch.library.opcheck(torch.ops.sds3d.spherical_harmonics.default, (*inputs, cameras))


@needs_kernels
def test_another_number_of_terms_is_refused():
    with pytest.raises(RuntimeError, match="K of 1, 4, 9 or 16"):
        spherical_harmonics(*case(0, 3, 5), ring_of_cameras(1, 8, 8).camera_to_world)
