"""What the embedded prior can draw: `python benchmarks/embedded_prior.py [--weights DIR] [--out DIR]`.

Prints, for every kind, the silhouette IoU of samples with the procedural truth at the requested azimuth and at +90
degrees (and the truth's own overlap, which is what ignoring the camera would give), the share of samples in the right
colour, and the cost of one call. With --out it writes figures.json and samples.png there.
"""

import argparse
import json
import math
import time
from pathlib import Path
from random import Random

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from sds3d.cameras import orbit_cameras
from sds3d.priors.embedded.catalogue import COLORS, KINDS
from sds3d.priors.embedded.prior import EmbeddedPrior, load_embedded
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", default=None, help="folder with weights (default: the ones that ship)")
    parser.add_argument("--out", type=Path, default=None, help="folder for figures.json and samples.png")
    parser.add_argument("--per-kind", type=int, default=12)
    arguments = parser.parse_args()
    prior = load_embedded(arguments.weights)
    kinds = azimuth_test(prior, tuple(KINDS), arguments.per_kind)
    print(f"{'kind':<12}{'same azimuth':>14}{'+90 degrees':>13}{'truth, +90':>12}")
    for kind, row in kinds.items():
        print(f"{kind:<12}{row['same']:>14.3f}{row['plus_90']:>13.3f}{row['floor']:>12.3f}")
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


if __name__ == "__main__":
    main()
