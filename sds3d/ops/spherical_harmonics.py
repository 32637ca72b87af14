"""View-dependent colours: real spherical harmonics up to degree 3."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from sds3d.ops.extension import Rasterizer, backend_info, choose_rasterizer, register

SH_C0 = 0.5 / math.sqrt(math.pi)  # the constant harmonic
MIN_DISTANCE_SQUARED = 1e-20


def spherical_harmonics(
    coefficients: Float[Tensor, "N K 3"],
    means: Float[Tensor, "N 3"],
    camera_to_world: Float[Tensor, "B 4 4"],
    rasterizer: Rasterizer = "auto",
) -> Float[Tensor, "B N 3"]:
    """Each splat's colour in each view: sum_k Y_k(d) coefficients_k, with d the direction from the camera to the mean.

    K is 1, 4, 9 or 16 (degree 0 to 3). The Y_k are orthonormal on the sphere, with the Condon-Shortley phase, in the
    order l = 0..3, m = -l..l, as in the 3DGS file format. A splat at the camera's position, or with a non-finite mean,
    gets the constant term only. Differentiable in coefficients and means.
    """
    chosen = choose_rasterizer(rasterizer, means.device, "spherical_harmonics")
    if chosen == "torch" or (chosen == "gsplat" and not backend_info().cuda):
        return spherical_harmonics_reference(coefficients, means, camera_to_world)
    return torch.ops.sds3d.spherical_harmonics(coefficients, means, camera_to_world.detach())


def spherical_harmonics_reference(
    coefficients: Float[Tensor, "N K 3"], means: Float[Tensor, "N 3"], camera_to_world: Float[Tensor, "B 4 4"]
) -> Float[Tensor, "B N 3"]:
    """`spherical_harmonics` in pure torch, for any float type and device."""
    away = means[None] - camera_to_world.to(means)[:, None, :3, 3]
    squared = away.square().sum(dim=-1, keepdim=True)
    has_direction = torch.isfinite(squared) & (squared > MIN_DISTANCE_SQUARED)
    # replaced before any arithmetic: 0 * NaN in the backward pass would still be NaN
    away = torch.where(has_direction, away, torch.ones_like(away))
    values = harmonics(away / away.norm(dim=-1, keepdim=True), coefficients.shape[1])
    values = torch.cat([values[..., :1], torch.where(has_direction, values[..., 1:], 0)], dim=-1)
    return torch.einsum("bnk,nkc->bnc", values, coefficients)


def harmonics(directions: Float[Tensor, "*S 3"], terms: int) -> Float[Tensor, "*S K"]:
    """The first 1, 4, 9 or 16 real spherical harmonics of unit vectors."""
    x, y, z = directions.unbind(-1)
    xx, yy, zz = x * x, y * y, z * z

    def root(numerator: float, denominator: float) -> float:
        return math.sqrt(numerator / (denominator * math.pi))

    values = [
        SH_C0 + 0 * x,  # constant, but of the directions' shape and graph
        -root(3, 4) * y, root(3, 4) * z, -root(3, 4) * x,
        root(15, 4) * x * y, -root(15, 4) * y * z, root(5, 16) * (2 * zz - xx - yy), -root(15, 4) * x * z,
        root(15, 16) * (xx - yy),
        -root(35, 32) * y * (3 * xx - yy), root(105, 4) * x * y * z, -root(21, 32) * y * (4 * zz - xx - yy),
        root(7, 16) * z * (2 * zz - 3 * xx - 3 * yy), -root(21, 32) * x * (4 * zz - xx - yy),
        root(105, 16) * z * (xx - yy), -root(35, 32) * x * (xx - 3 * yy),
    ]  # fmt: skip
    return torch.stack(values[:terms], dim=-1)


def harmonics_fake(coefficients: Tensor, means: Tensor, camera_to_world: Tensor) -> Tensor:
    return means.new_empty(camera_to_world.shape[0], means.shape[0], 3)


def harmonics_backward_fake(coefficients: Tensor, means: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(coefficients), torch.empty_like(means)


def save_for_backward(ctx, inputs: tuple, output: Tensor) -> None:
    """Keep the inputs: the backward pass evaluates the harmonics again."""
    ctx.save_for_backward(*inputs)


def harmonics_backward(ctx, grad_colors: Tensor) -> tuple:
    """Analytic gradients, summed over views."""
    grads = torch.ops.sds3d.spherical_harmonics_backward(*ctx.saved_tensors, grad_colors)
    return *grads, None


register("spherical_harmonics", harmonics_fake, harmonics_backward_fake, harmonics_backward, save_for_backward)
