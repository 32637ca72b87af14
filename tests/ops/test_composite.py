"""Volume rendering: the sum written out and gradcheck; the kernels, and CUDA, against the reference in float64."""

import math

import pytest
import torch

from sds3d.ops.composite import composite, composite_reference
from sds3d.ops.extension import compiled
from tests.ops.splat_cases import assert_agrees, gradients, leaves

OFFSETS = torch.tensor([0, 3, 3, 4, 6])  # four rays; the second has no samples, the third one


def case(seed=0):
    generator = torch.Generator().manual_seed(seed)
    densities = 3 * torch.rand(6, generator=generator, dtype=torch.float64)
    features = torch.rand(6, 2, generator=generator, dtype=torch.float64)
    starts = torch.tensor([1.0, 1.1, 1.3, 0.5, 2.0, 2.5], dtype=torch.float64)
    return densities, features, starts, starts + 0.1


def test_it_is_the_sum_written_out() -> None:
    densities, features, starts, ends = case()
    image, opacity, depth, weights = composite(densities, features, starts, ends, OFFSETS)
    for ray in range(4):
        transmittance, total, covered, distance = 1.0, torch.zeros(2, dtype=torch.float64), 0.0, 0.0
        for sample in range(int(OFFSETS[ray]), int(OFFSETS[ray + 1])):
            alpha = 1 - math.exp(-float(densities[sample]) * 0.1)
            weight = transmittance * alpha
            torch.testing.assert_close(float(weights[sample]), weight)
            total += weight * features[sample]
            covered += weight
            distance += weight * float(starts[sample] + 0.05)
            transmittance *= 1 - alpha
        torch.testing.assert_close(image[ray], total)
        torch.testing.assert_close(opacity[ray].item(), covered)
        torch.testing.assert_close(depth[ray].item(), distance)


def test_gradients_also_through_the_weights() -> None:
    densities, features, starts, ends = case()
    assert torch.autograd.gradcheck(
        lambda d, f: composite(d, f, starts, ends, OFFSETS), (densities.requires_grad_(), features.requires_grad_())
    )


DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])  # the kernels, the reference
NAMES = ("image", "opacity", "depth", "weights", "grad_densities", "grad_features")


@DTYPES
def test_a_saturated_ray_hides_what_is_behind(dtype) -> None:
    _, features, starts, ends = (t.to(dtype) for t in case())
    densities = torch.full((6,), 1e6, dtype=dtype).requires_grad_()
    image, opacity, _, weights = composite(densities, features, starts, ends, OFFSETS)
    assert weights.tolist() == [1, 0, 0, 1, 1, 0]
    assert opacity[:, 0].tolist() == [1, 0, 1, 1]
    torch.testing.assert_close(image[3], features[4])
    image.sum().backward()
    assert torch.isfinite(densities.grad).all()


@DTYPES
def test_no_samples_and_no_rays(dtype) -> None:
    nothing, features = torch.zeros(0, dtype=dtype), torch.zeros(0, 3, dtype=dtype)
    found = composite(nothing, features, nothing, nothing, torch.tensor([0, 0, 0]))
    assert [tuple(value.shape) for value in found] == [(2, 3), (2, 1), (2, 1), (0,)]
    assert found[0].abs().sum() == 0
    assert composite(nothing, features, nothing, nothing, torch.tensor([0]))[0].shape == (0, 3)


def test_many_rays_do_not_blur_each_other() -> None:
    count = 200_000
    densities, starts = torch.full((count,), 30.0), torch.zeros(count)
    offsets = torch.arange(0, count + 1, 2)
    weights = composite(densities, torch.ones(count, 1), starts, starts + 0.1, offsets)[3]
    torch.testing.assert_close(weights[0::2], weights[:1].expand(count // 2), rtol=1e-5, atol=0)
    torch.testing.assert_close(weights[1::2], weights[1:2].expand(count // 2), rtol=1e-5, atol=0)


def random_case(seed, channels, rays=400):
    """Rays with 0 to 30 samples: thin, dense and saturated, with densities of 0 among them."""
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(0, 31, (rays,), generator=generator)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
    samples = int(offsets[-1])
    densities = 10 ** (4 * torch.rand(samples, generator=generator) - 1)
    densities[::7] = 0
    starts = 1 + 0.05 * torch.arange(samples) - 0.05 * offsets[:-1].repeat_interleave(counts)
    ends = starts + 0.02 + 0.03 * torch.rand(samples, generator=generator)
    return densities, torch.randn(samples, channels, generator=generator), starts, ends, offsets


def composited_by(function, densities, features, starts, ends, offsets, dtype):
    """The four results and the gradients of the first two arguments, as float64 on the CPU."""
    generator, samples = torch.Generator().manual_seed(2), len(densities)
    shapes = [(len(offsets) - 1, c) for c in (features.shape[1], 1, 1)] + [(samples,)]
    upstream = [torch.randn(*shape, generator=generator).to(densities.device) for shape in shapes]
    places = [starts.to(dtype), ends.to(dtype), offsets]
    found = gradients(lambda d, f: function(d, f, *places), leaves([densities, features], dtype), upstream)
    return [t.detach().cpu().double() for t in found]


@pytest.mark.skipif(not compiled(), reason="sds3d._C is not built")
@pytest.mark.parametrize("channels", [1, 3, 6, 8, 9])  # nine are the reference's
def test_the_kernels_agree_with_the_reference(channels) -> None:
    given = random_case(channels, channels)
    got = composited_by(composite, *given, torch.float32)
    want = composited_by(composite_reference, *given, torch.float64)
    for name, one, other in zip(NAMES, got, want, strict=True):
        assert_agrees(one, other, name, relative=1e-5)


@pytest.mark.parametrize("channels", [3, 6])
def test_the_cuda_kernels_agree_with_the_reference(cuda_kernels, channels) -> None:
    given = [t.to(cuda_kernels) for t in random_case(channels, channels, rays=300)]
    got = composited_by(composite, *given, torch.float32)
    want = composited_by(composite_reference, *given, torch.float64)
    for name, one, other in zip(NAMES, got, want, strict=True):
        assert_agrees(one, other, name, relative=1e-5)


@pytest.mark.skipif(not compiled(), reason="sds3d._C is not built")
def test_arguments_that_do_not_fit_are_refused_by_name() -> None:
    densities, features, starts, ends, offsets = random_case(0, 3, rays=5)
    with pytest.raises(RuntimeError, match="t_ends"):
        torch.ops.sds3d.composite(densities, features, starts, ends[1:], offsets)
    with pytest.raises(RuntimeError, match="offsets"):
        torch.ops.sds3d.composite(densities, features, starts, ends, offsets.int())
    with pytest.raises(RuntimeError, match="C from 1 to 8"):
        torch.ops.sds3d.composite(densities, features.repeat(1, 3), starts, ends, offsets)
