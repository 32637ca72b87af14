"""A text-to-image model of diffusers as a prior, whatever its family: everything becomes (eps, alpha, sigma) here."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Annotated, Any, ClassVar, Literal
from weakref import WeakMethod, WeakSet

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from sds3d.errors import PriorUnavailable
from sds3d.options import LocalFile
from sds3d.priors.base import (
    VIEW_WORDS,
    Embeddings,
    Factors,
    Images,
    Latents,
    MemoryModes,
    PriorConfig,
    Times,
    has_bfloat16,
)
from sds3d.priors.hub.adapters import Adapters
from sds3d.priors.hub.check_files import LocalModel
from sds3d.priors.hub.embeddings import TextReader
from sds3d.priors.hub.families.base import ATTENTION, Family, NetworkInput
from sds3d.priors.hub.loading import load_component, load_pipeline
from sds3d.priors.hub.locate import find_model
from sds3d.priors.hub.schedule import FEW_STEPS, schedule_of
from sds3d.priors.lora import CameraEmbedding, LowRankCopy
from sds3d.types import ViewCondition

Files = Annotated[tuple[Annotated[str, Field(min_length=1, max_length=4096)], ...], Field(max_length=16), LocalFile()]
# From fast to small: what each memory mode changes of the configured options.
MEMORY_MODES: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("everything at once", {}),
    ("4 images at a time", {"micro_batch": 4}),
    ("one image at a time", {"micro_batch": 1}),
    ("one image at a time, in tiles", {"micro_batch": 1, "vae_tiling": True}),
    (
        "one image at a time, in tiles, the network offloaded",
        {"micro_batch": 1, "vae_tiling": True, "offload": "model"},
    ),
)
CAMERA = "sds3d_camera"  # the name under which a critic's transformer carries its camera embedding


class DiffusersConfig(PriorConfig):
    """A text-to-image model in diffusers' layout: a local folder, or an id in the hub's cache or on the hub."""

    name: Literal["diffusers"] = "diffusers"
    reads_views: ClassVar[bool] = True
    examples: ClassVar[tuple[str, ...]] = (
        "a DSLR photo of a hamburger",
        "a ceramic teapot shaped like a pumpkin",
        "a wooden rocking chair, studio lighting",
    )
    model: Annotated[
        str, LocalFile(), Field(min_length=1, max_length=4096, description="folder or hub id of the model")
    ]
    revision: Annotated[
        str, Field(max_length=100, pattern=r"^[\w./-]*$", description="commit, branch or tag on the hub")
    ] = ""
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        Field(description="of the networks; auto: float32 on CPUs, on CUDA bfloat16 (transformers) or float16"),
    ] = "auto"
    image_size: Annotated[
        int | None, Field(ge=16, le=2048, description="side in pixels of the images it sees; default: the model's own")
    ] = None
    distilled_guidance: Annotated[
        float,
        Field(ge=0, le=100, description="guidance scale that FLUX.1-dev takes as an input; 1 leaves it to the method"),
    ] = 1.0
    lora: Annotated[Files, Field(description="LoRA files (.safetensors) to add to the model")] = ()
    words: Annotated[Files, Field(description="textual-inversion files (.safetensors); toy.safetensors is <toy>")] = ()
    micro_batch: Annotated[
        int, Field(ge=0, le=4096, description="images per call of the networks; 0: all of a step, the fastest")
    ] = 0
    vae_tiling: Annotated[bool, Field(description="encode views in tiles: less memory, faint seams")] = False
    offload: Annotated[
        Literal["none", "model"],
        Field(description="model: the network waits in main memory while views are rendered and encoded"),
    ] = "none"
    memory: Annotated[
        Literal["auto", "as_set"],
        Field(description="auto: measure a step first; if it does not fit, set micro_batch, vae_tiling and offload"),
    ] = "auto"
    compile: Annotated[bool, Field(description="torch.compile the network: minutes at first, then faster")] = False

    def build(self, device: torch.device | str) -> "DiffusersPrior":
        """Find, check and load the model; PriorUnavailable says in one line what is wrong and what to do."""
        device, local = torch.device(device), self._find()
        family, dtype = local.family, self._precision(local.family, device)
        adapters = Adapters(self.lora, self.words)
        adapters.check()
        names = [family.network, "scheduler", *(["vae"] if family.latent else [])]
        pipeline = load_pipeline(local, names, dtype, device)
        adapters.add_lora(pipeline)
        if family.latent and dtype == torch.float16 and pipeline.vae.config.get("force_upcast"):
            pipeline.vae = load_component(local, "vae", torch.float32, device)  # its activations exceed half precision
        notes, scheduler = list(local.notes), type(pipeline.scheduler).__name__
        if scheduler in FEW_STEPS:
            notes.append(
                f"its {scheduler} is of a model for few steps, whose predictions are no scores: expect soft objects"
            )
        return DiffusersPrior(self, family, pipeline, TextReader(local, adapters, dtype, device), device, notes)

    def _find(self) -> LocalModel:
        """The model on this machine; PriorUnavailable if its family needs another `prior.name`."""
        local = find_model(self.model, self.revision)
        if local.family.prior != self.name:
            raise PriorUnavailable(
                f"{self.model} is a model of {local.family.name}, which does not go with prior.name = {self.name!r}",
                f"use prior.name={local.family.prior}",
            )
        return local

    def _precision(self, family: Family, device: torch.device) -> torch.dtype:
        """Transformers were trained in bfloat16, and some of them overflow in float16, which is all that older GPUs
        compute fast."""
        if self.dtype != "auto":
            dtype: torch.dtype = getattr(torch, self.dtype)
            return dtype
        if device.type != "cuda":
            return torch.float32
        half = family.network == "transformer" and has_bfloat16(device)
        return torch.bfloat16 if half else torch.float16


class MultiViewConfig(DiffusersConfig):
    """A model that denoises four views of one object together and takes their cameras as input, such as MVDream."""

    name: Literal["multiview"] = "multiview"  # type: ignore[assignment]
    reads_views: ClassVar[bool] = False
    reads_cameras: ClassVar[bool] = True
    needs_orthogonal_views: ClassVar[bool] = True
    default_overrides: ClassVar[Mapping[str, Any]] = {"cameras": {"views": 4, "orthogonal_views": True}}


class DiffusersPrior(MemoryModes):
    """x is the scaled latent, or the image in [-1, 1] for models without one. Text alone tells front from back."""

    def __init__(
        self,
        config: DiffusersConfig,
        family: Family,
        pipeline: Any,
        texts: Callable[[Sequence[str]], Tensor],
        device: torch.device,
        notes: Sequence[str] = (),
    ) -> None:
        self.config, self.family, self.device, self._notes = config, family, device, tuple(notes)
        self.network = family.prepare(getattr(pipeline, family.network)).requires_grad_(False)
        self.network.to(memory_format=torch.channels_last)
        self.vae = pipeline.vae if family.latent else None
        self.dtype, self._texts = self.network.dtype, texts
        self._factor = downscaling(self.vae)
        side = self._latent_side()
        self.latent_shape = (family.channels(self.network.config), side, side)
        self.image_size = self.latent_shape[1] * self._factor
        tokens = (self.latent_shape[1] // family.patch(self.network.config)) ** 2
        self.schedule = schedule_of(pipeline.scheduler, tokens, device)
        self.plans = config.memory == "auto"
        self._ask = torch.compile(self.network) if config.compile else self.network
        self._camera_slot = "class_embedding" if family.network == "unet" else CAMERA
        self._copies = WeakSet[nn.Module]()  # those that still learn on the network's weights
        self.set_memory_mode(0)
        if isinstance(texts, TextReader):
            room = WeakMethod(self._off_the_device)  # else the two would keep each other in memory
            texts.making_room = lambda: found() if (found := room()) is not None else nullcontext()

    @contextmanager
    def _off_the_device(self) -> Iterator[None]:
        """Inside, the networks wait in main memory: text encoders may be as large as they are."""
        networks = [network for network in (self.network, self.vae) if network is not None]
        # by the kind: "cuda" is where the tensors on "cuda:0" are
        there = [network for network in networks if next(network.parameters()).device.type == self.device.type]
        for network in there:
            network.to(torch.device("cpu"))
        try:
            yield
        finally:
            for network in there:
                network.to(self.device)

    def memory_modes(self) -> list[str]:
        """As configured; then fewer images per call; then the VAE in tiles; then the network offloaded.

        The last is missing while a trainable copy is in use: it shares the network's weights, which would move with it.
        """
        fastest, *smaller = (name for name, change in MEMORY_MODES if not (self._copies and "offload" in change))
        return ["as configured" if self.config.micro_batch else fastest, *smaller]

    def set_memory_mode(self, level: int) -> None:
        """Takes effect with the next call. PriorUnavailable if it would offload weights that a copy shares."""
        mode = self.config.model_copy(update=MEMORY_MODES[level][1])
        if mode.offload == "model" and self._copies:
            raise _offloaded_critic()
        self.memory_mode, self.mode = level, mode
        if self.vae is not None:
            self.vae.enable_tiling() if mode.vae_tiling else self.vae.disable_tiling()
        self.network.to("cpu" if mode.offload == "model" else self.device)

    def _latent_side(self) -> int:
        """Of `image_size`; by default the model's own, and at most what its family is distilled at."""
        step, pixels = self._factor * self.family.patch(self.network.config), self.config.image_size
        if pixels is not None:
            if pixels % step:
                raise PriorUnavailable(
                    f"prior.image_size = {pixels} does not fit {self.family.name}", f"use a multiple of {step}"
                )
            return pixels // self._factor
        own, largest = self.family.own_side(self.network.config), self.family.largest
        return own if largest is None else min(own, largest // self._factor)

    def embed(self, texts: Sequence[str]) -> Embeddings:
        """By the model's own text encoders, or from the cache on disk; "" gives the model's own null condition."""
        return self._texts(texts)

    def unread(self, text: str) -> str:
        """With the view words that the run will add, if the model reads them."""
        asked = f"{text}, {VIEW_WORDS[0]}" if text and self.config.reads_views else text
        return self._texts.unread([asked])[0] if isinstance(self._texts, TextReader) else ""

    def cautions(self, text: str) -> list[str]:
        """Nothing about the words; what there is to know about the model's files."""
        return list(self._notes)

    def encode(self, image: Images) -> Latents:
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
        parts = image.split(self.mode.micro_batch or len(image))
        if len(parts) == 1:
            return self._latent(image)
        return torch.cat([checkpoint(self._latent, part, use_reentrant=False) for part in parts])

    def _latent(self, image: Tensor) -> Tensor:
        assert self.vae is not None
        encoded = self.vae.encode(image.to(self.vae.dtype))
        latent = encoded.latent_dist.mean if hasattr(encoded, "latent_dist") else encoded.latent
        scale, shift = _scale_and_shift(self.vae)
        return scale * (latent.float() - shift)

    @torch.no_grad()
    def decode(self, x: Latents) -> Images:
        """The image of x, in [0, 1]."""
        image = x
        if self.vae is not None:
            scale, shift = _scale_and_shift(self.vae)
            image = self.vae.decode((x / scale + shift).to(self.vae.dtype)).sample.float()
        return ((image + 1.0) / 2.0).clamp(0.0, 1.0)

    def alpha_sigma(self, t: Times) -> tuple[Factors, Factors]:
        """By the model's own scheduler, float32."""
        return self.schedule.alpha_sigma(t)

    @torch.no_grad()
    def predict_noise(
        self, x_t: Latents, t: Times, embeddings: Sequence[Embeddings], view: ViewCondition | None = None
    ) -> list[Latents]:
        """eps_hat for each condition, in one batch or in micro-batches; all arithmetic but the network's is float32."""
        if self.mode.offload == "none":
            return self._predict(self._ask, x_t, t, embeddings, view)
        self.network.to(self.device)
        try:
            return self._predict(self._ask, x_t, t, embeddings, view)
        finally:
            self.network.to("cpu")

    def trainable_copy(self, rank: int, generator: torch.Generator) -> nn.Module:
        """LoRA on every projection of the network's attention, and an embedding of the camera.

        The prior itself knows the view by words only. The copy gets camera_to_world through two layers that start at
        zero: added to the time embedding in a UNet, where diffusers adds class labels, and to every word in a
        transformer. It shares the network's frozen weights, so the network cannot be offloaded while the copy lives.
        """
        if self.mode.offload == "model":
            raise _offloaded_critic()
        layers = [name for name, _ in self.network.named_modules() if name.endswith(ATTENTION)]
        extra = {}
        if not self.family.reads_camera:
            is_unet = self.family.network == "unet"
            width = self.network.time_embedding.linear_2.out_features if is_unet else self.embed([""]).shape[2]
            extra[self._camera_slot] = CameraEmbedding(width, generator).to(self.device)
        copy = LowRankCopy(self.network, layers, rank, generator, self._predict, **extra)
        self._copies.add(copy)
        return copy

    def _predict(
        self, network: Any, x_t: Tensor, t: Tensor, embeddings: Sequence[Tensor], view: ViewCondition | None = None
    ) -> list[Tensor]:
        """`predict_noise` with any network of this architecture, with gradients."""
        count, batch, group = len(embeddings), len(x_t), self.family.group
        if batch % group:
            raise PriorUnavailable(
                f"{self.family.name} denoises {group} views of an object together, and there are {batch}",
                f"use cameras.views={-(-batch // group) * group}",
            )
        alpha, sigma = self.schedule.alpha_sigma(t)
        x = self.schedule.network_input(x_t, alpha, sigma).repeat(count, 1, 1, 1).to(self.dtype)
        timestep, text = self.schedule.timestep(t).repeat(count), torch.cat(list(embeddings)).to(self.dtype)
        camera, learned = None, getattr(network, self._camera_slot, None)
        if isinstance(learned, CameraEmbedding):
            numbers = torch.zeros(batch, 16) if view is None else view.cameras.camera_to_world.flatten(1)
            camera = numbers.to(self.device).repeat(count, 1)
            if self._camera_slot == CAMERA:
                text, camera = text + learned(camera)[:, None].to(text), None
        read = view.cameras.to(self.device) if view is not None and self.family.reads_camera else None
        row_views = torch.arange(batch, device=self.device).repeat(count)
        size = -(-(self.mode.micro_batch or len(x)) // group) * group
        outs = []
        for begin in range(0, len(x), size):
            rows = slice(begin, begin + size)
            inputs = NetworkInput(
                x[rows],
                timestep[rows],
                text[rows],
                self.image_size,
                None if read is None else ViewCondition(read.select(row_views[rows])),
                self.config.distilled_guidance,
                None if camera is None else camera[rows],
            )
            outs.append(self.family.call(network, inputs))
        return [self.schedule.eps(part, x_t, alpha, sigma) for part in torch.cat(outs).float().chunk(count)]


def _offloaded_critic() -> PriorUnavailable:
    return PriorUnavailable(
        "prior.offload = 'model' does not go with a critic, which learns on the network's weights", "use offload=none"
    )


def downscaling(vae: Any) -> int:
    """Image pixels per latent pixel along a side; 1 without a VAE."""
    if vae is None:
        return 1
    blocks = vae.config.get("block_out_channels") or vae.config["encoder_block_out_channels"]
    return int(2 ** (len(blocks) - 1))


def _scale_and_shift(vae: Any) -> tuple[float, float]:
    return float(vae.config.scaling_factor), float(vae.config.get("shift_factor") or 0.0)
