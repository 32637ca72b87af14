"""Stable Diffusion 1.x and 2.x through diffusers: a latent prior that reads free text.

Everything is converted at this border to (eps, alpha, sigma): networks that predict v or the clean latent too.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from sds3d.errors import PriorUnavailable
from sds3d.priors.base import PriorConfig, eps_from_sample, eps_from_v
from sds3d.priors.lora import CameraEmbedding, LowRankCopy
from sds3d.types import ViewCondition

SUPPORTED = ("StableDiffusionPipeline",)
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
TO_EPS = {
    "epsilon": lambda out, x_t, alpha, sigma: out,
    "v_prediction": eps_from_v,
    "sample": eps_from_sample,
}


class DiffusersConfig(PriorConfig):
    """A text-to-image model in diffusers' layout: a local folder, or an id in the hub's cache or on the hub."""

    name: Literal["diffusers"] = "diffusers"
    reads_views: ClassVar[bool] = True
    model: Annotated[str, Field(min_length=1, max_length=500, description="folder or hub id of the model")]
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        Field(description="precision of the networks; auto is float16 on CUDA and float32 elsewhere"),
    ] = "auto"

    def build(self, device: torch.device | str) -> "StableDiffusionPrior":
        """Load the model; imports diffusers and transformers."""
        device = torch.device(device)
        auto = torch.float16 if device.type == "cuda" else torch.float32
        dtype = auto if self.dtype == "auto" else getattr(torch, self.dtype)
        return StableDiffusionPrior(load_pipeline(self.model, dtype), device)


def load_pipeline(model: str, dtype: torch.dtype) -> Any:
    """The diffusers pipeline of a folder or hub id, safetensors only.

    PriorUnavailable says what is missing, of an unsupported kind or unreadable.
    """
    from diffusers import DiffusionPipeline

    hint = "give a folder written by diffusers' save_pretrained, or the id of a Stable Diffusion 1.x or 2.x model"
    folder = Path(model)
    if folder.exists() and not (folder / "model_index.json").is_file():
        raise PriorUnavailable(f"{model} is no diffusers model: it has no model_index.json", hint)
    if not folder.exists() and (model.startswith((".", "/", "~")) or model.count("/") != 1):
        raise PriorUnavailable(f"there is no folder {model}", hint)
    try:
        kind = DiffusionPipeline.load_config(model)["_class_name"]
        if kind in SUPPORTED:
            return DiffusionPipeline.from_pretrained(
                model, dtype=dtype, use_safetensors=True, safety_checker=None, requires_safety_checker=False
            )
    except Exception as error:  # diffusers, transformers, safetensors and the hub raise dozens of types
        found = str(error).strip().split("\n", 1)[0] or type(error).__name__
        raise PriorUnavailable(f"cannot load the prior {model}: {found}", hint) from error
    raise PriorUnavailable(f"{model} is a {kind}, which is not supported yet", f"supported: {', '.join(SUPPORTED)}")


class StableDiffusionPrior:
    """x is the scaled VAE latent. The view is not read: text alone tells front from back."""

    def __init__(self, pipeline: Any, device: torch.device) -> None:
        self.device, self.dtype = device, pipeline.unet.dtype
        self.tokenizer, self.text_encoder = pipeline.tokenizer, _frozen(pipeline.text_encoder, device)
        self.unet, self.vae = _frozen(pipeline.unet, device), _frozen(pipeline.vae, device)
        self.scaling = float(self.vae.config.scaling_factor)
        self.to_eps = TO_EPS[pipeline.scheduler.config.prediction_type]
        size = int(self.unet.config.sample_size)
        self.latent_shape = (int(self.unet.config.in_channels), size, size)
        self.image_size = size * 2 ** (len(self.vae.config.block_out_channels) - 1)
        # float32: in half precision sigma is off by 7% at t = 0.001
        self.alphas_cumprod = pipeline.scheduler.alphas_cumprod.float().to(device)

    @torch.no_grad()
    def embed(self, texts: Sequence[str]) -> Float[Tensor, "T N D"]:
        """Last hidden states of the text encoder, padded to its full length."""
        length = min(self.tokenizer.model_max_length, self.text_encoder.config.max_position_embeddings)
        tokens = self.tokenizer(
            list(texts), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        )
        hidden: Tensor = self.text_encoder(tokens.input_ids.to(self.device))[0]
        return hidden

    def unknown_words(self, text: str) -> list[str]:
        """None: it reads free text."""
        return []

    def cautions(self, text: str) -> list[str]:
        """None are known."""
        return []

    def encode(self, image: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """scaling_factor * mean of the VAE's posterior, of the image resized to the model's own size.

        The mean, not a draw: a draw adds noise to the gradient that no method asks for.
        """
        size = (self.image_size, self.image_size)
        if image.shape[2:] != size:
            image = functional.interpolate(image, size=size, mode="bilinear", antialias=True)
        latent: Tensor = self.vae.encode((2.0 * image - 1.0).to(self.dtype)).latent_dist.mean
        return self.scaling * latent.float()

    @torch.no_grad()
    def decode(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        """The VAE's image of a scaled latent, in [0, 1]."""
        image: Tensor = self.vae.decode((x / self.scaling).to(self.dtype)).sample
        return ((image.float() + 1.0) / 2.0).clamp(0.0, 1.0)

    def _ticks(self, t: Tensor) -> Tensor:
        count = len(self.alphas_cumprod)
        return (t.double() * count).round().long().clamp(0, count - 1).to(self.device)

    def alpha_sigma(self, t: Float[Tensor, "B"]) -> tuple[Float[Tensor, "B 1 1 1"], Float[Tensor, "B 1 1 1"]]:
        """sqrt(alphas_cumprod) and sqrt(1 - alphas_cumprod) at the nearest tick, float32."""
        kept = self.alphas_cumprod[self._ticks(t)][:, None, None, None]
        return kept.sqrt(), (1.0 - kept).sqrt()

    @torch.no_grad()
    def predict_noise(
        self,
        x_t: Float[Tensor, "B C h w"],
        t: Float[Tensor, "B"],
        embeddings: Sequence[Float[Tensor, "B N D"]],
        view: ViewCondition | None = None,
    ) -> list[Float[Tensor, "B C h w"]]:
        """eps_hat for each condition, in one batch; the arithmetic around the network is float32."""
        return self._predict(self.unet, x_t, t, embeddings)

    def trainable_copy(self, rank: int, generator: torch.Generator) -> nn.Module:
        """Low-rank matrices beside every projection of the UNet's attention, and an embedding of the camera.

        The prior itself is told the view in words only. The copy gets camera_to_world, through two layers whose output
        is added to the embedding of the time (where diffusers adds class labels); it starts at zero.
        """
        layers = [name for name, _ in self.unet.named_modules() if name.endswith(ATTENTION)]
        camera = CameraEmbedding(self.unet.time_embedding.linear_2.out_features, generator).to(self.device)
        return LowRankCopy(self.unet, layers, rank, generator, self._predict, class_embedding=camera)

    def _predict(
        self, unet: Any, x_t: Tensor, t: Tensor, embeddings: Sequence[Tensor], view: ViewCondition | None = None
    ) -> list[Tensor]:
        """`predict_noise` by any network of this shape, with gradients; the view is for one that has the embedding."""
        count = len(embeddings)
        alpha, sigma = self.alpha_sigma(t)
        noisy = x_t.repeat(count, 1, 1, 1).to(self.dtype)
        text = torch.cat(list(embeddings)).to(self.dtype)
        camera = None if unet.class_embedding is None else self._camera(view, len(x_t)).repeat(count, 1)
        ticks = self._ticks(t).repeat(count)
        out = unet(noisy, ticks, encoder_hidden_states=text, class_labels=camera).sample.float()
        return [self.to_eps(part, x_t, alpha, sigma) for part in out.chunk(count)]

    def _camera(self, view: ViewCondition | None, batch: int) -> Float[Tensor, "B 16"]:
        """camera_to_world, flattened; zeros where there is no view."""
        numbers = torch.zeros(batch, 16) if view is None else view.cameras.camera_to_world.flatten(1)
        return numbers.to(self.device)


def _frozen(network: Any, device: torch.device) -> Any:
    return network.to(device).eval().requires_grad_(False)
