"""Projection: the reference against hand-made numbers and finite differences, the kernels against the reference."""

import math

import pytest
import torch
from torch import Tensor

from sds3d.ops.extension import compiled
from sds3d.ops.project_gaussians import project_gaussians, project_gaussians_reference
from sds3d.types import Cameras
from tests.ops.splat_cases import assert_agrees, gradients, leaves, random_splats, ring_of_cameras

needs_kernels = pytest.mark.skipif(not compiled(), reason="sds3d._C is not built")
OUTPUTS = ("means2d", "conics", "depths", "radii")
GRADS = ("grad_means", "grad_quats", "grad_scales")


def camera_on_axis(focal: float = 100.0, height: int = 48, width: int = 64) -> Cameras:
    """At the origin, looking along +z: camera space is world space."""
    intrinsics = torch.tensor([[[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]]])
    zero = torch.zeros(1)
    return Cameras(torch.eye(4)[None], intrinsics, zero, zero, zero, height, width)


def one_splat(mean: tuple, scale: float = 0.1, opacity: float = 0.5) -> list[Tensor]:
    return [torch.tensor([mean]), torch.tensor([[1.0, 0, 0, 0]]), torch.full((1, 3), scale), torch.tensor([opacity])]


def test_a_round_splat_on_the_axis_has_the_expected_circle():
    projected = project_gaussians_reference(*one_splat((0.0, 0.0, 2.0)), camera_on_axis())
    variance = (100 * 0.1 / 2) ** 2 + 0.3
    assert torch.allclose(projected.means2d[0, 0], torch.tensor([32.0, 24.0]))
    assert torch.allclose(projected.conics[0, 0], torch.tensor([1 / variance, 0, 1 / variance]))
    assert torch.allclose(projected.radii[0, 0], torch.tensor(math.sqrt(2 * math.log(127.5) * variance)))
    assert projected.depths.item() == 2.0


def test_right_and_down_of_the_camera_are_right_and_down_in_the_image():
    projected = project_gaussians_reference(*one_splat((0.2, 0.1, 2.0)), camera_on_axis())
    assert torch.allclose(projected.means2d[0, 0], torch.tensor([32 + 10.0, 24 + 5.0]))


@pytest.mark.parametrize("project", [project_gaussians, project_gaussians_reference])
@pytest.mark.parametrize(
    ("mean", "scale", "opacity", "quat"),
    [
        ((0.0, 0.0, -1.0), 0.1, 0.5, 1.0),  # behind the camera
        ((0.0, 0.0, 0.005), 0.1, 0.5, 1.0),  # nearer than near
        ((0.0, 0.0, 2.0), 0.1, 1 / 256, 1.0),  # opacity below the cut
        ((5.0, 0.0, 2.0), 0.1, 0.5, 1.0),  # off the image
        ((0.0, 0.0, 2.0), 0.1, 0.5, 0.0),  # zero quaternion
        ((math.nan, 0.0, 2.0), 0.1, 0.5, 1.0),
        ((0.0, 0.0, math.inf), 0.1, 0.5, 1.0),
        ((0.0, 0.0, 2.0), math.nan, 0.5, 1.0),
        ((0.0, 0.0, 2.0), math.inf, 0.5, 1.0),
        ((0.0, 0.0, 2.0), 1e30, 0.5, 1.0),  # overflows
        ((0.0, 0.0, 2.0), 0.1, math.nan, 1.0),
        ((0.0, 0.0, 2.0), 0.1, 0.5, math.nan),
    ],
)
def test_what_cannot_be_seen_is_zero_with_zero_gradients(project, mean, scale, opacity, quat):
    means, quats, scales, opacities = one_splat(mean, scale, opacity)
    inputs = leaves([means, quats * quat, scales], torch.float32)
    projected = project(*inputs, opacities, camera_on_axis())
    assert all((output == 0).all() for output in projected)
    sum(output.sum() for output in projected[:3]).backward()
    assert all((t.grad == 0).all() for t in inputs)


