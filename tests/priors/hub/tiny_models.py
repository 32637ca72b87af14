"""Tiny random models of every family, saved with save_pretrained: what the real loading path is tested on."""

import json
from pathlib import Path

import torch

CHARACTERS = [chr(code) for code in range(33, 127)]
LENGTH = 20  # tokens


def clip_tokenizer():
    from transformers import CLIPTokenizer

    words = [*CHARACTERS, *(c + "</w>" for c in CHARACTERS), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={word: number for number, word in enumerate(words)}, merges=[])
    tokenizer.model_max_length = LENGTH
    return tokenizer


def t5_tokenizer():
    from transformers import T5Tokenizer

    words = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *((c, -3.0) for c in CHARACTERS)]
    return T5Tokenizer(vocab=words, extra_ids=0)


def gemma_tokenizer():
    from transformers import GemmaTokenizer

    words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *CHARACTERS]
    return GemmaTokenizer(vocab={word: number for number, word in enumerate(words)}, merges=[])


def clip_text(width=16, projection=None):
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    count = len(clip_tokenizer())
    config = CLIPTextConfig(
        vocab_size=count, hidden_size=width, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=LENGTH, bos_token_id=count - 2, eos_token_id=count - 1, pad_token_id=count - 1,
        projection_dim=projection or 16,
    )  # fmt: skip
    return CLIPTextModel(config) if projection is None else CLIPTextModelWithProjection(config)


def t5_text(width=16):
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(
        T5Config(vocab_size=len(t5_tokenizer()), d_model=width, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    )


def gemma_text(width=16):
    from transformers import Gemma2Config, Gemma2Model

    return Gemma2Model(
        Gemma2Config(
            vocab_size=len(gemma_tokenizer()), hidden_size=width, intermediate_size=32, num_hidden_layers=1,
            num_attention_heads=2, num_key_value_heads=1, head_dim=8, max_position_embeddings=2048,
        )
    )  # fmt: skip


def kl_vae(latent_channels=4, blocks=4, **config):
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8,) * blocks, norm_num_groups=4, latent_channels=latent_channels, sample_size=64,
        down_block_types=("DownEncoderBlock2D",) * blocks, up_block_types=("UpDecoderBlock2D",) * blocks, **config,
    )  # fmt: skip


def unet(**config):
    from diffusers import UNet2DConditionModel

    plain = {
        "sample_size": 8, "block_out_channels": (8, 16), "layers_per_block": 1, "cross_attention_dim": 16,
        "norm_num_groups": 4, "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"), "attention_head_dim": 4,
    }  # fmt: skip
    return UNet2DConditionModel(**(plain | config))


def ddim(prediction_type="epsilon"):
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=prediction_type,
        clip_sample=False, set_alpha_to_one=False, steps_offset=1,
    )  # fmt: skip


def sd(prediction_type="epsilon"):
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline(
        vae=kl_vae(), text_encoder=clip_text(), tokenizer=clip_tokenizer(), unet=unet(),
        scheduler=ddim(prediction_type), safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def sdxl():
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline

    network = unet(
        cross_attention_dim=40, addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 24, use_linear_projection=True,
    )  # fmt: skip
    scheduler = EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    return StableDiffusionXLPipeline(
        vae=kl_vae(force_upcast=True), text_encoder=clip_text(16), text_encoder_2=clip_text(24, 24),
        tokenizer=clip_tokenizer(), tokenizer_2=clip_tokenizer(), unet=network, scheduler=scheduler,
    )  # fmt: skip


def sd3(with_t5=True):
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

    transformer = SD3Transformer2DModel(
        sample_size=8, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=32, caption_projection_dim=16, pooled_projection_dim=40, pos_embed_max_size=16,
    )  # fmt: skip
    return StableDiffusion3Pipeline(
        transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=kl_vae(shift_factor=0.0609, scaling_factor=1.5305),
        text_encoder=clip_text(16, 16), tokenizer=clip_tokenizer(), text_encoder_2=clip_text(16, 24),
        tokenizer_2=clip_tokenizer(), text_encoder_3=t5_text(32) if with_t5 else None,
        tokenizer_3=t5_tokenizer() if with_t5 else None,
    )  # fmt: skip


def flux(guidance_embeds=True):
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    transformer = FluxTransformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=16, guidance_embeds=guidance_embeds, axes_dims_rope=(4, 4, 8),
    )  # fmt: skip
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), transformer=transformer,
        vae=kl_vae(shift_factor=0.1159, scaling_factor=0.3611), text_encoder=clip_text(16),
        tokenizer=clip_tokenizer(), text_encoder_2=t5_text(32), tokenizer_2=t5_tokenizer(),
    )  # fmt: skip


