"""Stable Diffusion XL (Podell et al. 2023): two text encoders; image sizes and a pooled embedding as further inputs."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sds3d.priors.hub.families.base import NetworkInput, split_rows, with_rows
from sds3d.priors.hub.families.sd import StableDiffusion


class StableDiffusionXL(StableDiffusion):
    """The size inputs are those of an uncropped image of the size of the views."""

    name = "Stable Diffusion XL"
    pipelines = ("StableDiffusionXLPipeline",)
    encoders = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")

    def embed(self, pipeline: Any, text: str, network_config: Mapping[str, Any], device: torch.device) -> Tensor:
        hidden, null, pooled, null_pooled = pipeline.encode_prompt([text], device=device)
        return with_rows(hidden[0], pooled[0]) if text else with_rows(null[0], null_pooled[0])

    def arguments(self, network: Any, inputs: NetworkInput) -> dict[str, Any]:
        sizes = 6 * network.config.addition_time_embed_dim
        hidden, pooled = split_rows(inputs.embedding, network.config.projection_class_embeddings_input_dim - sizes)
        side = inputs.side
        time_ids = inputs.x.new_tensor([[side, side, 0, 0, side, side]]).expand(len(inputs.x), -1)  # size, crop, target
        added = {"text_embeds": pooled, "time_ids": time_ids}
        return super().arguments(network, inputs) | {"encoder_hidden_states": hidden, "added_cond_kwargs": added}
