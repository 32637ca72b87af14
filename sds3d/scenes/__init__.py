"""What can be optimized. A new scene is one file and one line here."""

from sds3d.scenes.base import Scene, SceneConfig
from sds3d.scenes.gaussians import GaussiansConfig
from sds3d.scenes.image import ImageConfig
from sds3d.scenes.mesh import MeshConfig
from sds3d.scenes.nerf import NerfConfig

__all__ = ["SCENES", "GaussiansConfig", "ImageConfig", "MeshConfig", "NerfConfig", "Scene", "SceneConfig"]

SCENES: dict[str, type[SceneConfig]] = {
    "gaussians": GaussiansConfig,
    "nerf": NerfConfig,
    "mesh": MeshConfig,
    "image": ImageConfig,
}
