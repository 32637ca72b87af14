"""Volume rendering of a field along rays, in chunks that bound the memory."""

from collections.abc import Collection
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sds3d.ops.composite import composite
from sds3d.ops.march_rays import RaySamples, march_rays
from sds3d.scenes import regularizers
from sds3d.scenes.nerf_field import NerfField
from sds3d.scenes.occupancy import Occupancy
from sds3d.scenes.rays import Rays, ball_interval
from sds3d.scenes.shading import Light

RAY_LOSSES = ("orientation", "z_variance", "distortion")


@dataclass(frozen=True)
class RayRequest:
    """How rays are sampled, and what is computed for each beside colour, opacity and depth."""

    step: float  # world units
    max_samples: int  # of one ray
    normals: bool = False
    losses: Collection[str] = ()  # of RAY_LOSSES
    light: Light | None = None

    def needs_normals(self) -> bool:
        """Whether any of it is computed from the normals."""
        return self.normals or self.light is not None or "orientation" in self.losses


Maps = dict[str, Tensor]  # [R, C] each: color (premultiplied), opacity, depth, normal; [R] each of RAY_LOSSES


def render_rays(
    field: NerfField,
    occupancy: Occupancy,
    rays: Rays,
    views: Tensor,
    jitter: Float[Tensor, "R"] | None,
    request: RayRequest,
    chunk: int,
) -> Maps:
    """All rays, `chunk` at a time. The memory depends on the chunk, the result does not.

    With more than one chunk and gradients enabled, each chunk keeps only its rays and is rendered again in the backward
    pass (Chen et al. 2016): the samples of one chunk exist at a time, for a third more time.
    """
    parts = []
    recompute = torch.is_grad_enabled() and len(rays) > chunk
    for start in range(0, len(rays), chunk):
        part = slice(start, start + chunk)
        inputs = (field, occupancy, rays.part(part), views[part], None if jitter is None else jitter[part], request)
        if recompute:
            parts.append(checkpoint(_render_chunk, *inputs, use_reentrant=False, preserve_rng_state=False))
        else:
            parts.append(_render_chunk(*inputs))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _render_chunk(
    field: NerfField,
    occupancy: Occupancy,
    rays: Rays,
    views: Tensor,
    jitter: Float[Tensor, "R"] | None,
    request: RayRequest,
) -> Maps:
    near, far = ball_interval(rays, field.radius)
    grid, step = occupancy.grid, request.step
    samples = march_rays(rays.origins, rays.directions, near, far, grid, step, request.max_samples, jitter)
    points = samples.points
    density, color = field(points)
    normals = field.normals(points) if request.needs_normals() else None
    if request.light is not None and normals is not None:
        color = request.light.shade(color, normals, points, views[samples.ray_indices])
    features = torch.cat([color, normals], dim=-1) if request.normals and normals is not None else color
    image, opacity, depth, weights = composite(density, features, samples.t_starts, samples.t_ends, samples.offsets)
    maps = {"color": image[:, :3], "opacity": opacity, "depth": depth * rays.depth_scale[:, None]}
    if request.normals:
        maps["normal"] = image[:, 3:]
    return maps | _ray_losses(samples, weights, normals, rays, request.losses)


def _ray_losses(
    samples: RaySamples,
    weights: Float[Tensor, "S"],
    normals: Float[Tensor, "S 3"] | None,
    rays: Rays,
    names: Collection[str],
) -> Maps:
    losses, indices = {}, samples.ray_indices
    if "orientation" in names and normals is not None:
        directions = rays.directions.index_select(0, indices)
        losses["orientation"] = regularizers.orientation(weights, normals, directions, indices, len(rays))
    if "z_variance" in names:
        middles = (samples.t_starts + samples.t_ends) / 2
        losses["z_variance"] = regularizers.z_variance(weights, middles, indices, len(rays))
    if "distortion" in names:
        ends = (samples.t_starts, samples.t_ends)
        losses["distortion"] = regularizers.distortion(weights, *ends, indices, samples.offsets)
    return losses
