"""The families of models, by the names of their pipelines; a new family is one file and one line here."""

from collections.abc import Mapping
from typing import Any

from sds3d.priors.hub.families.base import Family
from sds3d.priors.hub.families.deepfloyd import DeepFloyd
from sds3d.priors.hub.families.flux import Flux
from sds3d.priors.hub.families.mvdream import MVDream
from sds3d.priors.hub.families.pixart import PixArt
from sds3d.priors.hub.families.sana import Sana
from sds3d.priors.hub.families.sd import StableDiffusion
from sds3d.priors.hub.families.sd3 import StableDiffusion3
from sds3d.priors.hub.families.sdxl import StableDiffusionXL
from sds3d.priors.hub.families.zero123 import Zero123

ALL: tuple[Family, ...] = (
    StableDiffusion(),
    StableDiffusionXL(),
    StableDiffusion3(),
    Flux(),
    PixArt(),
    Sana(),
    DeepFloyd(),
    MVDream(),
    Zero123(),
)
FAMILIES: dict[str, Family] = {pipeline: family for family in ALL for pipeline in family.pipelines}


def family_of(pipeline: str, network_config: Mapping[str, Any]) -> Family:
    """The family of a pipeline's class, or the one that recognises its network's configuration as its own."""
    return next((family for family in ALL if family.recognises(pipeline, network_config)), FAMILIES[pipeline])
