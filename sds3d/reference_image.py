"""A reference image of the object: read from files, and compared with the render from its own camera."""

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from sds3d.cameras import orbit_cameras
from sds3d.errors import ConfigError
from sds3d.options import LocalFile, Options
from sds3d.types import Cameras, RenderOutput

MAX_SIDE = 4096  # pixels
FILE = Field(min_length=1, max_length=500)
REFERENCE_WEIGHTS = {  # defaults of loss_weights: enough to outweigh the guidance in the reference view
    "reference_image": 6000.0,
    "reference_mask": 1000.0,
    "reference_depth": 100.0,
    "reference_normal": 100.0,
}


class ReferenceImageConfig(Options):
    """One image and its camera. The object has to be cut out, by transparency or by a mask."""

    path: Annotated[str, FILE, LocalFile()]
    mask: Annotated[
        str | None, FILE, LocalFile(), Field(description="white where the object is; null: the image's transparency")
    ] = None
    depth: Annotated[str | None, FILE, LocalFile(), Field(description="brighter is farther; any scale")] = None
    normal: Annotated[
        str | None, FILE, LocalFile(), Field(description="x right, y up, z to the viewer, as red, green, blue")
    ] = None
    azimuth_deg: Annotated[float, Field(ge=-360, le=360, description="0 is the front")] = 0.0
    elevation_deg: Annotated[float, Field(ge=-89, le=89)] = 10.0
    distance: Annotated[float, Field(gt=1.05, le=100)] = 3.0
    fov_deg: Annotated[float, Field(ge=1, le=150)] = 40.0
    size: Annotated[int, Field(ge=16, le=1024, description="side in pixels at which it is compared")] = 128

    def cameras(self, size: int | None = None) -> Cameras:
        """The one camera that the image was taken by."""
        azimuth, elevation, fov = torch.tensor([self.azimuth_deg, self.elevation_deg, self.fov_deg]).deg2rad().split(1)
        return orbit_cameras(azimuth, elevation, torch.tensor([self.distance]), fov, size or self.size)


class ReferenceImage:
    """The image's maps, square and on a device; `losses` compares a render from its camera with them."""

    def __init__(self, config: ReferenceImageConfig, device: torch.device, size: int | None = None) -> None:
        """ConfigError, naming the option, for a file that is missing or unreadable, or if the object is not cut out."""
        size = size or config.size
        image = read_image(config.path, "path")
        if config.mask is not None:
            mask = read_image(config.mask, "mask")[:1]
        elif image.shape[0] == 4 and image[3].min() < 0.5:
            mask = image[3:]
        else:
            raise ConfigError(
                f"reference_image.path = {config.path!r} has no transparent background",
                hint="cut the object out, or give reference_image.mask",
            )
        self.mask = square(mask, size).to(device)  # [1, S, S]
        if not 0.005 < float(self.mask.mean()) < 0.995:
            raise ConfigError(
                f"reference_image.mask covers {float(self.mask.mean()):.1%} of the image", hint="white is the object"
            )
        self.rgb = square(image[:3], size).to(device)
        self.depth = square(read_image(config.depth, "depth")[:1], size).to(device) if config.depth else None
        normal = square(read_image(config.normal, "normal")[:3], size).to(device) if config.normal else None
        self.normal = None if normal is None else functional.normalize(2.0 * normal - 1.0, dim=0)
        self.cameras = config.cameras(size).to(device)

    def over(self, background: Float[Tensor, "3"]) -> Float[Tensor, "3 S S"]:
        """The object alone, over a colour."""
        return self.mask * self.rgb + (1.0 - self.mask) * background[:, None, None]

    def losses(self, out: RenderOutput, background: Float[Tensor, "3"]) -> dict[str, Float[Tensor, ""]]:
        """Errors of a render over `background`; `out.normal` is needed if there is a reference normal.

        `reference_image` and `reference_mask`: mean squared errors of colours and opacity. `reference_depth`: 1 minus
        Pearson's correlation of the mean depth with the reference, whose scale and offset are unknown.
        `reference_normal`: 1 minus the mean cosine in the camera's frame. The last two only where both show the object.
        """
        losses = {
            "reference_image": (out.rgb[0].permute(2, 0, 1) - self.over(background)).square().mean(),
            "reference_mask": (out.opacity[0].permute(2, 0, 1) - self.mask).square().mean(),
        }
        inside = (self.mask[0] > 0.5) & (out.opacity[0, ..., 0].detach() > 0.5)
        if self.depth is not None and inside.sum() > 2:
            losses["reference_depth"] = 1.0 - correlation(out.mean_depth()[0, ..., 0][inside], self.depth[0][inside])
        if self.normal is not None and inside.any():
            assert out.normal is not None, "it was rendered without normals"
            flip = out.normal.new_tensor([[1.0], [-1.0], [-1.0]])  # from the camera's y down, z forward
            to_camera = self.cameras.camera_to_world[0, :3, :3].T * flip
            normals = out.normal[0][inside] @ to_camera.T
            losses["reference_normal"] = 1.0 - (normals * self.normal.permute(1, 2, 0)[inside]).sum(-1).mean()
        return losses


def correlation(a: Float[Tensor, " N"], b: Float[Tensor, " N"]) -> Float[Tensor, ""]:
    """Pearson's r; 0 if one of them is constant."""
    a, b = a - a.mean(), b - b.mean()
    return (a * b).sum() / (a.norm() * b.norm()).clamp_min(1e-8)


def read_image(name: str, option: str) -> Float[Tensor, "C H W"]:
    """A PNG, JPEG or WebP as 3 or 4 channels in [0, 1]; ConfigError names the option if it is none.

    Grey images with 16 bits keep all of them. Pillow reads colours of 16 bits as their upper 8.
    """
    path = Path(name).expanduser()
    if not path.is_file():
        raise ConfigError(f"reference_image.{option}: there is no file {name}")
    try:
        with Image.open(path, formats=("PNG", "JPEG", "WEBP")) as image:
            if max(image.size) > MAX_SIDE:
                raise ConfigError(
                    f"reference_image.{option}: {name} is {image.size[0]} x {image.size[1]} pixels",
                    hint=f"at most {MAX_SIDE} on a side",
                )
            pixels = _channels(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ConfigError(f"reference_image.{option}: {name} is no PNG, JPEG or WebP: {error}") from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _channels(image: Image.Image) -> np.ndarray:
    """[H, W, 3 or 4] in [0, 1]; transparency of any kind is the fourth channel."""
    transparent = image.info.get("transparency")
    if not image.mode.startswith("I"):
        mode = "RGBA" if "A" in image.mode or transparent is not None else "RGB"
        return np.asarray(image.convert(mode)).astype(np.float32) / np.float32(255.0)
    grey = np.asarray(image)  # 16 bits: `convert` would cut them off at 255
    channels = [grey / np.float32(65535.0)] * 3
    if transparent is not None:  # one grey value stands for transparency
        channels.append(grey != transparent)
    return np.stack(channels, axis=-1).astype(np.float32)


def square(image: Float[Tensor, "C H W"], size: int) -> Float[Tensor, "C S S"]:
    """The image resized to size x size; one that is not square is first padded with its edge's colours, not cropped."""
    _, height, width = image.shape
    side = max(height, width)
    left, top = (side - width) // 2, (side - height) // 2
    padded = functional.pad(image[None], (left, side - width - left, top, side - height - top), mode="replicate")
    return functional.interpolate(padded, size=(size, size), mode="bilinear", antialias=True)[0]
