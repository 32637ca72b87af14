"""How a guidance's gradient enters the scene's backward pass."""

from typing import Any

import torch
from torch import Tensor

from sds3d.types import Latents, Scalar


class _Inject(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, grad: Tensor) -> Tensor:
        ctx.save_for_backward(grad)
        ctx.x_dtype = x.dtype
        return 0.5 * grad.square().sum() / len(grad)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        (grad,) = ctx.saved_tensors
        return (grad_outputs[0] * grad / len(grad)).to(ctx.x_dtype), None


def inject_gradient(x: Latents, grad: Latents) -> Scalar:
    """A loss with value 1/2 ||grad||^2 / B and gradient grad / B on x, in float32 or wider.

    It equals 1/2 ||x - stopgrad(x - grad)||^2, summed over C h w and averaged over B, without the rounding of x - grad.
    Pitfall: code that averages over C h w as well has a gradient smaller by 1 / (C h w).
    """
    return _Inject.apply(x, grad.detach().to(torch.promote_types(grad.dtype, torch.float32)))


def clip_gradient(grad: Latents, limit: float) -> tuple[Latents, Scalar]:
    """Clamps each element to [-limit, limit]; also returns the fraction of elements that were outside.

    Infinite and nan elements stay as they are, so that the health check sees them.
    """
    outside = grad.abs() > limit
    return torch.where(grad.isinf(), grad, grad.clamp(-limit, limit)), outside.to(grad.dtype).mean()
