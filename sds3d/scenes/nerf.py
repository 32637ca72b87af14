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

from sds3d.options import Fraction, Schedule, Scheduled, evaluate
from sds3d.scenes import regularizers as losses
from sds3d.scenes.base import ParamGroup, RenderContext, SceneConfig
from sds3d.scenes.nerf_field import FieldConfig, NerfField
from sds3d.scenes.nerf_render import RAY_LOSSES, Marching, Wanted, render_rays
from sds3d.scenes.occupancy import Occupancy, OccupancyConfig
from sds3d.scenes.rays import camera_rays
from sds3d.scenes.shading import ShadingConfig, draw_light
from sds3d.types import Cameras, RenderOutput

SOLID = 0.5  # opacity from which on a ray counts as one that hits the surface


class NerfConfig(SceneConfig):
    """The field, how rays are marched through it, and how fast it learns."""

    name: Literal["nerf"] = "nerf"
    default_overrides: ClassVar[Mapping[str, Any]] = {
        "loss_weights": {
            "sparsity": 20.0,
            # late: what is not yet an object would freeze as fog
            "opaque": {"start": 0.0, "end": 40.0, "begin_at": 0.4, "end_at": 0.8},
            # without it flat sides stay a thin fog over a long way, in which no level of density is the surface
            "z_variance": {"start": 0.0, "end": 2000.0, "begin_at": 0.1, "end_at": 0.4},
        }
    }
    losses: ClassVar[tuple[str, ...]] = (
        *("sparsity", "opaque", "total_variation", "normal_smoothness"),
        *RAY_LOSSES,
    )
    artifacts: ClassVar[tuple[str, ...]] = ("sheet", "orbit", "glb")
    field: FieldConfig = FieldConfig()
    occupancy: OccupancyConfig = OccupancyConfig()
    shading: Annotated[ShadingConfig | None, Field(description="light in training; none where not given")] = None
    bound_radius: Annotated[float, Field(gt=0, le=2, description="Nothing is outside this ball")] = 1.0
    # at first all is fog, which is long on every ray and has nothing fine to miss
    step: Annotated[
        Scheduled, Field(description="Between samples of a ray in training, world units; half in pictures")
    ] = Schedule(start=0.09, end=0.045, begin_at=0.1, end_at=0.3)
    normal_step: Annotated[
        float, Field(gt=0, le=0.5, description="Of the differences that normals are made of, world units")
    ] = 0.02
    chunk: Annotated[int, Field(ge=1, description="Rays at once: bounds the memory, costs time above one chunk")] = (
        16_384
    )
    lr_table: Annotated[Fraction, Field(description="Learning rate of the hash grid's entries")] = 0.02
    lr_network: Annotated[Fraction, Field(description="Learning rate of the network")] = 0.01

    @field_validator("step")
    @classmethod
    def _positive(cls, value: float | Schedule) -> float | Schedule:
        if min(evaluate(value, 0.0), evaluate(value, 1.0)) <= 0:
            raise ValueError("it must be above 0")
        return value

    def build(self, generator: torch.Generator) -> "Nerf":
        """A fresh scene on the CPU; every random number it will ever need descends from `generator`."""
        return Nerf(self, generator)


MIN_CHUNK = 256  # rays; fewer save nothing that matters


@dataclass(frozen=True)
class NerfTrace:
    """What a render in training leaves behind."""

    context: RenderContext
    ray_losses: Mapping[str, Float[Tensor, "R"]]


