"""Makes README's picture from a finished suite: `python docs/make_gallery.py [SUITE_FOLDER]`.

Every run of `sds3d evaluate --suite standard` from four sides, in the suite's order, nothing chosen or repeated.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sds3d import Session
from sds3d.cameras import orbit
from sds3d.evaluation.html_report import TABLE
from sds3d.export.contact_sheet import BACKGROUND, INK, to_uint8
from sds3d.export.views import render_views

VIEWS, SIZE, COLUMNS = 4, 120, 3


def strip(run: Path, prompt: str, silhouette_iou: float) -> Image.Image:
    """The object from VIEWS sides with the prompt below."""
    views = to_uint8(render_views(Session.resume(run).scene(), orbit(VIEWS, size=SIZE), BACKGROUND).rgb)
    picture = Image.new("RGB", (VIEWS * SIZE, SIZE + 22), "white")
    picture.paste(Image.fromarray(np.concatenate(list(views), axis=1)), (0, 0))
    font = ImageFont.load_default(14)
    text = f"{prompt}  ({silhouette_iou:.2f})"
    ImageDraw.Draw(picture).text((VIEWS * SIZE / 2, SIZE + 10), text, INK, font, anchor="mm")
    return picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suite", type=Path, nargs="?", default=Path("outputs/suite-standard"))
    parser.add_argument("--picture", type=Path, default=Path(__file__).with_name("gallery.png"))
    arguments = parser.parse_args()
    runs = json.loads((arguments.suite / TABLE).read_text())["runs"]
    strips = [strip(Path(run["run"]), run["prompt"], run["values"]["silhouette_iou"]) for run in runs]
    width, height = strips[0].size
    rows = -(-len(strips) // COLUMNS)
    picture = Image.new("RGB", (COLUMNS * (width + 12) - 12, rows * height), "white")
    for number, image in enumerate(strips):
        picture.paste(image, (number // rows * (width + 12), number % rows * height))
    picture.save(arguments.picture)
    print(arguments.picture)


if __name__ == "__main__":
    main()
