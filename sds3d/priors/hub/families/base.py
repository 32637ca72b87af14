"""What differs from one family of models to the next: how texts become one tensor, and how the network is called."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional

from sds3d.types import ViewCondition

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")


@dataclass(frozen=True)
class NetworkInput:
    """One call of a network."""

    x: Float[Tensor, "B C h w"]  # as the network wants it, in its precision
    timestep: Shaped[Tensor, "B"]  # the time, in thousandths
    embedding: Float[Tensor, "B N D"]  # as `embed` made it, in the network's precision
    side: int  # of the image, in pixels
    view: ViewCondition | None = None  # for networks that read the camera
    guidance: float = 1.0  # for networks that were distilled to be told a guidance scale
    camera: Float[Tensor, "B 16"] | None = None  # for critics of networks that do not


class Family(ABC):
    """Models that are called alike. All state is in the networks, so one object serves every model of the family."""

    name: ClassVar[str]
    pipelines: ClassVar[tuple[str, ...]]  # diffusers' classes
    network: ClassVar[str]  # which of the pipeline's components denoises
    encoders: ClassVar[tuple[str, ...]]  # components that only texts need: loaded for them and freed
    latent: ClassVar[bool] = True  # works in a VAE's latent space
    built_as: ClassVar[str] = ""  # diffusers' class, where the pipeline's own is not in diffusers
    foreign: ClassVar[Mapping[str, str]] = {}  # components of classes that are not in diffusers, for `make`
    group: ClassVar[int] = 1  # views that are judged together
    reads_camera: ClassVar[bool] = False
    largest: ClassVar[int | None] = None  # the image's side in pixels where nothing else is said; None: the model's own

    @abstractmethod
    def embed(self, pipeline: Any, text: str, network_config: Mapping[str, Any], device: torch.device) -> Tensor:
        """[N, D] of one text, by the pipeline's own encode_prompt; for the empty text, its own null condition."""

    @abstractmethod
    def call(self, network: Any, inputs: NetworkInput) -> Float[Tensor, "B C h w"]:
        """The network's prediction."""

    def recognises(self, pipeline: str, network_config: Mapping[str, Any]) -> bool:
        """Whether a folder is of this family although its pipeline's class is of another."""
        return False

    def make(self, name: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> nn.Module:
        """A component of a foreign class, by its configuration and weights."""
        raise AssertionError(f"{name} is no foreign component of {self.name}")

    def prepare(self, network: Any) -> Any:
        """The loaded network, changed where its class is diffusers' but it works in another way."""
        return network

    def own_side(self, network_config: Mapping[str, Any]) -> int:
        """The side in latent pixels that the model was trained at."""
        return int(network_config["sample_size"])

    def channels(self, network_config: Mapping[str, Any]) -> int:
        """Of the latent."""
        return int(network_config["in_channels"])

    def patch(self, network_config: Mapping[str, Any]) -> int:
        """Latent pixels along a token's side; 1 where the network has no tokens."""
        return int(network_config.get("patch_size") or 1)


def with_rows(hidden: Float[Tensor, "N D"], extra: Float[Tensor, "E"]) -> Float[Tensor, "M D"]:
    """The vector as further rows: a pooled embedding travels with the words it belongs to, through every blend."""
    width = hidden.shape[1]
    rows = functional.pad(extra, (0, -len(extra) % width)).reshape(-1, width)
    return torch.cat([hidden, rows.to(hidden)])


def split_rows(embedding: Float[Tensor, "B M D"], size: int) -> tuple[Float[Tensor, "B N D"], Float[Tensor, "B E"]]:
    """What `with_rows` put together, `size` numbers of it extra."""
    rows = -(-size // embedding.shape[2])
    return embedding[:, :-rows], embedding[:, -rows:].flatten(1)[:, :size]


def with_mask(hidden: Float[Tensor, "N D"], mask: Tensor) -> Float[Tensor, "N E"]:
    """The attention mask as one more column."""
    return torch.cat([hidden, mask[:, None].to(hidden)], dim=1)


def split_mask(embedding: Float[Tensor, "B N E"]) -> tuple[Float[Tensor, "B N D"], Tensor]:
    """What `with_mask` put together; a word counts that is in any of the texts of a blend."""
    return embedding[..., :-1], (embedding[..., -1] > 0).to(embedding.dtype)


def first_half(out: Tensor, channels: int) -> Tensor:
    """Without the variance, where the network learned it too."""
    return out[:, :channels] if out.shape[1] == 2 * channels else out
