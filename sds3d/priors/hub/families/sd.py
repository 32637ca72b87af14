"""Stable Diffusion 1.x and 2.x (Rombach et al. 2022): a UNet that attends to CLIP's last hidden states."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from sds3d.priors.hub.families.base import Family, NetworkInput


class StableDiffusion(Family):
    name = "Stable Diffusion 1.x, 2.x"
    pipelines = ("StableDiffusionPipeline",)
    network = "unet"
    encoders: ClassVar[tuple[str, ...]] = ("text_encoder", "tokenizer")

    def embed(self, pipeline: Any, text: str, network_config: Mapping[str, Any], device: torch.device) -> Tensor:
        positive, null = pipeline.encode_prompt(
            [text], device=device, num_images_per_prompt=1, do_classifier_free_guidance=True
        )
        return (positive if text else null)[0]

    def arguments(self, network: Any, inputs: NetworkInput) -> dict[str, Any]:
        return super().arguments(network, inputs) | {"class_labels": inputs.camera}
