"""Zero-1-to-3 (Liu et al. 2023): novel views of an image, conditioned on it and a relative pose, not on words."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sds3d.priors.base import Latents
from sds3d.priors.hub.families.base import Family, NetworkInput
from sds3d.types import Cameras


@dataclass(frozen=True)
class ConditionImages:
    """Images that views can be conditioned on: the reference image first, then the anchors sampled from it."""

    clip: Float[Tensor, "P D"]  # image embeddings
    latents: Float[Tensor, "P C h w"]  # of the VAE, not scaled
    cameras: Cameras  # where each was taken from

    def nearest(self, cameras: Cameras) -> Tensor:
        """Index of the image whose camera's direction is closest to each view's."""
        return (directions(cameras) @ directions(self.cameras).T).argmax(dim=1)


class Zero123(Family):
    """The "text embedding" is one number: 1 to condition on an image, 0 for the null condition (the empty text)."""

    name = "Zero-1-to-3"
    prior = "zero123"
    pipelines = ("Zero1to3StableDiffusionPipeline",)
    built_as = "StableDiffusionPipeline"
    network = "unet"
    encoders = ("image_encoder", "cc_projection")
    foreign = MappingProxyType({"cc_projection": "CCProjection"})
    reads_camera = True

    def __init__(self, images: ConditionImages | None = None, projection: nn.Module | None = None) -> None:
        self.images, self.projection = images, projection

    def embed(self, pipeline: Any, text: str, network_config: Mapping[str, Any], device: torch.device) -> Tensor:
        raise AssertionError("this family reads no text: see sds3d.priors.hub.zero123_prior")

    def channels(self, network_config: Mapping[str, Any]) -> int:
        return int(network_config["out_channels"])  # in_channels has the image's latent too

    def make(self, name: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> nn.Module:
        wide, narrow = tensors["projection.weight"].shape
        projection = nn.Linear(narrow, wide)
        projection.load_state_dict({key.removeprefix("projection."): value for key, value in tensors.items()})
        return projection

    def call(self, network: Any, inputs: NetworkInput) -> Latents:
        assert self.images, "the prior was built without its image"
        assert self.projection, "the prior was built without its projection"
        assert inputs.view is not None, "a novel view needs a camera"
        cameras, flag = inputs.view.cameras, inputs.embedding[:, 0]
        nearest = self.images.nearest(cameras)
        pose = relative_pose(self.images.cameras.select(nearest), cameras)
        condition = torch.cat([self.images.clip[nearest], pose], dim=1)
        words = flag * self.projection(condition.to(inputs.x.dtype))
        latent = flag[:, :, None, None] * self.images.latents[nearest].to(inputs.x.dtype)
        return network(
            torch.cat([inputs.x, latent], dim=1),
            inputs.timestep,
            encoder_hidden_states=words[:, None],
            class_labels=inputs.camera,
            return_dict=False,
        )[0]


def relative_pose(start: Cameras, end: Cameras) -> Float[Tensor, "B 4"]:
    """Difference of the polar angles from the zenith, sine and cosine of that of the azimuths, and of the distances.

    Radians and world units, end minus start, as in the paper's code.
    """
    azimuth = end.azimuth - start.azimuth
    return torch.stack(
        [start.elevation - end.elevation, azimuth.sin(), azimuth.cos(), end.distance - start.distance], dim=1
    )


def directions(cameras: Cameras) -> Float[Tensor, "B 3"]:
    """Unit vectors from the origin towards the cameras."""
    level = cameras.elevation.cos()
    return torch.stack([level * cameras.azimuth.cos(), level * cameras.azimuth.sin(), cameras.elevation.sin()], dim=1)
