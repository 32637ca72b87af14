"""sds3d: from words to 3D objects by score distillation from 2D diffusion priors."""

from sds3d import errors
from sds3d.config.run_config import RunConfig, load_config
from sds3d.run import events
from sds3d.training.session import Session

__version__ = "0.1.0"
__all__ = ["RunConfig", "Session", "__version__", "errors", "events", "load_config"]
