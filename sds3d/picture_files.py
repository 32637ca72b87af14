"""Pictures that people have, read as they are meant to be seen: any depth, mode, orientation, profile and size."""

import io
import os
import struct
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from PIL import ExifTags, Image, ImageCms, ImageOps
from torch import Tensor

from sds3d.errors import ConfigError

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "AVIF", "BMP", "GIF", "PPM", "JPEG2000")
READ = "PNG, JPEG, WebP, TIFF, AVIF, BMP, GIF, PPM and JPEG 2000 can be read"
DAMAGED = (
    OSError,
    RuntimeError,
    ValueError,
    SyntaxError,
    EOFError,
    LookupError,
    TypeError,
    OverflowError,
    struct.error,
)
MOST_SIDE = 2048  # of what is kept: larger pictures are reduced by a whole factor
MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "I", "I;16", "I;16B", "I;16L", "I;16N", "F"}
HEIC = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
BEGINNINGS = (  # (offset, bytes, what it is), of files that are often called .png or .jpg
    *((4, b"ftyp" + brand, "a HEIC picture") for brand in HEIC),
    (4, b"ftypavif", "an AVIF picture that this Pillow cannot read"),
    (4, b"ftyp", "a video"),
    (0, b"\x00\x00\x00\x0cJXL ", "a JPEG XL picture"),
    (0, b"\xff\x0a", "a JPEG XL picture"),
    (0, b"8BPS", "a Photoshop file"),
    (0, b"v/1\x01", "an OpenEXR picture"),
    (0, b"#?RADIANCE", "a Radiance HDR picture"),
    (0, b"%PDF", "a PDF"),
    (0, b"gimp xcf", "a GIMP file"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"version https://git-lfs", "a stand-in of Git LFS, not the picture (git lfs pull)"),
    (0, b"<svg", "an SVG drawing"),
    (0, b"<?xml", "an XML file, perhaps an SVG drawing"),
    (0, b"<!doctype html", "a web page, not the picture on it"),
    (0, b"<html", "a web page, not the picture on it"),
)


class Picture(NamedTuple):
    """Pixels in [0, 1], 3 channels or 4 with transparency (not premultiplied), and the (width, height) of the file."""

    pixels: Float[Tensor, "C H W"]
    size: tuple[int, int]


def read_picture(name: str, option: str, is_color: bool = False, any_scale: bool = False) -> Picture:
    """A picture file as it is meant to be seen: turned as its metadata say, and with `is_color` in sRGB by its profile
    (a profile that cannot be used is left out, as viewers do).

    16 bits of grey are kept, of colours the upper 8. Numbers of 32 bits, whole or real, have no largest value that the
    file tells: they are refused, but with `any_scale` scaled to their own range (what is not finite stays).
    Sides above MOST_SIDE are reduced by a whole factor. ConfigError names the option, and what the file is.
    """
    path = Path(os.path.expanduser(name))
    if not path.is_file():
        raise ConfigError(f"{option}: there is no file {name}")
    Image.init()  # of the formats, those that this Pillow has
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about metadata that are not needed
            warnings.simplefilter("error", Image.DecompressionBombWarning)  # from about 89 million pixels
            formats = [name for name in FORMATS if name in Image.OPEN]
            # by a path, Pillow maps plain TIFF files into memory, and mixes up rows and columns of those to be turned
            with path.open("rb") as file, Image.open(file, formats=formats) as image:
                return _read(image, is_color, any_scale)
    except Image.UnidentifiedImageError as error:
        raise ConfigError(f"{option}: {name} is {_kind_of(path)}", hint=f"{READ}: save it as one of these") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ConfigError(f"{option}: {name} is too large: {error}", hint="make it smaller") from error
    except _Unfit as error:
        raise ConfigError(f"{option}: {name} {error}", hint="save it as PNG with 8 or 16 bits") from error
    except DAMAGED as error:
        raise ConfigError(f"{option}: {name} is damaged, or cannot be read: {error}", hint=READ) from error


