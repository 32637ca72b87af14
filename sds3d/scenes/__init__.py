"""What can be optimized. A new scene is one file and one line here."""

from sds3d.scenes.base import ParamGroup, Scene, SceneConfig
from sds3d.scenes.gaussians import Gaussians, GaussiansConfig

SCENES: dict[str, type[SceneConfig]] = {"gaussians": GaussiansConfig}

__all__ = ["SCENES", "Gaussians", "GaussiansConfig", "ParamGroup", "Scene", "SceneConfig"]
