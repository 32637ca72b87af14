"""3D Gaussian splatting: the scene is a cloud of coloured, semi-transparent ellipsoids (Kerbl et al. 2023)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from sds3d.ops.extension import Rasterizer
from sds3d.ops.project_gaussians import project_gaussians, rotation_matrices
from sds3d.ops.rasterize_gaussians import rasterize_gaussians
from sds3d.ops.spherical_harmonics import SH_C0, spherical_harmonics
from sds3d.scenes.base import ParamGroup, RenderContext, SceneConfig
from sds3d.scenes.densify import SPLIT_SHRINK, DensifyConfig, child_offsets, plan_refinement, replace_parameters
from sds3d.scenes.init import ball_points, ball_spacing
from sds3d.scenes.regularizers import depth_spread, opacity_entropy, opacity_sparsity, scale_penalty
from sds3d.scenes.splat_field import SplatField, field_at_points, splat_field, splat_to_grid
from sds3d.types import Cameras, RenderOutput

Rate = Annotated[float, Field(ge=0, le=1)]
NAMES = ("raw_means", "raw_quats", "raw_scales", "raw_opacities", "raw_colors")
SURFACE = 0.1  # world units: splats in a pixel farther apart than this may be two surfaces
HARMONICS = "raw_harmonics"  # with sh_degree only


class GaussiansConfig(SceneConfig):
    """How splats start, how fast each of their parameters moves, and when they multiply."""

    name: Literal["gaussians"] = "gaussians"
    losses: ClassVar[tuple[str, ...]] = ("sparsity", "opaque", "opacity", "scale", "flatness", "z_variance")
    default_overrides: ClassVar[Mapping[str, Any]] = {
        # without it surfaces stay a thick layer of faint splats, whose colours slide over each other from view to view;
        # late: it holds on to the shape that there is
        "loss_weights": {"z_variance": {"start": 0.0, "end": 1000.0, "begin_at": 0.3, "end_at": 0.8}}
    }
    count: Annotated[int, Field(ge=4, le=1_000_000, description="Splats at the start")] = 4000
    init_radius: Annotated[float, Field(gt=0, le=1, description="Radius of the ball they start in, world units")] = 0.5
    init_opacity: Annotated[float, Field(gt=0, lt=1, description="Opacity they start with")] = 0.1
    init_color_jitter: Annotated[float, Field(ge=0, le=0.49, description="Start colours: 0.5 +- this")] = 0.1
    bound_radius: Annotated[float, Field(gt=0, le=2, description="Means are kept inside this ball")] = 1.05
    min_scale: Annotated[float, Field(gt=0, description="Least size of a splat, world units")] = 0.012
    max_scale: Annotated[float, Field(gt=0, le=1, description="Largest size of a splat, world units")] = 0.15
    max_aspect: Annotated[float, Field(ge=1, description="Longest over shortest axis of a splat")] = 3.0
    lr_means: Annotated[Rate, Field(description="Learning rate of the places")] = 0.003
    lr_quats: Annotated[Rate, Field(description="Learning rate of the orientations")] = 0.01
    lr_scales: Annotated[Rate, Field(description="Learning rate of the log sizes")] = 0.01
    lr_opacities: Annotated[Rate, Field(description="Learning rate of the opacity logits")] = 0.05
    lr_colors: Annotated[Rate, Field(description="Learning rate of the colour logits")] = 0.03
    lr_harmonics: Annotated[Rate, Field(description="Learning rate of what sh_degree adds to the colours")] = 0.0015
    sh_degree: Annotated[
        int, Field(ge=0, le=3, description="Colours that change with the view: degree of their spherical harmonics")
    ] = 0
    rasterizer: Annotated[
        Rasterizer, Field(description="What renders: auto, native (the compiled kernels), gsplat (CUDA), torch (slow)")
    ] = "auto"
    densify: DensifyConfig = DensifyConfig()

    def build(self, generator: torch.Generator) -> "Gaussians":
        """A fresh scene on the CPU; every random number it will ever need descends from `generator`."""
        return Gaussians(self, generator)


@dataclass(frozen=True)
class SplatTrace:
    """What a render leaves behind for densification."""

    means2d: Float[Tensor, "B N 2"]  # its gradient says how hard the image pulls at each splat
    visible: Bool[Tensor, "B N"]
    parameters: tuple[nn.Parameter, ...]  # of the scene that made it, one row a splat
    # sums of w z and w z^2 over the splats of a pixel, z from the middle of the world; where they were asked for
    depths: tuple[Float[Tensor, "B H W 1"], Float[Tensor, "B H W 1"]] | None = None


class Gaussians(nn.Module):
    """A Scene of splats. `raw_*` is what the optimizer moves; the properties are the same after activation."""

    raw_means: nn.Parameter
    raw_quats: nn.Parameter
    raw_scales: nn.Parameter
    raw_opacities: nn.Parameter
    raw_colors: nn.Parameter
    raw_harmonics: nn.Parameter
    grad_sum: Tensor
    view_count: Tensor
    seed: Tensor

    def __init__(self, config: GaussiansConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        count = config.count
        scale = min(max(0.5 * ball_spacing(count, config.init_radius), config.min_scale), config.max_scale)
        jitter = config.init_color_jitter * (2 * torch.rand(count, 3, generator=generator) - 1)
        self.raw_means = nn.Parameter(ball_points(count, config.init_radius, generator))
        self.raw_quats = nn.Parameter(torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(count, 1))
        self.raw_scales = nn.Parameter(torch.full((count, 3), scale).log())
        self.raw_opacities = nn.Parameter(torch.full((count,), config.init_opacity).logit())
        self.raw_colors = nn.Parameter((0.5 + jitter).logit())
        self.names: tuple[str, ...] = NAMES
        if config.sh_degree > 0:
            self.names = (*NAMES, HARMONICS)
            self.raw_harmonics = nn.Parameter(torch.zeros(count, (config.sh_degree + 1) ** 2 - 1, 3))
        # part of the state, so that a resumed run refines at the same places with the same draws
        self.register_buffer("grad_sum", torch.zeros(count))
        self.register_buffer("view_count", torch.zeros(count))
        self.register_buffer("seed", torch.randint(2**31, (), generator=generator))

    def __len__(self) -> int:
        return len(self.raw_means)

    @property
    def means(self) -> Float[Tensor, "N 3"]:
        return self.raw_means

    @property
    def quats(self) -> Float[Tensor, "N 4"]:
        return F.normalize(self.raw_quats, dim=-1)

    @property
    def scales(self) -> Float[Tensor, "N 3"]:
        return self.raw_scales.exp()

    @property
    def opacities(self) -> Float[Tensor, "N"]:
        return self.raw_opacities.sigmoid()

    @property
    def colors(self) -> Float[Tensor, "N 3"]:
        """Seen from all sides on average."""
        return self.raw_colors.sigmoid()

    @property
    def harmonics(self) -> Float[Tensor, "N K 3"]:
        """Coefficients of degree 1 and up, in the order of ops.spherical_harmonics; none with sh_degree 0."""
        return self.raw_harmonics if self.config.sh_degree > 0 else self.raw_means.new_zeros(len(self), 0, 3)

    def colors_in(self, cameras: Cameras) -> Float[Tensor, "B N 3"]:
        """As each camera sees them: colors + sum_k Y_k(direction) harmonics_k, cut to [0, 1]."""
        if self.config.sh_degree == 0:
            return self.colors.expand(len(cameras), -1, -1)
        coefficients = torch.cat([(self.colors[:, None] - 0.5) / SH_C0, self.harmonics], dim=1)
        found = spherical_harmonics(coefficients, self.means, cameras.camera_to_world, self.config.rasterizer)
        return (0.5 + found).clamp(0, 1)

    def render(
        self,
        cameras: Cameras,
        background: Float[Tensor, "B 3"],
        context: RenderContext | None = None,
        with_normal: bool = False,
    ) -> RenderOutput:
        """Project and composite all splats, front to back, into every view.

        With w_i the compositing weight of splat i: rgb = sum w_i c_i + (1 - sum w_i) background,
        depth = sum w_i z_i (so depth / opacity is the mean depth), normal = sum w_i n_i made unit length, where n_i
        is the splat's shortest axis turned towards the camera; 0 where nothing was hit.
        """
        means, scales, opacities = self.means, self.scales, self.opacities
        rasterizer = self.config.rasterizer
        projected = project_gaussians(means, self.quats, scales, opacities, cameras, rasterizer=rasterizer)
        if projected.means2d.requires_grad:
            projected.means2d.retain_grad()
        views = len(cameras)
        features = [self.colors_in(cameras), projected.depths[..., None]]
        spread = context is not None and "z_variance" in context.losses
        if spread or with_normal:  # from the middle, as differences of squares of large numbers are not exact
            features.append((projected.depths - cameras.distance[:, None]).square()[..., None])
        if with_normal:
            features.append(self._facing_normals(cameras))
        stacked = torch.cat(features, dim=-1)
        behind = torch.cat([background, background.new_zeros(views, stacked.shape[-1] - 3)], dim=-1)
        image, opacity = rasterize_gaussians(
            projected.means2d, projected.conics, opacities, stacked, projected.radii, projected.depths, behind,
            cameras.height, cameras.width, rasterizer,
        )  # fmt: skip
        depth = image[..., 3:4]
        depths = (depth - opacity * cameras.distance[:, None, None, None], image[..., 4:5]) if spread else None
        normal = F.normalize(image[..., 5:8], dim=-1, eps=1e-6) if with_normal else None
        shown = (projected.radii > 0).all(dim=-1)
        trace = SplatTrace(projected.means2d, shown, tuple(getattr(self, name) for name in self.names), depths)
        return RenderOutput(image[..., :3], opacity, depth, normal, trace)

    def _facing_normals(self, cameras: Cameras) -> Float[Tensor, "B N 3"]:
        shortest = self.raw_scales.argmin(dim=-1)
        rotations = rotation_matrices(self.raw_quats)
        axes = rotations.gather(-1, shortest[:, None, None].expand(-1, 3, 1))[..., 0]
        towards = cameras.camera_to_world[:, None, :3, 3] - self.means
        away = (towards * axes).sum(dim=-1, keepdim=True) < 0
        return torch.where(away, -axes, axes)

    def param_groups(self) -> list[ParamGroup]:
        """One group per parameter, named as in the state without `raw_`."""
        return [
            ParamGroup(name.removeprefix("raw_"), [getattr(self, name)], getattr(self.config, f"lr_{name[4:]}"))
            for name in self.names
        ]

    def regularizers(self, out: RenderOutput) -> Mapping[str, Float[Tensor, ""]]:
        """Losses against fog, specks and needles: the rendered opacity's `sparsity` and `opaque` (entropy), the splats'
        mean `opacity` and mean `scale`, `flatness` = mean of shortest / middle axis, low when splats lie along a
        surface, and where the render was asked for it `z_variance`, low where what a pixel sees is a thin surface.
        """
        axes = self.scales.sort(dim=-1).values
        assert isinstance(out.aux, SplatTrace), f"not a render of this scene: {type(out.aux)}"
        spread = {"z_variance": depth_spread(out.opacity, *out.aux.depths, SURFACE)} if out.aux.depths else {}
        return {
            **spread,
            "sparsity": opacity_sparsity(out.opacity),
            "opaque": opacity_entropy(out.opacity),
            "opacity": self.opacities.mean(),
            "scale": scale_penalty(self.scales),
            "flatness": (axes[:, 0] / axes[:, 1]).mean(),
        }

    @torch.no_grad()
    def after_step(self, step: int, out: RenderOutput, optimizer: Optimizer) -> None:
        """Keep splats inside the bounds, note where the image pulled, and refine when it is time."""
        config, densify = self.config, self.config.densify
        norm = self.raw_means.norm(dim=-1, keepdim=True)
        self.raw_means.mul_((config.bound_radius / norm.clamp_min(1e-12)).clamp_max(1.0))
        self.raw_scales.clamp_(math.log(config.min_scale), math.log(config.max_scale))
        # no needles: what is thinner than a pixel of the training views is free to grow long unseen
        shortest = self.raw_scales.amin(dim=-1, keepdim=True)
        self.raw_scales.clamp_(max=shortest + math.log(config.max_aspect))
        if not densify.enabled or step >= densify.end_step:
            return
        assert isinstance(out.aux, SplatTrace), f"not a render of this scene: {type(out.aux)}"
        if out.aux.means2d.grad is not None:
            views, height, width = out.opacity.shape[:3]
            # losses average over views: undo it, and measure in half images so that resolution drops out
            pull = out.aux.means2d.grad * out.opacity.new_tensor([width, height]) * (0.5 * views)
            self.grad_sum += pull.norm(dim=-1).sum(dim=0)
            self.view_count += out.aux.visible.sum(dim=0)
        if step >= densify.begin_step and (step + 1) % densify.every == 0:
            self.refine(step, optimizer)

    @torch.no_grad()
    def refine(self, step: int, optimizer: Optimizer) -> None:
        """Clone, split and prune once. The draws depend on (seed, step) alone, not on any global state."""
        plan = plan_refinement(
            self.grad_sum / self.view_count.clamp_min(1), self.scales, self.opacities, self.config.densify
        )
        generator = torch.Generator().manual_seed(int(self.seed) * 1_000_003 + step)
        values = {name: getattr(self, name)[plan.source] for name in self.names}
        child = plan.is_child
        values["raw_means"][child] += child_offsets(
            values["raw_quats"][child], values["raw_scales"][child].exp(), generator
        )
        values["raw_scales"][plan.is_split] -= torch.tensor(SPLIT_SHRINK).log()
        # two of opacity 1 - sqrt(1 - o) in line cover as much as the one they replace (Rota Bulo et al. 2024)
        opacity = values["raw_opacities"][child].sigmoid()
        values["raw_opacities"][child] = (1 - (1 - opacity).sqrt()).clamp(1e-6, 1 - 1e-6).logit()
        old = {name: getattr(self, name) for name in self.names}
        for name, parameter in replace_parameters(values, old, plan, optimizer).items():
            setattr(self, name, parameter)
        self.grad_sum = torch.zeros_like(values["raw_opacities"])
        self.view_count = torch.zeros_like(self.grad_sum)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        """Take on the saved number of splats first; parameters stay the same objects, so an optimizer may exist."""
        for name in (*self.names, "grad_sum", "view_count"):
            saved, current = state_dict.get(prefix + name), getattr(self, name)
            if isinstance(saved, Tensor) and saved.shape[1:] == current.shape[1:]:
                current.grad = None
                current.data = current.data.new_empty(saved.shape)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def field(self) -> SplatField:
        """The splats as a field in space, without gradient."""
        return splat_field(self.means, self.quats, self.scales, self.opacities, self.colors)

    @torch.no_grad()
    def density(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, "P"]:
        """sum_i opacity_i exp(-1/2 d^T Sigma_i^-1 d); about 1 and more inside solid parts."""
        return field_at_points(self.field(), points)[0]

    @torch.no_grad()
    def color(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, "P 3"]:
        """Density-weighted mean of the splats' colours; defined everywhere, also far from all splats."""
        return field_at_points(self.field(), points)[1]

    @torch.no_grad()
    def density_grid(
        self, origin: Float[Tensor, "3"], spacing: float, shape: tuple[int, int, int]
    ) -> Float[Tensor, "X Y Z"]:
        """Density on a regular grid, much faster than point by point; cut off at 3 sigma."""
        return splat_to_grid(self.field(), origin, spacing, shape)
