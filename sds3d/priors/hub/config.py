"""Which model of the hub, and with what options. The class goes by the model's family: see `config_for`."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field

from sds3d.errors import PriorUnavailable
from sds3d.options import LocalFile
from sds3d.priors.base import PriorConfig
from sds3d.priors.hub.adapters import Adapters
from sds3d.priors.hub.locate import LocalModel, family_of_model, find_model
from sds3d.priors.hub.prior import DiffusersPrior, MemoryMode, PriorSettings, load_prior
from sds3d.priors.hub.zero123_prior import load_zero123
from sds3d.reference_image import ReferenceImageConfig

Precision = Literal["auto", "float32", "bfloat16", "float16"]
Files = Annotated[tuple[Annotated[str, Field(min_length=1, max_length=500)], ...], Field(max_length=16), LocalFile()]


class DiffusersConfig(PriorConfig):
    """A text-to-image model in diffusers' layout: a local folder, or an id in the hub's cache or on the hub."""

    name: Literal["diffusers"] = "diffusers"
    reads_views: ClassVar[bool] = True
    examples: ClassVar[tuple[str, ...]] = (
        "a DSLR photo of a hamburger",
        "a ceramic teapot shaped like a pumpkin",
        "a wooden rocking chair, studio lighting",
    )
    model: Annotated[str, LocalFile(), Field(min_length=1, max_length=500, description="folder or hub id of the model")]
    revision: Annotated[
        str,
        Field(max_length=100, pattern=r"^[\w./-]*$", description="commit, branch or tag on the hub"),
    ] = ""
    dtype: Annotated[
        Precision,
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

    def build(self, device: torch.device | str) -> DiffusersPrior:
        """Find, check and load the model; PriorUnavailable says in one line what is wrong and what to do."""
        device, local = torch.device(device), self._find()
        adapters = Adapters(self.lora, self.words)
        return load_prior(local, adapters, self._precision(local, device), self._settings(), device)

    def _find(self) -> LocalModel:
        """The model on this machine; PriorUnavailable if its family needs another `prior.name`."""
        local = find_model(self.model, self.revision)
        family = local.files.family
        if family.prior != self.name:
            raise PriorUnavailable(
                f"{self.model} is a model of {family.name}, which does not go with prior.name = {self.name!r}",
                f"use prior.name={family.prior}",
            )
        return local

    def _precision(self, local: LocalModel, device: torch.device) -> torch.dtype:
        """Transformers were trained in bfloat16, and some of them overflow in float16."""
        if self.dtype != "auto":
            dtype: torch.dtype = getattr(torch, self.dtype)
            return dtype
        if device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if local.files.family.network == "transformer" else torch.float16

    def _settings(self) -> PriorSettings:
        mode = MemoryMode(self.micro_batch, self.vae_tiling, self.offload == "model")
        return PriorSettings(self.image_size, self.distilled_guidance, mode, self.memory == "auto", self.compile)


class MultiViewConfig(DiffusersConfig):
    """A model that denoises four views of one object together and takes their cameras as input, such as MVDream."""

    name: Literal["multiview"] = "multiview"  # type: ignore[assignment]
    reads_views: ClassVar[bool] = False
    reads_cameras: ClassVar[bool] = True
    needs_orthogonal_views: ClassVar[bool] = True
    default_overrides: ClassVar[Mapping[str, Any]] = {"cameras": {"views": 4, "orthogonal_views": True}}


class Zero123Config(DiffusersConfig):
    """A model of novel views of a picture, such as Zero-1-to-3. It is conditioned on the picture and reads no words."""

    name: Literal["zero123"] = "zero123"  # type: ignore[assignment]
    reads_views: ClassVar[bool] = False
    reads_cameras: ClassVar[bool] = True
    takes_reference_image: ClassVar[bool] = True
    reference_image: ReferenceImageConfig
    anchors: Annotated[
        int, Field(ge=0, le=15, description="views sampled from the picture first; renders go by the nearest of them")
    ] = 0

    def build(self, device: torch.device | str) -> DiffusersPrior:
        """Load the model and the picture, and sample the anchors."""
        if self.lora or self.words:
            raise PriorUnavailable("prior.lora and prior.words do not go with prior.name = 'zero123'", "leave them out")
        device, local = torch.device(device), self._find()
        precision, settings = self._precision(local, device), self._settings()
        return load_zero123(local, precision, settings, self.reference_image, self.anchors, device)


CONFIGS: Mapping[str, type[DiffusersConfig]] = {
    "diffusers": DiffusersConfig,
    "multiview": MultiViewConfig,
    "zero123": Zero123Config,
}


def config_for(model: str, revision: str = "") -> type[DiffusersConfig]:
    """The config class for a model, by its family: of its folder, else of the table of known models.

    A model of the hub that is neither in the cache nor in the table counts as text to image; if it turns out to be of
    another family, `build` says which `prior.name` it needs. PriorUnavailable if a local folder is no model.
    """
    family = family_of_model(model, revision)
    return DiffusersConfig if family is None else CONFIGS[family.prior]
