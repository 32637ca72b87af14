"""How the scene of a stage takes over what the stage before has made."""

import itertools
from typing import cast

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import nn

from sds3d.config import RunConfig
from sds3d.errors import ConfigError
from sds3d.export.extract import ExportConfig, extract_mesh
from sds3d.export.views import scene_device
from sds3d.ops.extension import BUILD_COMMAND, backend_info, compiled
from sds3d.ops.finish import finish
from sds3d.ops.triangle_geometry import surface_samples, vertex_normals
from sds3d.scenes.base import Scene
from sds3d.scenes.mesh import COLORED_POINTS, Mesh

FOUND_FACES = 20_000  # of the surface as it is found, with its colours
FACES = 8000  # of the surface that a mesh begins as
CELLS = 96  # of the grid that it is searched on: it is not yet the result


def check_take_overs(config: RunConfig) -> None:
    """ConfigError, before a run begins, where a mesh that takes over a surface could not be made here."""
    kinds = [config.in_stage(number).scene.name for number in range(len(config.stages) + 1)]
    for number, (before, kind) in enumerate(itertools.pairwise(kinds)):
        if before != kind and not compiled():
            problem = f"stages[{number}]: a {kind} that takes over needs sds3d's compiled kernels"
            hint = f"build them with: {BUILD_COMMAND}; or use stages=[]"
            raise ConfigError(f"{problem}: {backend_info().reason}", hint)


def take_over(old: Scene, new: Scene) -> None:
    """A scene of the same kind goes on from the old one's state; a mesh begins as the surface of splats or of a field.

    ExportError where the old scene has no surface. An optimizer that holds the new scene's parameters is void.
    """
    if type(old) is type(new):
        cast(nn.Module, new).load_state_dict(cast(nn.Module, old).state_dict())
        if isinstance(old, Mesh) and isinstance(new, Mesh) and old.config.smoothness != new.config.smoothness:
            # the state has u, which another lambda takes for other vertices
            new.set_surface(*old.surface(), new.anchor)
    else:
        assert isinstance(new, Mesh), f"{type(new)} takes over nothing of another kind"
        become_surface(new, old)


def become_surface(mesh: Mesh, scene: Scene) -> None:
    """The mesh as the scene's surface, with its colours, of which the light that the mesh adds is taken out."""
    device = scene_device(mesh)
    surface = extract_mesh(scene, ExportConfig(resolution=CELLS, faces=FOUND_FACES, color="vertex"))
    vertices, faces = torch.from_numpy(surface.vertices), torch.from_numpy(surface.faces.astype(np.int32))
    colored = cKDTree(surface.vertices)
    vertices, faces = finish(vertices, faces, FACES, rounds=1)  # even faces, and the worst of the lumps away
    mesh.set_surface(vertices.to(device), faces.to(device))
    generator = torch.Generator().manual_seed(0)
    chosen, shares = surface_samples(vertices, faces, COLORED_POINTS, generator)

    def at_points(values: torch.Tensor) -> torch.Tensor:
        return (values[faces.long()[chosen]] * shares[..., None]).sum(dim=1)

    colors, places = (
        at_points(torch.from_numpy(surface.colors[colored.query(vertices.numpy())[1]])),
        at_points(vertices),
    )
    if mesh.config.light is not None:
        normals = nn.functional.normalize(at_points(vertex_normals(vertices, faces)), dim=-1)
        colors = colors / mesh.config.light.on(normals)[:, None].clamp_min(0.1)
    mesh.take_on_colors(places, colors.clamp(0, 1), generator)
