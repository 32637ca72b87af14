import math

import torch

from sds3d.ops.composite import composite

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


def test_a_saturated_ray_hides_what_is_behind() -> None:
    _, features, starts, ends = case()
    densities = torch.full((6,), 1e6, dtype=torch.float64).requires_grad_()
    image, opacity, _, weights = composite(densities, features, starts, ends, OFFSETS)
    assert weights.tolist() == [1, 0, 0, 1, 1, 0]
    assert opacity[:, 0].tolist() == [1, 0, 1, 1]
    torch.testing.assert_close(image[3], features[4])
    image.sum().backward()
    assert torch.isfinite(densities.grad).all()


def test_no_samples_and_no_rays() -> None:
    nothing = torch.zeros(0)
    found = composite(nothing, torch.zeros(0, 3), nothing, nothing, torch.tensor([0, 0, 0]))
    assert [tuple(value.shape) for value in found] == [(2, 3), (2, 1), (2, 1), (0,)]
    assert found[0].abs().sum() == 0
    assert composite(nothing, torch.zeros(0, 3), nothing, nothing, torch.tensor([0]))[0].shape == (0, 3)


def test_many_rays_do_not_blur_each_other() -> None:
    count = 200_000
    densities, starts = torch.full((count,), 30.0), torch.zeros(count)
    offsets = torch.arange(0, count + 1, 2)
    weights = composite(densities, torch.ones(count, 1), starts, starts + 0.1, offsets)[3]
    torch.testing.assert_close(weights[0::2], weights[:1].expand(count // 2), rtol=1e-5, atol=0)
    torch.testing.assert_close(weights[1::2], weights[1:2].expand(count // 2), rtol=1e-5, atol=0)
