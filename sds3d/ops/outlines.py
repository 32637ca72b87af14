"""Antialiasing of a mesh's outlines by its edges, with gradients to its vertices.

An image of a mesh changes with its vertices mostly where an outline moves over a pixel, and there the rasterizer has no
gradient. After Laine et al. 2020 (Modular Primitives for High-Performance Differentiable Rendering), whose test goes by
pixels; this one walks the edges, so that faces smaller than a pixel lose nothing.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sds3d.ops.extension import compiled, has_kernels, register

LEAST_SHARE = 0.02  # of the kernels


class Crossings(NamedTuple):
    """Where outline edges pass between two pixels' centres. The layout of `value` is private to these ops."""

    place: Int[Tensor, "N 5"]  # view, target pixel, source pixel, the edge's two ends
    value: Float[Tensor, "N 5"]  # weight w in [0, 1/2], dw/dx, s, slope, 1 if the edge is walked along y


def mesh_edges(faces: Int[Tensor, "F 3"]) -> Int[Tensor, "E 4"]:
    """Each edge once: its two ends, and its two faces (the second -1 at a border). Once per topology; int32.

    The first face walks the edge from the first end to the second. Of an edge with more than two faces each pair
    makes a row, and one that is left over a border.
    """
    corners = faces.long()
    ends = torch.stack([corners, corners.roll(-1, dims=1)], dim=-1).reshape(-1, 2)
    face = torch.arange(len(faces), device=faces.device).repeat_interleave(3)
    key = ends.min(1).values * (int(corners.max()) + 1 if len(corners) else 1) + ends.max(1).values
    order = torch.argsort(key, stable=True)
    key, ends, face = key[order], ends[order], face[order]
    # The place of each half-edge among those of its edge: even ones begin a row, odd ones fill the row before.
    first = torch.searchsorted(key, key)
    begins = (torch.arange(len(key), device=faces.device) - first) % 2 == 0
    filled = torch.cat([begins[1:].logical_not() & (key[1:] == key[:-1]), begins.new_zeros(min(len(key), 1))])
    other = torch.where(filled, face.roll(-1), -1)
    return torch.cat([ends, face[:, None], other[:, None]], dim=1)[begins].int()


def outline_crossings(
    points: Float[Tensor, "B V 3"],
    faces: Int[Tensor, "F 3"],
    edges: Int[Tensor, "E 4"],
    depth: Float[Tensor, "B H W"],
    tolerance: float = 0.02,
) -> Crossings:
    """Where the outlines of the image pass, for `blend_outlines`; no gradient, on the points' values of now.

    An outline edge has one face towards the camera and one away from it (corners counter-clockwise seen from outside),
    or one face only. It counts where it is seen: what lies outside is at least `tolerance` (in units of depth) behind
    it. Where surfaces cut through one another there is no edge, hence no crossing and no gradient.
    """
    if not has_kernels(points):
        return outline_crossings_reference(points, faces, edges, depth, tolerance)
    return Crossings(*torch.ops.sds3d.outline_crossings(points.detach(), faces, edges, depth, tolerance))


def blend_outlines(
    color: Float[Tensor, "B H W K"], points: Float[Tensor, "B V 3"], crossings: Crossings
) -> Float[Tensor, "B H W K"]:
    """The image with its outlines blended:  out[target] = color[target] + sum w (color[source] - color[target]).

    w = share |d - 1/2|, d in [0, 1] the distance in pixels, along a row or a column, from the inside's centre to the
    edge: it covers d - 1/2 of the outside's pixel, or leaves 1/2 - d of the inside's. Rows and columns share an edge by
    the squared sine and cosine of its direction; that they change with the points is left out of the gradient, because
    both tell the same. Treat alpha as one more channel of premultiplied colour.
    Differentiable once in the colours and in the points.
    """
    if not has_kernels(color):
        return blend_outlines_reference(color, points, crossings)
    deterministic = torch.are_deterministic_algorithms_enabled()
    return torch.ops.sds3d.blend_outlines(color, points, crossings.place, crossings.value, deterministic)


