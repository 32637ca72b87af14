"""Projection of 3D Gaussians to 2D: EWA splatting (Zwicker et al. 2001; Kerbl et al. 2023)."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sds3d.ops.extension import Rasterizer, backend_info, choose_rasterizer, register
from sds3d.types import Cameras

ALPHA_CUT = 1.0 / 255.0  # a splat ends where its alpha falls below one step of an 8-bit image
JACOBIAN_MARGIN = 0.15  # share of the image size by which it is widened on each side for the Jacobian
NEAR = 0.01  # world units: nothing nearer to the camera is drawn
DILATION = 0.3  # pixels^2, so that no splat falls between the pixels
MIN_QUAT_NORM_SQUARED = 1e-20


class ProjectedGaussians(NamedTuple):
    """Splats on B image planes; all zero where culled."""

    means2d: Float[Tensor, "B N 2"]  # pixels; the centre of pixel (0, 0) is (0.5, 0.5)
    conics: Float[Tensor, "B N 3"]  # xx, xy, yy of the inverse 2D covariance, 1 / pixels^2
    depths: Float[Tensor, "B N"]  # world units along the camera's z
    radii: Float[Tensor, "B N 2"]  # half box in pixels outside which alpha < 1/255; 0 where culled; no gradient


def project_gaussians(
    means: Float[Tensor, "N 3"],
    quats: Float[Tensor, "N 4"],
    scales: Float[Tensor, "N 3"],
    opacities: Float[Tensor, " N"],
    cameras: Cameras,
    rasterizer: Rasterizer = "auto",
) -> ProjectedGaussians:
    """Project Gaussians to the image plane of each camera.

    covariance2d = J W R S S^T R^T W^T J^T + DILATION I,   radii = sqrt(2 ln(255 opacity) diag(covariance2d))
    quats are wxyz and need not have unit length. J is the Jacobian of the perspective division at the nearest point
    inside the image widened by 15%: outside, the linear approximation makes splats far too large. Culled: depth <=
    NEAR, 255 opacity <= 1, box off the image, zero quaternion, non-finite input. Differentiable in means, quats and
    scales. With rasterizer "gsplat" the projection is still our own: only compositing is gsplat's.
    """
    chosen = choose_rasterizer(rasterizer, means.device, "project_gaussians")
    if chosen == "torch" or (chosen == "gsplat" and not backend_info().cuda):
        return project_gaussians_reference(means, quats, scales, opacities, cameras)
    fixed = opacities.detach(), cameras.camera_to_world.detach(), cameras.intrinsics.detach()
    size = cameras.height, cameras.width
    return ProjectedGaussians(*torch.ops.sds3d.project_gaussians(means, quats, scales, *fixed, *size, NEAR, DILATION))


def project_gaussians_reference(
    means: Float[Tensor, "N 3"],
    quats: Float[Tensor, "N 4"],
    scales: Float[Tensor, "N 3"],
    opacities: Float[Tensor, " N"],
    cameras: Cameras,
) -> ProjectedGaussians:
    """`project_gaussians` in pure torch, for any float type and device; computes in the type of `means`."""
    camera_to_world = cameras.camera_to_world.to(means)
    intrinsics = cameras.intrinsics.to(means)
    opacities = opacities.detach()

    usable = torch.isfinite(torch.cat([means, quats, scales, opacities[:, None]], dim=1)).all(dim=1)
    usable &= (quats.square().sum(1) > MIN_QUAT_NORM_SQUARED) & (opacities > ALPHA_CUT)  # [N]
    # Unusable rows are replaced before any arithmetic: 0 * NaN in the backward pass would still be NaN.
    means = torch.where(usable[:, None], means, torch.zeros_like(means))
    quats = torch.where(usable[:, None], quats, torch.ones_like(quats))
    scales = torch.where(usable[:, None], scales, torch.ones_like(scales))
    opacities = torch.where(usable, opacities, torch.ones_like(opacities))

    rotation = camera_to_world[:, :3, :3]  # [B, 3, 3]
    points = (means[None] - camera_to_world[:, None, :3, 3]) @ rotation  # [B, N, 3] = R^T (mean - origin)
    visible = usable & (points[..., 2] > NEAR)  # [B, N]
    points = torch.where(visible[..., None], points, torch.ones_like(points))
    x, y, depths = points.unbind(-1)

    fx, fy = intrinsics[:, 0, 0, None], intrinsics[:, 1, 1, None]  # [B, 1]
    cx, cy = intrinsics[:, 0, 2, None], intrinsics[:, 1, 2, None]
    means2d = torch.stack([fx * x / depths + cx, fy * y / depths + cy], dim=-1)

    margin_x, margin_y = JACOBIAN_MARGIN * cameras.width, JACOBIAN_MARGIN * cameras.height
    slope_x = (x / depths).clamp((-margin_x - cx) / fx, (cameras.width + margin_x - cx) / fx)
    slope_y = (y / depths).clamp((-margin_y - cy) / fy, (cameras.height + margin_y - cy) / fy)
    axes = rotation_matrices(quats) * scales[:, None, :]  # [N, 3, 3], columns are the splat's axes in world units
    axes = rotation.transpose(1, 2)[:, None] @ axes[None]  # [B, N, 3, 3], in camera space
    focal = torch.stack([fx / depths, fy / depths], dim=-1)  # [B, N, 2]
    slopes = torch.stack([slope_x, slope_y], dim=-1)
    with torch.no_grad():  # once only to find what overflows, for the same reason as above
        determinant = covariance2d(axes, focal, slopes)[3]
        visible = visible & torch.isfinite(determinant) & (determinant > 0)
    axes = torch.where(visible[..., None, None], axes, torch.ones_like(axes))
    cov_xx, cov_xy, cov_yy, determinant = covariance2d(axes, focal, slopes)
    conics = torch.stack([cov_yy, -cov_xy, cov_xx], dim=-1) / determinant[..., None]

    cut = 2.0 * torch.log(opacities / ALPHA_CUT)  # [N]
    radii = (cut[None, :, None] * torch.stack([cov_xx, cov_yy], dim=-1).detach()).sqrt()
    size = means2d.new_tensor([cameras.width, cameras.height])
    visible = visible & ((means2d + radii > 0) & (means2d - radii < size)).all(-1)
    visible = visible & torch.isfinite(conics).all(-1) & torch.isfinite(radii).all(-1)
    zero = means2d.new_zeros(())
    keep = visible[..., None]
    return ProjectedGaussians(
        torch.where(keep, means2d, zero),
        torch.where(keep, conics, zero),
        torch.where(visible, depths, zero),
        torch.where(keep, radii, zero),
    )


def covariance2d(
    axes: Float[Tensor, "B N 3 3"], focal: Float[Tensor, "B N 2"], slopes: Float[Tensor, "B N 2"]
) -> tuple[Float[Tensor, "B N"], Float[Tensor, "B N"], Float[Tensor, "B N"], Float[Tensor, "B N"]]:
    """xx, xy, yy and determinant of A A^T + DILATION I, where A = J W R S; `axes` is W R S and `focal` is f / z."""
    row_x, row_y = (focal[..., None] * (axes[..., :2, :] - slopes[..., None] * axes[..., 2:, :])).unbind(-2)
    xx = row_x.square().sum(-1) + DILATION
    yy = row_y.square().sum(-1) + DILATION
    # Lagrange's identity: the same as xx yy - xy^2, as a sum of terms that cannot cancel.
    cross = torch.linalg.cross(row_x, row_y).square().sum(-1)
    return xx, (row_x * row_y).sum(-1), yy, cross + DILATION * (xx + yy - DILATION)


def rotation_matrices(quats: Float[Tensor, "N 4"]) -> Float[Tensor, "N 3 3"]:
    """Rotation matrices of quaternions (wxyz) of any length but zero."""
    w, x, y, z = (quats / quats.norm(dim=1, keepdim=True)).unbind(1)
    return torch.stack(
        [
            1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
            2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
            2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
        ],
        dim=1,
    ).view(-1, 3, 3)  # fmt: skip


def project_fake(means: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    camera_to_world = rest[3]
    shape = (camera_to_world.shape[0], means.shape[0])
    new = means.new_empty
    return new(*shape, 2), new(*shape, 3), new(*shape), new(*shape, 2)


def project_backward_fake(means: Tensor, quats: Tensor, scales: Tensor, *rest: object) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(means), torch.empty_like(quats), torch.empty_like(scales)


def save_for_backward(ctx, inputs: tuple, output: tuple) -> None:
    """Keep what the backward pass recomputes the projection from."""
    *tensors, ctx.height, ctx.width, ctx.near, ctx.dilation = inputs
    radii = output[3]
    ctx.save_for_backward(*tensors, radii)
    ctx.mark_non_differentiable(radii)


def project_backward(ctx, grad_means2d: Tensor, grad_conics: Tensor, grad_depths: Tensor, _: Tensor) -> tuple:
    """Analytic gradients; culled splats get exact zeros."""
    *inputs, radii = ctx.saved_tensors
    grads = torch.ops.sds3d.project_gaussians_backward(
        *inputs, radii, grad_means2d, grad_conics, grad_depths, ctx.height, ctx.width, ctx.near, ctx.dilation
    )
    return *grads, *[None] * 7


register("project_gaussians", project_fake, project_backward_fake, project_backward, save_for_backward)
