"""Compositing of projected Gaussians, front to back (Kerbl et al. 2023)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sds3d.ops.extension import Rasterizer, choose_rasterizer, register

TILE = 16  # pixels
SPLAT_FLOATS = 6  # per packed splat, see cuda_ext/rasterize_gaussians/rasterize_gaussians.h
ALPHA_CUT = 1.0 / 255.0  # fainter splats are not drawn
ALPHA_MAX = 0.999
TRANSMITTANCE_STOP = 1e-4


def rasterize_gaussians(
    means2d: Float[Tensor, "B N 2"],
    conics: Float[Tensor, "B N 3"],
    opacities: Float[Tensor, " N"],
    features: Float[Tensor, "B N C"],
    radii: Float[Tensor, "B N 2"],
    depths: Float[Tensor, "B N"],
    background: Float[Tensor, "B C"],
    height: int,
    width: int,
    rasterizer: Rasterizer = "auto",
    max_intersections: int = 0,
) -> tuple[Float[Tensor, "B H W C"], Float[Tensor, "B H W 1"]]:
    """Composite projected Gaussians over the background: the image and its opacity.

    image = sum_i T_i alpha_i features_i + T background,   T_i = prod_{j<i} (1 - alpha_j),   opacity = 1 - T
    alpha_i = min(0.999, opacity_i exp(-d^T conic_i d / 2)), d from the splat's mean to the pixel's centre.
    Splats are composited in order of depth, equal depths in order of index. Alphas below 1/255 count as 0; a pixel ends
    before the splat that would bring T to 1e-4 or below. `radii` must enclose the pixels with alpha >= 1/255 and is 0
    for culled splats; splats with non-finite geometry are skipped. The compiled kernels take C = 3, 4, 5 or 8, the
    others any C; `features` may be in half precision, results are float32. `rasterizer`: see choose_rasterizer.

    Differentiable in means2d, conics, opacities, features and background. CPU gradients do not depend on the number of
    threads; CUDA gradients repeat exactly under torch.use_deterministic_algorithms(True), at a cost in time and memory.

    The CUDA kernels wait for the device once, to learn the number of splat-tile intersections. With `max_intersections`
    above 0 they allocate that many instead, so that the call can be captured in a CUDA graph; if there are more, image
    and opacity are all NaN. Other kernels ignore `max_intersections`.
    """
    chosen = choose_rasterizer(rasterizer, means2d.device, "rasterize_gaussians")
    if features.dtype == torch.float16 and not (chosen == "native" and features.is_cuda):
        features = features.float()
    if chosen != "native":
        compute = rasterize_with_gsplat if chosen == "gsplat" else rasterize_gaussians_reference
        return compute(means2d, conics, opacities, features, radii, depths, background, height, width)
    boxes, order = radii.detach(), depths.detach()
    image, transmittance, *_ = torch.ops.sds3d.rasterize_gaussians(
        means2d, conics, opacities, features, boxes, order, background, height, width, max_intersections
    )
    return image, 1.0 - transmittance


def rasterize_with_gsplat(
    means2d: Float[Tensor, "B N 2"],
    conics: Float[Tensor, "B N 3"],
    opacities: Float[Tensor, " N"],
    features: Float[Tensor, "B N C"],
    radii: Float[Tensor, "B N 2"],
    depths: Float[Tensor, "B N"],
    background: Float[Tensor, "B C"],
    height: int,
    width: int,
) -> tuple[Float[Tensor, "B H W C"], Float[Tensor, "B H W 1"]]:
    """`rasterize_gaussians` by gsplat's CUDA kernels (Apache-2.0), which are compiled on the first call of a machine.

    A check on our kernels, and the ones to compare speed with. Both have the same conventions: pixel centres at +0.5,
    alpha cut at 1/255 and clamped at 0.999, a pixel ends before the splat that would bring T to 1e-4 or below. gsplat
    sorts by depth alone, so it may order equal depths differently.
    """
    from gsplat import isect_offset_encode, isect_tiles, rasterize_to_pixels

    views = means2d.shape[0]
    tiles = (-(-width // TILE), -(-height // TILE))
    usable = torch.stack([drawable(means2d[v], conics[v], opacities, radii[v], depths[v]) for v in range(views)])
    # gsplat skips radius 0 without looking at the rest
    tile_radii = torch.where(usable[..., None], radii.detach(), 0).clamp(max=2.0**30).ceil().int()
    _, keys, hits = isect_tiles(means2d.detach(), tile_radii, depths.detach(), TILE, *tiles)
    offsets = isect_offset_encode(keys, views, *tiles)
    return rasterize_to_pixels(
        means2d, conics, features, opacities.expand(views, -1), width, height, TILE, offsets, hits, background
    )


def rasterize_gaussians_reference(
    means2d: Float[Tensor, "B N 2"],
    conics: Float[Tensor, "B N 3"],
    opacities: Float[Tensor, " N"],
    features: Float[Tensor, "B N C"],
    radii: Float[Tensor, "B N 2"],
    depths: Float[Tensor, "B N"],
    background: Float[Tensor, "B C"],
    height: int,
    width: int,
) -> tuple[Float[Tensor, "B H W C"], Float[Tensor, "B H W 1"]]:
    """`rasterize_gaussians` in pure torch, for any float type, device and C; tile by tile, to bound the memory."""
    views = []
    for view in range(means2d.shape[0]):
        usable = drawable(means2d[view], conics[view], opacities, radii[view], depths[view])
        order = depths[view].detach().masked_fill(~usable, torch.inf).sort(stable=True).indices[: int(usable.sum())]
        low = (means2d[view] - radii[view]).detach()[order]  # [K, 2], box corners in pixels
        high = (means2d[view] + radii[view]).detach()[order]
        rows = []
        for top in range(0, height, TILE):
            row = []
            for left in range(0, width, TILE):
                tile_height, tile_width = min(TILE, height - top), min(TILE, width - left)
                inside = (low[:, 0] < left + tile_width) & (high[:, 0] > left)
                inside &= (low[:, 1] < top + tile_height) & (high[:, 1] > top)
                hits = order[inside]
                y, x = torch.arange(top, top + tile_height), torch.arange(left, left + tile_width)
                pixels = torch.cartesian_prod(y, x).flip(-1).to(means2d) + 0.5  # [P, 2]
                alphas = splat_alphas(pixels, means2d[view, hits], conics[view, hits], opacities[hits])
                tile = composite(alphas, features[view, hits], background[view])
                row.append(tile.view(tile_height, tile_width, -1))
            rows.append(torch.cat(row, dim=1))
        views.append(torch.cat(rows, dim=0))
    result = torch.stack(views)  # [B, H, W, C + 1]
    return result[..., :-1], 1.0 - result[..., -1:]


def drawable(
    means2d: Float[Tensor, "N 2"],
    conics: Float[Tensor, "N 3"],
    opacities: Float[Tensor, " N"],
    radii: Float[Tensor, "N 2"],
    depths: Float[Tensor, " N"],
) -> Bool[Tensor, " N"]:
    """Which splats of one view are drawn: not culled, finite, with a positive definite conic."""
    finite = torch.isfinite(torch.cat([means2d, conics, radii, opacities[:, None], depths[:, None]], dim=1)).all(1)
    definite = (conics[:, 0] > 0) & (conics[:, 0] * conics[:, 2] > conics[:, 1].square())
    return (finite & definite & (radii > 0).all(1) & (opacities > ALPHA_CUT)).detach()


def splat_alphas(
    pixels: Float[Tensor, "P 2"],
    means2d: Float[Tensor, "K 2"],
    conics: Float[Tensor, "K 3"],
    opacities: Float[Tensor, " K"],
) -> Float[Tensor, "P K"]:
    """alpha = min(0.999, opacity exp(-d^T conic d / 2)), 0 below 1/255; no gradient at either threshold."""
    dx, dy = (pixels[:, None, :] - means2d[None]).unbind(-1)
    conic_xx, conic_xy, conic_yy = conics.unbind(-1)
    power = 0.5 * (conic_xx * dx * dx + conic_yy * dy * dy) + conic_xy * dx * dy
    alphas = opacities * torch.exp(-power)
    alphas = torch.where(alphas > ALPHA_MAX, alphas.new_tensor(ALPHA_MAX), alphas)
    return torch.where(alphas < ALPHA_CUT, alphas.new_zeros(()), alphas)


def composite(
    alphas: Float[Tensor, "P K"], features: Float[Tensor, "K C"], background: Float[Tensor, " C"]
) -> Float[Tensor, "P C1"]:
    """Features composited front to back over the background, then the remaining transmittance as a last channel."""
    stopped = torch.cumprod(1.0 - alphas.detach(), dim=1) <= TRANSMITTANCE_STOP  # monotonic
    alphas = torch.where(stopped, alphas.new_zeros(()), alphas)
    after = torch.cumprod(1.0 - alphas, dim=1)  # [P, K]
    before = torch.cat([after.new_ones(len(after), 1), after], dim=1)  # [P, K + 1], the last column is the rest
    weights, rest = before[:, :-1] * alphas, before[:, -1:]
    return torch.cat([weights @ features + rest * background, rest], dim=1)


def rasterize_fake(
    means2d: Tensor,
    conics: Tensor,
    opacities: Tensor,
    features: Tensor,
    radii: Tensor,
    depths: Tensor,
    background: Tensor,
    height: int | torch.SymInt,
    width: int | torch.SymInt,
    max_intersections: int = 0,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Image, transmittance, then what the backward pass reads."""
    views, splats, channels = features.shape
    tiles = (-(-height // TILE)) * (-(-width // TILE))
    is_known = features.is_cuda and max_intersections > 0
    hits = max_intersections if is_known else torch.library.get_ctx().new_dynamic_size()
    new = means2d.new_empty
    return (
        new((views, height, width, channels)),
        new((views, height, width, 1)),
        new((views, splats, SPLAT_FLOATS)),
        new((views * tiles + 1,), dtype=torch.int32),
        new((views * splats + 1,), dtype=torch.int32),
        new((hits, 2), dtype=torch.int32),
    )


def rasterize_backward_fake(
    conics: Tensor, opacities: Tensor, features: Tensor, *rest: object
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    views, splats, _ = features.shape
    grads = conics.new_empty(views, splats, 2), conics.new_empty(views, splats, 3)
    return *grads, opacities.new_empty(splats), conics.new_empty(features.shape)


def save_for_backward(ctx, inputs: tuple, output: tuple) -> None:
    """Keep the images and tile lists: the backward pass replays the forward pass."""
    _, conics, opacities, features, *_ = inputs
    ctx.save_for_backward(conics, opacities, features, *output)
    ctx.mark_non_differentiable(*output[2:])


def rasterize_backward(ctx, grad_image: Tensor, grad_transmittance: Tensor, *_: Tensor) -> tuple:
    """Analytic gradients; splats that touch no pixel get exact zeros."""
    *inputs, image, transmittance, splats, tile_offsets, record_offsets, hits = ctx.saved_tensors
    lists = (splats, tile_offsets, record_offsets, hits)
    grads = torch.ops.sds3d.rasterize_gaussians_backward(
        *inputs, image, transmittance, *lists, grad_image, grad_transmittance,
        torch.are_deterministic_algorithms_enabled(),
    )  # fmt: skip
    grad_background = (transmittance * grad_image).sum(dim=(1, 2)) if ctx.needs_input_grad[6] else None
    return *grads, None, None, grad_background, None, None, None


register("rasterize_gaussians", rasterize_fake, rasterize_backward_fake, rasterize_backward, save_for_backward)
