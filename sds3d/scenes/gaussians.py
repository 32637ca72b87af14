"""3D Gaussian splatting: the scene is a cloud of coloured, semi-transparent ellipsoids (Kerbl et al. 2023)."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from sds3d.ops.extension import Rasterizer, choose_rasterizer
from sds3d.ops.project_gaussians import project_gaussians, rotation_matrices
from sds3d.ops.rasterize_gaussians import rasterize_gaussians
from sds3d.ops.spherical_harmonics import SH_C0, spherical_harmonics
from sds3d.options import ordered
from sds3d.scenes.base import INIT_COLOR_JITTER, PICTURE, ParamGroup, RenderContext, SceneConfig
from sds3d.scenes.densify import DensifyConfig, SplatTrace, refine
from sds3d.scenes.regularizers import depth_spread, opacity_entropy, opacity_sparsity
from sds3d.scenes.splat_field import SplatField
from sds3d.types import Cameras, RenderOutput, Scalar, ViewColors

SURFACE = 0.1  # world units: splats in a pixel farther apart than this may be two surfaces
BOUND_RADIUS = 1.05  # world units: means stay inside this ball; splats of an object in the unit ball reach beyond it
MAX_ASPECT = 3.0  # longest over shortest axis: needles thinner than a pixel of the training views grow long unseen
INIT_RADIUS = 0.5  # world units: of the ball that splats start in
# of the means in world units, orientations, log sizes, opacity logits, colour logits; the higher harmonics learn at a
# twentieth of the colours' rate (Kerbl et al. 2023)
LEARNING_RATES = {
    "means": 0.003, "quats": 0.01, "scales": 0.01, "opacities": 0.05, "colors": 0.03, "harmonics": 0.03 / 20
}  # fmt: skip


class GaussiansConfig(SceneConfig):
    """How splats start, and when they multiply. `optim.group_lr_scale` changes how fast their parameters move."""

    name: Literal["gaussians"] = "gaussians"
    losses: ClassVar[tuple[str, ...]] = ("sparsity", "opaque", "opacity", "scale", "flatness", "z_variance")
    state_shape: ClassVar[tuple[str, ...]] = ("count", "sh_degree")
    default_overrides: ClassVar[Mapping[str, Any]] = {
        # Without it surfaces stay thick layers of faint splats, whose colours shift against each other between views.
        # It starts late because it freezes the shape.
        "loss_weights": {"z_variance": {"start": 0.0, "end": 1000.0, "begin_at": 0.3, "end_at": 0.8}}
    }
    count: Annotated[int, Field(ge=4, le=1_000_000, description="Splats at the start")] = 4000
    init_opacity: Annotated[float, Field(gt=0, lt=1, description="Opacity they start with")] = 0.1
    min_scale: Annotated[float, Field(gt=0, description="Least size of a splat, world units")] = 0.012
    max_scale: Annotated[float, Field(gt=0, le=1, description="Largest size of a splat, world units")] = 0.15
    sh_degree: Annotated[
        int,
        Field(ge=0, le=3, description="Degree of the view-dependent colours' spherical harmonics; 0: no such colours"),
    ] = 0
    rasterizer: Annotated[
        Rasterizer, Field(description="What renders: auto, native (the compiled kernels), gsplat (CUDA), torch (slow)")
    ] = "auto"
    densify: DensifyConfig = DensifyConfig()

    _in_order = ordered("min_scale", "max_scale")

    def build(self, generator: torch.Generator) -> "Gaussians":
        return Gaussians(self, generator)

    def check(self, device: torch.device) -> None:
        """The rasterizer that is asked for has to be there."""
        choose_rasterizer(self.rasterizer, device, "rasterize_gaussians")


class Gaussians(nn.Module):
    """A Scene of splats. The optimizer moves `raw_*`; the properties are the same values after activation."""

    def __init__(self, config: GaussiansConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        count = config.count
        scale = min(max(0.5 * ball_spacing(count, INIT_RADIUS), config.min_scale), config.max_scale)
        jitter = INIT_COLOR_JITTER * (2 * torch.rand(count, 3, generator=generator) - 1)
        self.raw_means = nn.Parameter(ball_points(count, INIT_RADIUS, generator))
        self.raw_quats = nn.Parameter(torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(count, 1))
        self.raw_scales = nn.Parameter(torch.full((count, 3), scale).log())
        self.raw_opacities = nn.Parameter(torch.full((count,), config.init_opacity).logit())
        self.raw_colors = nn.Parameter((0.5 + jitter).logit())
        if config.sh_degree > 0:
            self.raw_harmonics = nn.Parameter(torch.zeros(count, (config.sh_degree + 1) ** 2 - 1, 3))
        # of densification; in the checkpoint, so that a resumed run refines at the same places with the same draws
        self.grad_sum: Tensor = nn.Buffer(torch.zeros(count))
        self.view_count: Tensor = nn.Buffer(torch.zeros(count))
        self.seed: Tensor = nn.Buffer(torch.randint(2**31, (), generator=generator))
        self.register_load_state_dict_pre_hook(_take_on_the_saved_number)

    def __len__(self) -> int:
        return len(self.raw_means)

    def splats(self) -> dict[str, nn.Parameter]:
        """The parameters by name, one row per splat each."""
        return dict(self.named_parameters())

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
    def opacities(self) -> Float[Tensor, " N"]:
        return self.raw_opacities.sigmoid()

    @property
    def colors(self) -> Float[Tensor, "N 3"]:
        """The mean over all directions of view."""
        return self.raw_colors.sigmoid()

    @property
    def harmonics(self) -> Float[Tensor, "N K 3"]:
        """Coefficients of degree 1 and up, in the order of ops.spherical_harmonics; none with sh_degree 0."""
        return self.raw_harmonics if self.config.sh_degree > 0 else self.raw_means.new_zeros(len(self), 0, 3)

    def colors_in(self, cameras: Cameras) -> Float[Tensor, "B N 3"]:
        """Colours in the direction of each camera: colors + sum_k Y_k(direction) harmonics_k, clamped to [0, 1]."""
        if self.config.sh_degree == 0:
            return self.colors.expand(len(cameras), -1, -1)
        coefficients = torch.cat([(self.colors[:, None] - 0.5) / SH_C0, self.harmonics], dim=1)
        offsets = spherical_harmonics(coefficients, self.means, cameras.camera_to_world, self.config.rasterizer)
        return (0.5 + offsets).clamp(0, 1)

    def render(self, cameras: Cameras, background: ViewColors, context: RenderContext = PICTURE) -> RenderOutput:
        """Project and composite all splats, front to back, into every view.

        With w_i the compositing weight of splat i: rgb = sum w_i c_i + (1 - sum w_i) background, depth = sum w_i z_i,
        normal = sum w_i n_i made unit length, where n_i is the splat's shortest axis, its sign such that it faces the
        camera.
        """
        means, scales, opacities = self.means, self.scales, self.opacities
        rasterizer = self.config.rasterizer
        projected = project_gaussians(means, self.quats, scales, opacities, cameras, rasterizer=rasterizer)
        if projected.means2d.requires_grad:
            projected.means2d.retain_grad()
        features = [self.colors_in(cameras), projected.depths[..., None]]
        spread = "z_variance" in context.losses
        if spread or context.normals:  # about the world's origin: differences of large squares would lose digits
            features.append((projected.depths - cameras.distance[:, None]).square()[..., None])
        if context.normals:
            features.append(self._facing_normals(cameras))
        stacked = torch.cat(features, dim=-1)
        behind = torch.cat([background, background.new_zeros(len(cameras), stacked.shape[-1] - 3)], dim=-1)
        image, opacity = rasterize_gaussians(
            projected.means2d, projected.conics, opacities, stacked, projected.radii, projected.depths, behind,
            cameras.height, cameras.width, rasterizer,
        )  # fmt: skip
        depth = image[..., 3:4]
        sums = (depth - opacity * cameras.distance[:, None, None, None], image[..., 4:5]) if spread else None
        normal = F.normalize(image[..., 5:8], dim=-1, eps=1e-6) if context.normals else None
        visible, parameters = (projected.radii > 0).all(dim=-1), tuple(self.splats().values())
        trace = SplatTrace(projected.means2d, visible, parameters, cameras.width, cameras.height, sums)
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
        named = {name.removeprefix("raw_"): parameter for name, parameter in self.splats().items()}
        return [ParamGroup(name, [parameter], LEARNING_RATES[name]) for name, parameter in named.items()]

    def regularizers(self, out: RenderOutput) -> Mapping[str, Scalar]:
        """Losses against haze, specks and needles.

        `sparsity` and `opaque` (entropy) of the rendered opacity; the splats' mean `opacity` and `scale` (world units);
        `flatness` = mean of shortest / middle axis, low for discs; and, if the render's context named it, `z_variance`,
        low where each pixel sees one thin surface.
        """
        axes = self.scales.sort(dim=-1).values
        assert isinstance(out.aux, SplatTrace), f"not a render of this scene: {type(out.aux)}"
        spread = {"z_variance": depth_spread(out.opacity, *out.aux.depth_sums, SURFACE)} if out.aux.depth_sums else {}
        return {
            **spread,
            "sparsity": opacity_sparsity(out.opacity),
            "opaque": opacity_entropy(out.opacity),
            "opacity": self.opacities.mean(),
            "scale": self.scales.mean(),
            "flatness": (axes[:, 0] / axes[:, 1]).mean(),
        }

    @torch.no_grad()
    def after_step(self, step: int, steps: int, out: RenderOutput, optimizer: Optimizer) -> None:
        """Keep splats inside the bounds, add up how hard the image pulls at each, and refine when it is time."""
        config = self.config
        norm = self.raw_means.norm(dim=-1, keepdim=True)
        self.raw_means.mul_((BOUND_RADIUS / norm.clamp_min(1e-12)).clamp_max(1.0))
        self.raw_scales.clamp_(math.log(config.min_scale), math.log(config.max_scale))
        shortest = self.raw_scales.amin(dim=-1, keepdim=True)
        self.raw_scales.clamp_(max=shortest + math.log(MAX_ASPECT))
        assert isinstance(out.aux, SplatTrace), f"not a render of this scene: {type(out.aux)}"
        pulls = out.aux.means2d.grad
        if pulls is not None:
            # losses are means over views: undo that, and measure in half images so that the resolution drops out
            size = pulls.new_tensor([out.aux.width, out.aux.height])
            self.grad_sum += (pulls * size * (0.5 * len(pulls))).norm(dim=-1).sum(dim=0)
            self.view_count += out.aux.visible.sum(dim=0)
        if config.densify.is_due(step, steps):
            self.refine(optimizer, step)

    def refine(self, optimizer: Optimizer, step: int) -> None:
        """Clone, split and prune by the gradients since the last time. The draws depend on (seed, step) alone."""
        scores = self.grad_sum / self.view_count.clamp_min(1)
        generator = torch.Generator().manual_seed(int(self.seed) * 1_000_003 + step)
        for name, parameter in refine(self.splats(), scores, self.config.densify, optimizer, generator).items():
            setattr(self, name, parameter)
        self.grad_sum = torch.zeros_like(self.opacities)
        self.view_count = torch.zeros_like(self.grad_sum)

    @torch.no_grad()
    def field(self) -> SplatField:
        """The splats as a field in space, without gradient."""
        return SplatField(self.means, self.quats, self.scales, self.opacities, self.colors)

    @torch.no_grad()
    def density(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, " P"]:
        """sum_i opacity_i exp(-1/2 d^T Sigma_i^-1 d), without unit; about 1 and above inside solid parts."""
        return self.field().at_points(points)[0]

    @torch.no_grad()
    def color(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, "P 3"]:
        """Density-weighted mean of the splats' colours; defined everywhere, also far from all splats."""
        return self.field().at_points(points)[1]

    @torch.no_grad()
    def density_grid(
        self, origin: Float[Tensor, "3"], spacing: float, shape: tuple[int, int, int]
    ) -> Float[Tensor, "X Y Z"]:
        """Density on a regular grid, much faster than point by point; cut off at 3 sigma."""
        return self.field().on_grid(origin, spacing, shape)


def _take_on_the_saved_number(scene: Gaussians, state: dict[str, Any], prefix: str, *_: object) -> None:
    """Of splats. Parameters stay the same objects, so an optimizer that holds them stays valid."""
    for name, current in (*scene.named_parameters(), *scene.named_buffers()):
        saved = state.get(prefix + name)
        if isinstance(saved, Tensor) and saved.shape[1:] == current.shape[1:]:
            current.grad = None
            current.data = current.data.new_empty(saved.shape)


def ball_points(count: int, radius: float, generator: torch.Generator) -> Float[Tensor, "N 3"]:
    """Points drawn uniformly from a ball around the origin."""
    directions = torch.randn(count, 3, generator=generator)
    directions = directions / directions.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    return directions * radius * torch.rand(count, 1, generator=generator).pow(1.0 / 3.0)


def ball_spacing(count: int, radius: float) -> float:
    """Edge of the cube that each of `count` points has to itself in a ball: (4/3 pi radius^3 / count)^(1/3)."""
    return (4.0 / 3.0 * math.pi * radius**3 / count) ** (1.0 / 3.0)
