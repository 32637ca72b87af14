"""What the embedded prior can draw: `python benchmarks/embedded_prior.py [--weights DIR] [--out DIR]`.

Prints for every kind the silhouette IoU of samples with the true object, at the requested azimuth and at +90 degrees;
for comparison the IoU of the truth with its own view at +90 degrees (what a prior that ignores the camera would reach)
and with another object of the same caption (the most that can be expected). Then the share of samples in which the
evaluation's classifier recognises the prompt, and the cost of one call. --out writes figures.json, samples.png and the
model card README.md to a folder.
"""

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from sds3d.cameras import orbit_cameras
from sds3d.evaluation.classifier import Classifier, load_classifier
from sds3d.evaluation.suite import SUITES
from sds3d.priors.ddim import sample_images
from sds3d.priors.embedded.captions import HELD_OUT, build, parse
from sds3d.priors.embedded.data import FOV_DEG, SIZE
from sds3d.priors.embedded.object_kinds import BOTTOMS, COLORS, KINDS, MATERIALS, PARTS, PATTERNS, TOPS
from sds3d.priors.embedded.prior import WEAK_SHARE, EmbeddedPrior, load_embedded
from sds3d.priors.embedded.render import render_solids
from sds3d.types import Cameras, ViewCondition

SHEET = SUITES["standard"]  # the seen, then the held-out
GUIDED_ABOVE = 0.3  # t above which samples are guided; 0.2 and 0.4 did as well on the suite's seen prompts, 0 worse

CARD = """# The embedded prior

A small diffusion model that ships with sds3d: 64 x 64 pixels, conditioned on the words, the camera (as a ray for each
block of pixels) and the background. It was trained from scratch on renders of procedural objects, by
`python -m sds3d_app.tools.train_prior`, and has seen no photograph. Apache-2.0, like the rest.

![Samples, each from 0, 45, 90, 180 and 270 degrees](samples.png)

*The 24 prompts of `sds3d evaluate --suite standard`; combinations in the right half were kept out of training.*

## What it knows

- Colours: {colors}.
- Things: {kinds}.
- Patterns: {patterns}, `a striped red and white mug`; materials: {materials}, `a gray metal robot`.
- Parts in a colour of their own, `a white house with a blue roof`: {parts}.
- One thing on another, `a red cone on a blue cube`: {tops}; on: {bottoms}.
- `a small red sphere beside a big blue cube`, `two green apples`.

The cameras it was shown are 2.8 to 3.2 away, between 15 degrees below and 60 above the horizon, with a field of view of
40 degrees.

## What it does not know

- Any other word. `sds3d generate` names the words it does not know with what is nearest, and refuses a prompt of which
  it knows none.
- Sentences of another form, other numbers, and more than two things.
- Things it draws poorly, by the table below (`sds3d generate` warns of them): {weak}.
- These pairs were kept out of training, to see whether it can combine known words: {held_out}. So was a tenth of
  all pairs of colour and kind for `beside` and for `two`.

## Figures

Samples of the 24 prompts from eight sides (DDIM, 25 steps, guidance of 3 where t is above {guided_above}), by the
evaluator's classifier (whose own accuracy on true renders is in brackets). "kind" is that of the first thing; "colors"
are right where all colours of a picture are:

| | seen | held out |
| --- | --- | --- |
{judged}

Silhouette IoU of samples with the true object, at the azimuth that was asked for and at 90 degrees from it; what two
true objects of the same caption reach (all that can be expected), and what the truth shares with itself at 90 degrees.
Where the last two columns of a kind are far below the first, the prior follows the camera.

| kind | samples | true pairs | samples, +90 | truth, +90 | |
| --- | --- | --- | --- | --- | --- |
{rows}

One call for 4 views with 2 conditions: {call} ms on {threads} threads; one image through the network: {gflop:.2f}
GFLOP. Trained on {images} images{rendered}{before}.
Written by `python benchmarks/embedded_prior.py --out DIR`.
"""
VIEWS_DEG = (0, 45, 90, 180, 270)


