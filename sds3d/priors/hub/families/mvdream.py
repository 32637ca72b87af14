"""MVDream (Shi et al. 2023): Stable Diffusion whose self-attention runs over four views of one object at once.

Its UNet is diffusers' own with two changes: the camera is embedded where diffusers puts class labels, and
self-attention sees the tokens of all views of a group. Folders come in two layouts: diffusers' (a UNet2DConditionModel
with projected class labels of 16 numbers) and that of the released weights (MultiViewUNetModel, named as in LDM code).
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from sds3d.priors.hub.families.base import NetworkInput
from sds3d.priors.hub.families.sd import StableDiffusion
from sds3d.types import ViewCondition

GROUP = 4  # views of one object, a quarter turn from each other
CAMERA_NUMBERS = 16


class MVDream(StableDiffusion):
    name = "MVDream"
    prior = "multiview"
    pipelines = ("MVDreamPipeline",)
    built_as = "StableDiffusionPipeline"
    foreign = MappingProxyType({"unet": "MultiViewUNetModel"})
    group = GROUP
    reads_camera = True

    def recognises(self, pipeline: str, network_config: Mapping[str, Any]) -> bool:
        projected = network_config.get("projection_class_embeddings_input_dim") == CAMERA_NUMBERS
        return pipeline == "StableDiffusionPipeline" and projected

    def make(self, name: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> nn.Module:
        """diffusers' UNet with the released weights under its own names."""
        from diffusers import UNet2DConditionModel
        from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

        network: Any = UNet2DConditionModel(**unet_config(config))
        as_labels = {key.replace("camera_embed.", "label_emb.0."): value for key, value in tensors.items()}
        prefixed = {f"model.diffusion_model.{key}": value for key, value in as_labels.items()}
        network.load_state_dict(convert_ldm_unet_checkpoint(prefixed, dict(network.config)))
        return cast(nn.Module, network)

    def prepare(self, network: Any) -> Any:
        for name, module in network.named_modules():
            if name.endswith("attn1"):
                module.set_processor(AcrossViews())
        return network

    def arguments(self, network: Any, inputs: NetworkInput) -> dict[str, Any]:
        camera = camera_numbers(inputs.view, len(inputs.x)).to(inputs.x)
        return super().arguments(network, inputs) | {"class_labels": camera}


class AcrossViews:
    """Self-attention over the tokens of all views of a group: [B V, N, D] as [B, V N, D]. Plain SDPA otherwise."""

    def __call__(self, attn: Any, hidden_states: Float[Tensor, "B N D"], *args: Any, **kwargs: Any) -> Tensor:
        batch, tokens, width = hidden_states.shape
        joined = hidden_states.reshape(batch // GROUP, GROUP * tokens, width)
        query, key, value = (
            project(joined).unflatten(2, (attn.heads, -1)).transpose(1, 2)
            for project in (attn.to_q, attn.to_k, attn.to_v)
        )
        out = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        out = attn.to_out[1](attn.to_out[0](out))
        return out.reshape(batch, tokens, width)


def camera_numbers(view: ViewCondition | None, batch: int) -> Float[Tensor, "B 16"]:
    """camera_to_world in OpenGL's axes (x right, y up, z backward), the camera moved to distance 1, flattened."""
    if view is None:
        return torch.zeros(batch, CAMERA_NUMBERS)
    pose = view.cameras.camera_to_world * torch.tensor([1.0, -1.0, -1.0, 1.0], device=view.cameras.azimuth.device)
    pose[:, :3, 3] = functional.normalize(pose[:, :3, 3], dim=1)
    return pose.flatten(1)


def unet_config(ldm: Mapping[str, Any]) -> dict[str, Any]:
    """diffusers' configuration of the UNet that the LDM code's one describes."""
    channels = [ldm["model_channels"] * factor for factor in ldm["channel_mult"]]
    attends = [2**level in ldm["attention_resolutions"] for level in range(len(channels))]
    return {
        "sample_size": ldm["image_size"],
        "in_channels": ldm["in_channels"],
        "out_channels": ldm["out_channels"],
        "block_out_channels": channels,
        "down_block_types": ["CrossAttnDownBlock2D" if yes else "DownBlock2D" for yes in attends],
        "up_block_types": ["CrossAttnUpBlock2D" if yes else "UpBlock2D" for yes in reversed(attends)],
        "layers_per_block": ldm["num_res_blocks"],
        "cross_attention_dim": ldm["context_dim"],
        "attention_head_dim": [width // ldm["num_head_channels"] for width in channels],  # diffusers means heads
        "use_linear_projection": True,
        "class_embed_type": "projection",
        "projection_class_embeddings_input_dim": ldm["camera_dim"],
    }
