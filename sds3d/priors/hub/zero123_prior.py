"""A picture as a prior: Zero-1-to-3 with the person's picture, and views sampled from it as further pictures.

Anchors (Sargent et al. 2024, ZeroNVS, "SDS anchoring"): distillation from one picture alone makes the far side a blur
of all that it might be. So a few views are sampled first, and each render is judged by the picture or sampled view next
to it: sampling decides what the far side is, distillation only fills in.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from sds3d.cameras import orbit_cameras
from sds3d.priors.ddim import sample_images
from sds3d.priors.hub.config import Zero123Config
from sds3d.priors.hub.families.zero123 import Pictures, Zero123, quarter_turns
from sds3d.priors.hub.loading import load_component, load_pipeline
from sds3d.priors.hub.locate import find_model
from sds3d.priors.hub.prior import DiffusersPrior, precision, refuse_other_families
from sds3d.reference_image import ReferenceImage
from sds3d.types import PER_VIEW, Cameras, ViewCondition

WHITE = torch.ones(3)  # the background of the pictures that the model was trained on
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def load_image_prior(config: Zero123Config, device: torch.device) -> DiffusersPrior:
    """Finds and loads the model, reads the picture, samples the anchors. The image encoder is freed again."""
    found = find_model(config.model, config.revision)
    refuse_other_families(config, found)
    dtype = precision(config, found, device)
    pipeline = load_pipeline(found, ("unet", "scheduler", "vae"), dtype, device)
    projection = load_component(found, "cc_projection", dtype, device)
    size = int(pipeline.unet.config.sample_size) * 2 ** (len(pipeline.vae.config.block_out_channels) - 1)
    picture = ReferenceImage(config.reference_image, device, size)
    shown = picture.over(WHITE.to(device))[None]
    encoder = load_component(found, "image_encoder", dtype, device)
    pictures = look_at(shown, picture.cameras, encoder, pipeline.vae)
    prior = DiffusersPrior(config, Zero123(pictures, projection), pipeline, Flags(device), device, found.files.pickled)
    if config.anchors:
        views, cameras = sample_anchors(prior, config, size)
        further = look_at(views.to(device), cameras.to(device), encoder, pipeline.vae)
        prior.family = Zero123(joined(pictures, further), projection)
    return prior


class Flags:
    """Stands for reading texts: 1 for any, 0 for the empty one."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def __call__(self, texts: Sequence[str]) -> Float[Tensor, "T 1 1"]:
        return torch.tensor([[[float(bool(text))]] for text in texts], device=self._device)


@torch.no_grad()
def look_at(images: Float[Tensor, "P 3 S S"], cameras: Cameras, encoder: Any, vae: Any) -> Pictures:
    """What the network is told of pictures in [0, 1]: CLIP's embedding, and the VAE's latent as it is."""
    side = encoder.config.image_size
    mean, std = (images.new_tensor(values)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))
    small = functional.interpolate(images, size=(side, side), mode="bicubic", antialias=True)
    clip = encoder(((small - mean) / std).to(encoder.dtype)).image_embeds
    latents = vae.encode((2.0 * images - 1.0).to(vae.dtype)).latent_dist.mean
    return Pictures(clip.float(), latents.float(), cameras)


def sample_anchors(prior: DiffusersPrior, config: Zero123Config, size: int) -> tuple[Float[Tensor, "P 3 S S"], Cameras]:
    """Views around the object at the picture's height, each sampled from the picture by itself."""
    own, turns = config.reference_image.cameras(size), torch.tensor(quarter_turns(config.anchors))
    count = len(turns)
    fov = torch.full((count,), config.reference_image.fov_deg).deg2rad()
    around = orbit_cameras(own.azimuth + turns, own.elevation.expand(count), own.distance.expand(count), fov, size)
    views = sample_images(
        prior,
        ["the picture"] * count,
        ViewCondition(around),
        guidance_scale=config.anchor_guidance,
        steps=config.anchor_steps,
        generator=torch.Generator().manual_seed(config.anchor_seed),
    )
    return views, around


def joined(first: Pictures, second: Pictures) -> Pictures:
    """All pictures of both."""
    both: dict[str, Any] = {
        name: torch.cat([getattr(part.cameras, name) for part in (first, second)]) for name in PER_VIEW
    }
    cameras = replace(first.cameras, **both)
    return Pictures(torch.cat([first.clip, second.clip]), torch.cat([first.latents, second.latents]), cameras)
