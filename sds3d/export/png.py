"""PNG files."""

import io
from pathlib import Path

from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image

from sds3d.files import write_atomic


def write_png(image: UInt8[ndarray, "H W 3"], path: Path) -> None:
    """Write an RGB picture."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    write_atomic(path, buffer.getvalue())
