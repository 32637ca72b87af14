"""FLUX.1 (Black Forest Labs 2024): flow matching on 2 x 2 blocks of the latent; FLUX.1-dev takes a guidance scale."""

from collections.abc import Mapping
from typing import Any

import torch
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
        places = torch.cartesian_prod(torch.arange(1), torch.arange(rows), torch.arange(columns))  # (0, row, column)
        out = network(
            hidden_states=functional.pixel_unshuffle(inputs.x, BLOCK).flatten(2).transpose(1, 2),
            timestep=inputs.timestep / 1000.0,
            guidance=scale,
            pooled_projections=pooled,
            encoder_hidden_states=hidden,
            txt_ids=hidden.new_zeros(hidden.shape[1], 3),
            img_ids=places.to(inputs.x),
            return_dict=False,
        )[0]
        return functional.pixel_shuffle(out.transpose(1, 2).unflatten(2, (rows, columns)), BLOCK)

    def own_side(self, network_config: Mapping[str, Any]) -> int:
        return 128  # the pipeline's default_sample_size: nothing in the network says it

    def channels(self, network_config: Mapping[str, Any]) -> int:
        return int(network_config["in_channels"]) // BLOCK**2

    def patch(self, network_config: Mapping[str, Any]) -> int:
        return BLOCK
