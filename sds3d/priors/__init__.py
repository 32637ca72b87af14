"""All priors: `PRIORS` maps each name to its config class, whose `build(device)` loads the prior."""

from sds3d.priors.analytic import AnalyticConfig
from sds3d.priors.base import PriorConfig
from sds3d.priors.embedded.config import EmbeddedConfig
from sds3d.priors.hub.locate import family_of_model
from sds3d.priors.hub.prior import DiffusersConfig, MultiViewConfig
from sds3d.priors.hub.zero123_prior import Zero123Config

PRIORS: dict[str, type[PriorConfig]] = {
    "embedded": EmbeddedConfig,
    "analytic": AnalyticConfig,
    "diffusers": DiffusersConfig,
    "multiview": MultiViewConfig,
    "zero123": Zero123Config,
}


def config_for(model: str, revision: str = "") -> type[PriorConfig]:
    """The config class for a model of diffusers, by its family: of its folder, else of the table of known models.

    A model of the hub that is neither in the cache nor in the table counts as text to image; if it turns out to be of
    another family, `build` says which `prior.name` it needs. PriorUnavailable if a local folder is no model.
    """
    family = family_of_model(model, revision)
    return DiffusersConfig if family is None else PRIORS[family.prior]
