"""Stable Diffusion 3 and 3.5 (Esser et al. 2024): flow matching, a transformer over image and text tokens alike."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from sds3d.priors.hub.families.base import Family, NetworkInput, split_rows, with_rows


class StableDiffusion3(Family):
    """The third text encoder, T5, may be missing from the folder: zeros then stand for its words, as in diffusers."""

    name = "Stable Diffusion 3, 3.5"
    pipelines = ("StableDiffusion3Pipeline",)
    network = "transformer"
    encoders = ("text_encoder", "text_encoder_2", "text_encoder_3", "tokenizer", "tokenizer_2", "tokenizer_3")
    largest = 512

    def embed(self, pipeline: Any, text: str, network_config: Mapping[str, Any], device: torch.device) -> Tensor:
        if pipeline.text_encoder_3 is None:  # all that encode_prompt asks of the transformer is how wide the zeros are
            pipeline.transformer = SimpleNamespace(config=SimpleNamespace(**network_config))
        hidden, null, pooled, null_pooled = pipeline.encode_prompt([text], None, None, device=device)
        return with_rows(hidden[0], pooled[0]) if text else with_rows(null[0], null_pooled[0])

    def arguments(self, network: Any, inputs: NetworkInput) -> dict[str, Any]:
        hidden, pooled = split_rows(inputs.embedding, network.config.pooled_projection_dim)
        return super().arguments(network, inputs) | {"encoder_hidden_states": hidden, "pooled_projections": pooled}
