"""Zero-1-to-3 as a prior: conditioned on the reference image, and on anchors, which are views sampled from it.

Anchors (Sargent et al. 2024, ZeroNVS, "SDS anchoring"): distilled from one image alone, the far side becomes a blur of
everything it might be. So a few views are sampled first, and each render is conditioned on the nearest of image and
anchors: sampling decides what the far side is, distillation fills in the rest.
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
from sds3d.priors.hub.families.zero123 import ConditionImages, Zero123, anchor_azimuths
from sds3d.priors.hub.loading import load_component, load_pipeline
from sds3d.priors.hub.locate import LocalModel
from sds3d.priors.hub.prior import DiffusersPrior, PriorSettings
from sds3d.reference_image import ReferenceImage, ReferenceImageConfig
from sds3d.types import PER_VIEW, Cameras, ViewCondition

WHITE = torch.ones(3)  # the background of the images that the model was trained on
ANCHOR_GUIDANCE, ANCHOR_STEPS, ANCHOR_SEED = 3.0, 50, 0  # guidance scale as in the paper's code; DDIM steps of each
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def load_zero123(
    local: LocalModel,
    dtype: torch.dtype,
    settings: PriorSettings,
    reference: ReferenceImageConfig,
    anchors: int,
    device: torch.device,
) -> DiffusersPrior:
    """Load the model, encode the reference image, sample the anchors. The image encoder is freed again."""
    pipeline = load_pipeline(local, ("unet", "scheduler", "vae"), dtype, device)
    projection = load_component(local, "cc_projection", dtype, device)
    size = int(pipeline.unet.config.sample_size) * 2 ** (len(pipeline.vae.config.block_out_channels) - 1)
    image = ReferenceImage(reference, device, size)
    encoder = load_component(local, "image_encoder", dtype, device)
    images = encode_images(image.over(WHITE.to(device))[None], image.cameras, encoder, pipeline.vae)
    family = Zero123(images, projection)
    prior = DiffusersPrior(settings, family, pipeline, ConditionFlags(device), device, local.files.pickled)
    if anchors:
        views, cameras = sample_anchors(prior, reference, anchors, size)
        sampled = encode_images(views.to(device), cameras.to(device), encoder, pipeline.vae)
        prior.family = Zero123(concatenate(images, sampled), projection)
    return prior


class ConditionFlags:
    """Takes the place of text embeddings: 1 for any text, 0 for the empty one, the null condition."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def __call__(self, texts: Sequence[str]) -> Float[Tensor, "T 1 1"]:
        return torch.tensor([[[float(bool(text))]] for text in texts], device=self._device)


@torch.no_grad()
def encode_images(images: Float[Tensor, "P 3 S S"], cameras: Cameras, encoder: Any, vae: Any) -> ConditionImages:
    """What the network is conditioned on, of images in [0, 1]: CLIP's embedding, and the VAE's latent, not scaled."""
    side = encoder.config.image_size
    mean, std = (images.new_tensor(values)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))
    small = functional.interpolate(images, size=(side, side), mode="bicubic", antialias=True)
    clip = encoder(((small - mean) / std).to(encoder.dtype)).image_embeds
    latents = vae.encode((2.0 * images - 1.0).to(vae.dtype)).latent_dist.mean
    return ConditionImages(clip.float(), latents.float(), cameras)


def sample_anchors(
    prior: DiffusersPrior, reference: ReferenceImageConfig, anchors: int, size: int
) -> tuple[Float[Tensor, "P 3 S S"], Cameras]:
    """Views evenly around the object at the reference image's elevation, each sampled from that image alone."""
    own, offsets = reference.cameras(size), torch.tensor(anchor_azimuths(anchors))
    fov = torch.full((anchors,), reference.fov_deg).deg2rad()
    elevation, distance = own.elevation.expand(anchors), own.distance.expand(anchors)
    around = orbit_cameras(own.azimuth + offsets, elevation, distance, fov, size)
    views = sample_images(
        prior,
        ["the picture"] * anchors,
        ViewCondition(around),
        guidance_scale=ANCHOR_GUIDANCE,
        steps=ANCHOR_STEPS,
        generator=torch.Generator().manual_seed(ANCHOR_SEED),
    )
    return views, around


def concatenate(first: ConditionImages, second: ConditionImages) -> ConditionImages:
    """The images of both, in order."""
    both: dict[str, Any] = {
        name: torch.cat([getattr(part.cameras, name) for part in (first, second)]) for name in PER_VIEW
    }
    cameras = replace(first.cameras, **both)
    return ConditionImages(torch.cat([first.clip, second.clip]), torch.cat([first.latents, second.latents]), cameras)
