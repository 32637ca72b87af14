"""What the embedded prior can draw: `python benchmarks/embedded_prior.py [--weights DIR] [--out DIR]`.

Prints, for every kind, the silhouette IoU of samples with the procedural truth at the requested azimuth and at +90
degrees, beside the truth's own overlap with its view at +90 degrees (which is what ignoring the camera would give) and
with another object of the same caption (which is all that can be expected), the share of samples in the right colour,
and the cost of one call. With --out it writes figures.json, samples.png and the model card README.md there.
"""

import argparse
import json
import math
import time
from pathlib import Path
from random import Random
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from sds3d.cameras import orbit_cameras
from sds3d.priors.embedded.catalogue import BOTTOMS, COLORS, KINDS, PARTS, TOPS
from sds3d.priors.embedded.prior import WEAK_SHARE, EmbeddedPrior, load_embedded
from sds3d.priors.embedded.release import azimuth_test, random_views, silhouettes
from sds3d.priors.embedded.world import HELD_OUT
from sds3d.priors.sampling import sample_images
from sds3d.types import ViewCondition

SHEET = [
    "a red mug", "a brown chair", "a blue car", "a white house with a blue roof", "an orange table", "a green tree",
    "a red mushroom", "a purple snowman", "a pink lamp", "a yellow rocket", "a blue dumbbell", "a brown bottle",
    "a red sphere", "a yellow cone", "a purple donut", "a green pyramid", "a red cone on a blue cube",
    "a green sphere on a yellow cylinder", "a purple mug", "a green chair", "a pink car", "an orange rocket",
]  # fmt: skip
CARD = """# The embedded prior

A small diffusion model that ships with sds3d: 64 x 64 pixels, told the words, the camera (as a ray for each block of
pixels) and the background. It was trained from scratch on renders of procedural objects, by
`python -m sds3d_app.train_prior`, and has seen no photograph. Apache-2.0, like the rest.

![Samples, each from 0, 45, 90, 180 and 270 degrees](samples.png)

## What it knows

- Colours: {colors}.
- Things: {kinds}.
- Parts in a colour of their own, `a white house with a blue roof`: {parts}.
- One thing on another, `a red cone on a blue cube`: {tops}; on: {bottoms}.

The cameras it was shown are 2.8 to 3.2 away, between 15 degrees below and 60 above the horizon, with a field of view of
40 degrees.

## What it does not know

- Any other word. `sds3d generate` names the words it does not know, and refuses a prompt of which it knows none.
- Sentences of another form, numbers, sizes, materials, patterns, and more than two things.
- Things it draws poorly, by the table below (`sds3d generate` warns of them): {weak}.
- These pairs were kept out of training, to see whether it can put known words together: {held_out}.

## Figures

Silhouette IoU of samples with the true object, at the azimuth that was asked for and at 90 degrees from it; what two
true objects of the same caption reach (all that can be expected), and what the truth shares with itself at 90 degrees.
Where the last two columns of a kind are far below the first, the prior follows the camera.

| kind | samples | true pairs | samples, +90 | truth, +90 | |
| --- | --- | --- | --- | --- | --- |
{rows}

Balls and cubes in the right colour: {colour}. One call for 4 views with 2 conditions: {call} ms on {threads} threads.
Trained on {images} images drawn from {rendered} renders. Made by `python benchmarks/embedded_prior.py --out DIR`.
"""
VIEWS_DEG = (0, 45, 90, 180, 270)


def sheet(prior: EmbeddedPrior) -> Float[Tensor, "H W 3"]:
    """Samples of each prompt in SHEET from five sides, in two columns."""
    count = len(VIEWS_DEG)
    azimuth = torch.tensor([math.radians(view) for view in VIEWS_DEG])
    shared = [torch.full((count,), value) for value in (0.3, 3.0, math.radians(40.0))]
    view = ViewCondition(orbit_cameras(azimuth, *shared, 64), torch.full((count, 3), 0.9))
    rows = []
    for number, text in enumerate(SHEET):
        generator = torch.Generator().manual_seed(number)
        images = sample_images(prior, [text] * count, view, generator=generator)
        rows.append(torch.cat(list(images.permute(0, 2, 3, 1)), dim=1))
    half = (len(rows) + 1) // 2
    return torch.cat([torch.cat(rows[:half]), torch.cat(rows[half:])], dim=1)