def random_views(count: int, rng: Random) -> Cameras:
    """Cameras of the training distribution, at elevations of 0 to 30 degrees."""
    azimuth = torch.tensor([rng.uniform(-math.pi, math.pi) for _ in range(count)])
    elevation = torch.tensor([math.radians(rng.uniform(0.0, 30.0)) for _ in range(count)])
    fov = torch.full((count,), math.radians(FOV_DEG))
    return orbit_cameras(azimuth, elevation, torch.full((count,), 3.0), fov, SIZE)


def silhouettes(image: Float[Tensor, "B 3 H W"], background: Float[Tensor, "B 3"]) -> Bool[Tensor, "B H W"]:
    """Pixels that differ from the known background by more than 0.12 in some channel."""
    return (image - background[:, :, None, None]).abs().amax(1) > 0.12


def overlap(a: Bool[Tensor, "B H W"], b: Bool[Tensor, "B H W"]) -> Float[Tensor, " B"]:
    """Intersection over union of two masks."""
    both, either = (a & b).sum((1, 2)), (a | b).sum((1, 2))
    return both / either.clamp_min(1)


def true_masks(texts: list[str], cameras: Cameras, turn: float = 0.0, seed: int = 0) -> Bool[Tensor, "B H W"]:
    """Silhouettes of the procedural objects from the cameras' azimuth + turn (radians)."""
    masks = []
    for number, text in enumerate(texts):
        description = parse(text)
        assert description is not None, text
        one = slice(number, number + 1)
        moved = orbit_cameras(
            cameras.azimuth[one] + turn,
            cameras.elevation[one],
            cameras.distance[one],
            torch.full((1,), math.radians(FOV_DEG)),
            cameras.height,
        )
        solids = build(description, Random(seed + number))
        masks.append(render_solids(solids, moved)[0, ..., 3] > 0.5)
    return torch.stack(masks)


def azimuth_test(prior: EmbeddedPrior, kinds: tuple[str, ...], per_kind: int = 12, seed: int = 0) -> dict[str, Any]:
    """Whether the prior follows the camera: mean silhouette IoU of samples with the true object, for each kind.

    `same` is at the requested azimuth, `plus_90` at 90 degrees from it. `floor` is the truth against its own view at
    +90 degrees, which a prior that ignores cameras could reach; `ceiling` is the truth against another draw of its
    proportions, which the words leave open.
    """
    rng = Random(seed)
    colors = ("red", "blue", "green", "yellow", "purple", "orange")
    result: dict[str, Any] = {}
    for kind in kinds:
        texts = [f"a {rng.choice(colors)} {kind}" for _ in range(per_kind)]
        cameras = random_views(per_kind, rng)
        background = torch.full((per_kind, 3), 0.9)
        generator = torch.Generator().manual_seed(seed)
        view = ViewCondition(cameras, background)
        images = sample_images(prior, texts, view, guided_above=GUIDED_ABOVE, generator=generator)
        samples = silhouettes(images, background)
        truth, turned = true_masks(texts, cameras, 0.0, seed), true_masks(texts, cameras, math.pi / 2, seed)
        other = true_masks(texts, cameras, 0.0, seed + per_kind)
        result[kind] = {
            "same": float(overlap(samples, truth).mean()),
            "plus_90": float(overlap(samples, turned).mean()),
            "floor": float(overlap(truth, turned).mean()),
            "ceiling": float(overlap(truth, other).mean()),
        }
    return result


def sheet(prior: EmbeddedPrior) -> Float[Tensor, "H W 3"]:
    """Samples of every prompt of the standard suite from five sides; left the seen, right the held-out."""
    rows = [
        torch.cat(list(samples(prior, text, VIEWS_DEG, n)[0].permute(0, 2, 3, 1)), 1) for n, text in enumerate(SHEET)
    ]
    return torch.cat([torch.cat(rows[:12]), torch.cat(rows[12:])], dim=1)


