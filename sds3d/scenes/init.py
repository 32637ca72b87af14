"""Where splats start."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def ball_points(count: int, radius: float, generator: torch.Generator) -> Float[Tensor, "N 3"]:
    """Points drawn uniformly from a ball around the origin."""
    directions = torch.randn(count, 3, generator=generator)
    directions = directions / directions.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    return directions * radius * torch.rand(count, 1, generator=generator).pow(1.0 / 3.0)


def ball_spacing(count: int, radius: float) -> float:
    """Edge of the cube that each of `count` points has to itself in a ball: (4/3 pi radius^3 / count)^(1/3)."""
    return (4.0 / 3.0 * math.pi * radius**3 / count) ** (1.0 / 3.0)
