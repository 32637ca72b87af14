"""Grow splats where the image pulls hardest, drop those that show nothing, and keep the optimizer in step.

Adaptive density control after Kerbl et al. 2023, with the opacity correction of Rota Bulo et al. 2024. Splats to grow
are ranked by their screen-space gradient: distillation gradients have a scale of their own in every guidance, so the
share that may grow is bounded too, not the threshold alone.
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
from sds3d.options import Fraction, Options

SPLIT_SHRINK = 1.6  # a split splat's children are this much smaller (Kerbl et al. 2023, section 5.2)


class DensifyConfig(Options):
    """When and where splats are added and removed."""

    enabled: Annotated[bool, Field(description="Add and remove splats while optimizing")] = True
    begin_step: Annotated[int, Field(ge=0, description="No refinement before this step")] = 100
    end_step: Annotated[int, Field(ge=0, description="No refinement from this step on")] = 100_000
    every: Annotated[int, Field(ge=1, description="Steps between refinements")] = 50
    grad_threshold: Annotated[
        float, Field(ge=0, description="Least mean gradient of a splat's place in units of half the image")
    ] = 0.0
    grow_share: Annotated[Fraction, Field(description="At most this share grows in one refinement")] = 0.05
    clone_scale: Annotated[float, Field(gt=0, description="Splats up to this size are cloned, larger ones split")] = (
        0.02
    )
    prune_opacity: Annotated[float, Field(ge=0, lt=1, description="Fainter splats are removed")] = 0.01
    max_count: Annotated[int, Field(ge=1, le=5_000_000, description="Never more splats than this")] = 20_000
    min_count: Annotated[int, Field(ge=1, description="Never fewer splats than this (the most opaque stay)")] = 64


@dataclass(frozen=True)
class Refinement:
    """Which old splat each new one comes from: first those that stay, then both children of each that grows."""

    source: Int[Tensor, "M"]  # index into the old splats
    is_child: Bool[Tensor, "M"]
    is_split: Bool[Tensor, "M"]  # children that shrink


def plan_refinement(
    gradients: Float[Tensor, "N"], scales: Float[Tensor, "N 3"], opacities: Float[Tensor, "N"], config: DensifyConfig
) -> Refinement:
    """Who stays, who is cloned, who is split and who goes. Deterministic: ties are settled by index."""
    count = len(gradients)
    stays = opacities >= config.prune_opacity
    if int(stays.sum()) < min(config.min_count, count):
        best = torch.sort(opacities, descending=True, stable=True).indices[: config.min_count]
        stays = torch.zeros_like(stays).index_fill(0, best, True)
    room = max(config.max_count - int(stays.sum()), 0)
    order = torch.sort(gradients, descending=True, stable=True).indices
    order = order[(stays & (gradients > config.grad_threshold))[order]]
    grows = torch.zeros_like(stays)
    grows[order[: min(room, int(config.grow_share * count))]] = True

    rest = torch.where(stays & ~grows)[0]
    parents = torch.where(grows)[0]
    source = torch.cat([rest, parents, parents])
    is_child = torch.arange(len(source), device=source.device) >= len(rest)
    is_large = scales.amax(dim=-1)[source] > config.clone_scale
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
    """New parameters in the old ones' places in the optimizer.

    Per-splat optimizer state (any tensor shaped like its parameter) follows the splat it belongs to; children start
    from zero. Other state, such as step counts, is kept.
    """
    replaced = {}
    for name, parameter in old.items():
        fresh = nn.Parameter(new_values[name], requires_grad=parameter.requires_grad)
        for group in optimizer.param_groups:
            group["params"] = [fresh if p is parameter else p for p in group["params"]]
        state = optimizer.state.pop(parameter, None)
        if state is not None:
            optimizer.state[fresh] = {
                key: _follow(value, plan) if _is_per_splat(value, parameter) else value for key, value in state.items()
            }
        replaced[name] = fresh
    return replaced


def _is_per_splat(value: object, parameter: nn.Parameter) -> bool:
    return isinstance(value, Tensor) and value.shape == parameter.shape


def _follow(value: Tensor, plan: Refinement) -> Tensor:
    moved = value[plan.source]
    moved[plan.is_child] = 0
    return moved
