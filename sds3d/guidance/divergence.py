"""Which divergence between the prior and the renders a distribution-matching guidance descends."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

Divergence = Literal["reverse_kl", "forward_kl", "jensen_shannon"]


def log_weight(divergence: Divergence, log_ratio: Float[Tensor, "B"]) -> Float[Tensor, "B"]:
    """log h(r) with r = p_t / q_t at x_t, for f-divergences (Xu et al. 2025, f-distill):

    d/dtheta D_f(p || q) = -E_q[ h(r) (grad log p - grad log q) dx/dtheta ],   h(r) = f''(r) r^2

    h = 1 for KL(q || p), which is plain VSD; r for KL(p || q); r / (1 + r) for KL(p || m) + KL(q || m), m = (p + q) / 2
    (twice Jensen and Shannon's). In logarithms, for r itself overflows in the dimensions of images.
    """
    weights = {
        "reverse_kl": torch.zeros_like(log_ratio),
        "forward_kl": log_ratio,
        "jensen_shannon": functional.logsigmoid(log_ratio),
    }
    return weights[divergence]
