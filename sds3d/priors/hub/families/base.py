"""What differs between families of models: how a text becomes one tensor, and how the network is called."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional

from sds3d.priors.base import Embeddings, Latents
from sds3d.types import ViewCondition

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")


@dataclass(frozen=True)
class NetworkInput:
    """One call of a network."""

    x: Latents  # `Schedule.network_input`, in the network's precision
    timestep: Shaped[Tensor, " B"]  # the time, in thousandths
    embedding: Embeddings  # of `embed`, in the network's precision
    side: int  # of the image, in pixels
    view: ViewCondition | None = None  # for networks that read the camera
    guidance: float = 1.0  # for networks that take a guidance scale as an input ("guidance-distilled")
    camera: Float[Tensor, "B 16"] | None = None  # camera_to_world, for critics of networks that read no camera


class Family(ABC):
    """Models that are called the same way. All state is in the networks: one object serves every model of a family."""

    name: ClassVar[str]
    prior: ClassVar[str] = "diffusers"  # the `prior.name` whose config loads it
    pipelines: ClassVar[tuple[str, ...]]  # diffusers' classes
    network: ClassVar[str]  # which of the pipeline's components denoises
    encoders: ClassVar[tuple[str, ...]]  # components that only read texts: loaded for that and freed
    latent: ClassVar[bool] = True  # works in a VAE's latent space
    built_as: ClassVar[str] = ""  # diffusers' class to use if the pipeline's own is not in diffusers
    foreign: ClassVar[Mapping[str, str]] = {}  # component: its class, not in diffusers, which `make` builds
    group: ClassVar[int] = 1  # views that are denoised together
    reads_camera: ClassVar[bool] = False
    largest: ClassVar[int | None] = None  # default side of the image in pixels; None: the model's own

    @abstractmethod
    def embed(self, pipeline: Any, text: str, network_config: Mapping[str, Any], device: torch.device) -> Tensor:
        """[N, D] of one text, by the pipeline's own encode_prompt; for the empty text, its own null condition."""

    def arguments(self, network: Any, inputs: NetworkInput) -> dict[str, Any]:
        """What `call` gives to the network beside x."""
        return {"timestep": inputs.timestep, "encoder_hidden_states": inputs.embedding}

    def call(self, network: Any, inputs: NetworkInput) -> Latents:
        """The network's raw prediction, whatever it parametrizes, without the variance that some learn beside it."""
        out = network(inputs.x, **self.arguments(network, inputs), return_dict=False)[0]
        return out[:, : inputs.x.shape[1]]

    def recognises(self, pipeline: str, network_config: Mapping[str, Any]) -> bool:
        """Whether a folder is of this family although its pipeline's class belongs to another."""
        return False

    def make(self, name: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> nn.Module:
        """A component of a foreign class, by its configuration and weights."""
        raise AssertionError(f"{name} is not a foreign component of {self.name}")

    def prepare(self, network: Any) -> Any:
        """The loaded network, changed if its class is diffusers' but it computes something else."""
        return network

    def own_side(self, network_config: Mapping[str, Any]) -> int:
        """The side in latent pixels that the model was trained at."""
        return int(network_config["sample_size"])

    def channels(self, network_config: Mapping[str, Any]) -> int:
        """Of the latent."""
        return int(network_config["in_channels"])

    def patch(self, network_config: Mapping[str, Any]) -> int:
        """Latent pixels along a token's side; 1 for a UNet."""
        return int(network_config.get("patch_size") or 1)


def with_rows(hidden: Float[Tensor, "N D"], extra: Float[Tensor, " E"]) -> Float[Tensor, "M D"]:
    """The vector appended as rows, so that a pooled embedding is interpolated together with its words."""
    width = hidden.shape[1]
    rows = functional.pad(extra, (0, -len(extra) % width)).reshape(-1, width)
    return torch.cat([hidden, rows.to(hidden)])


def split_rows(embedding: Float[Tensor, "B M D"], size: int) -> tuple[Float[Tensor, "B N D"], Float[Tensor, "B E"]]:
    """The inverse of `with_rows` for an extra vector of `size` numbers."""
    rows = -(-size // embedding.shape[2])
    return embedding[:, :-rows], embedding[:, -rows:].flatten(1)[:, :size]


def with_mask(hidden: Float[Tensor, "N D"], mask: Tensor) -> Float[Tensor, "N E"]:
    """The attention mask appended as a column."""
    return torch.cat([hidden, mask[:, None].to(hidden)], dim=1)


def split_mask(embedding: Float[Tensor, "B N E"]) -> tuple[Float[Tensor, "B N D"], Tensor]:
    """The inverse of `with_mask`; after interpolation a word is kept if any of the texts had it."""
    return embedding[..., :-1], (embedding[..., -1] > 0).to(embedding.dtype)
