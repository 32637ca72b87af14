"""Sana (Xie et al. 2024): flow matching in a latent 32 times smaller than the image, words by Gemma."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sds3d.priors.hub.families.base import Family, NetworkInput, split_mask, with_mask


class Sana(Family):
    """Every text but the empty one is read behind the instruction that the pipeline puts before a prompt."""

    name = "Sana"
    pipelines = ("SanaPipeline",)
    network = "transformer"
    encoders = ("text_encoder", "tokenizer")

    def embed(self, pipeline: Any, text: str, network_config: Mapping[str, Any], device: torch.device) -> Tensor:
        instruction = inspect.signature(type(pipeline).__call__).parameters["complex_human_instruction"].default
        hidden, mask, null, null_mask = pipeline.encode_prompt(
            [text], device=device, complex_human_instruction=instruction
        )
        return with_mask(hidden[0], mask[0]) if text else with_mask(null[0], null_mask[0])

    def arguments(self, network: Any, inputs: NetworkInput) -> dict[str, Any]:
        hidden, mask = split_mask(inputs.embedding)
        time = inputs.timestep * network.config.timestep_scale
        return {"timestep": time, "encoder_hidden_states": hidden, "encoder_attention_mask": mask}
