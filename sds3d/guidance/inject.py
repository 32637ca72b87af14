"""How a guidance's gradient enters the scene's own backward pass."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


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


def clip_gradient(grad: Float[Tensor, "B C h w"], limit: float) -> tuple[Float[Tensor, "B C h w"], Float[Tensor, ""]]:
    """Every element into [-limit, limit], and the share of elements that were outside.

    Infinite ones stay: that something broke must not be hidden.
    """
    outside = grad.abs() > limit
    return torch.where(grad.isinf(), grad, grad.clamp(-limit, limit)), outside.to(grad.dtype).mean()


def inject_gradient(x: Float[Tensor, "B C h w"], grad: Float[Tensor, "B C h w"]) -> Float[Tensor, ""]:
    """A loss whose gradient on x is grad / B, in float32 (or wider), and whose value is 1/2 ||grad||^2 / B.

    That is 1/2 ||x - stopgrad(x - grad)||^2 summed over C h w and averaged over B, without its rounding. A mean over
    all elements would scale the gradient by 1/(C h w), which no optimizer setting in the literature expects.
    """
    return _Inject.apply(x, grad.detach().to(torch.promote_types(grad.dtype, torch.float32)))
