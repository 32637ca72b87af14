"""A plain image as the scene: the 2D playground in which a guidance can be seen at work without any 3D."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from sds3d.scenes.background import Background, SolidBackground
from sds3d.scenes.base import INIT_COLOR_JITTER, PICTURE, ParamGroup, RenderContext, SceneConfig
from sds3d.scenes.regularizers import total_variation
from sds3d.types import Cameras, RenderOutput, Scalar, ViewColors

LEARNING_RATE = 0.05  # of the colour logits


class ImageConfig(SceneConfig):
    """How large the image is."""

    name: Literal["image"] = "image"
    # One image has one camera and one background: the prior is told of both, and the image paints the background itself
    default_overrides: ClassVar[Mapping[str, Any]] = {
        "cameras": {"azimuth_deg": [30.0, 30.0], "elevation_deg": [15.0, 15.0], "distance": [2.9, 2.9]}
    }
    is_flat: ClassVar[bool] = True
    losses: ClassVar[tuple[str, ...]] = ("smooth",)
    artifacts: ClassVar[tuple[str, ...]] = ("image",)
    state_shape: ClassVar[tuple[str, ...]] = ("size",)
    background: Background = SolidBackground(color=(0.9, 0.9, 0.9))
    size: Annotated[int, Field(ge=8, le=2048, description="Side of the image in pixels")] = 64

    def build(self, generator: torch.Generator) -> "ImageScene":
        return ImageScene(self, generator)


class ImageScene(nn.Module):
    """A Scene of one image that every camera sees: it fills the view, fully opaque, at the camera's distance."""

    def __init__(self, config: ImageConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        jitter = INIT_COLOR_JITTER * (2 * torch.rand(config.size, config.size, 3, generator=generator) - 1)
        self.raw_pixels = nn.Parameter((0.5 + jitter).logit())

    @property
    def pixels(self) -> Float[Tensor, "S S 3"]:
        """sRGB colours in [0, 1]."""
        return self.raw_pixels.sigmoid()

    def render(self, cameras: Cameras, background: ViewColors, context: RenderContext = PICTURE) -> RenderOutput:
        """The image for each camera, resized (antialiased) to the camera's size; the background never shows."""
        shape = (cameras.height, cameras.width)
        image = self.pixels.permute(2, 0, 1)[None]
        if image.shape[2:] != shape:
            image = F.interpolate(image, size=shape, mode="bilinear", antialias=True)
        rgb = image.permute(0, 2, 3, 1).expand(len(cameras), -1, -1, -1)
        depth = cameras.distance[:, None, None, None].expand(-1, *shape, 1)
        return RenderOutput(rgb, torch.ones_like(depth), depth)

    def param_groups(self) -> list[ParamGroup]:
        return [ParamGroup("pixels", [self.raw_pixels], LEARNING_RATE)]

    def regularizers(self, out: RenderOutput) -> Mapping[str, Scalar]:
        """`smooth`: total variation of the image."""
        return {"smooth": total_variation(self.pixels[None])}

    def after_step(self, step: int, steps: int, out: RenderOutput, optimizer: Optimizer) -> None:
        """Nothing: an image has no structure to change."""

    @torch.no_grad()
    def density(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, " P"]:
        """0 everywhere: an image has no volume, and its artifacts include no mesh."""
        return points.new_zeros(len(points))

    @torch.no_grad()
    def color(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, "P 3"]:
        """The image's mean colour at every point: an image has no place in the world."""
        return self.pixels.mean(dim=(0, 1)).expand(len(points), 3)
