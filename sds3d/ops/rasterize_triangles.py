"""The triangle that each pixel sees, and values of a mesh's vertices there (Laine et al. 2020)."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sds3d.ops.extension import has_kernels, register

MIN_DEPTH = 1e-6  # of the kernels
REFERENCE_PAIRS = 4_000_000  # (face, pixel) pairs that the reference looks at together


class TriangleImage(NamedTuple):
    """A mesh as pixels see it."""

    face: Int[Tensor, "B H W"]  # int32; -1 where there is none
    barycentric: Float[Tensor, "B H W 3"]  # of the visible point in its face, perspective-correct; 0 without a face
    depth: Float[Tensor, "B H W"]  # along the camera's z; infinite without a face


def rasterize_triangles(
    points: Float[Tensor, "B V 3"], faces: Int[Tensor, "F 3"], height: int, width: int
) -> TriangleImage:
    """The nearest face at each pixel's centre, front or back. Points are (x, y) in pixels and depth: cameras.project.

    b_i = (e_i / z_i) / sum_j (e_j / z_j),   e_i = cross(p_j - c, p_k - c),   c the pixel's centre

    `faces` are int32 and in [0, V): IndexError if not. A face with a corner at depth 1e-6 or less, or not finite, is
    left out, not clipped: keep the camera outside the object. The barycentrics are differentiable once in the points;
    the face and the depth are not: interpolate the corners' depths for a depth with a gradient. Which face is seen has
    no gradient either; `blend_outlines` gives that of the outlines.
    """
    _check_faces(faces, points.shape[1])
    if not has_kernels(points):
        return rasterize_triangles_reference(points, faces, height, width)
    return TriangleImage(*torch.ops.sds3d.rasterize_triangles(points, faces, height, width))


def interpolate(
    attributes: Float[Tensor, "V K"] | Float[Tensor, "B V K"], faces: Int[Tensor, "F 3"], image: TriangleImage
) -> Float[Tensor, "B H W K"]:
    """Vertices' values at the points that pixels see:  sum_i b_i attributes[corner i],  0 where there is no face.

    One set for all views, or one for each. Differentiable once in the attributes and in the barycentrics.
    """
    if not has_kernels(attributes):
        return interpolate_reference(attributes, faces, image)
    return torch.ops.sds3d.interpolate(attributes, faces, image.face, image.barycentric)


def _check_faces(faces: Tensor, vertices: int) -> None:
    if faces.dtype != torch.int32:
        raise TypeError(f"faces: expected int32, got {faces.dtype}")
    if faces.numel():
        low, high = torch.stack(faces.aminmax()).tolist()
        if not 0 <= low <= high < vertices:
            raise IndexError(f"faces: expected indices in [0, {vertices}), got {low} to {high}")


def rasterize_triangles_reference(
    points: Float[Tensor, "B V 3"], faces: Int[Tensor, "F 3"], height: int, width: int
) -> TriangleImage:
    """`rasterize_triangles` in pure torch, for any float type and device: every face at every pixel of its box."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    centres = torch.stack([x, y], dim=-1).reshape(-1, 2).to(points)
    face = torch.full((len(points), len(centres)), -1, device=points.device)
    depth = points.new_full(face.shape, torch.inf)
    seen = points.new_ones(*face.shape, 3, 3)
    if len(points) and len(faces):
        corners = points[:, faces.long()]
        face, depth = (
            torch.stack(t) for t in zip(*(_nearest_faces(c.detach(), height, width) for c in corners), strict=True)
        )
        seen = torch.stack([view[index.clamp_min(0)] for view, index in zip(corners, face, strict=True)])
    weights = _areas(seen, centres) / seen[..., 2]
    total = torch.where(face < 0, 1.0, weights.sum(-1))
    barycentric = torch.where((face < 0)[..., None], 0.0, weights / total[..., None])
    shape = (len(points), height, width)
    return TriangleImage(face.int().reshape(shape), barycentric.reshape(*shape, 3), depth.reshape(shape))


def _areas(corners: Float[Tensor, "... 3 3"], centres: Float[Tensor, "... 2"]) -> Float[Tensor, "... 3"]:
    """e_i: twice the signed area of the pixel's centre and the edge opposite corner i."""
    a, b, c = ((corners[..., i, :2] - centres).unbind(-1) for i in range(3))
    return torch.stack([b[0] * c[1] - c[0] * b[1], c[0] * a[1] - a[0] * c[1], a[0] * b[1] - b[0] * a[1]], dim=-1)


