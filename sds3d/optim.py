"""The optimizer: Adam over the scene's own parameter groups."""

from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from pydantic import Field, field_validator
from torch import nn
from torch.optim import Optimizer

from sds3d.options import Changing, Options, Schedule, value_at
from sds3d.scenes.base import ParamGroup, Scene

Beta = Annotated[float, Field(ge=0, lt=1)]


class OptimConfig(Options):
    """Adam's settings. Each parameter's learning rate is the scene's; here they are scaled over the run."""

    beta1: Beta = 0.9
    beta2: Beta = 0.99
    # noise of the last steps would stay in the scene as fur on its surface
    lr_scale: Annotated[Changing, Field(description="factor on every learning rate")] = Schedule(
        start=1.0, end=0.1, begin_at=0.3, end_at=1.0
    )
    group_lr_scale: Annotated[
        Mapping[str, Changing], Field(description="further factors by parameter group, such as means")
    ] = {}
    clip_gradient: Annotated[
        Changing | None, Field(description="largest element of the guidance's gradient on a view; none where not given")
    ] = None
    guidance_lr: Annotated[float, Field(ge=0, description="learning rate of a guidance's own network")] = 1e-4

    @field_validator("clip_gradient")
    @classmethod
    def _positive(cls, value: float | Schedule | None) -> float | Schedule | None:
        if value is not None and min(value_at(value, 0.0), value_at(value, 1.0)) <= 0:
            raise ValueError("it must be above 0")
        return value


def build_optimizer(
    config: OptimConfig, scene: Scene, state: nn.Module | None, others: Sequence[ParamGroup] = ()
) -> torch.optim.Adam:
    """Adam with one group per scene parameter group, one for the guidance's parameters where it has some, and `others`.

    A group keeps its `name` and its unscaled rate `base_lr`; densification finds parameters through their group.
    """
    groups = [
        {"name": g.name, "params": g.parameters, "lr": g.lr, "base_lr": g.lr, "eps": g.eps}
        for g in [*scene.param_groups(), *others]
    ]
    own = [p for p in state.parameters() if p.requires_grad] if state is not None else []
    if own:
        groups.append({"name": "guidance", "params": own, "lr": config.guidance_lr, "base_lr": config.guidance_lr})
    return torch.optim.Adam(groups, betas=(config.beta1, config.beta2), foreach=False)


def set_learning_rates(config: OptimConfig, optimizer: Optimizer, progress: float) -> None:
    """lr_g = base_lr_g * lr_scale * group_lr_scale_g at `progress`, the part of the run that is done."""
    overall = value_at(config.lr_scale, progress)
    for group in optimizer.param_groups:
        own = value_at(config.group_lr_scale.get(group["name"], 1.0), progress)
        group["lr"] = group["base_lr"] * overall * own
