"""Zero-1-to-3 as a prior: conditioned on the reference image, and on anchors, which are views sampled from it.

Anchors (Sargent et al. 2024, ZeroNVS, "SDS anchoring"): distilled from one image alone, the far side becomes a blur of
everything it might be. So a few views are sampled first, and each render is conditioned on the nearest of image and
anchors: sampling decides what the far side is, distillation fills in the rest.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from sds3d.cameras import orbit_cameras
from sds3d.errors import PriorUnavailable
from sds3d.priors.base import Images
from sds3d.priors.ddim import sample_images
from sds3d.priors.hub.families.zero123 import ConditionImages, Zero123
from sds3d.priors.hub.loading import load_component, load_pipeline
from sds3d.priors.hub.prior import DiffusersConfig, DiffusersPrior, downscaling
from sds3d.reference_image import ReferenceImage, ReferenceImageConfig
from sds3d.types import PER_VIEW, Cameras, ViewCondition

WHITE = torch.ones(3)  # the background of the images that the model was trained on
ANCHOR_GUIDANCE, ANCHOR_STEPS, ANCHOR_SEED = 3.0, 50, 0  # guidance scale as in the paper's code; DDIM steps of each
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class Zero123Config(DiffusersConfig):
    """A model of novel views of a picture, such as Zero-1-to-3. It is conditioned on the picture and reads no words."""

    name: Literal["zero123"] = "zero123"  # type: ignore[assignment]
    reads_views: ClassVar[bool] = False
    reads_cameras: ClassVar[bool] = True
    takes_reference_image: ClassVar[bool] = True
    reference_image: ReferenceImageConfig
    anchors: Annotated[
        int, Field(ge=0, le=15, description="views sampled from the picture first; renders go by the nearest of them")
    ] = 0

    def build(self, device: torch.device | str) -> DiffusersPrior:
        """Load the model, encode the reference image, sample the anchors. The image encoder is freed again."""
        if self.lora or self.words:
            raise PriorUnavailable("prior.lora and prior.words do not go with prior.name = 'zero123'", "leave them out")
        device, local = torch.device(device), self._find()
        dtype = self._precision(local.family, device)
        pipeline = load_pipeline(local, ("unet", "scheduler", "vae"), dtype, device)
        projection = load_component(local, "cc_projection", dtype, device)
        size = int(pipeline.unet.config.sample_size) * downscaling(pipeline.vae)
        image = ReferenceImage(self.reference_image, device, size)
        encoder = load_component(local, "image_encoder", dtype, device)
        shown = encode_images(image.over(WHITE.to(device))[None], image.cameras, encoder, pipeline.vae)
        flags = partial(condition_flags, device=device)
        prior = DiffusersPrior(self, Zero123(shown, projection), pipeline, flags, device, local.notes)
        if self.anchors:
            views, cameras = self._sample_anchors(prior, size)
            sampled = encode_images(views.to(device), cameras.to(device), encoder, pipeline.vae)
            prior.family = Zero123(concatenate(shown, sampled), projection)
        return prior

    def _sample_anchors(self, prior: DiffusersPrior, size: int) -> tuple[Images, Cameras]:
        """Views evenly around the object at the reference image's elevation, each sampled from that image alone."""
        own, count = self.reference_image.cameras(size), self.anchors
        turns = torch.tensor([2 * math.pi * number / (count + 1) for number in range(1, count + 1)])
        fov = torch.full((count,), self.reference_image.fov_deg).deg2rad()
        around = orbit_cameras(own.azimuth + turns, own.elevation.expand(count), own.distance.expand(count), fov, size)
        views = sample_images(
            prior,
            ["the picture"] * count,
            ViewCondition(around),
            guidance_scale=ANCHOR_GUIDANCE,
            steps=ANCHOR_STEPS,
            generator=torch.Generator().manual_seed(ANCHOR_SEED),
        )
        return views, around


def condition_flags(texts: Sequence[str], device: torch.device) -> Float[Tensor, "T 1 1"]:
    """Takes the place of text embeddings: 1 for any text, 0 for the empty one, the null condition."""
    return torch.tensor([[[float(bool(text))]] for text in texts], device=device)


@torch.no_grad()
def encode_images(images: Float[Tensor, "P 3 S S"], cameras: Cameras, encoder: Any, vae: Any) -> ConditionImages:
    """What the network is conditioned on, of images in [0, 1]: CLIP's embedding, and the VAE's latent, not scaled."""
    side = encoder.config.image_size
    mean, std = (images.new_tensor(values)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))
    small = functional.interpolate(images, size=(side, side), mode="bicubic", antialias=True)
    clip = encoder(((small - mean) / std).to(encoder.dtype)).image_embeds
    latents = vae.encode((2.0 * images - 1.0).to(vae.dtype)).latent_dist.mean
    return ConditionImages(clip.float(), latents.float(), cameras)


def concatenate(first: ConditionImages, second: ConditionImages) -> ConditionImages:
    """The images of both, in order."""
    both: dict[str, Any] = {
        name: torch.cat([getattr(part.cameras, name) for part in (first, second)]) for name in PER_VIEW
    }
    cameras = replace(first.cameras, **both)
    return ConditionImages(torch.cat([first.clip, second.clip]), torch.cat([first.latents, second.latents]), cameras)
