"""Zero-1-to-3 (Liu et al. 2023): a picture seen from elsewhere. It is told the picture and the turn, no words."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sds3d.priors.hub.families.base import Family, NetworkInput
from sds3d.types import Cameras


@dataclass(frozen=True)
class Pictures:
    """What views may be conditioned on: the person's picture first, then anchors that were sampled from it."""

    clip: Float[Tensor, "P D"]  # image embeddings
    latents: Float[Tensor, "P C h w"]  # of the VAE, not scaled
    cameras: Cameras  # where each was taken from

    def nearest(self, cameras: Cameras) -> Tensor:
        """The picture taken from the direction closest to each view's."""
        return (directions(cameras) @ directions(self.cameras).T).argmax(dim=1)


class Zero123(Family):
    """The embedding of a text is one number: 1 for the pictures, 0 for none of them (the empty text)."""

    name = "Zero-1-to-3"
    pipelines = ("Zero1to3StableDiffusionPipeline",)
    built_as = "StableDiffusionPipeline"
    network = "unet"
    encoders = ("image_encoder", "cc_projection")
    foreign = MappingProxyType({"cc_projection": "CCProjection"})
    reads_camera = True

    def __init__(self, pictures: Pictures | None = None, projection: nn.Module | None = None) -> None:
        self.pictures, self.projection = pictures, projection

    def embed(self, pipeline: Any, text: str, network_config: Mapping[str, Any], device: torch.device) -> Tensor:
        raise AssertionError("this family reads no texts: see sds3d.priors.hub.zero123_prior")

    def channels(self, network_config: Mapping[str, Any]) -> int:
        return int(network_config["out_channels"])  # as many again come in from the picture

    def make(self, name: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> nn.Module:
        wide, narrow = tensors["projection.weight"].shape
        projection = nn.Linear(narrow, wide)
        projection.load_state_dict({key.removeprefix("projection."): value for key, value in tensors.items()})
        return projection

    def call(self, network: Any, inputs: NetworkInput) -> Float[Tensor, "B C h w"]:
        assert self.pictures is not None, "the prior was built without its picture"
        assert self.projection is not None, "the prior was built without its projection"
        assert inputs.view is not None, "a view of a picture needs a camera"
        cameras, shown = inputs.view.cameras, inputs.embedding[:, 0]
        which = self.pictures.nearest(cameras)
        condition = torch.cat([self.pictures.clip[which], turn(self.pictures.cameras.select(which), cameras)], dim=1)
        words = shown * self.projection(condition.to(inputs.x.dtype))
        picture = shown[:, :, None, None] * self.pictures.latents[which].to(inputs.x.dtype)
        return network(
            torch.cat([inputs.x, picture], dim=1),
            inputs.timestep,
            encoder_hidden_states=words[:, None],
            class_labels=inputs.camera,
            return_dict=False,
        )[0]


def turn(start: Cameras, end: Cameras) -> Float[Tensor, "B 4"]:
    """Polar angle from the zenith, sine and cosine of the azimuth, and distance, each of the end less the start."""
    azimuth = end.azimuth - start.azimuth
    return torch.stack(
        [start.elevation - end.elevation, azimuth.sin(), azimuth.cos(), end.distance - start.distance], dim=1
    )


def directions(cameras: Cameras) -> Float[Tensor, "B 3"]:
    """Unit vectors from the origin towards the cameras."""
    level = cameras.elevation.cos()
    return torch.stack([level * cameras.azimuth.cos(), level * cameras.azimuth.sin(), cameras.elevation.sin()], dim=1)


def quarter_turns(count: int) -> list[float]:
    """Azimuths of `count` anchors, evenly around, without the picture's own; radians."""
    return [2 * math.pi * place / (count + 1) for place in range(1, count + 1)]