class Nerf(nn.Module):
    """A Scene of one field in a ball, with a grid that tells where it is empty."""

    def __init__(self, config: NerfConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.config, self.chunk = config, config.chunk
        self.field = NerfField(config.field, config.bound_radius, generator)
        seed = torch.randint(2**31, (), generator=generator)
        self.occupancy = Occupancy(config.occupancy, config.bound_radius, evaluate(config.step, 1.0), seed)
        self.occupancy.update(0, self.density)

    def _marching(self, context: RenderContext | None) -> Marching:
        config = self.config
        step = evaluate(config.step, 1.0) / 2 if context is None else evaluate(config.step, context.progress)
        return Marching(step, math.ceil(2 * config.bound_radius / step) + 1, config.normal_step)

    def reduce_memory(self) -> str | None:
        """Half as many rays at once."""
        if self.chunk <= MIN_CHUNK:
            return None
        self.chunk = max(MIN_CHUNK, self.chunk // 2)
        return f"{self.chunk} rays at once"

    def render(
        self,
        cameras: Cameras,
        background: Float[Tensor, "B 3"],
        context: RenderContext | None = None,
        with_normal: bool = False,
    ) -> RenderOutput:
        """March all rays through what is occupied and composite front to back.

        With w_i the weight of sample i on its ray: rgb = sum w_i c_i + (1 - sum w_i) background, depth = sum w_i z_i
        (so depth / opacity is the mean depth), normal = sum w_i n_i made unit length; 0 where nothing was hit. In
        training the samples are moved along their ray by a drawn part of a step, and lit where shading is on.
        """
        rays, shape = camera_rays(cameras), (len(cameras), cameras.height, cameras.width, -1)
        wanted, jitter = Wanted(normals=with_normal), None
        if context is not None:
            jitter = torch.rand(len(rays), generator=context.generator).to(background)
            light = None
            if self.config.shading is not None:
                light = draw_light(self.config.shading, cameras, context.progress, context.generator)
            normals = with_normal or "normal_smoothness" in context.losses
            wanted = Wanted(normals, [name for name in RAY_LOSSES if name in context.losses], light)
        views = torch.arange(len(cameras), device=background.device).repeat_interleave(len(rays) // len(cameras))
        maps = render_rays(self.field, self.occupancy, rays, views, jitter, self._marching(context), wanted, self.chunk)
        opacity = maps["opacity"].view(shape)
        rgb = maps["color"].view(shape) + (1 - opacity) * background[:, None, None]
        normal = F.normalize(maps["normal"], dim=-1, eps=1e-6).view(shape) if "normal" in maps else None
        trace = NerfTrace(context, {name: maps[name] for name in wanted.losses}) if context is not None else None
        return RenderOutput(rgb, opacity, maps["depth"].view(shape), normal, trace)

    def param_groups(self) -> list[ParamGroup]:
        """The hash grid's table and the network."""
        field, config = self.field, self.config
        return [
            ParamGroup("table", [field.table], config.lr_table),
            ParamGroup("network", list(field.network), config.lr_network),
        ]

    def regularizers(self, out: RenderOutput) -> Mapping[str, Float[Tensor, ""]]:
        """Those that were asked for when the picture was made.

        Of the image: `sparsity`, `opaque` (entropy; late, or it freezes fog), `total_variation` and
        `normal_smoothness`. Means over rays: `orientation` and `z_variance` over those that hit something, `distortion`
        over all.
        """
        assert isinstance(out.aux, NerfTrace), f"not a render of this scene in training: {type(out.aux)}"
        wanted = out.aux.context.losses
        return {name: self._regularizer(name, out, out.aux) for name in self.config.losses if name in wanted}

    def _regularizer(self, name: str, out: RenderOutput, trace: NerfTrace) -> Float[Tensor, ""]:
        if name == "sparsity":
            return losses.opacity_sparsity(out.opacity)
        if name == "opaque":
            return losses.opacity_entropy(out.opacity)
        if name == "total_variation":
            return losses.anisotropic_variation(out.rgb)
        if name == "normal_smoothness":
            assert out.normal is not None, "the render was told"
            return losses.normal_smoothness(out.normal)
        value = trace.ray_losses[name]
        if name == "distortion":
            return value.mean()
        hit = (out.opacity.detach() > SOLID).flatten()
        return (value * hit).sum() / hit.sum().clamp_min(1)

    @torch.no_grad()
    def after_step(self, step: int, out: RenderOutput, optimizer: Optimizer) -> None:
        """Let finer grids in as the run proceeds, and look from time to time where there is something."""
        assert isinstance(out.aux, NerfTrace), f"not a render of this scene in training: {type(out.aux)}"
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
