"""What a mesh scene takes from a person's file to begin with: its surface, and its colours."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sds3d.errors import ConfigError
from sds3d.mesh_files import UserMesh
from sds3d.ops.outlines import mesh_edges
from sds3d.ops.remesh import edge_length_for, remesh
from sds3d.scenes.surface_color import ColorField

FACES, FEWEST, MOST = 8000, 2000, 20_000  # of a surface that is made anew; of one that is kept
UNEVEN = 0.5  # of the edges: standard deviation of their lengths by the mean, from where on it is made anew
POINTS, FIT_STEPS = 60_000, 300  # by which the file's colours are taken on


def take_colors(field: ColorField, file: UserMesh) -> bool:
    """The file's base colours, for the field to go on from; whether it has any, or is white because it has none."""
    points, colors = (torch.from_numpy(values).float() for values in file.samples(POINTS, np.random.default_rng(0)))
    field.fit(points, colors, torch.Generator().manual_seed(0), FIT_STEPS)
    return bool((colors < 0.999).any())


def movable(file: UserMesh) -> tuple[Float[Tensor, "V 3"], Int[Tensor, "F 3"]]:
    """Its surface with each place once, closed, of triangles that are neither too many, too few nor too uneven.

    ConfigError for a surface that has borders or is no manifold.
    """
    vertices, _, faces = file.corners()
    places, owner = np.unique(vertices.round(6), axis=0, return_inverse=True)
    corners = owner.reshape(-1)[faces]
    corners = corners[(corners != np.roll(corners, 1, axis=1)).all(axis=1)]
    points, triangles = torch.from_numpy(places).float(), torch.from_numpy(corners).int()
    edges = mesh_edges(triangles)
    borders = int((edges[:, 3] < 0).sum())
    if borders:
        raise ConfigError(
            f"{file.path} has {borders} edges at the borders of holes",
            hint="close it first; sds3d texture takes it as it is",
        )
    lengths = (points[edges[:, 0].long()] - points[edges[:, 1].long()]).norm(dim=1)
    if FEWEST <= len(triangles) <= MOST and float(lengths.std() / lengths.mean()) < UNEVEN:
        return points, triangles
    try:
        return remesh(points, triangles, edge_length_for(points, triangles, FACES))
    except ConfigError as error:
        raise ConfigError(f"{file.path} is no surface that can move: {error.args[0]}", error.hint) from error
