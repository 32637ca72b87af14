"""The families by their pipelines' names in diffusers; a new family is one file and one line."""

from sds3d.priors.hub.families.deepfloyd import DeepFloyd
from sds3d.priors.hub.families.flux import Flux
from sds3d.priors.hub.families.pixart import PixArt
from sds3d.priors.hub.families.sana import Sana
from sds3d.priors.hub.families.sd import StableDiffusion
from sds3d.priors.hub.families.sd3 import StableDiffusion3
from sds3d.priors.hub.families.sdxl import StableDiffusionXL
from sds3d.priors.hub.family import Family

FAMILIES: dict[str, Family] = {
    pipeline: family
    for family in (StableDiffusion(), StableDiffusionXL(), StableDiffusion3(), Flux(), PixArt(), Sana(), DeepFloyd())
    for pipeline in family.pipelines
}
