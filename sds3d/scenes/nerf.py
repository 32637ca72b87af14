"""A neural radiance field as the scene: density and colour in space, rendered along rays (Mildenhall et al. 2020)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from sds3d.options import Schedule, Scheduled, evaluate
from sds3d.scenes import regularizers
from sds3d.scenes.base import PICTURE, ParamGroup, RenderContext, SceneConfig
from sds3d.scenes.nerf_field import FieldConfig, NerfField
from sds3d.scenes.nerf_render import RAY_LOSSES, RayRequest, render_rays
from sds3d.scenes.occupancy import Occupancy
from sds3d.scenes.rays import camera_rays
from sds3d.scenes.shading import ShadingConfig, draw_light
from sds3d.types import Cameras, RenderOutput

BOUND_RADIUS = 1.0  # world units: the field is 0 outside this ball, the one that cameras are placed around
SOLID = 0.5  # opacity from which on a ray counts as one that hits the surface
MIN_CHUNK = 256  # rays; smaller chunks save no memory that matters
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
    losses: ClassVar[tuple[str, ...]] = (
        *("sparsity", "opaque", "total_variation", "normal_smoothness"),
        *RAY_LOSSES,
    )
    artifacts: ClassVar[tuple[str, ...]] = ("sheet", "orbit", "glb")
    field: FieldConfig = FieldConfig()
    shading: Annotated[ShadingConfig | None, Field(description="Light in training; null for none")] = None
    # longer at first: haze has a long way on every ray and no detail to miss
    step: Annotated[
        Scheduled, Field(description="Distance between samples of a ray, world units; half of its end in pictures")
    ] = Schedule(start=0.09, end=0.045, begin_at=0.1, end_at=0.3)
    chunk: Annotated[
        int, Field(ge=1, description="Rays at once: bounds the memory, and costs time if below a view's")
    ] = 16_384

    @field_validator("step")
    @classmethod
    def _inside_the_ball(cls, value: float | Schedule) -> float | Schedule:
        if not all(0 < evaluate(value, progress) < BOUND_RADIUS for progress in (0.0, 1.0)):
            raise ValueError(f"it must be above 0 and below {BOUND_RADIUS:g}, the radius of the scene")
        return value

    def build(self, generator: torch.Generator) -> "Nerf":
        """A fresh scene on the CPU; every random number it will ever need descends from `generator`."""
        return Nerf(self, generator)


@dataclass(frozen=True)
class NerfTrace:
    """What a render in training leaves behind for `regularizers` and `after_step`."""

    context: RenderContext
    ray_losses: Mapping[str, Float[Tensor, "R"]]


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

    def render(
        self, cameras: Cameras, background: Float[Tensor, "B 3"], context: RenderContext = PICTURE
    ) -> RenderOutput:
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
        names = [name for name in RAY_LOSSES if name in context.losses]
        normals = context.normals or "normal_smoothness" in context.losses
        request = RayRequest(step, math.ceil(2 * BOUND_RADIUS / step) + 1, normals, names, light)
        views = torch.arange(len(cameras), device=background.device).repeat_interleave(len(rays) // len(cameras))
        maps = render_rays(self.field, self.occupancy, rays, views, jitter, request, self.chunk)
        opacity = maps["opacity"].view(shape)
        rgb = maps["color"].view(shape) + (1 - opacity) * background[:, None, None]
        normal = F.normalize(maps["normal"], dim=-1, eps=1e-6).view(shape) if normals else None
        trace = NerfTrace(context, {name: maps[name] for name in names})
        return RenderOutput(rgb, opacity, maps["depth"].view(shape), normal, trace)

    def param_groups(self) -> list[ParamGroup]:
        """The hash grid's table and the network."""
        field = self.field
        return [ParamGroup("table", [field.table], TABLE_LR), ParamGroup("network", list(field.network), NETWORK_LR)]

    def regularizers(self, out: RenderOutput) -> Mapping[str, Float[Tensor, ""]]:
        """Those that the render's context named.

        Of the image: `sparsity`, `opaque` (entropy; late in the run, or it freezes haze), `total_variation` and
        `normal_smoothness`. Means over rays: `orientation` and `z_variance` over those that hit something, `distortion`
        over all.
        """
        assert isinstance(out.aux, NerfTrace), f"not a render of this scene: {type(out.aux)}"
        return {name: _regularizer(name, out, out.aux) for name in self.config.losses if name in out.aux.context.losses}

    @torch.no_grad()
    def after_step(self, step: int, steps: int, out: RenderOutput, optimizer: Optimizer) -> None:
        """Fade finer grids in as the run proceeds, and update the occupancy grid from time to time."""
        assert isinstance(out.aux, NerfTrace), f"not a render of this scene: {type(out.aux)}"
        self.field.show_levels(out.aux.context.progress)
        self.occupancy.update(step, self.density)

    @torch.no_grad()
    def density(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, "P"]:
        """The field's density, 1 / world units."""
        return self.field.density(points)

    @torch.no_grad()
    def color(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, "P 3"]:
        """The field's colour; defined everywhere."""
        return self.field(points)[1]


def _regularizer(name: str, out: RenderOutput, trace: NerfTrace) -> Float[Tensor, ""]:
    if name == "sparsity":
        return regularizers.opacity_sparsity(out.opacity)
    if name == "opaque":
        return regularizers.opacity_entropy(out.opacity)
    if name == "total_variation":
        return regularizers.anisotropic_variation(out.rgb)
    if name == "normal_smoothness":
        assert out.normal is not None, "it was rendered without normals"
        return regularizers.total_variation(out.normal)
    value = trace.ray_losses[name]
    if name == "distortion":
        return value.mean()
    hit = (out.opacity.detach() > SOLID).flatten()
    return (value * hit).sum() / hit.sum().clamp_min(1)
