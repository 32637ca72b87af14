"""FLUX.1 (Black Forest Labs 2024): flow matching on 2 x 2 blocks of the latent; FLUX.1-dev takes a guidance scale."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from sds3d.priors.base import Latents
from sds3d.priors.hub.families.base import Family, NetworkInput, split_rows, with_rows

BLOCK = 2


class Flux(Family):
    name = "FLUX.1"
    pipelines = ("FluxPipeline",)
    network = "transformer"
    encoders = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
    largest = 512

    def embed(self, pipeline: Any, text: str, network_config: Mapping[str, Any], device: torch.device) -> Tensor:
        hidden, pooled, _ = pipeline.encode_prompt([text], device=device)
        return with_rows(hidden[0], pooled[0])

    def call(self, network: Any, inputs: NetworkInput) -> Latents:
        rows, columns = inputs.x.shape[2] // BLOCK, inputs.x.shape[3] // BLOCK
        hidden, pooled = split_rows(inputs.embedding, network.config.pooled_projection_dim)
        scale = inputs.x.new_full((len(inputs.x),), inputs.guidance) if network.config.guidance_embeds else None
        out = network(
            hidden_states=functional.pixel_unshuffle(inputs.x, BLOCK).flatten(2).transpose(1, 2),
            timestep=inputs.timestep / 1000.0,
            guidance=scale,
            pooled_projections=pooled,
            encoder_hidden_states=hidden,
            txt_ids=hidden.new_zeros(hidden.shape[1], 3),
            img_ids=_token_ids(rows, columns, inputs.x),
            return_dict=False,
        )[0]
        return functional.pixel_shuffle(out.transpose(1, 2).unflatten(2, (rows, columns)), BLOCK)

    def own_side(self, network_config: Mapping[str, Any]) -> int:
        return 128  # the pipeline's default_sample_size: nothing in the network says it

    def channels(self, network_config: Mapping[str, Any]) -> int:
        return int(network_config["in_channels"]) // BLOCK**2

    def patch(self, network_config: Mapping[str, Any]) -> int:
        return BLOCK


def _token_ids(height: int, width: int, like: Tensor) -> Float[Tensor, "N 3"]:
    """(0, row, column) of each token."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).reshape(-1, 3).to(like)