def samples(
    prior: EmbeddedPrior, text: str, views_deg: Sequence[float], seed: int
) -> tuple[Float[Tensor, "V 3 H W"], Cameras]:
    """One sample of the prompt from each azimuth, all from one seed."""
    count = len(views_deg)
    azimuth = torch.tensor([math.radians(view) for view in views_deg])
    cameras = orbit_cameras(azimuth, *(torch.full((count,), value) for value in (0.3, 3.0, math.radians(40.0))), 64)
    view = ViewCondition(cameras, torch.full((count, 3), 0.9))
    generator = torch.Generator().manual_seed(seed)
    return sample_images(prior, [text] * count, view, guided_above=GUIDED_ABOVE, generator=generator), cameras


def judged(prior: EmbeddedPrior, classifier: Classifier) -> dict[str, dict[str, float]]:
    """Share of samples in which the classifier recognises each attribute of the prompt; seen and held-out prompts."""
    results: dict[str, dict[str, list[float]]] = {"seen": {}, "held_out": {}}
    for seed, text in enumerate(SHEET):
        description = parse(text)
        assert description is not None, text
        images, cameras = samples(prior, text, range(0, 360, 45), 100 + seed)
        right = classifier.read(images, cameras).correct(description)
        colors = [name for name in right if name.endswith("color")]
        right["colors"] = torch.stack([right[name] for name in colors]).all(0)
        right["all"] = torch.stack(list(right.values())).all(0)
        row = results["held_out" if description.held_out() else "seen"]
        for name, values in right.items():
            row.setdefault(name, []).extend(values.float().tolist())
    return {split: {k: sum(v) / len(v) for k, v in row.items()} for split, row in results.items()}


def gflop(prior: EmbeddedPrior) -> float:
    """Of the network for one image, counting a multiply-add as two, by torch's own counter."""
    from torch.utils.flop_counter import FlopCounterMode

    x_t, t, embedding = torch.randn(1, 3, 64, 64), torch.full((1,), 0.5), prior.embed(["a red mug"])
    with FlopCounterMode(display=False) as counter:
        prior.predict_noise(x_t, t, [embedding])
    return counter.get_total_flops() / 1e9


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
        patterns=", ".join(PATTERNS),
        materials=", ".join(MATERIALS),
        judged="\n".join(
            f"| {name} | " + " | ".join(_share(figures, split, name) for split in ("seen", "held_out")) + " |"
            for name in ("kind", "colors", "relation", "pattern", "material", "all")
        ),
        gflop=figures["gflop"],
        guided_above=GUIDED_ABOVE,
        before=_before(training["settings"].get("start_from", "")),
        kinds=", ".join(kind.replace("_", " ") for kind in KINDS),
        parts=", ".join(f"{kind} ({part})" for kind, part in PARTS.items()),
        tops=", ".join(TOPS),
        bottoms=", ".join(BOTTOMS),
        held_out=", ".join(figures["held_out"]),
        weak=", ".join(weak) or "none by this measure",
        rows="\n".join(rows),
        call=f"{figures['call_ms']:.0f}",
        threads=figures["threads"],
        images=f"{training['images']:,}",
        rendered=f" drawn from {training['rendered_images']:,} renders" if "rendered_images" in training else "",
    )


def _before(start_from: str) -> str:
    return f", beginning with {start_from}" if start_from else ""


def _share(figures: dict[str, Any], split: str, name: str) -> str:
    """The samples' share, and in brackets the classifier's own on true renders."""
    own = figures["classifier_accuracy"][split].get("color" if name == "colors" else name)
    return f"{100 * figures['judged'][split][name]:.0f}% ({100 * own:.0f}%)"


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
    classifier = load_classifier()
    figures = {"kinds": kinds, "judged": judged(prior, classifier), "classifier_accuracy": classifier.accuracy}
    figures |= {"call_ms": cost_ms(prior), "gflop": gflop(prior)}
    figures["threads"] = torch.get_num_threads()
    figures["held_out"] = sorted(" ".join(pair) for pair in HELD_OUT)
    for split, row in figures["judged"].items():
        print(f"{split:<10}" + "  ".join(f"{name} {share:.2f}" for name, share in row.items()))
    print(f"4 views x 2 conditions {figures['call_ms']:.0f} ms on {figures['threads']} threads", end="; ")
    print(f"{figures['gflop']:.2f} GFLOP an image")
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