def _nearest_faces(
    corners: Float[Tensor, "F 3 3"], height: int, width: int
) -> tuple[Int[Tensor, " P"], Float[Tensor, " P"]]:
    """Index and depth of the nearest face at each pixel's centre; -1 and infinity without one."""
    none = len(corners)
    nearest = torch.full((height * width,), none, device=corners.device)
    inverse_depth = corners.new_zeros(height * width)
    limits = corners.new_tensor([width, height])
    low = (corners[..., :2].amin(1) - 0.5).ceil().clamp_min(0).minimum(limits)
    high = (corners[..., :2].amax(1) + 0.5).floor().clamp_min(0).minimum(limits)
    in_box = (high - low).clamp_min(0).prod(1)  # pixels whose centres the bounding box holds
    usable = (corners[..., 2] > MIN_DEPTH).all(-1) & corners.isfinite().flatten(1).all(1) & (in_box > 0)
    faces, low, columns, in_box = usable.nonzero()[:, 0], low[usable].long(), (high - low)[usable, 0], in_box[usable]
    columns, in_box = columns.long(), in_box.long()
    end = in_box.cumsum(0)
    counts = torch.unique_consecutive(end // REFERENCE_PAIRS, return_counts=True)[1].tolist()
    for batch in torch.arange(len(faces), device=corners.device).split(counts):
        box = batch.repeat_interleave(in_box[batch])
        first = (end - in_box)[box]
        index = torch.arange(len(box), device=corners.device) + first[0] - first
        x, y = low[box, 0] + index % columns[box], low[box, 1] + index // columns[box]
        pixel, face = y * width + x, faces[box]
        areas = _areas(corners[face], torch.stack([x, y], dim=-1) + 0.5)
        inside = ((areas >= 0).all(-1) | (areas <= 0).all(-1)) & (areas.sum(-1) != 0)
        value = torch.where(inside, (areas / corners[face][..., 2]).sum(-1) / areas.sum(-1), 0.0)
        before = inverse_depth[pixel]
        inverse_depth.scatter_reduce_(0, pixel, value, "amax")
        nearer = (value == inverse_depth[pixel]) & (value > before)
        nearest[pixel[nearer]] = none
        nearest.scatter_reduce_(0, pixel[nearer], face[nearer], "amin")
    return torch.where(nearest < none, nearest, -1), 1.0 / inverse_depth


def interpolate_reference(
    attributes: Float[Tensor, "V K"] | Float[Tensor, "B V K"], faces: Int[Tensor, "F 3"], image: TriangleImage
) -> Float[Tensor, "B H W K"]:
    """`interpolate` in pure torch, for any float type and device."""
    seen = image.face >= 0
    corners = (
        faces.long()[image.face.clamp_min(0).long()] if len(faces) else image.face.new_zeros(*seen.shape, 3).long()
    )
    per_view = attributes.expand(len(corners), *attributes.shape[-2:])
    view = torch.arange(len(corners), device=corners.device)[:, None, None, None]
    values = per_view[view, corners]
    return torch.where(seen[..., None], (image.barycentric[..., None] * values).sum(-2), 0.0)


def rasterize_fake(points: Tensor, faces: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Shapes for torch.compile and export."""
    shape = (points.shape[0], height, width)
    return faces.new_empty(shape), points.new_empty(*shape, 3), points.new_empty(shape)


def rasterize_backward_fake(
    points: Tensor, faces: Tensor, face: Tensor, grad_barycentric: Tensor, deterministic: bool
) -> Tensor:
    """Shapes of the backward op."""
    return torch.empty_like(points)


def interpolate_fake(attributes: Tensor, faces: Tensor, face: Tensor, barycentric: Tensor) -> Tensor:
    """Shapes for torch.compile and export."""
    return attributes.new_empty(*face.shape, attributes.shape[-1])


def interpolate_backward_fake(
    attributes: Tensor,
    faces: Tensor,
    face: Tensor,
    barycentric: Tensor,
    grad: Tensor,
    for_attributes: bool,
    for_barycentric: bool,
    deterministic: bool,
) -> tuple[Tensor, Tensor]:
    """Shapes of the backward op; a gradient that is not wanted has no elements."""
    return (
        torch.empty_like(attributes) if for_attributes else attributes.new_empty(0),
        torch.empty_like(barycentric) if for_barycentric else attributes.new_empty(0),
    )


def save_triangles(ctx, inputs: tuple, output: tuple) -> None:
    """Keep the points, the faces and which face is seen."""
    points, faces, *_ = inputs
    ctx.save_for_backward(points, faces, output[0])
    ctx.mark_non_differentiable(output[0], output[2])
    ctx.set_materialize_grads(False)


def triangles_backward(ctx, _, grad_barycentric: Tensor | None, __) -> tuple:
    """The barycentrics' gradient to the points."""
    if grad_barycentric is None:
        return None, None, None, None
    deterministic = torch.are_deterministic_algorithms_enabled()
    grad = torch.ops.sds3d.rasterize_triangles_backward(*ctx.saved_tensors, grad_barycentric, deterministic)
    return grad, None, None, None


def save_interpolation(ctx, inputs: tuple, output: Tensor) -> None:
    """Keep the inputs."""
    ctx.save_for_backward(*inputs)


def interpolate_backward(ctx, grad: Tensor) -> tuple:
    """Gradients to the attributes and the barycentrics, as far as they are wanted."""
    wanted = ctx.needs_input_grad[0], ctx.needs_input_grad[3]
    deterministic = torch.are_deterministic_algorithms_enabled()
    grads = torch.ops.sds3d.interpolate_backward(*ctx.saved_tensors, grad, *wanted, deterministic)
    for_attributes, for_barycentric = (g if needed else None for g, needed in zip(grads, wanted, strict=True))
    return for_attributes, None, None, for_barycentric


register("rasterize_triangles", rasterize_fake, rasterize_backward_fake, triangles_backward, save_triangles)
register("interpolate", interpolate_fake, interpolate_backward_fake, interpolate_backward, save_interpolation)
