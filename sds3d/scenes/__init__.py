"""What can be optimized. A new scene is one file and one line here."""

from sds3d.scenes.base import ParamGroup, RenderContext, Scene, SceneConfig
from sds3d.scenes.gaussians import Gaussians, GaussiansConfig
from sds3d.scenes.image import ImageConfig, ImageScene
from sds3d.scenes.mesh import Mesh, MeshConfig
from sds3d.scenes.nerf import Nerf, NerfConfig

SCENES: dict[str, type[SceneConfig]] = {
    "gaussians": GaussiansConfig,
    "nerf": NerfConfig,
    "mesh": MeshConfig,
    "image": ImageConfig,
}

__all__ = [
    "SCENES",
    "Gaussians",
    "GaussiansConfig",
    "ImageConfig",
    "ImageScene",
    "Mesh",
    "MeshConfig",
    "Nerf",
    "NerfConfig",
    "ParamGroup",
    "RenderContext",
    "Scene",
    "SceneConfig",
]
