"""Bounding boxes of groups of solids, and fitting a group into a ball around the origin."""

import torch
from jaxtyping import Float
from torch import Tensor

from sds3d.priors.embedded.solids import Solid


def box(solids: list[Solid]) -> tuple[Float[Tensor, "3"], Float[Tensor, "3"]]:
    """The lowest and the highest corner of their common bounding box."""
    points = torch.cat([solid.outline() for solid in solids])
    return points.amin(0), points.amax(0)


def fit(solids: list[Solid], radius: float) -> list[Solid]:
    """The same object, its bounding box centred on the origin and its farthest point at `radius`."""
    *center, reach = frame(solids)
    scale = radius / reach
    x, y, z = (-scale * value for value in center)
    return [solid.moved(scale, (x, y, z)) for solid in solids]


def frame(solids: list[Solid]) -> tuple[float, float, float, float]:
    """The centre of the bounding box (x, y, z), and the distance of the farthest point from it."""
    points = torch.cat([solid.outline() for solid in solids])
    center = (points.amin(0) + points.amax(0)) / 2.0
    x, y, z = center.tolist()
    return x, y, z, float((points - center).norm(dim=-1).max())
