"""Adam on the rows of a parameter that were visible in a step (after SparseGaussianAdam in the code of 3DGS)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sds3d.ops.extension import use_compiled


@torch.no_grad()
def selective_adam_(
    parameter: Float[Tensor, " N *D"],
    exp_avg: Float[Tensor, " N *D"],
    exp_avg_sq: Float[Tensor, " N *D"],
    grad: Float[Tensor, " N *D"],
    visible: Bool[Tensor, " N"],
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    step: int,
) -> None:
    """One step of torch.optim.Adam, in place, on the visible rows; other rows keep their values and moments.

    m <- b1 m + (1 - b1) g,   v <- b2 v + (1 - b2) g^2,   p <- p - lr m' / (sqrt(v') + eps)   (Kingma and Ba 2015)
    with m' = m / (1 - b1^step) and v' = v / (1 - b2^step)
    `step` counts from 1 and is the same for all rows: the moments of a row that was not visible for a while do not
    decay. The compiled op takes float32 tensors, and contiguous ones where it writes.
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
    parameter: Float[Tensor, " N *D"],
    exp_avg: Float[Tensor, " N *D"],
    exp_avg_sq: Float[Tensor, " N *D"],
    grad: Float[Tensor, " N *D"],
    visible: Bool[Tensor, " N"],
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
