"""Contact sheets: the object from all around, in one image."""

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image, ImageDraw, ImageFont

from sds3d.cameras import orbit
from sds3d.export.mesh import Mesh
from sds3d.export.png import to_uint8
from sds3d.export.render_mesh import render_mesh
from sds3d.export.views import SceneViews, render_views
from sds3d.scenes.base import Scene

BACKGROUND = (0.92, 0.92, 0.92)  # light and neutral: shows dark objects, and white ones too
PAPER, INK = 255, (70, 70, 70)
SIDES = {0: "front", 90: "left", 180: "back", 270: "right"}


def render_sheet(
    scene: Scene, views: int = 8, size: int = 256, columns: int = 4, title: str = ""
) -> UInt8[ndarray, "H W 3"]:
    """`views` renders evenly around the object, from the front counter-clockwise, labelled with their azimuth.

    Sides are the object's own: "left" is where its left hand would be. The first label begins with `title`.
    """
    renders = render_views(scene, orbit(views, size=size), BACKGROUND)
    labels = [azimuth_label(360.0 * index / views) for index in range(views)]
    return arrange(to_uint8(renders.rgb), [title + labels[0], *labels[1:]], columns)


def draw_comparison(mesh: Mesh, truth: SceneViews) -> UInt8[ndarray, "H W 3"]:
    """The scene above, the mesh below, view by view; `truth` is over black."""
    background = np.asarray(BACKGROUND, dtype=np.float32)
    scene = truth.rgb + (1 - truth.opacity[..., None]) * background
    renders = render_mesh(mesh, truth.cameras, BACKGROUND).rgb
    angles = np.rad2deg(truth.cameras.azimuth.cpu().numpy())
    labels = [f"{what} {angle:.0f}\N{DEGREE SIGN}" for what in ("scene", "mesh") for angle in angles]
    return arrange(to_uint8(np.concatenate([scene, renders])), labels, len(truth.cameras))


def azimuth_label(degrees: float) -> str:
    """Whole degrees, with the side's name at quarter turns."""
    side = SIDES.get(round(degrees) % 360)
    return f"{degrees:.0f}\N{DEGREE SIGN}" + (f" {side}" if side else "")


def arrange(images: UInt8[ndarray, "B h w 3"], labels: list[str], columns: int) -> UInt8[ndarray, "H W 3"]:
    """Images in rows on white, each with its label below."""
    count, height, width = images.shape[:3]
    columns = min(columns, count)
    rows = -(-count // columns)
    margin = max(4, width // 32)
    font_size = max(10, width // 16)
    text_height = font_size + margin // 2
    cell_height, cell_width = height + text_height + margin, width + margin
    sheet = Image.new("RGB", (columns * cell_width + margin, rows * cell_height + margin), (PAPER,) * 3)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(font_size)
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        left, top = margin + index % columns * cell_width, margin + index // columns * cell_height
        sheet.paste(Image.fromarray(image), (left, top))
        draw.text((left + width / 2, top + height + text_height / 2), label, fill=INK, font=font, anchor="mm")
    return np.asarray(sheet)
