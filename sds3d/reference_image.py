"""A picture of the object to make: what a person hands in, and what its own view of the scene is held against."""

from pathlib import Path
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from sds3d.cameras import orbit_cameras
from sds3d.errors import ConfigError
from sds3d.options import LocalFile, Options
from sds3d.types import Cameras, RenderOutput

MAX_SIDE = 4096
FILE = Field(min_length=1, max_length=500)


class ReferenceImageConfig(Options):
    """One picture and where it was taken from. The object has to be cut out: by transparency, or by a mask."""

    path: Annotated[str, FILE, LocalFile()]
    mask: Annotated[
        str | None, FILE, LocalFile(), Field(description="white where the object is; else its transparency tells")
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
        """The one camera that took it."""
        azimuth, elevation, fov = torch.tensor([self.azimuth_deg, self.elevation_deg, self.fov_deg]).deg2rad().split(1)
        return orbit_cameras(azimuth, elevation, torch.tensor([self.distance]), fov, size or self.size)


class ReferenceImage:
    """The picture's maps, square and on a device; `losses` compares a render from its camera with them."""

    def __init__(self, config: ReferenceImageConfig, device: torch.device, size: int | None = None) -> None:
        """ConfigError, naming the option, where a file is missing, unreadable, or leaves open what the object is."""
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
                f"reference_image.mask covers {float(self.mask.mean()):.1%} of the picture", hint="white is the object"
            )
        self.rgb = square(image[:3], size).to(device)
        self.depth = square(read_image(config.depth, "depth")[:1], size).to(device) if config.depth else None
        normal = square(read_image(config.normal, "normal")[:3], size).to(device) if config.normal else None
        self.normal = None if normal is None else functional.normalize(2.0 * normal - 1.0, dim=0)
        self.cameras = config.cameras(size).to(device)

    def over(self, background: Float[Tensor, "3"]) -> Float[Tensor, "3 S S"]:
        """The object alone, on a colour."""
        return self.mask * self.rgb + (1.0 - self.mask) * background[:, None, None]

    def losses(self, out: RenderOutput, background: Float[Tensor, "3"]) -> dict[str, Float[Tensor, ""]]:
        """Mean squares of colour and coverage, 1 - Pearson's r of depth (any scale fits), 1 - cosine of normals."""
        found = {
            "reference_image": (out.rgb[0].permute(2, 0, 1) - self.over(background)).square().mean(),
            "reference_mask": (out.opacity[0].permute(2, 0, 1) - self.mask).square().mean(),
        }
        inside = (self.mask[0] > 0.5) & (out.opacity[0, ..., 0].detach() > 0.5)
        if self.depth is not None and inside.sum() > 2:
            found["reference_depth"] = 1.0 - correlation(out.depth[0, ..., 0][inside], self.depth[0][inside])
        if self.normal is not None and out.normal is not None and inside.any():
            to_camera = self.cameras.camera_to_world[0, :3, :3].T * torch.tensor(
                [[1.0], [-1.0], [-1.0]], device=self.mask.device
            )
            seen = out.normal[0][inside] @ to_camera.T
            found["reference_normal"] = 1.0 - (seen * self.normal.permute(1, 2, 0)[inside]).sum(-1).mean()
        return found


REFERENCE_WEIGHTS = {
    "reference_image": 6000.0,
    "reference_mask": 1000.0,
    "reference_depth": 100.0,
    "reference_normal": 100.0,
}


def correlation(a: Float[Tensor, "N"], b: Float[Tensor, "N"]) -> Float[Tensor, ""]:
    """Pearson's r; 0 where one of them is constant."""
    a, b = a - a.mean(), b - b.mean()
    return (a * b).sum() / (a.norm() * b.norm()).clamp_min(1e-8)


def read_image(name: str, option: str) -> Float[Tensor, "C H W"]:
    """A PNG, JPEG or WebP as 3 or 4 channels in [0, 1]; ConfigError that names the option where it is none."""
    import numpy as np
    from PIL import Image

    path = Path(name).expanduser()
    if not path.is_file():
        raise ConfigError(f"reference_image.{option}: there is no file {name}")
    try:
        with Image.open(path, formats=("PNG", "JPEG", "WEBP")) as image:
            if max(image.size) > MAX_SIDE:
                raise ConfigError(
                    f"reference_image.{option}: {name} is {image.size[0]} x {image.size[1]} pixels", hint=LARGEST
                )
            pixels = np.asarray(image.convert("RGBA" if "A" in image.mode or "transparency" in image.info else "RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ConfigError(f"reference_image.{option}: {name} is no PNG, JPEG or WebP: {error}") from error
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255.0


LARGEST = f"at most {MAX_SIDE} on a side"


def square(image: Float[Tensor, "C H W"], size: int) -> Float[Tensor, "C S S"]:
    """The middle square, or all of it on a wider canvas of its edge's colour where the object might be cut: padded."""
    _, height, width = image.shape
    side = max(height, width)
    left, top = (side - width) // 2, (side - height) // 2
    padded = functional.pad(image[None], (left, side - width - left, top, side - height - top), mode="replicate")
    return functional.interpolate(padded, size=(size, size), mode="bilinear", antialias=True)[0]
