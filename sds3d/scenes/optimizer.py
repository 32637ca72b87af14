"""The optimizer: Adam over the scene's parameter groups, with learning rates that change over the run."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from jaxtyping import Bool
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Optimizer

from sds3d.ops.selective_adam import selective_adam_
from sds3d.options import Options, Schedule, Scheduled, bounded, evaluate
from sds3d.scenes.base import ParamGroup, Scene
from sds3d.scenes.densify import SplatTrace
from sds3d.scenes.particles import Particles
from sds3d.types import RenderOutput

# The gradients are noisy and their size changes with t: a second moment over 100 steps follows that, one over Adam's
# usual 1000 does not. threestudio has the same.
BETAS = (0.9, 0.99)
MOMENTS = ("exp_avg", "exp_avg_sq")  # as torch.optim.Adam calls them


class OptimConfig(Options):
    """Adam's settings. The scene has the learning rates of its parameters; here they are scaled over the run."""

    # with a constant rate the gradient noise of the last steps stays as fur on the surface
    lr_scale: Annotated[Scheduled, Field(description="factor on all learning rates")] = Schedule(
        start=1.0, end=0.1, begin_at=0.3, end_at=1.0
    )
    group_lr_scale: Annotated[
        Mapping[str, Scheduled], Field(description="further factors by parameter group, such as means")
    ] = {}
    clip_gradient: Annotated[
        Scheduled | None,
        bounded("above 0", lambda limit: limit > 0),
        Field(description="limit for each element of the guidance's gradient on a view; no limit if not given"),
    ] = None
    selective: Annotated[
        bool, Field(description="splats that no view shows keep their values and Adam moments in that step")
    ] = False
    guidance_lr: Annotated[float, Field(ge=0, description="learning rate of a guidance's own network")] = 1e-4


def build_optimizer(
    config: OptimConfig, scene: Scene | Particles, state: nn.Module | None, others: Sequence[ParamGroup] = ()
) -> torch.optim.Adam:
    """Adam with the scene's parameter groups, `others`, and a group for the guidance's own parameters if it has any.

    Each group has its `name` and its unscaled rate `base_lr`; densification finds parameters through their group.
    """
    groups = [
        {"name": g.name, "params": g.parameters, "lr": g.lr, "base_lr": g.lr, "eps": g.eps, "uniform": g.uniform}
        for g in [*scene.param_groups(), *others]
    ]
    own = [p for p in state.parameters() if p.requires_grad] if state is not None else []
    if own:
        groups.append({"name": "guidance", "params": own, "lr": config.guidance_lr, "base_lr": config.guidance_lr})
    kind = SelectiveAdam if config.selective else SceneAdam
    return kind(groups, betas=BETAS, foreach=False)


