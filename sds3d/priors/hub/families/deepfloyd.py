"""DeepFloyd IF, stage I (2023): 64 pixels and no latent, words by T5. No VAE means no blur in the gradients."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sds3d.priors.hub.families.base import Family, NetworkInput, first_half


class DeepFloyd(Family):
    name = "DeepFloyd IF, stage I"
    pipelines = ("IFPipeline",)
    network = "unet"
    encoders = ("text_encoder", "tokenizer")
    latent = False

    def embed(self, pipeline: Any, text: str, network_config: Mapping[str, Any], device: torch.device) -> Tensor:
        positive, null = pipeline.encode_prompt([text], device=device)
        return (positive if text else null)[0]

    def call(self, network: Any, inputs: NetworkInput) -> Float[Tensor, "B C h w"]:
        out = network(
            inputs.x,
            inputs.timestep,
            encoder_hidden_states=inputs.embedding,
            class_labels=inputs.camera,
            return_dict=False,
        )[0]
        return first_half(out, inputs.x.shape[1])
