"""sds3d: from words to 3D objects by score distillation from 2D diffusion priors."""

from sds3d import errors
from sds3d.config import RunConfig, load_config, resolve
from sds3d.guidance import GUIDANCE, Guidance
from sds3d.guidance.base import GuidanceInput, GuidanceOutput
from sds3d.priors import PRIORS
from sds3d.priors.base import Prior
from sds3d.run import events
from sds3d.run.folder import RunFolder
from sds3d.scenes import SCENES, Scene
from sds3d.training.session import Session
from sds3d.types import Cameras, RenderOutput

__version__ = "0.1.0"
__all__ = [
    "GUIDANCE",
    "PRIORS",
    "SCENES",
    "Cameras",
    "Guidance",
    "GuidanceInput",
    "GuidanceOutput",
    "Prior",
    "RenderOutput",
    "RunConfig",
    "RunFolder",
    "Scene",
    "Session",
    "__version__",
    "errors",
    "events",
    "load_config",
    "resolve",
]
