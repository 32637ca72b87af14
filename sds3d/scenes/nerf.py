"""A neural radiance field as the scene: density and colour in space, rendered along rays (Mildenhall et al. 2020)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.utils.checkpoint import checkpoint

from sds3d.cameras import Rays, camera_rays
from sds3d.ops.composite import composite
from sds3d.ops.march_rays import march_rays
from sds3d.options import Schedule, Scheduled, bounded, evaluate
from sds3d.scenes import regularizers
from sds3d.scenes.base import PICTURE, ParamGroup, RenderContext, SceneConfig
from sds3d.scenes.nerf_field import FieldConfig, NerfField
from sds3d.scenes.occupancy import Occupancy
from sds3d.scenes.shading import Light, ShadingConfig, draw_light
from sds3d.types import Cameras, RenderOutput, Scalar, ViewColors

BOUND_RADIUS = 1.0  # world units: the field is 0 outside this ball, the one that cameras are placed around
SOLID = 0.5  # opacity from which on a ray counts as one that hits the surface
MIN_CHUNK = 256  # rays; smaller chunks save no memory that matters
IMAGE_LOSSES = {  # what each is computed from
    "sparsity": (regularizers.opacity_sparsity, "opacity"),
    "opaque": (regularizers.opacity_entropy, "opacity"),
    "total_variation": (regularizers.anisotropic_variation, "rgb"),
    "normal_smoothness": (regularizers.total_variation, "normal"),
}
RAY_LOSSES = ("orientation", "z_variance", "distortion")
OCCUPANCY_RESOLUTION = 48  # cells along a side of the grid that empty space is skipped by
TABLE_LR, NETWORK_LR = 0.02, 0.01  # learning rates of the hash grid's entries and of the network


class NerfConfig(SceneConfig):
    """The field, and how rays are marched through it."""

    name: Literal["nerf"] = "nerf"
    default_overrides: ClassVar[Mapping[str, Any]] = {
        "loss_weights": {
            "sparsity": 20.0,
            # late: early in a run it freezes haze
            "opaque": {"start": 0.0, "end": 40.0, "begin_at": 0.4, "end_at": 0.8},
            # without it flat sides stay thin haze over a long distance, and no level of density is their surface
            "z_variance": {"start": 0.0, "end": 2000.0, "begin_at": 0.1, "end_at": 0.4},
        }
    }
    losses: ClassVar[tuple[str, ...]] = (*IMAGE_LOSSES, *RAY_LOSSES)
    artifacts: ClassVar[tuple[str, ...]] = ("sheet", "orbit", "glb")
    state_shape: ClassVar[tuple[str, ...]] = tuple(
        f"field.{name}" for name in ("levels", "finest_resolution", "log2_table", "hidden")
    )
    field: FieldConfig = FieldConfig()
    shading: Annotated[ShadingConfig | None, Field(description="Light in training; null for none")] = None
    # longer at first: haze has a long way on every ray and no detail to miss
    step: Annotated[
        Scheduled,
        bounded(f"above 0 and below {BOUND_RADIUS:g}, the radius of the scene", lambda step: 0 < step < BOUND_RADIUS),
        Field(description="Distance between samples of a ray, world units; half of its end in pictures"),
    ] = Schedule(start=0.09, end=0.045, begin_at=0.1, end_at=0.3)
    chunk: Annotated[
        int, Field(ge=1, description="Rays at once: bounds the memory, and costs time if below a view's")
    ] = 16_384

    def build(self, generator: torch.Generator) -> "Nerf":
        return Nerf(self, generator)


@dataclass(frozen=True)
class NerfTrace:
    """What a render in training leaves behind for `regularizers` and `after_step`."""

    context: RenderContext
    ray_losses: Mapping[str, Float[Tensor, " R"]]


class Nerf(nn.Module):
    """A Scene of one field in a ball, with a grid of where the field is empty."""

    def __init__(self, config: NerfConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.config, self.chunk = config, config.chunk
        self.field = NerfField(config.field, BOUND_RADIUS, generator)
        seed = torch.randint(2**31, (), generator=generator)
        self.occupancy = Occupancy(OCCUPANCY_RESOLUTION, BOUND_RADIUS, evaluate(config.step, 1.0), seed)
        self.occupancy.update(0, self.density)

    def reduce_memory(self) -> str | None:
        """Half as many rays at once."""
        if self.chunk <= MIN_CHUNK:
            return None
        self.chunk = max(MIN_CHUNK, self.chunk // 2)
        return f"{self.chunk} rays at once"

    def render(self, cameras: Cameras, background: ViewColors, context: RenderContext = PICTURE) -> RenderOutput:
        """March all rays through what is occupied and composite front to back.

        With w_i the weight of sample i on its ray: rgb = sum w_i c_i + (1 - sum w_i) background, depth = sum w_i z_i,
        normal = sum w_i n_i made unit length. In training the samples of a ray are shifted along it by a random part of
        a step, and lit if shading is on; pictures have samples half as far apart.
        """
        rays, shape = camera_rays(cameras), (len(cameras), cameras.height, cameras.width, -1)
        step, jitter, light = evaluate(self.config.step, context.progress), None, None
        if context.generator is None:
            step = step / 2
        else:
            jitter = torch.rand(len(rays), generator=context.generator).to(background)
            if self.config.shading is not None and context.lit:
                light = draw_light(self.config.shading, cameras, context.progress, context.generator)
        views = torch.arange(len(cameras), device=background.device).repeat_interleave(len(rays) // len(cameras))
        # With more than one chunk each keeps only its rays and is rendered again in the backward pass (Chen et al.
        # 2016): the samples of one chunk exist at a time, for a third more time. The result is the same.
        recompute, parts = torch.is_grad_enabled() and len(rays) > self.chunk, []
        for start in range(0, len(rays), self.chunk):
            part = slice(start, start + self.chunk)
            inputs = (rays.part(part), views[part], None if jitter is None else jitter[part], step, light, context)
            if recompute:
                parts.append(checkpoint(self._render_chunk, *inputs, use_reentrant=False, preserve_rng_state=False))
            else:
                parts.append(self._render_chunk(*inputs))
        maps = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        opacity = maps["opacity"].view(shape)
        rgb = maps["color"].view(shape) + (1 - opacity) * background[:, None, None]
        normal = F.normalize(maps["normal"], dim=-1, eps=1e-6).view(shape) if "normal" in maps else None
        trace = NerfTrace(context, {name: maps[name] for name in RAY_LOSSES if name in maps})
        return RenderOutput(rgb, opacity, maps["depth"].view(shape), normal, trace)

    def _render_chunk(
        self,
        rays: Rays,
        views: Int[Tensor, " R"],
        jitter: Float[Tensor, " R"] | None,
        step: float,
        light: Light | None,
        context: RenderContext,
    ) -> dict[str, Tensor]:
        """[R, C] each: color (premultiplied), opacity, depth, and normal if wanted; [R] each of RAY_LOSSES."""
        losses, maps = context.losses, {}
        shows_normals = context.normals or "normal_smoothness" in losses
        near, far = ball_interval(rays, BOUND_RADIUS)
        most = math.ceil(2 * BOUND_RADIUS / step) + 1  # samples of a ray
        samples = march_rays(rays.origins, rays.directions, near, far, self.occupancy.grid, step, most, jitter)
        points, indices = samples.points, samples.ray_indices
        density, features = self.field(points)
        if shows_normals or light is not None or "orientation" in losses:
            normals = self.field.normals(points)
            if light is not None:
                features = light.shade(features, normals, points, views[indices])
            if shows_normals:
                features = torch.cat([features, normals], dim=-1)
        image, opacity, depth, weights = composite(density, features, samples.t_starts, samples.t_ends, samples.offsets)
        if "orientation" in losses:
            directions = rays.directions.index_select(0, indices)
            maps["orientation"] = regularizers.orientation(weights, normals, directions, samples)
        if "z_variance" in losses:
            maps["z_variance"] = regularizers.z_variance(weights, samples)
        if "distortion" in losses:
            maps["distortion"] = regularizers.distortion(weights, samples)
        maps |= {"color": image[:, :3], "opacity": opacity, "depth": depth * rays.depth_scale[:, None]}
        return maps | {"normal": image[:, 3:]} if shows_normals else maps

    def param_groups(self) -> list[ParamGroup]:
        table = ParamGroup("table", [self.field.table], TABLE_LR)
        return [table, ParamGroup("network", list(self.field.network), NETWORK_LR)]

    def regularizers(self, out: RenderOutput) -> Mapping[str, Scalar]:
        """Those that the render's context named.

        Of the image: `sparsity`, `opaque` (entropy; late in the run, or it freezes haze), `total_variation` and
        `normal_smoothness`. Means over rays: `orientation` and `z_variance` over those that hit something, `distortion`
        over all.
        """
        assert isinstance(out.aux, NerfTrace), f"not a render of this scene: {type(out.aux)}"
        losses = {}
        for name, (loss, shown) in IMAGE_LOSSES.items():
            if name in out.aux.context.losses:
                losses[name] = loss(getattr(out, shown))
        hit = (out.opacity.detach() > SOLID).flatten()
        for name, value in out.aux.ray_losses.items():
            losses[name] = value.mean() if name == "distortion" else (value * hit).sum() / hit.sum().clamp_min(1)
        return losses

    @torch.no_grad()
    def after_step(self, step: int, steps: int, out: RenderOutput, optimizer: Optimizer) -> None:
        """Fade finer grids in as the run proceeds, and update the occupancy grid from time to time."""
        assert isinstance(out.aux, NerfTrace), f"not a render of this scene: {type(out.aux)}"
        self.field.show_levels(out.aux.context.progress)
        self.occupancy.update(step, self.density)

    @torch.no_grad()
    def density(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, " P"]:
        """The field's density, 1 / world units."""
        return self.field.density(points)

    @torch.no_grad()
    def color(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, "P 3"]:
        """The field's colour; defined everywhere."""
        return self.field(points)[1]


def ball_interval(rays: Rays, radius: float) -> tuple[Float[Tensor, " R"], Float[Tensor, " R"]]:
    """Distances at which each ray enters and leaves the ball around the origin; (0, 0) for a ray that misses it.

    The roots t of |o + t d|^2 = radius^2, the near one clamped to 0 for a camera inside the ball.
    """
    middle = -(rays.origins * rays.directions).sum(dim=-1)
    nearest = (rays.origins + middle[:, None] * rays.directions).square().sum(dim=-1)
    half = (radius**2 - nearest).clamp_min(0).sqrt()
    near, far = (middle - half).clamp_min(0), middle + half
    missed = (half == 0) | (far <= near)
    return torch.where(missed, 0.0, near), torch.where(missed, 0.0, far)
