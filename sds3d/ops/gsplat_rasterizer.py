"""gsplat's CUDA kernels (Apache-2.0) behind the same op: a check on our kernels, and the ones to compare speed with.

Both have the same conventions: pixel centres at +0.5, alpha cut at 1/255 and clamped at 0.999, a pixel ends before the
splat that would bring T to 1e-4 or below. gsplat sorts by depth alone, so it may order equal depths differently.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

TILE = 16  # pixels
ALPHA_CUT = 1.0 / 255.0  # fainter splats are not drawn


def rasterize_with_gsplat(
    means2d: Float[Tensor, "B N 2"],
    conics: Float[Tensor, "B N 3"],
    opacities: Float[Tensor, "N"],
    features: Float[Tensor, "B N C"],
    radii: Float[Tensor, "B N 2"],
    depths: Float[Tensor, "B N"],
    background: Float[Tensor, "B C"],
    height: int,
    width: int,
) -> tuple[Float[Tensor, "B H W C"], Float[Tensor, "B H W 1"]]:
    """`rasterize_gaussians` by gsplat, for CUDA tensors; its kernels are compiled on the first call of a machine."""
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


def drawable(
    means2d: Float[Tensor, "N 2"],
    conics: Float[Tensor, "N 3"],
    opacities: Float[Tensor, "N"],
    radii: Float[Tensor, "N 2"],
    depths: Float[Tensor, "N"],
) -> Bool[Tensor, "N"]:
    """Which splats of one view are drawn: not culled, finite, with a positive definite conic."""
    finite = torch.isfinite(torch.cat([means2d, conics, radii, opacities[:, None], depths[:, None]], dim=1)).all(1)
    definite = (conics[:, 0] > 0) & (conics[:, 0] * conics[:, 2] > conics[:, 1].square())
    return (finite & definite & (radii > 0).all(1) & (opacities > ALPHA_CUT)).detach()
