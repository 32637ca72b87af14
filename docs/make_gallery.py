"""Makes README's picture: `python docs/make_gallery.py [--out DIR]`.

One run of the default preset and seed 0 for each prompt, nothing chosen or repeated; prints the seconds and the
silhouette IoU of each object with the true one that the prior's training world holds under that prompt.
"""

import argparse
import math
from pathlib import Path
from random import Random

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from sds3d import Session, load_config
from sds3d.cameras import orbit
from sds3d.errors import Sds3dError
from sds3d.export.sheet import BACKGROUND, INK, to_uint8
from sds3d.export.views import render_views
from sds3d.priors.base import Prior
from sds3d.priors.embedded.render import render_solids
from sds3d.priors.embedded.world import build, parse

PROMPTS = (
    *("a red mug", "a brown chair", "a blue car", "a white house with a blue roof"),
    *("an orange table", "a purple snowman", "a red mushroom", "a pink lamp"),
    *("a red cone on a blue cube", "a green sphere on a yellow cylinder"),
)
VIEWS, SIZE, COLUMNS, TRUTHS = 4, 160, 2, 8


def silhouette_match(session: Session) -> float:
    """Best over TRUTHS draws of the proportions: mean IoU over the views with the true object at the same cameras."""
    description = parse(session.config.prompt)
    assert description is not None, session.config.prompt
    cameras = orbit(8, size=96)
    mine = torch.from_numpy(render_views(session.scene(), cameras).opacity) > 0.5
    found = []
    for number in range(TRUTHS):
        true = render_solids(build(description, Random(number)), cameras)[..., 3] > 0.5
        found.append(((mine & true).sum((1, 2)) / (mine | true).sum((1, 2))).mean().item())
    return max(found)


def strip(session: Session) -> Image.Image:
    """The object from VIEWS sides with the prompt below."""
    views = to_uint8(render_views(session.scene(), orbit(VIEWS, size=SIZE), BACKGROUND).rgb)
    picture = Image.new("RGB", (VIEWS * SIZE, SIZE + 24), "white")
    picture.paste(Image.fromarray(np.concatenate(list(views), axis=1)), (0, 0))
    font = ImageFont.load_default(15)
    ImageDraw.Draw(picture).text((VIEWS * SIZE / 2, SIZE + 11), session.config.prompt, INK, font, anchor="mm")
    return picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("outputs/gallery"), help="folder for the runs")
    parser.add_argument("--picture", type=Path, default=Path(__file__).with_name("gallery.png"))
    arguments = parser.parse_args()
    prior: Prior | None = None
    strips = []
    print(f"{'prompt':40}{'seconds':>9}{'IoU':>7}")
    for number, prompt in enumerate(PROMPTS):
        session = Session(load_config(overrides={"prompt": prompt}), arguments.out / str(number), prior=prior)
        prior = session.prior()
        try:
            *_, last = session.run()
            seconds = last.to_dict()["report"]["seconds"]["total"]
        except Sds3dError as error:
            print(f"{prompt}: no mesh: {error}")
            seconds = math.nan
        strips.append(strip(session))
        print(f"{prompt:40}{seconds:9.0f}{silhouette_match(session):7.2f}", flush=True)
    width, height = strips[0].size
    picture = Image.new("RGB", (COLUMNS * width + 12, -(-len(strips) // COLUMNS) * height), "white")
    for number, image in enumerate(strips):
        picture.paste(image, (number % COLUMNS * (width + 12), number // COLUMNS * height))
    picture.save(arguments.picture)
    print(arguments.picture)


if __name__ == "__main__":
    main()