def outline_crossings_reference(
    points: Float[Tensor, "B V 3"],
    faces: Int[Tensor, "F 3"],
    edges: Int[Tensor, "E 4"],
    depth: Float[Tensor, "B H W"],
    tolerance: float = 0.02,
) -> Crossings:
    """`outline_crossings` in pure torch, for any float type and device: every edge at every row and column."""
    points, per_view = points.detach(), []
    for view in range(len(points)):
        per_view.append(_crossings_of_view(points[view], faces.long(), edges.long(), depth[view], tolerance, view))
    index = torch.cat([index for index, _ in per_view]) if per_view else edges.new_zeros(0, 5)
    value = torch.cat([value for _, value in per_view]) if per_view else points.new_zeros(0, 5)
    return Crossings(index.int(), value)


def _crossings_of_view(
    points: Float[Tensor, "V 3"],
    faces: Int[Tensor, "F 3"],
    edges: Int[Tensor, "E 4"],
    depth: Float[Tensor, "H W"],
    tolerance: float,
    view: int,
) -> tuple[Int[Tensor, "N 5"], Float[Tensor, "N 5"]]:
    p, q, r = points[faces].unbind(1)
    front = (q[:, 0] - p[:, 0]) * (r[:, 1] - p[:, 1]) - (q[:, 1] - p[:, 1]) * (r[:, 0] - p[:, 0]) < 0
    one, two = edges[:, 2], edges[:, 3]
    outline = (two < 0) | (front[one] != front[two.clamp_min(0)])
    edges = edges[outline]
    one, two = edges[:, 2], edges[:, 3]
    inner = faces[torch.where((two < 0) | front[one], one, two)]
    third = torch.where((inner != edges[:, :1]) & (inner != edges[:, 1:2]), inner, -1).max(1).values
    usable = (points[:, 2] > 1e-6) & points.isfinite().all(1)
    known = (third >= 0) & usable[edges[:, 0]] & usable[edges[:, 1]] & usable[third.clamp_min(0)]
    edges, third = edges[known], third[known]
    edges, third = edges.repeat_interleave(2, dim=0), third.repeat_interleave(2)
    steep = torch.arange(len(edges), device=points.device) % 2 == 1
    a, b, c = points[edges[:, 0]], points[edges[:, 1]], points[third]
    along, across = steep.long()[:, None], 1 - steep.long()[:, None]
    (a_along, a_across), (b_along, b_across), (c_along, c_across) = (
        (v.gather(1, along), v.gather(1, across)) for v in (a, b, c)
    )
    height, width = depth.shape
    length, rise = b_along - a_along, b_across - a_across
    share = length.square() / (length.square() + rise.square())
    share = torch.where(share > 1 - LEAST_SHARE, 1.0, share)
    slope = rise / length
    positive = c_across > a_across + slope * (c_along - a_along)
    rows = torch.arange(max(height, width), device=points.device)[None]
    centre = rows + 0.5
    s = (centre - a_along) / length
    x = a_across + s * rise
    counts = torch.where(steep, height, width)[:, None], torch.where(steep, width, height)[:, None]
    passes = (centre >= torch.minimum(a_along, b_along)) & (centre < torch.maximum(a_along, b_along))
    lower = (x - 0.5).floor()
    lower = lower - (positive & (lower == x - 0.5)).to(x)  # a centre right on the edge is the rasterizer's inside
    passes &= (share > LEAST_SHARE) & (rows < counts[0]) & (lower >= 0) & (lower + 1 < counts[1])
    low = torch.where(passes, lower, 0).long()
    inside, outside = torch.where(positive, low + 1, low), torch.where(positive, low, low + 1)
    row, is_steep = rows.expand_as(low), steep[:, None]
    last = height * width - 1
    inner_pixel = torch.where(is_steep, row * width + inside, inside * width + row).clamp(max=last)
    outer_pixel = torch.where(is_steep, row * width + outside, outside * width + row).clamp(max=last)
    edge_depth = 1 / ((1 - s) / a[:, 2:] + s / b[:, 2:])
    flat = depth.reshape(-1)
    passes &= (flat[outer_pixel] >= edge_depth + tolerance) & (flat[inner_pixel] < flat[outer_pixel])
    u = x - (low + 0.5)
    d, change = torch.where(positive, 1 - u, u), torch.where(positive, -1.0, 1.0).to(points)
    outward = d >= 0.5
    target, source = torch.where(outward, outer_pixel, inner_pixel), torch.where(outward, inner_pixel, outer_pixel)
    weight, sign = share * torch.where(outward, d - 0.5, 0.5 - d), share * torch.where(outward, change, -change)
    index = [
        torch.full_like(target, view),
        target,
        source,
        edges[:, :1].expand_as(target),
        edges[:, 1:2].expand_as(target),
    ]
    value = [weight, sign, s, slope.expand_as(s), is_steep.to(points).expand_as(s)]
    return torch.stack(index, -1)[passes], torch.stack(value, -1)[passes]


