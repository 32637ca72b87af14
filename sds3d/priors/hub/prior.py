"""A text-to-image model of diffusers as a prior, whatever its family: everything becomes (eps, alpha, sigma) here."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from sds3d.errors import PriorUnavailable
from sds3d.priors.hub.adapters import Extras
from sds3d.priors.hub.config import DiffusersConfig
from sds3d.priors.hub.embeddings import TextReader
from sds3d.priors.hub.families.base import ATTENTION, Family, NetworkInput
from sds3d.priors.hub.families.zero123 import Zero123
from sds3d.priors.hub.loading import load_component, load_pipeline, read_config
from sds3d.priors.hub.locate import Found, find_model
from sds3d.priors.hub.schedule import schedule_of
from sds3d.priors.lora import CameraEmbedding, LowRankCopy
from sds3d.types import ViewCondition

MEMORY_MODES: tuple[tuple[str, dict[str, object]], ...] = (
    ("4 images at a time", {"micro_batch": 4}),
    ("one image at a time", {"micro_batch": 1}),
    ("one image at a time, in tiles", {"micro_batch": 1, "vae_tiling": True}),
    (
        "one image at a time, in tiles, the network offloaded",
        {"micro_batch": 1, "vae_tiling": True, "offload": "model"},
    ),
)
CAMERA = "sds3d_camera"  # the name under which a critic's transformer carries its camera embedding


def load_prior(config: DiffusersConfig, device: torch.device) -> "DiffusersPrior":
    """Finds, checks and loads the model; PriorUnavailable in one line where that cannot be."""
    found = find_model(config.model, config.revision)
    extras = Extras(config.lora, config.words)
    extras.check()
    refuse_other_families(config, found)
    family, dtype = found.files.family, precision(config, found, device)
    names = [family.network, "scheduler", *(["vae"] if family.latent else [])]
    pipeline = load_pipeline(found, names, dtype, device)
    if config.lora:
        extras.add_to_network(pipeline)
    if family.latent and dtype == torch.float16 and pipeline.vae.config.get("force_upcast"):
        pipeline.vae = load_component(found, "vae", torch.float32, device)  # its activations exceed half precision
    texts = TextReader(found, read_config(found, family.network), extras, dtype, device)
    return DiffusersPrior(config, family, pipeline, texts, device, found.files.pickled)


def refuse_other_families(config: DiffusersConfig, found: Found) -> None:
    """PriorUnavailable where the model is one that wants another prior.name."""
    family = found.files.family
    wanted = "zero123" if isinstance(family, Zero123) else "multiview" if family.reads_camera else "diffusers"
    if config.name != wanted:
        raise PriorUnavailable(
            f"{config.model} is a model of {family.name}, which is not for prior.name = {config.name!r}",
            f"use prior.name={wanted}",
        )


def precision(config: DiffusersConfig, found: Found, device: torch.device) -> torch.dtype:
    """Transformers were trained in bfloat16, and some overflow in float16."""
    if config.dtype != "auto":
        dtype: torch.dtype = getattr(torch, config.dtype)
        return dtype
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if found.files.family.network == "transformer" else torch.float16


class DiffusersPrior:
    """x is the scaled latent, or the image in [-1, 1] for models without one. Text alone tells front from back."""

    def __init__(
        self,
        config: DiffusersConfig,
        family: Family,
        pipeline: Any,
        texts: Callable[[Sequence[str]], Tensor],
        device: torch.device,
        pickled: Sequence[str] = (),
    ) -> None:
        self._pickled = pickled
        self.config, self.family, self.device = config, family, device
        self.network = family.prepare(getattr(pipeline, family.network)).requires_grad_(False)
        self.network.to(memory_format=torch.channels_last)
        self.vae = pipeline.vae if family.latent else None
        self.dtype, self._texts = self.network.dtype, texts
        self._factor = _shrinks(self.vae)
        side = self._side()
        self.latent_shape = (family.channels(self.network.config), side, side)
        self.image_size = self.latent_shape[1] * self._factor
        tokens = (self.latent_shape[1] // family.patch(self.network.config)) ** 2
        self.schedule = schedule_of(pipeline.scheduler, tokens, device)
        self.plans, self._configured = config.memory == "auto", config
        self._ask = torch.compile(self.network) if config.compile else self.network
        self.set_memory_mode(0)

    def memory_modes(self) -> list[str]:
        """As configured; then fewer images in a call; then the VAE in tiles; then the network elsewhere meanwhile."""
        return [
            "everything at once" if not self._configured.micro_batch else "chunks as set",
            *(name for name, _ in MEMORY_MODES),
        ]

    def set_memory_mode(self, level: int) -> None:
        """Takes effect with the next question."""
        self.memory_mode = level
        change = {} if level == 0 else MEMORY_MODES[level - 1][1]
        self.config = self._configured.model_copy(update=change)
        if self.vae is not None:
            self.vae.enable_tiling() if self.config.vae_tiling else self.vae.disable_tiling()
        self.network.to("cpu" if self.config.offload == "model" else self.device)

    def _side(self) -> int:
        """Of the latent: what is asked for, else the model's own and at most what its family is distilled at."""
        step, wanted = self._factor * self.family.patch(self.network.config), self.config.image_size
        if wanted is not None:
            if wanted % step:
                raise PriorUnavailable(
                    f"prior.image_size = {wanted} does not fit {self.family.name}", f"use a multiple of {step}"
                )
            return wanted // self._factor
        own, largest = self.family.own_side(self.network.config), self.family.largest
        return own if largest is None else min(own, largest // self._factor)

    def embed(self, texts: Sequence[str]) -> Float[Tensor, "T N D"]:
        """By the model's own text encoders, or from the cache; the empty text is the model's own null condition."""
        return self._texts(texts)

    def unknown_words(self, text: str) -> list[str]:
        """None: it reads free text."""
        return []

    def cautions(self, text: str) -> list[str]:
        """None of the words; but that weights came as pickles."""
        return [f"its {name} was loaded from a pickle, which can run code" for name in self._pickled]

    def encode(self, image: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """scaling_factor (mean - shift_factor) of the VAE's posterior, of the image resized to the model's own size.

        The mean, not a draw: a draw adds noise to the gradient that no method asks for. In chunks, activations are
        computed again in the backward pass.
        """
        size = (self.image_size, self.image_size)
        if image.shape[2:] != size:
            image = functional.interpolate(image, size=size, mode="bilinear", antialias=True)
        image = 2.0 * image - 1.0
        if self.vae is None:
            return image
        micro_batch = self.config.micro_batch
        if not micro_batch or len(image) <= micro_batch:
            return self._latent(image)
        return torch.cat([checkpoint(self._latent, part, use_reentrant=False) for part in image.split(micro_batch)])

    def _latent(self, image: Tensor) -> Tensor:
        assert self.vae is not None
        encoded = self.vae.encode(image.to(self.vae.dtype))
        latent = encoded.latent_dist.mean if hasattr(encoded, "latent_dist") else encoded.latent
        scale, shift = _scale_and_shift(self.vae)
        return scale * (latent.float() - shift)

    @torch.no_grad()
    def decode(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        """The image of x, in [0, 1]."""
        image = x
        if self.vae is not None:
            scale, shift = _scale_and_shift(self.vae)
            image = self.vae.decode((x / scale + shift).to(self.vae.dtype)).sample.float()
        return ((image + 1.0) / 2.0).clamp(0.0, 1.0)

    def alpha_sigma(self, t: Float[Tensor, "B"]) -> tuple[Float[Tensor, "B 1 1 1"], Float[Tensor, "B 1 1 1"]]:
        """By the model's own scheduler, float32."""
        return self.schedule.alpha_sigma(t)

    @torch.no_grad()
    def predict_noise(
        self,
        x_t: Float[Tensor, "B C h w"],
        t: Float[Tensor, "B"],
        embeddings: Sequence[Float[Tensor, "B N D"]],
        view: ViewCondition | None = None,
    ) -> list[Float[Tensor, "B C h w"]]:
        """eps_hat for each condition, in one batch or in chunks; the arithmetic around the network is float32."""
        with self._at_hand():
            return self._predict(self._ask, x_t, t, embeddings, view)

    def trainable_copy(self, rank: int, generator: torch.Generator) -> nn.Module:
        """Low-rank matrices beside every projection of the network's attention, and an embedding of the camera.

        The prior itself is told the view in words only. The copy gets camera_to_world through two layers that start at
        zero: added to the embedding of the time in a UNet, where diffusers adds class labels, and to every word in a
        transformer.
        """
        if self.config.offload == "model":
            raise PriorUnavailable(
                "prior.offload = 'model' does not go with a critic, which learns on the network", "use offload=none"
            )
        layers = [name for name, _ in self.network.named_modules() if name.endswith(ATTENTION)]
        extra = {}
        if not self.family.reads_camera:
            extra[_camera_slot(self.network)] = CameraEmbedding(self._camera_width(), generator).to(self.device)
        return LowRankCopy(self.network, layers, rank, generator, self._predict, **extra)

    def _camera_width(self) -> int:
        if self.family.network == "unet":
            return int(self.network.time_embedding.linear_2.out_features)
        return int(self.embed([""]).shape[2])

    def _predict(
        self, network: Any, x_t: Tensor, t: Tensor, embeddings: Sequence[Tensor], view: ViewCondition | None = None
    ) -> list[Tensor]:
        """`predict_noise` by any network of this shape, with gradients."""
        count, batch = len(embeddings), len(x_t)
        alpha, sigma = self.schedule.alpha_sigma(t)
        x = self.schedule.network_input(x_t, alpha, sigma).repeat(count, 1, 1, 1).to(self.dtype)
        timestep, text = self.schedule.timestep(t).repeat(count), torch.cat(list(embeddings)).to(self.dtype)
        camera = None
        if isinstance(getattr(network, _camera_slot(network), None), CameraEmbedding):
            camera = camera_numbers(view, batch, self.device).repeat(count, 1)
            if not _is_unet(network):
                text, camera = text + getattr(network, CAMERA)(camera)[:, None].to(text), None
        group = self.family.group
        if batch % group:
            raise PriorUnavailable(
                f"{self.family.name} judges {group} views of an object together, and there are {batch}",
                f"use cameras.views={-(-batch // group) * group}",
            )
        rows = -(-(self.config.micro_batch or len(x)) // group) * group
        order = torch.arange(batch, device=self.device).repeat(count)
        outs = [
            self.family.call(
                network,
                NetworkInput(
                    x[begin : begin + rows],
                    timestep[begin : begin + rows],
                    text[begin : begin + rows],
                    self.image_size,
                    self._seen(view, order[begin : begin + rows]),
                    self.config.distilled_guidance,
                    None if camera is None else camera[begin : begin + rows],
                ),
            )
            for begin in range(0, len(x), rows)
        ]
        return [self.schedule.eps(part, x_t, alpha, sigma) for part in torch.cat(outs).float().chunk(count)]

    def _seen(self, view: ViewCondition | None, rows: Tensor) -> ViewCondition | None:
        """Some of the views, for networks that read the camera."""
        if view is None or not self.family.reads_camera:
            return None
        return ViewCondition(view.cameras.to(self.device).select(rows))

    @contextmanager
    def _at_hand(self) -> Iterator[None]:
        """The network on the device; with offload only while it is needed."""
        if self.config.offload == "none":
            yield
            return
        self.network.to(self.device)
        try:
            yield
        finally:
            self.network.to("cpu")


def camera_numbers(view: ViewCondition | None, batch: int, device: torch.device) -> Float[Tensor, "B 16"]:
    """camera_to_world, flattened; zeros where there is no view."""
    numbers = torch.zeros(batch, 16) if view is None else view.cameras.camera_to_world.flatten(1)
    return numbers.to(device)


def _is_unet(network: Any) -> bool:
    return hasattr(network, "class_embedding")


def _camera_slot(network: Any) -> str:
    return "class_embedding" if _is_unet(network) else CAMERA


def _shrinks(vae: Any) -> int:
    """How many pixels of an image lie along the side of a latent's; 1 without a VAE."""
    if vae is None:
        return 1
    blocks = vae.config.get("block_out_channels") or vae.config["encoder_block_out_channels"]
    return int(2 ** (len(blocks) - 1))


def _scale_and_shift(vae: Any) -> tuple[float, float]:
    return float(vae.config.scaling_factor), float(vae.config.get("shift_factor") or 0.0)
