"""A reference image of the object: read from files, and compared with the render from its own camera."""

from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from sds3d.cameras import orbit_cameras
from sds3d.errors import ConfigError
from sds3d.options import LocalFile, Options
from sds3d.picture_files import Picture, read_picture
from sds3d.types import Cameras, RenderOutput

FLAT = 1e-5  # of the whole range: less than one step of 16 bits
FILE = Field(min_length=1, max_length=4096)
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
        image = read_picture(config.path, "reference_image.path", is_color=True)
        alpha = image.pixels[3:]
        if config.mask is not None:
            mask = fitting(read_picture(config.mask, "reference_image.mask"), image, "mask")
            mask = mask[3:] if len(mask) == 4 and mask[3].min() < 0.5 else mask[:1]  # what is transparent is not shown
            mask = mask * alpha if len(alpha) else mask
        elif len(alpha) and alpha.min() < 0.5:
            mask = alpha
        else:
            raise ConfigError(
                f"reference_image.path = {config.path!r} has no transparent background",
                hint="cut the object out, or give reference_image.mask",
            )
        covered = square(mask, size)  # [1, S, S]
        if not 0.005 < float(covered.mean()) < 0.995:
            raise ConfigError(
                f"reference_image.mask covers {float(covered.mean()):.1%} of the image", hint="white is the object"
            )
        self.mask = covered.to(device)
        self.rgb = _of_object(image.pixels[:3], mask, size).to(device)
        self.depth, self.normal = None, None
        if config.depth is not None:
            depth = fitting(read_picture(config.depth, "reference_image.depth", any_scale=True), image, "depth")[:1]
            if not depth[:, mask[0] > 0.5].isfinite().all():
                raise ConfigError("reference_image.depth has pixels of the object that are no numbers")
            self.depth = _of_object(depth.nan_to_num(0.0, 0.0, 0.0), mask, size).to(device)
            inside = self.depth[self.mask > 0.5]
            if inside.numel() and float(inside.max() - inside.min()) < FLAT:
                raise ConfigError(
                    f"reference_image.depth = {config.depth!r} is the same all over the object",
                    hint="a depth map has nearer and farther places; leave it out, or make it anew",
                )
        if config.normal is not None:
            normal = fitting(read_picture(config.normal, "reference_image.normal"), image, "normal")[:3]
            self.normal = functional.normalize(2.0 * _of_object(normal, mask, size).to(device) - 1.0, dim=0)
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


def fitting(map_of_it: Picture, image: Picture, option: str) -> Float[Tensor, "C H W"]:
    """The pixels of a mask or map, scaled to those of the image; ConfigError where it is of another shape."""
    (width, height), (own_width, own_height) = image.size, map_of_it.size
    # either side as rounded by a program that scaled the other
    off = min(abs(own_height - own_width * height / width), abs(own_width - own_height * width / height))
    if off > 1.0:
        raise ConfigError(
            f"reference_image.{option} is {own_width} x {own_height} pixels, the picture {width} x {height}",
            hint="it has to show the same as the picture, at any scale",
        )
    if map_of_it.pixels.shape[1:] == image.pixels.shape[1:]:
        return map_of_it.pixels
    return functional.interpolate(map_of_it.pixels[None], image.pixels.shape[1:], mode="bilinear", antialias=True)[0]


def _of_object(values: Float[Tensor, "C H W"], mask: Float[Tensor, "1 H W"], size: int) -> Float[Tensor, "C S S"]:
    """Resized as `square` does, each pixel by as much of it as is the object: what is around it has no part in it."""
    return square(values * mask, size) / square(mask, size).clamp_min(1e-6)


def square(image: Float[Tensor, "C H W"], size: int) -> Float[Tensor, "C S S"]:
    """The image resized to size x size; one that is not square is first padded with zeros, not cropped."""
    _, height, width = image.shape
    side = max(height, width)
    left, top = (side - width) // 2, (side - height) // 2
    padded = functional.pad(image[None], (left, side - width - left, top, side - height - top))
    return functional.interpolate(padded, size=(size, size), mode="bilinear", antialias=True)[0]
