"""The scores of many runs as one table, one image and one HTML page."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from sds3d.atomic import write_atomic, write_json, writing
from sds3d.evaluation.renders import THUMB_SIZE, THUMBS
from sds3d.evaluation.scores import METRICS, Evaluated
from sds3d.export.contact_sheet import INK
from sds3d.export.png import write_png
from sds3d.metrics.image import diversity
from sds3d.sweeps.pages import render_page

SHEET, TABLE, PAGE = "evaluation.png", "evaluation.json", "evaluation.html"
RED = (190, 30, 30)
LINE = 22  # pixels of text below a strip


@dataclass(frozen=True)
class Mean:
    """Means over the runs of one guidance, scene and split."""

    guidance: str
    scene: str
    split: str
    runs: int
    failed: int
    values: dict[str, float]  # of METRICS, over the runs that have each
    diversity: float | None  # between seeds of one prompt, mean over prompts; None with one seed


def means(results: Sequence[Evaluated]) -> list[Mean]:
    """One row for each guidance, scene and split, in the order of the runs."""
    groups: dict[tuple[str, str, str], list[Evaluated]] = {}
    for result in results:
        scores = result.scores
        groups.setdefault((scores.guidance, scores.scene, scores.split), []).append(result)
    rows = []
    for key, group in groups.items():
        measured = {name: [one.scores.values[name] for one in group if name in one.scores.values] for name in METRICS}
        values = {name: round(float(np.mean(found)), 4) for name, found in measured.items() if found}
        failed = sum(bool(one.scores.failed) for one in group)
        rows.append(Mean(*key, len(group), failed, values, _diversity(group)))
    return rows


def _diversity(group: list[Evaluated]) -> float | None:
    """`diversity` of two seeds of one prompt, mean over all such pairs; None if there are none."""
    by_prompt: dict[str, list[Tensor]] = {}
    for one in group:
        own = torch.from_numpy(one.strip[:, : THUMBS * THUMB_SIZE].astype(np.float64) / 255.0)  # the rest is the truth
        by_prompt.setdefault(one.scores.prompt, []).append(own)
    pairs = [pair for strips in by_prompt.values() for pair in combinations(strips, 2)]
    differences = [float(diversity(torch.stack(pair)[:, None])) for pair in pairs]
    return round(float(np.mean(differences)), 4) if pairs else None


def write_summary(results: Sequence[Evaluated], classifier_accuracy: dict[str, Any], folder: Path, title: str) -> None:
    """evaluation.png, evaluation.json and evaluation.html."""
    with writing(folder / SHEET):
        folder.mkdir(parents=True, exist_ok=True)
        write_png(contact_sheet(results), folder / SHEET)
    rows = [row.__dict__ for row in means(results)]
    table: dict[str, Any] = {"title": title, "means": rows, "runs": [one.scores.to_dict() for one in results]}
    table["classifier_accuracy"] = classifier_accuracy
    write_json(folder / TABLE, table)
    write_atomic(folder / PAGE, page(results, classifier_accuracy, title).encode())


def contact_sheet(results: Sequence[Evaluated], columns: int = 2) -> UInt8[ndarray, "H W 3"]:
    """Each run and its truth from four sides, with the limits that it missed in red."""
    height, width = results[0].strip.shape[:2]
    columns = min(columns, len(results))
    rows = -(-len(results) // columns)
    sheet = Image.new("RGB", (columns * (width + 12) - 12, rows * (height + LINE)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for number, one in enumerate(results):
        x, y = number // rows * (width + 12), number % rows * (height + LINE)
        sheet.paste(Image.fromarray(one.strip), (x, y))
        scores = one.scores
        text = f"{scores.prompt} ({scores.split}, {scores.guidance}, {scores.scene}, seed {scores.seed})"
        text += "".join(f"; {reason}" for reason in scores.failed)
        while draw.textlength(text, font=font) > width - 8:
            text = text[:-2]
        draw.text((x + 4, y + height + 3), text, RED if scores.failed else INK, font)
    return np.asarray(sheet)


def page(results: Sequence[Evaluated], classifier_accuracy: dict[str, Any], title: str) -> str:
    """The HTML page beside the image."""
    measured = {name for one in results for name in one.scores.values}
    return render_page(
        "evaluation",
        title=title,
        sheet=SHEET,
        metrics={name: metric for name, metric in METRICS.items() if name in measured},
        means=means(results),
        runs=[one.scores for one in results],
        classifier_accuracy=classifier_accuracy,
    )
