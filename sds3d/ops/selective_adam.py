"""Adam on those rows of a parameter that were seen in a step (after the sparse Adam of Kerbl et al. 2023's code)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sds3d.ops.extension import use_compiled


@torch.no_grad()
def selective_adam_(
    parameter: Float[Tensor, "N *D"],
    exp_avg: Float[Tensor, "N *D"],
    exp_avg_sq: Float[Tensor, "N *D"],
    grad: Float[Tensor, "N *D"],
    visible: Bool[Tensor, "N"],
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    step: int,
) -> None:
    """One step of torch.optim.Adam in place on the visible rows; the others keep value and moments.

    `step` is the number of this step, from 1 on, and the same for all rows: a row that was not seen for a while goes
    on with its old moments as if no time had passed. Compiled: float32, and contiguous where it is written to.
    """
    if not use_compiled(parameter.device, "selective_adam"):
        selective_adam_reference_(parameter, exp_avg, exp_avg_sq, grad, visible, lr, beta1, beta2, eps, step)
        return
    if len(visible) == 0:
        return
    flat = [t.detach().view(len(visible), -1) for t in (parameter, exp_avg, exp_avg_sq)]
    rows = grad.detach().reshape(len(visible), -1)
    torch.ops.sds3d.selective_adam(*flat, rows, visible, lr, beta1, beta2, eps, step)


@torch.no_grad()
def selective_adam_reference_(
    parameter: Float[Tensor, "N *D"],
    exp_avg: Float[Tensor, "N *D"],
    exp_avg_sq: Float[Tensor, "N *D"],
    grad: Float[Tensor, "N *D"],
    visible: Bool[Tensor, "N"],
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    step: int,
) -> None:
    """`selective_adam_` in pure torch, for any float type and device."""
    rows = visible.nonzero()[:, 0]
    m = exp_avg[rows] + (1 - beta1) * (grad[rows] - exp_avg[rows])
    v = beta2 * exp_avg_sq[rows] + (1 - beta2) * grad[rows].square()
    denominator = v.sqrt() / (1 - beta2**step) ** 0.5 + eps
    parameter[rows] -= lr / (1 - beta1**step) * m / denominator
    exp_avg[rows], exp_avg_sq[rows] = m, v
