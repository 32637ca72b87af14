"""How a model of diffusers is chosen."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field

from sds3d.options import LocalFile
from sds3d.priors.base import PriorConfig
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
        int | None, Field(ge=16, le=2048, description="side in pixels at which views are judged; the model's own")
    ] = None
    distilled_guidance: Annotated[
        float,
        Field(ge=0, le=100, description="scale that FLUX.1-dev is told; at 1 the guidance alone does the guiding"),
    ] = 1.0
    lora: Annotated[Files, Field(description="LoRA files (.safetensors) to add to the model")] = ()
    words: Annotated[Files, Field(description="textual-inversion files (.safetensors), each said as <its-name>")] = ()
    micro_batch: Annotated[
        int, Field(ge=0, le=4096, description="images in one call of the networks; 0: all of a step, the fastest")
    ] = 0
    vae_tiling: Annotated[bool, Field(description="encode views in tiles: less memory, faint seams")] = False
    offload: Annotated[
        Literal["none", "model"],
        Field(description="model: the network waits in main memory while views are rendered and encoded"),
    ] = "none"
    memory: Annotated[
        Literal["auto", "as_set"],
        Field(description="auto: measure a step first, and set micro_batch, vae_tiling and offload if it does not fit"),
    ] = "auto"
    compile: Annotated[bool, Field(description="torch.compile the network: minutes at first, then faster")] = False

    def build(self, device: torch.device | str) -> Any:
        """Load the model; imports diffusers."""
        from sds3d.priors.hub.prior import load_prior

        return load_prior(self, torch.device(device))


class MultiViewConfig(DiffusersConfig):
    """A model that judges four views of an object together and is told their cameras, such as MVDream."""

    name: Literal["multiview"] = "multiview"  # type: ignore[assignment]
    reads_views: ClassVar[bool] = False
    reads_cameras: ClassVar[bool] = True
    needs_orthogonal_views: ClassVar[bool] = True
    default_overrides: ClassVar[Mapping[str, Any]] = {"cameras": {"views": 4, "orthogonal_views": True}}


class Zero123Config(DiffusersConfig):
    """A model that turns a picture of an object, such as Zero-1-to-3. It goes by the picture and reads no words."""

    name: Literal["zero123"] = "zero123"  # type: ignore[assignment]
    reads_views: ClassVar[bool] = False
    reads_cameras: ClassVar[bool] = True
    takes_reference_image: ClassVar[bool] = True
    reference_image: ReferenceImageConfig
    anchors: Annotated[
        int, Field(ge=0, le=15, description="views sampled from the picture first; each render goes by the nearest")
    ] = 0
    anchor_steps: Annotated[int, Field(ge=1, le=1000, description="of DDIM, for each anchor")] = 50
    anchor_guidance: Annotated[float, Field(ge=0, le=100, description="guidance scale while anchors are sampled")] = 3.0
    anchor_seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    def build(self, device: torch.device | str) -> Any:
        """Load the model and the picture, and sample the anchors; imports diffusers."""
        from sds3d.priors.hub.zero123_prior import load_image_prior

        return load_image_prior(self, torch.device(device))