def blend_outlines_reference(
    color: Float[Tensor, "B H W K"], points: Float[Tensor, "B V 3"], crossings: Crossings
) -> Float[Tensor, "B H W K"]:
    """`blend_outlines` in pure torch, for any float type and device: the weights follow the points."""
    view, target, source, a, b = crossings.place.long().unbind(1)
    _, sign, _, _, steep = crossings.value.detach().unbind(1)
    along = steep.long()[:, None]
    ends = [(points[view, end].gather(1, along)[:, 0], points[view, end].gather(1, 1 - along)[:, 0]) for end in (a, b)]
    (a_along, a_across), (b_along, b_across) = ends
    pixels = color.shape[1] * color.shape[2]
    row = torch.where(steep > 0, target // color.shape[2], target % color.shape[2])
    x = a_across + (row + 0.5 - a_along) / (b_along - a_along) * (b_across - a_across)
    # The value of now is that of the crossings; x brings its gradient.
    weight = crossings.value[:, 0].detach() + sign * (x - x.detach())
    flat = color.reshape(-1, color.shape[-1])
    change = weight[:, None] * (flat[view * pixels + source] - flat[view * pixels + target])
    return flat.index_add(0, view * pixels + target, change).view_as(color)


def crossings_fake(
    points: Tensor, faces: Tensor, edges: Tensor, depth: Tensor, tolerance: float
) -> tuple[Tensor, Tensor]:
    """Shapes for torch.compile and export; how many there are depends on the values."""
    count = torch.library.get_ctx().new_dynamic_size()
    return faces.new_empty(count, 5), points.new_empty(count, 5)


def blend_fake(color: Tensor, points: Tensor, index: Tensor, value: Tensor, deterministic: bool) -> Tensor:
    """Shapes for torch.compile and export."""
    return torch.empty_like(color)


def blend_backward_fake(
    color: Tensor,
    points: Tensor,
    index: Tensor,
    value: Tensor,
    grad: Tensor,
    for_color: bool,
    for_points: bool,
    deterministic: bool,
) -> tuple[Tensor, Tensor]:
    """Shapes of the backward op; a gradient that is not wanted has no elements."""
    return (
        torch.empty_like(color) if for_color else color.new_empty(0),
        torch.empty_like(points) if for_points else color.new_empty(0),
    )


def save_blending(ctx, inputs: tuple, output: Tensor) -> None:
    """Keep the inputs."""
    color, points, index, value, ctx.deterministic = inputs
    ctx.save_for_backward(color, points, index, value)


def blend_backward(ctx, grad: Tensor) -> tuple:
    """Gradients to the colours and the points, as far as they are wanted."""
    wanted = ctx.needs_input_grad[:2]
    grads = torch.ops.sds3d.blend_outlines_backward(*ctx.saved_tensors, grad, *wanted, ctx.deterministic)
    return *(g if needed else None for g, needed in zip(grads, wanted, strict=True)), None, None, None


register("blend_outlines", blend_fake, blend_backward_fake, blend_backward, save_blending)
if compiled():
    torch.library.register_fake("sds3d::outline_crossings", crossings_fake)  # it has no gradient
