"""What can be optimized. A new scene is one file and one line here."""

from sds3d.scenes.base import ParamGroup, Scene, SceneConfig, Training
from sds3d.scenes.gaussians import Gaussians, GaussiansConfig
from sds3d.scenes.image import ImageConfig, ImageScene

SCENES: dict[str, type[SceneConfig]] = {"gaussians": GaussiansConfig, "image": ImageConfig}

__all__ = [
    "SCENES",
    "Gaussians",
    "GaussiansConfig",
    "ImageConfig",
    "ImageScene",
    "ParamGroup",
    "Scene",
    "SceneConfig",
    "Training",
]