def test_the_reference_passes_gradcheck():
    cameras = ring_of_cameras(2, 24, 32, torch.float64)
    means, quats, scales, opacities = (t.double() for t in random_splats(3, 5))
    inputs = leaves([means, quats, scales], torch.float64)

    def project(*inputs: Tensor) -> tuple[Tensor, ...]:
        return project_gaussians_reference(*inputs, opacities, cameras)[:3]

    assert torch.autograd.gradcheck(project, inputs)


@needs_kernels
@pytest.mark.parametrize("seed", range(12))
def test_kernels_agree_with_the_float64_reference(seed):
    views, height, width, count = 1 + seed % 3, 40 + seed, 64 - 3 * seed, 40 + 20 * seed
    splats = random_splats(seed, count, spread=0.3 + 0.1 * seed)  # the widest pass beside and behind the cameras
    generator = torch.Generator().manual_seed(seed)
    shapes = [(views, count, 2), (views, count, 3), (views, count)]
    upstream = [torch.randn(shape, generator=generator) for shape in shapes]

    def run(project, dtype: torch.dtype) -> list[Tensor]:
        cameras = ring_of_cameras(views, height, width, dtype)
        opacities = splats[3].to(dtype)
        radii = project(*(t.to(dtype) for t in splats), cameras).radii

        def outputs(*inputs: Tensor) -> tuple[Tensor, ...]:
            return project(*inputs, opacities, cameras)[:3]

        found = gradients(outputs, leaves(splats[:3], dtype), upstream)
        return [*found[:3], radii, *found[3:]]

    got, want = run(project_gaussians, torch.float32), run(project_gaussians_reference, torch.float64)
    assert torch.equal(got[3] > 0, want[3] > 0)
    for name, a, b in zip(OUTPUTS + GRADS, got, want, strict=True):
        assert_agrees(a, b, name)


@needs_kernels
def test_gradients_reach_only_visible_views_and_extents_have_none():
    cameras = ring_of_cameras(2, 32, 32)
    means, quats, scales, opacities = random_splats(0, 10)
    inputs = leaves([means, quats, scales], torch.float32)
    projected = project_gaussians(*inputs, opacities, cameras)
    assert projected.means2d.requires_grad
    assert not projected.radii.requires_grad


@needs_kernels
def test_operator_is_registered_consistently():
    cameras = ring_of_cameras(2, 20, 24)
    inputs = leaves(random_splats(1, 7), torch.float32)
    tail = (cameras.camera_to_world, cameras.intrinsics, 20, 24, 0.01, 0.3)
    torch.library.opcheck(torch.ops.sds3d.project_gaussians.default, (*inputs[:3], inputs[3].detach(), *tail))


@needs_kernels
def test_wrong_shapes_and_types_are_named():
    cameras = ring_of_cameras(1, 20, 24)
    means, quats, scales, opacities = random_splats(1, 7)
    tail = (cameras.camera_to_world, cameras.intrinsics, 20, 24, 0.01, 0.3)
    with pytest.raises(RuntimeError, match=r"quats: expected a float32 tensor \[ 7 4 \]"):
        torch.ops.sds3d.project_gaussians(means, quats[:3], scales, opacities, *tail)
    with pytest.raises(RuntimeError, match="scales: expected a float32"):
        torch.ops.sds3d.project_gaussians(means, quats, scales.double(), opacities, *tail)


def test_cuda_agrees_with_the_reference(cuda_kernels):
    splats = random_splats(5, 300)
    cameras = ring_of_cameras(3, 50, 70)
    upstream = [torch.randn(shape) for shape in ((3, 300, 2), (3, 300, 3), (3, 300))]

    def run(project, device: str, dtype: torch.dtype) -> list[Tensor]:
        opacities = splats[3].to(device, dtype)

        def outputs(*inputs: Tensor) -> tuple[Tensor, ...]:
            return project(*inputs, opacities, cameras.to(device))[:3]

        inputs = [t.detach().to(device, dtype).requires_grad_() for t in splats[:3]]
        return [t.cpu() for t in gradients(outputs, inputs, [u.to(device) for u in upstream])]

    got = run(project_gaussians, cuda_kernels, torch.float32)
    want = run(project_gaussians_reference, "cpu", torch.float64)
    for name, a, b in zip(OUTPUTS[:3] + GRADS, got, want, strict=True):
        assert_agrees(a, b, name)
