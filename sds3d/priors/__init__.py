"""Priors by name: each entry is the prior's configuration, whose `build(device)` loads it."""

from sds3d.priors.analytic import AnalyticConfig
from sds3d.priors.base import PriorConfig
from sds3d.priors.embedded.config import EmbeddedConfig
from sds3d.priors.hub.config import DiffusersConfig, MultiViewConfig, Zero123Config

PRIORS: dict[str, type[PriorConfig]] = {
    "embedded": EmbeddedConfig,
    "analytic": AnalyticConfig,
    "diffusers": DiffusersConfig,
    "multiview": MultiViewConfig,
    "zero123": Zero123Config,
}