class SceneAdam(torch.optim.Adam):
    """Adam without weight decay; groups marked `uniform` have one second moment for all elements (Nicolet et al. 2021,
    section 3.3).

    m and v as in Adam, but v of max(gradient^2):  p -= lr m_hat / (sqrt(v_hat) + eps).  Where neighbours are moved
    together, scales of their own would tear them apart again.
    """

    # torch keeps torch.compile out of these and of its step, and loads all of it to do so: that takes seconds and keeps
    # the frames of its callers, with the prior in them
    add_param_group, zero_grad, state_dict, load_state_dict = (
        inspect.unwrap(method)
        for method in (Optimizer.add_param_group, Optimizer.zero_grad, Optimizer.state_dict, Optimizer.load_state_dict)
    )

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step."""
        for group in self.param_groups:
            move = self._move_together if group.get("uniform") else self._move
            for parameter in group["params"]:
                if parameter.grad is not None:
                    move(parameter, parameter.grad, group)

    def _begun(self, parameter: Tensor) -> dict[str, Any]:
        """The parameter's state, as torch.optim.Adam begins it."""
        state: dict[str, Any] = self.state[parameter]
        if not state:
            state.update(step=torch.tensor(0.0), **{name: torch.zeros_like(parameter) for name in MOMENTS})
        state["step"] += 1
        return state

    def _move(self, parameter: Tensor, grad: Tensor, group: Mapping[str, Any]) -> None:
        state, (beta1, beta2) = self._begun(parameter), group["betas"]
        count = float(state["step"])
        state["exp_avg"].lerp_(grad, 1 - beta1)
        state["exp_avg_sq"].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        scale = (state["exp_avg_sq"].sqrt() / (1 - beta2**count) ** 0.5).add_(group["eps"])
        parameter.addcdiv_(state["exp_avg"], scale, value=-group["lr"] / (1 - beta1**count))

    def _move_together(self, parameter: Tensor, grad: Tensor, group: Mapping[str, Any]) -> None:
        state, (beta1, beta2) = self.state[parameter], group["betas"]
        if not state:
            zero = torch.zeros((), device=grad.device)
            state.update(step=torch.tensor(0.0), exp_avg=torch.zeros_like(parameter), exp_avg_sq=zero)
        state["step"] += 1
        count = float(state["step"])
        state["exp_avg"].lerp_(grad, 1 - beta1)
        state["exp_avg_sq"].lerp_(grad.square().max(), 1 - beta2)
        scale = (state["exp_avg_sq"] / (1 - beta2**count)).sqrt() + group["eps"]
        parameter.sub_(state["exp_avg"] / scale, alpha=group["lr"] / (1 - beta1**count))


class SelectiveAdam(SceneAdam):
    """Adam that can skip rows of a parameter. Its state is that of torch.optim.Adam, so checkpoints fit both."""

    @torch.no_grad()
    def step_visible(self, visible: Mapping[Tensor, Bool[Tensor, " N"]]) -> None:
        """Update the visible rows of the given parameters, and all other parameters as `step` does.

        Clears the gradients of the given parameters.
        """
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter in visible and parameter.grad is not None:
                    self._move_rows(parameter, parameter.grad, visible[parameter], group)
                    parameter.grad = None
        self.step()

    def _move_rows(self, parameter: Tensor, grad: Tensor, rows: Bool[Tensor, " N"], group: Mapping[str, Any]) -> None:
        state = self._begun(parameter)
        beta1, beta2 = group["betas"]
        moments, step = (state["exp_avg"], state["exp_avg_sq"]), int(state["step"])
        selective_adam_(parameter, *moments, grad, rows, group["lr"], beta1, beta2, group["eps"], step)


def take_step(optimizer: Optimizer, renders: Sequence[RenderOutput]) -> None:
    """One step; a SelectiveAdam updates only the splats that one of the step's `renders` shows.

    As always with torch, a parameter whose gradient is None keeps its value and its moments.
    """
    if isinstance(optimizer, SelectiveAdam):
        optimizer.step_visible(visible_rows(renders))
    else:
        optimizer.step()


def visible_rows(renders: Sequence[RenderOutput]) -> dict[Tensor, Bool[Tensor, " N"]]:
    """For each parameter of splats, the rows that some view of some render shows; empty for other scenes."""
    rows: dict[Tensor, Tensor] = {}
    each = [part for out in renders for part in (out.aux if isinstance(out.aux, list) else [out])]  # of particles too
    for trace in (out.aux for out in each if isinstance(out.aux, SplatTrace)):
        visible = trace.visible.any(dim=0)
        for parameter in trace.parameters:
            rows[parameter] = rows[parameter] | visible if parameter in rows else visible
    return rows


def set_learning_rates(config: OptimConfig, optimizer: Optimizer, progress: float, rate: float = 1.0) -> None:
    """lr_g = rate * base_lr_g * lr_scale * group_lr_scale_g; `progress` is the fraction of the run that is done."""
    overall = rate * evaluate(config.lr_scale, progress)
    for group in optimizer.param_groups:
        own = evaluate(config.group_lr_scale.get(group["name"], 1.0), progress)
        group["lr"] = group["base_lr"] * overall * own
