"""All priors: `PRIORS` maps each name to its config class, whose `build(device)` loads the prior."""

from sds3d.priors.analytic import AnalyticConfig
from sds3d.priors.base import PriorConfig
from sds3d.priors.embedded.config import EmbeddedConfig
from sds3d.priors.hub.prior import DiffusersConfig, MultiViewConfig
from sds3d.priors.hub.zero123_prior import Zero123Config

PRIORS: dict[str, type[PriorConfig]] = {
    "embedded": EmbeddedConfig,
    "analytic": AnalyticConfig,
    "diffusers": DiffusersConfig,
    "multiview": MultiViewConfig,
    "zero123": Zero123Config,
}
