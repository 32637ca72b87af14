"""Stable Diffusion 1.x and 2.x (Rombach et al. 2022): a UNet that attends to CLIP's last hidden states."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sds3d.priors.hub.families.base import Family, NetworkInput


class StableDiffusion(Family):
    name = "Stable Diffusion 1.x, 2.x"
    pipelines = ("StableDiffusionPipeline",)
    network = "unet"
    encoders = ("text_encoder", "tokenizer")

    def embed(self, pipeline: Any, text: str, network_config: Mapping[str, Any], device: torch.device) -> Tensor:
        positive, null = pipeline.encode_prompt([text], device, 1, True)
        return (positive if text else null)[0]

    def call(self, network: Any, inputs: NetworkInput) -> Float[Tensor, "B C h w"]:
        return network(
            inputs.x,
            inputs.timestep,
            encoder_hidden_states=inputs.embedding,
            class_labels=inputs.camera,
            return_dict=False,
        )[0]
