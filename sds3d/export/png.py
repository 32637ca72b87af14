"""PNG files."""

import io
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray
from PIL import Image

from sds3d.atomic import write_atomic


def write_png(image: UInt8[ndarray, "H W 3"], path: Path) -> None:
    """Write an RGB image."""
    write_atomic(path, png_bytes(image))


def png_bytes(image: UInt8[ndarray, "H W 3"]) -> bytes:
    """An RGB image as the content of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


def to_uint8(images: Float[ndarray, "*shape"]) -> UInt8[ndarray, "*shape"]:
    """[0, 1] to 0..255, rounded."""
    return (np.clip(images, 0, 1) * 255 + 0.5).astype(np.uint8)
