"""Adaptive density control: grow splats where the image pulls hardest, remove those that show nothing.

After Kerbl et al. 2023, section 5, with the opacity correction of Rota Bulo et al. 2024. Splats to grow are ranked by
their screen-space gradient. Every guidance has gradients of another scale, so no threshold fits all of them: what is
bounded is the share that grows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Optimizer

from sds3d.ops.project_gaussians import rotation_matrices
from sds3d.options import Fraction, Options, ordered
from sds3d.types import PerPixel

WARM_UP = 2  # intervals of refine_every without refinement: the first splats have to find their places
GROW_SCALE3D = 0.02  # world units: splats up to this size are cloned, larger ones split
SPLIT_SHRINK = 1.6  # a split splat's children are this much smaller (Kerbl et al. 2023, section 5.2)
PRUNE_OPACITY = 0.01  # splats of lower opacity are removed
MIN_COUNT = 64  # the most opaque splats, which are never pruned: a scene without splats has no gradient to recover by


class DensifyConfig(Options):
    """When and where splats are added and removed; names as in gsplat's DefaultStrategy."""

    refine_start: Annotated[
        Fraction, Field(description="No refinement before this part of the run, nor in the first two intervals")
    ] = 0.0
    refine_stop: Annotated[
        Fraction, Field(description="No refinement from this part of the run on, nor in the last interval; 0: never")
    ] = 0.95
    refine_every: Annotated[int, Field(ge=1, description="Steps between refinements: the interval")] = 50
    grow_share: Annotated[Fraction, Field(description="At most this share grows in one refinement")] = 0.05
    max_count: Annotated[int, Field(ge=1, le=5_000_000, description="No growth beyond this number of splats")] = 20_000

    _in_order = ordered("refine_start", "refine_stop")

    def is_due(self, step: int, steps: int) -> bool:
        """Whether splats are refined after step `step` (from 0) of `steps`.

        At every multiple of refine_every, without the first WARM_UP of them, and never so late that the children would
        have less than one interval left to be optimized in.
        """
        done, every = step + 1, self.refine_every
        in_time = WARM_UP * every < done <= steps - every
        return in_time and done % every == 0 and self.refine_start <= step / steps < self.refine_stop


@dataclass(frozen=True)
class SplatTrace:
    """What a render of splats leaves behind for the steps after it."""

    means2d: Float[Tensor, "B N 2"]  # pixels; its gradient says how hard the image pulls at each splat
    visible: Bool[Tensor, "B N"]
    parameters: tuple[nn.Parameter, ...]  # of the scene that was rendered, one row per splat
    width: int  # pixels
    height: int
    # sum_i w_i d_i and sum_i w_i d_i^2 of each pixel, d = z - distance of the camera; only where "z_variance" was asked
    depth_sums: tuple[PerPixel, PerPixel] | None = None


@dataclass(frozen=True)
class Refinement:
    """Which old splat each new one comes from: first those that stay, then both children of each that grows."""

    source: Int[Tensor, " M"]  # index into the old splats
    is_child: Bool[Tensor, " M"]
    is_split: Bool[Tensor, " M"]  # children that shrink


@torch.no_grad()
def refine(
    splats: Mapping[str, nn.Parameter],
    scores: Float[Tensor, " N"],
    config: DensifyConfig,
    optimizer: Optimizer,
    generator: torch.Generator,
) -> dict[str, nn.Parameter]:
    """Clone, split and prune once; returns the splats from now on, which are new objects: keep them, not the old ones.

    The score of a splat is the mean over the views that showed it of |d loss / d means2d|, in units of half the image.
    """
    plan = plan_refinement(scores, splats["raw_scales"].exp(), splats["raw_opacities"].sigmoid(), config)
    values, child = {name: parameter[plan.source] for name, parameter in splats.items()}, plan.is_child
    scales = values["raw_scales"][child].exp()
    values["raw_means"][child] += child_offsets(values["raw_quats"][child], scales, generator)
    values["raw_scales"][plan.is_split] -= torch.tensor(SPLIT_SHRINK).log()
    # two of opacity 1 - sqrt(1 - o) in line cover as much as the one they replace (Rota Bulo et al. 2024)
    opacity = values["raw_opacities"][child].sigmoid()
    values["raw_opacities"][child] = (1 - (1 - opacity).sqrt()).clamp(1e-6, 1 - 1e-6).logit()
    return replace_parameters(values, splats, plan, optimizer)


def plan_refinement(
    scores: Float[Tensor, " N"], scales: Float[Tensor, "N 3"], opacities: Float[Tensor, " N"], config: DensifyConfig
) -> Refinement:
    """Which splats stay, are cloned, split or pruned. Deterministic: equal scores are taken in the order of index."""
    count = len(scores)
    stays = opacities >= PRUNE_OPACITY
    if int(stays.sum()) < min(MIN_COUNT, count):
        best = torch.sort(opacities, descending=True, stable=True).indices[:MIN_COUNT]
        stays = torch.zeros_like(stays).index_fill(0, best, True)
    room = max(config.max_count - int(stays.sum()), 0)
    order = torch.sort(scores, descending=True, stable=True).indices
    order = order[(stays & (scores > 0))[order]]
    grows = torch.zeros_like(stays)
    grows[order[: min(room, int(config.grow_share * count))]] = True

    rest = torch.where(stays & ~grows)[0]
    parents = torch.where(grows)[0]
    source = torch.cat([rest, parents, parents])
    is_child = torch.arange(len(source), device=source.device) >= len(rest)
    is_large = scales.amax(dim=-1)[source] > GROW_SCALE3D
    return Refinement(source, is_child, is_child & is_large)


def child_offsets(
    quats: Float[Tensor, "M 4"], scales: Float[Tensor, "M 3"], generator: torch.Generator
) -> Float[Tensor, "M 3"]:
    """One draw from each splat's own Gaussian, as an offset from its mean. Drawn on the CPU whatever the device."""
    draws = torch.randn(scales.shape, generator=generator).to(scales)
    return torch.einsum("mij,mj->mi", rotation_matrices(quats), scales * draws)


def replace_parameters(
    new_values: Mapping[str, Tensor], old: Mapping[str, nn.Parameter], plan: Refinement, optimizer: Optimizer
) -> dict[str, nn.Parameter]:
    """New parameters that take the places of the old ones in the optimizer.

    Optimizer state with one row per splat (any tensor shaped like its parameter) follows its splat, and starts from
    zero for children. Other state, such as step counts, is kept.
    """
    replaced = {}
    for name, parameter in old.items():
        fresh = nn.Parameter(new_values[name], requires_grad=parameter.requires_grad)
        for group in optimizer.param_groups:
            group["params"] = [fresh if p is parameter else p for p in group["params"]]
        if parameter in optimizer.state:
            state = optimizer.state.pop(parameter)
            for key, value in state.items():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    state[key] = value[plan.source]
                    state[key][plan.is_child] = 0
            optimizer.state[fresh] = state
        replaced[name] = fresh
    return replaced
