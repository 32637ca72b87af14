"""PixArt-alpha and PixArt-Sigma (Chen et al. 2023, 2024): a small transformer on T5's words."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sds3d.priors.hub.families.base import Family, NetworkInput, split_mask, with_mask


class PixArt(Family):
    """The alpha model for 1024 px takes the image's size as input: that of the views."""

    name = "PixArt-alpha, PixArt-Sigma"
    pipelines = ("PixArtAlphaPipeline", "PixArtSigmaPipeline")
    network = "transformer"
    encoders = ("text_encoder", "tokenizer")

    def embed(self, pipeline: Any, text: str, network_config: Mapping[str, Any], device: torch.device) -> Tensor:
        hidden, mask, null, null_mask = pipeline.encode_prompt([text], device=device)
        return with_mask(hidden[0], mask[0]) if text else with_mask(null[0], null_mask[0])

    def arguments(self, network: Any, inputs: NetworkInput) -> dict[str, Any]:
        hidden, mask = split_mask(inputs.embedding)
        words = {"encoder_hidden_states": hidden, "encoder_attention_mask": mask}
        sizes: dict[str, Tensor | None] = {"resolution": None, "aspect_ratio": None}
        if network.use_additional_conditions:
            batch = len(inputs.x)
            sizes["resolution"] = inputs.x.new_full((batch, 2), float(inputs.side))
            sizes["aspect_ratio"] = inputs.x.new_ones(batch, 1)
        return {"timestep": inputs.timestep, **words, "added_cond_kwargs": sizes}