class _Unfit(Exception):
    """A picture of a kind that is not taken; says which."""


def _read(image: Image.Image, is_color: bool, any_scale: bool) -> Picture:
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # there the first is the photo
        raise _Unfit(f"is moving, or holds several: {getattr(image, 'n_frames', 1)} pictures")
    if image.mode not in MODES:
        raise _Unfit(f"has pixels of the kind {image.mode}")
    if _is_of_32_bits(image) and not any_scale:
        raise _Unfit("has numbers of 32 bits, and does not say which is white")
    opened, size = image, image.size
    image.draft(None, (MOST_SIDE, MOST_SIDE))  # a JPEG can be read at an eighth
    image.load()
    if image.getexif().get(ExifTags.Base.Orientation, 1) >= 5:  # a quarter turn; not of a TIFF, which Pillow has turned
        size = size[::-1]
    image = ImageOps.exif_transpose(image)
    factor = -(-max(image.size) // MOST_SIDE)
    if image.mode.startswith(("I", "F")):
        pixels = _grey(image, factor, _is_of_32_bits(opened))
    else:
        image = _in_rgb(image, is_color)
        if factor > 1:
            premultiplied = image.convert("RGBa") if image.mode == "RGBA" else image
            image = premultiplied.reduce(factor).convert(image.mode)
        pixels = np.asarray(image).astype(np.float32) / np.float32(255.0)
    return Picture(torch.from_numpy(pixels).permute(2, 0, 1), size)


def _is_of_32_bits(image: Image.Image) -> bool:
    return image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM"))  # these two scale to 65535


def _in_rgb(image: Image.Image, is_color: bool) -> Image.Image:
    """8 bits a channel as RGB or RGBA; transparency of any kind is the fourth channel."""
    profile = image.info.get("icc_profile") if is_color else None
    has_alpha = "A" in image.mode or image.info.get("transparency") is not None
    alpha = image.convert("RGBA").getchannel("A") if has_alpha else None
    plain = image.convert({"L": "L", "LA": "L", "CMYK": "CMYK"}.get(image.mode, "RGB"))
    if profile:
        try:
            source, target = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
            plain = ImageCms.profileToProfile(plain, source, target, outputMode="RGB") or plain
        except (ImageCms.PyCMSError, OSError, ValueError):
            pass  # made for another kind of pixels, or damaged
    plain = plain.convert("RGB")
    if alpha is not None:
        plain.putalpha(alpha)
    return plain


def _grey(image: Image.Image, factor: int, is_of_32_bits: bool) -> Float[np.ndarray, "H W C"]:
    """Grey of 16 bits by its largest value, of 32 by its own range; one grey value can stand for transparency."""
    transparent = image.info.get("transparency")
    values = np.asarray(image.convert("F") if image.mode != "I" else image).astype(np.float64)
    alpha = None if transparent is None else (values != transparent).astype(np.float64)
    if not is_of_32_bits:
        values = values / 65535.0
    else:
        finite = values[np.isfinite(values)]
        low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
        values = (values - low) / max(high - low, 1e-30)
    if factor > 1:
        cover = _reduced(np.ones_like(values) if alpha is None else alpha, factor)
        values = _reduced(values if alpha is None else values * alpha, factor) / np.maximum(cover, 1e-6)
        alpha = None if alpha is None else cover
    return np.stack([values] * 3 + ([] if alpha is None else [alpha]), axis=-1).astype(np.float32)


def _reduced(values: Float[np.ndarray, "H W"], factor: int) -> Float[np.ndarray, "h w"]:
    return np.asarray(Image.fromarray(values.astype(np.float32)).reduce(factor), dtype=np.float64)


def _kind_of(path: Path) -> str:
    """What a file that is no picture that can be read is, by its first bytes."""
    with path.open("rb") as file:
        head = file.read(64)
    if not head:
        return "an empty file"
    plain = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    for offset, begins, kind in BEGINNINGS:
        if plain[offset : offset + len(begins)].lower() == begins.lower():
            return kind
    return "no picture of a known kind"
