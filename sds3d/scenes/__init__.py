"""What can be optimized. A new scene is one file and one line here."""

from sds3d.scenes.base import ParamGroup, Scene
from sds3d.scenes.gaussians import Gaussians, GaussiansConfig

SCENES = {"gaussians": GaussiansConfig}

__all__ = ["SCENES", "Gaussians", "GaussiansConfig", "ParamGroup", "Scene"]