def color_accuracy(prior: EmbeddedPrior, per_color: int = 4) -> float:
    """Share of sampled balls and cubes whose mean colour is nearest to the word they were asked for."""
    rng = Random(0)
    texts = [f"a {color} {rng.choice(('sphere', 'cube'))}" for color in COLORS for _ in range(per_color)]
    background = torch.full((len(texts), 3), 0.6)
    view = ViewCondition(random_views(len(texts), rng), background)
    images = sample_images(prior, texts, view, generator=torch.Generator().manual_seed(0))
    masks = silhouettes(images, background)
    table = torch.tensor(list(COLORS.values()))
    right = 0
    for text, image, mask in zip(texts, images, masks, strict=True):
        mean = image[:, mask].mean(1) if mask.any() else background[0]
        right += list(COLORS)[int((table * 0.8 - mean).norm(dim=1).argmin())] == text.split()[1]
    return right / len(texts)


def cost_ms(prior: EmbeddedPrior, batch: int = 4, repeats: int = 10) -> float:
    """Milliseconds of one call for `batch` views with two conditions, after a warm-up."""
    x_t, t = torch.randn(batch, 3, 64, 64), torch.full((batch,), 0.5)
    embedding = prior.embed(["a red mug"]).expand(batch, -1, -1)
    prior.predict_noise(x_t, t, [embedding, embedding])
    begun = time.perf_counter()
    for _ in range(repeats):
        prior.predict_noise(x_t, t, [embedding, embedding])
    return 1e3 * (time.perf_counter() - begun) / repeats


def card(figures: dict[str, Any], training: dict[str, Any]) -> str:
    """The model card: what the prior knows, how well, and what it does not know."""
    kinds = figures["kinds"]
    weak = [kind for kind, row in kinds.items() if row["same"] < WEAK_SHARE * row["ceiling"]]
    rows = [
        f"| {kind} | {row['same']:.2f} | {row['ceiling']:.2f} | {row['plus_90']:.2f} | {row['floor']:.2f} |"
        f"{' poor' if kind in weak else ''} |"
        for kind, row in kinds.items()
    ]
    return CARD.format(
        colors=", ".join(COLORS),
        kinds=", ".join(KINDS),
        parts=", ".join(f"{kind} ({part})" for kind, part in PARTS.items()),
        tops=", ".join(TOPS),
        bottoms=", ".join(BOTTOMS),
        held_out=", ".join(figures["held_out"]),
        weak=", ".join(weak) or "none by this measure",
        rows="\n".join(rows),
        colour=f"{100 * figures['colour_accuracy']:.0f}%",
        call=f"{figures['call_ms']:.0f}",
        threads=figures["threads"],
        images=f"{training['images']:,}",
        rendered=f"{training['rendered_images']:,}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", default=None, help="folder with weights (default: the ones that ship)")
    parser.add_argument("--out", type=Path, default=None, help="folder for figures.json and samples.png")
    parser.add_argument("--per-kind", type=int, default=12)
    arguments = parser.parse_args()
    prior = load_embedded(arguments.weights)
    kinds = azimuth_test(prior, tuple(KINDS), arguments.per_kind)
    print(f"{'kind':<12}{'same azimuth':>14}{'+90 degrees':>13}{'truth, +90':>12}{'truth, other':>14}")
    for kind, row in kinds.items():
        print(f"{kind:<12}" + "".join(f"{row[key]:>13.3f}" for key in ("same", "plus_90", "floor", "ceiling")))
    figures = {"kinds": kinds, "colour_accuracy": color_accuracy(prior), "call_ms": cost_ms(prior)}
    figures["threads"] = torch.get_num_threads()
    figures["held_out"] = sorted(" ".join(pair) for pair in HELD_OUT)
    print(f"right colour {figures['colour_accuracy']:.2f}; 4 views x 2 conditions {figures['call_ms']:.0f} ms", end=" ")
    print(f"on {figures['threads']} threads")
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
        pixels = (sheet(prior) * 255.0 + 0.5).byte().numpy()
        Image.fromarray(pixels).save(arguments.out / "samples.png")
        weights = arguments.weights or str(Path(__file__).parents[1] / "assets" / "embedded_prior")
        training = json.loads((Path(weights) / "training.json").read_text())
        (arguments.out / "README.md").write_text(card(figures, training))


if __name__ == "__main__":
    main()