def pixart(kind="Alpha", **config):
    import diffusers

    transformer = diffusers.PixArtTransformer2DModel(
        **({"sample_size": 8} | config), num_attention_heads=2, attention_head_dim=12, num_layers=2,
        cross_attention_dim=24, caption_channels=32, norm_num_groups=4,
    )  # fmt: skip
    return getattr(diffusers, f"PixArt{kind}Pipeline")(
        tokenizer=t5_tokenizer(), text_encoder=t5_text(32), vae=kl_vae(), transformer=transformer,
        scheduler=diffusers.DPMSolverMultistepScheduler(),
    )  # fmt: skip


def sana():
    from diffusers import AutoencoderDC, DPMSolverMultistepScheduler, SanaPipeline, SanaTransformer2DModel

    vae = AutoencoderDC(
        latent_channels=4, attention_head_dim=2, encoder_block_types=("ResBlock",) * 4,
        decoder_block_types=("ResBlock",) * 4, encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4,
        encoder_layers_per_block=(1,) * 4, decoder_layers_per_block=(1,) * 4, encoder_qkv_multiscales=((),) * 4,
        decoder_qkv_multiscales=((),) * 4, scaling_factor=0.41407, encoder_out_shortcut=False,
        decoder_in_shortcut=False,
    )  # fmt: skip
    transformer = SanaTransformer2DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=8, num_layers=1,
        num_cross_attention_heads=2, cross_attention_head_dim=8, cross_attention_dim=16, caption_channels=16,
        sample_size=8,
    )  # fmt: skip
    scheduler = DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    return SanaPipeline(
        tokenizer=gemma_tokenizer(), text_encoder=gemma_text(), vae=vae, transformer=transformer, scheduler=scheduler
    )


def deepfloyd():
    from diffusers import DDPMScheduler, IFPipeline

    network = unet(
        in_channels=3, out_channels=6, sample_size=16, act_fn="gelu", addition_embed_type="text",
        addition_embed_type_num_heads=2, cross_attention_dim=24, encoder_hid_dim=16, encoder_hid_dim_type="text_proj",
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn", resnet_time_scale_shift="scale_shift",
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
    )  # fmt: skip
    scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2", variance_type="learned_range", thresholding=True)
    return IFPipeline(
        tokenizer=t5_tokenizer(), text_encoder=t5_text(16), unet=network, scheduler=scheduler, safety_checker=None,
        feature_extractor=None, watermarker=None, requires_safety_checker=False,
    )  # fmt: skip


def mvdream():
    from diffusers import StableDiffusionPipeline

    network = unet(class_embed_type="projection", projection_class_embeddings_input_dim=16)
    return StableDiffusionPipeline(
        vae=kl_vae(), text_encoder=clip_text(), tokenizer=clip_tokenizer(), unet=network, scheduler=ddim(),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def save_zero123(folder: Path) -> Path:
    """As its folders are on the hub: two components have classes that come with the model."""
    from safetensors.torch import save_file
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=8,
        projection_dim=12,
    )  # fmt: skip
    unet(in_channels=8, out_channels=4).save_pretrained(folder / "unet")
    kl_vae().save_pretrained(folder / "vae")
    ddim().save_pretrained(folder / "scheduler")
    CLIPVisionModelWithProjection(vision).save_pretrained(folder / "image_encoder")
    (folder / "cc_projection").mkdir()
    (folder / "cc_projection" / "config.json").write_text(json.dumps({"in_channel": 16, "out_channel": 16}))
    projection = {"projection.weight": torch.randn(16, 16) / 4, "projection.bias": torch.randn(16) / 4}
    save_file(projection, folder / "cc_projection" / "diffusion_pytorch_model.safetensors")
    index = {
        "_class_name": "Zero1to3StableDiffusionPipeline", "cc_projection": ["pipeline_zero1to3", "CCProjection"],
        "image_encoder": ["transformers", "CLIPVisionModelWithProjection"], "scheduler": ["diffusers", "DDIMScheduler"],
        "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
    }  # fmt: skip
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


CAMERA_AWARE = {"mvdream": mvdream}
MODELS = {
    "sd": sd, "sd-v": lambda: sd("v_prediction"), "sd-x0": lambda: sd("sample"), "sdxl": sdxl, "sd3": sd3,
    "sd3-without-t5": lambda: sd3(False), "flux": flux, "flux-schnell": lambda: flux(False), "pixart-alpha": pixart,
    "pixart-alpha-sizes": lambda: pixart(sample_size=128),
    "pixart-sigma": lambda: pixart("Sigma"), "sana": sana, "deepfloyd": deepfloyd,
}  # fmt: skip


def save(name: str, folder: Path) -> Path:
    """The model with seed 0, in `folder`; weights that start at zero are made random, or nothing would be compared."""
    torch.manual_seed(0)
    if name == "zero123":
        return save_zero123(folder)
    pipeline = (MODELS | CAMERA_AWARE)[name]()
    for component in pipeline.components.values():
        if isinstance(component, torch.nn.Module):
            for parameter in component.parameters():
                if not parameter.any():
                    torch.nn.init.normal_(parameter, std=0.1)
    pipeline.save_pretrained(folder)
    return folder
