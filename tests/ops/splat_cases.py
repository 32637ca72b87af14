"""Random splat scenes for the op tests, and which of their pixels sit on a threshold."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sds3d.types import Cameras


def ring_of_cameras(views: int, height: int, width: int, dtype: torch.dtype = torch.float32) -> Cameras:
    """Cameras around the origin, computed in float64."""
    azimuth = torch.arange(views, dtype=torch.float64) * 2 * math.pi / views + 0.4
    elevation = torch.full((views,), 0.3, dtype=torch.float64)
    distance = torch.full((views,), 2.5, dtype=torch.float64)
    outward = torch.stack([azimuth.cos() * elevation.cos(), azimuth.sin() * elevation.cos(), elevation.sin()], dim=-1)
    right = torch.stack([-azimuth.sin(), azimuth.cos(), torch.zeros_like(azimuth)], dim=-1)
    pose = torch.eye(4, dtype=torch.float64).repeat(views, 1, 1)
    pose[:, :3, :3] = torch.stack([right, torch.linalg.cross(-outward, right), -outward], dim=-1)
    pose[:, :3, 3] = distance[:, None] * outward
    focal = 1.2 * width
    intrinsics = torch.tensor([[focal, 0, width / 2 + 0.7], [0, 1.1 * focal, height / 2 - 0.4], [0, 0, 1.0]])
    intrinsics = intrinsics.to(torch.float64).repeat(views, 1, 1)
    tensors = (pose, intrinsics, azimuth, elevation, distance)
    # Rounded to float32 in any case, so that both precisions see the same cameras.
    return Cameras(*(t.float().to(dtype) for t in tensors), height, width)


def random_splats(seed: int, count: int, spread: float = 0.4) -> list[Tensor]:
    """Float32 means, quats, scales, opacities: all sizes, some behind nothing, some nearly opaque or invisible."""
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(count, 3, generator=generator) * spread
    quats = torch.randn(count, 4, generator=generator) * 3
    scales = torch.exp(torch.randn(count, 3, generator=generator) * 0.7) * 0.5 / math.sqrt(count)
    opacities = torch.sigmoid(2 * torch.randn(count, generator=generator))
    return [means, quats, scales, opacities]


def leaves(tensors: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Copies in another type that collect gradients."""
    return [t.detach().to(dtype).clone().requires_grad_() for t in tensors]


def gradients(
    function: Callable[..., tuple[Tensor, ...]], inputs: list[Tensor], upstream: list[Tensor]
) -> list[Tensor]:
    """Outputs of `function`, then the gradients of its inputs for the given upstream gradients."""
    outputs = function(*inputs)
    grads = torch.autograd.grad(list(outputs), inputs, [u.to(o.dtype) for u, o in zip(upstream, outputs, strict=True)])
    return [*outputs, *grads]


def assert_agrees(got: Tensor, want: Tensor, name: str, relative: float = 1e-4) -> None:
    """To `relative` of the largest entry: gradients are sums over pixels, in which terms of that size cancel."""
    error, largest = (got - want).abs().max(), want.abs().max()
    assert error <= relative * largest, f"{name} is off by {error:.3g}, its largest entry is {largest:.3g}"


def on_threshold(
    means2d: Tensor, conics: Tensor, opacities: Tensor, radii: Tensor, depths: Tensor, height: int, width: int
) -> Tensor:
    """Pixels [B, H, W] where float32 may rightly decide otherwise: alpha at the cut or the clamp, T at the stop."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    result = []
    for view in range(means2d.shape[0]):
        order = depths[view].sort(stable=True).indices
        order = order[(radii[view, order] > 0).all(-1)]
        dx = x.flatten()[:, None].double() - means2d[view, order, 0].double()
        dy = y.flatten()[:, None].double() - means2d[view, order, 1].double()
        a, b, c = conics[view, order].double().unbind(-1)
        alphas = opacities[order].double() * torch.exp(-0.5 * (a * dx * dx + c * dy * dy) - b * dx * dy)
        near = ((alphas * 255 - 1).abs() < 1e-4) | ((alphas / 0.999 - 1).abs() < 1e-4)
        kept = torch.where(alphas * 255 < 1, 0.0, alphas.clamp(max=0.999))
        near |= (kept > 0) & ((torch.cumprod(1 - kept, dim=1) / 1e-4 - 1).abs() < 1e-3)
        result.append(near.any(1).view(height, width))
    return torch.stack(result)
