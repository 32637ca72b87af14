"""sds3d: from words to 3D objects by score distillation from 2D diffusion priors."""

from sds3d import errors, events
from sds3d.config import RunConfig, load_config

__version__ = "0.1.0"
__all__ = ["RunConfig", "__version__", "errors", "events", "load_config"]
