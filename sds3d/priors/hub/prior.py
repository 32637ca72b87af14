"""A text-to-image model of diffusers as a prior, whatever its family: everything becomes (eps, alpha, sigma) here."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakSet

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from sds3d.errors import PriorUnavailable
from sds3d.priors.hub.adapters import Adapters
from sds3d.priors.hub.embeddings import TextReader
from sds3d.priors.hub.families.base import ATTENTION, Family, NetworkInput
from sds3d.priors.hub.loading import load_component, load_pipeline, read_config
from sds3d.priors.hub.locate import LocalModel
from sds3d.priors.hub.schedule import schedule_of
from sds3d.priors.lora import CameraEmbedding, LowRankCopy
from sds3d.types import ViewCondition

# From fast to small: what each mode changes of the configured one.
SMALLER_MODES: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("4 images at a time", {"micro_batch": 4}),
    ("one image at a time", {"micro_batch": 1}),
    ("one image at a time, in tiles", {"micro_batch": 1, "vae_tiling": True}),
    ("one image at a time, in tiles, the network offloaded", {"micro_batch": 1, "vae_tiling": True, "offload": True}),
)
CAMERA = "sds3d_camera"  # the name under which a critic's transformer carries its camera embedding


@dataclass(frozen=True)
class MemoryMode:
    """How a step goes through the networks."""

    micro_batch: int = 0  # images per call; 0: all of a step
    vae_tiling: bool = False
    offload: bool = False  # the network waits on the CPU while views are rendered and encoded


@dataclass(frozen=True)
class PriorSettings:
    """How a loaded model is used: the options of its config that outlive loading."""

    image_size: int | None = None  # side in pixels; None: the model's own
    distilled_guidance: float = 1.0
    mode: MemoryMode = MemoryMode()
    plans: bool = True  # whether a run may choose a smaller memory mode
    compiled: bool = False


def load_prior(
    local: LocalModel, adapters: Adapters, dtype: torch.dtype, settings: PriorSettings, device: torch.device
) -> "DiffusersPrior":
    """Load a model that reads text; PriorUnavailable in one line if it cannot be."""
    adapters.check()
    family = local.files.family
    names = [family.network, "scheduler", *(["vae"] if family.latent else [])]
    pipeline = load_pipeline(local, names, dtype, device)
    adapters.add_lora(pipeline)
    if family.latent and dtype == torch.float16 and pipeline.vae.config.get("force_upcast"):
        pipeline.vae = load_component(local, "vae", torch.float32, device)  # its activations exceed half precision
    texts = TextReader(local, read_config(local, family.network), adapters, dtype, device)
    return DiffusersPrior(settings, family, pipeline, texts, device, local.files.pickled)


class DiffusersPrior:
    """x is the scaled latent, or the image in [-1, 1] for models without one. Text alone tells front from back."""

    def __init__(
        self,
        settings: PriorSettings,
        family: Family,
        pipeline: Any,
        texts: Callable[[Sequence[str]], Tensor],
        device: torch.device,
        pickled: Sequence[str] = (),
    ) -> None:
        self._pickled = pickled
        self.settings, self.family, self.device = settings, family, device
        self.network = family.prepare(getattr(pipeline, family.network)).requires_grad_(False)
        self.network.to(memory_format=torch.channels_last)
        self.vae = pipeline.vae if family.latent else None
        self.dtype, self._texts = self.network.dtype, texts
        self._factor = _downscaling(self.vae)
        side = self._latent_side()
        self.latent_shape = (family.channels(self.network.config), side, side)
        self.image_size = self.latent_shape[1] * self._factor
        tokens = (self.latent_shape[1] // family.patch(self.network.config)) ** 2
        self.schedule = schedule_of(pipeline.scheduler, tokens, device)
        self.plans = settings.plans
        self._ask = torch.compile(self.network) if settings.compiled else self.network
        self._copies = WeakSet[nn.Module]()  # those that still learn on the network's weights
        self.set_memory_mode(0)

    def memory_modes(self) -> list[str]:
        """As configured; then fewer images per call; then the VAE in tiles; then the network offloaded.

        The last is missing while a trainable copy is in use: it shares the network's weights, which would move with it.
        """
        modes = ["as configured" if self.settings.mode.micro_batch else "everything at once"]
        modes += [name for name, change in SMALLER_MODES if not (self._copies and change.get("offload"))]
        return modes

    def set_memory_mode(self, level: int) -> None:
        """Takes effect with the next call. PriorUnavailable if it would offload weights that a copy shares."""
        change = {} if level == 0 else SMALLER_MODES[level - 1][1]
        mode = replace(self.settings.mode, **change)
        if mode.offload and self._copies:
            raise _offloaded_critic()
        self.memory_mode, self.mode = level, mode
        if self.vae is not None:
            self.vae.enable_tiling() if mode.vae_tiling else self.vae.disable_tiling()
        self.network.to("cpu" if mode.offload else self.device)

    def _latent_side(self) -> int:
        """Of `image_size`; by default the model's own, and at most what its family is distilled at."""
        step, pixels = self._factor * self.family.patch(self.network.config), self.settings.image_size
        if pixels is not None:
            if pixels % step:
                raise PriorUnavailable(
                    f"prior.image_size = {pixels} does not fit {self.family.name}", f"use a multiple of {step}"
                )
            return pixels // self._factor
        own, largest = self.family.own_side(self.network.config), self.family.largest
        return own if largest is None else min(own, largest // self._factor)

    def embed(self, texts: Sequence[str]) -> Float[Tensor, "T N D"]:
        """By the model's own text encoders, or from the cache on disk; "" gives the model's own null condition."""
        return self._texts(texts)

    def unknown_words(self, text: str) -> list[str]:
        """None: it reads free text."""
        return []

    def cautions(self, text: str) -> list[str]:
        """Nothing about the words; a warning for each network whose weights were pickled."""
        return [f"its {name} was loaded from a pickle, which can run code" for name in self._pickled]

    def encode(self, image: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """scaling_factor (mean - shift_factor) of the VAE's posterior, of the image resized to the model's own size.

        The mean, not a sample: a sample adds noise to the gradient that no method asks for. In micro-batches the
        backward pass recomputes the activations.
        """
        size = (self.image_size, self.image_size)
        if image.shape[2:] != size:
            image = functional.interpolate(image, size=size, mode="bilinear", antialias=True)
        image = 2.0 * image - 1.0
        if self.vae is None:
            return image
        micro_batch = self.mode.micro_batch
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
        """eps_hat for each condition, in one batch or in micro-batches; all arithmetic but the network's is float32."""
        with self._on_device():
            return self._predict(self._ask, x_t, t, embeddings, view)

    def trainable_copy(self, rank: int, generator: torch.Generator) -> nn.Module:
        """LoRA on every projection of the network's attention, and an embedding of the camera.

        The prior itself knows the view by words only. The copy gets camera_to_world through two layers that start at
        zero: added to the time embedding in a UNet, where diffusers adds class labels, and to every word in a
        transformer. It shares the network's frozen weights, so the network cannot be offloaded while the copy lives.
        """
        if self.mode.offload:
            raise _offloaded_critic()
        layers = [name for name, _ in self.network.named_modules() if name.endswith(ATTENTION)]
        extra = {}
        if not self.family.reads_camera:
            extra[_camera_slot(self.network)] = CameraEmbedding(self._camera_width(), generator).to(self.device)
        copy = LowRankCopy(self.network, layers, rank, generator, self._predict, **extra)
        self._copies.add(copy)
        return copy

    def _camera_width(self) -> int:
        if self.family.network == "unet":
            return int(self.network.time_embedding.linear_2.out_features)
        return int(self.embed([""]).shape[2])

    def _predict(
        self, network: Any, x_t: Tensor, t: Tensor, embeddings: Sequence[Tensor], view: ViewCondition | None = None
    ) -> list[Tensor]:
        """`predict_noise` with any network of this architecture, with gradients."""
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
                f"{self.family.name} denoises {group} views of an object together, and there are {batch}",
                f"use cameras.views={-(-batch // group) * group}",
            )
        rows = -(-(self.mode.micro_batch or len(x)) // group) * group
        order = torch.arange(batch, device=self.device).repeat(count)
        outs = [
            self.family.call(
                network,
                NetworkInput(
                    x[begin : begin + rows],
                    timestep[begin : begin + rows],
                    text[begin : begin + rows],
                    self.image_size,
                    self._select_views(view, order[begin : begin + rows]),
                    self.settings.distilled_guidance,
                    None if camera is None else camera[begin : begin + rows],
                ),
            )
            for begin in range(0, len(x), rows)
        ]
        return [self.schedule.eps(part, x_t, alpha, sigma) for part in torch.cat(outs).float().chunk(count)]

    def _select_views(self, view: ViewCondition | None, rows: Tensor) -> ViewCondition | None:
        """The views of some rows of the batch, for networks that read the camera."""
        if view is None or not self.family.reads_camera:
            return None
        return ViewCondition(view.cameras.to(self.device).select(rows))

    @contextmanager
    def _on_device(self) -> Iterator[None]:
        """Inside, the network is on the device; with offload it goes back to the CPU afterwards."""
        if not self.mode.offload:
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


def _offloaded_critic() -> PriorUnavailable:
    return PriorUnavailable(
        "prior.offload = 'model' does not go with a critic, which learns on the network's weights", "use offload=none"
    )


def _is_unet(network: Any) -> bool:
    return hasattr(network, "class_embedding")


def _camera_slot(network: Any) -> str:
    return "class_embedding" if _is_unet(network) else CAMERA


def _downscaling(vae: Any) -> int:
    """Image pixels per latent pixel along a side; 1 without a VAE."""
    if vae is None:
        return 1
    blocks = vae.config.get("block_out_channels") or vae.config["encoder_block_out_channels"]
    return int(2 ** (len(blocks) - 1))


def _scale_and_shift(vae: Any) -> tuple[float, float]:
    return float(vae.config.scaling_factor), float(vae.config.get("shift_factor") or 0.0)
