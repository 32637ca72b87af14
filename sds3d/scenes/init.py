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


def neighbour_distances(points: Float[Tensor, "N 3"], neighbours: int = 3, chunk: int = 1024) -> Float[Tensor, "N"]:
    """Root mean square distance to the nearest `neighbours` other points; memory grows with chunk * N."""
    if len(points) <= neighbours:
        raise ValueError(f"{len(points)} points have no {neighbours} neighbours each")
    distances = []
    for part in points.split(chunk):
        nearest = torch.cdist(part, points, compute_mode="donot_use_mm_for_euclid_dist").topk(
            neighbours + 1, largest=False
        )
        distances.append(nearest.values[:, 1:].square().mean(dim=-1).sqrt())  # [:, 0] is the point itself
    return torch.cat(distances)
