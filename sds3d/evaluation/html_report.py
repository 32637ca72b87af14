"""Many scores as one table, one picture and one page."""

import html
import json
import string
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image, ImageDraw, ImageFont

from sds3d.atomic import write_atomic, writing
from sds3d.evaluation.renders import THUMB_SIZE, THUMBS
from sds3d.evaluation.scores import METRICS, Evaluated, Scores
from sds3d.export import write_png
from sds3d.export.contact_sheet import INK
from sds3d.sweeps.run_set import cell

SHEET, TABLE, PAGE = "evaluation.png", "evaluation.json", "evaluation.html"
BAD = (190, 30, 30)
LINE = 22  # pixels of text below a strip


@dataclass(frozen=True)
class Mean:
    """Means over the runs of one guidance, scene and split."""

    guidance: str
    scene: str
    split: str
    runs: int
    failed: int
    values: dict[str, float]  # of METRICS; over the runs that have it
    diversity: float | None  # between seeds of one prompt, mean over prompts; None with one seed


def means(results: Sequence[Evaluated]) -> list[Mean]:
    """One row for each guidance, scene and split, in the order of the runs."""
    groups: dict[tuple[str, str, str], list[Evaluated]] = {}
    for result in results:
        scores = result.scores
        groups.setdefault((scores.guidance, scores.scene, scores.split), []).append(result)
    return [_mean(*key, group) for key, group in groups.items()]


def _mean(guidance: str, scene: str, split: str, group: list[Evaluated]) -> Mean:
    values = {}
    for name in METRICS:
        have = [one.scores.values[name] for one in group if name in one.scores.values]
        if have:
            values[name] = round(float(np.mean(have)), 4)
    failed = sum(bool(one.scores.failed) for one in group)
    return Mean(guidance, scene, split, len(group), failed, values, _diversity(group))


def _diversity(group: list[Evaluated]) -> float | None:
    """Root mean square difference between the renders of two seeds of one prompt."""
    by_prompt: dict[str, list[ndarray]] = {}
    for one in group:
        own = one.strip[:, : THUMBS * THUMB_SIZE].astype(np.float64) / 255.0  # the rest shows the truth
        by_prompt.setdefault(one.scores.prompt, []).append(own)
    found = [
        float(np.sqrt(np.mean((a - b) ** 2)))
        for views in by_prompt.values()
        for i, a in enumerate(views)
        for b in views[:i]
    ]
    return round(float(np.mean(found)), 4) if found else None


def write_summary(results: Sequence[Evaluated], classifier_accuracy: dict[str, Any], folder: Path, title: str) -> None:
    """evaluation.png, evaluation.json and evaluation.html."""
    with writing(folder / SHEET):
        folder.mkdir(parents=True, exist_ok=True)
        write_png(contact_sheet(results), folder / SHEET)
    rows = [row.__dict__ for row in means(results)]
    table: dict[str, Any] = {"title": title, "means": rows, "runs": [one.scores.to_dict() for one in results]}
    table["classifier_accuracy"] = classifier_accuracy
    write_atomic(folder / TABLE, (json.dumps(table, indent=1) + "\n").encode())
    write_atomic(folder / PAGE, page(results, classifier_accuracy, title).encode())


def contact_sheet(results: Sequence[Evaluated], columns: int = 2) -> UInt8[ndarray, "H W 3"]:
    """Every run from four sides, its truth from the same, and what it missed in red."""
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
        draw.text((x + 4, y + height + 3), text, BAD if scores.failed else INK, font)
    return np.asarray(sheet)


def page(results: Sequence[Evaluated], classifier_accuracy: dict[str, Any], title: str) -> str:
    """One HTML page beside the picture; every text that a person wrote is escaped."""
    template = string.Template(
        (resources.files("sds3d.sweeps") / "pages" / "evaluation.html").read_text(encoding="utf-8")
    )
    shown = [name for name in METRICS if any(name in one.scores.values for one in results)]
    head = "".join(f'<th title="{html.escape(METRICS[name][1])}">{METRICS[name][0]}</th>' for name in shown)
    mean_rows = []
    for row in means(results):
        cells = "".join(f"<td>{cell(row.values.get(name))}</td>" for name in shown)
        named = f"<th>{row.guidance}, {row.scene}, {row.split}</th><td>{row.runs}</td><td>{row.failed}</td>"
        mean_rows.append(f"<tr>{named}{cells}<td>{cell(row.diversity)}</td></tr>")
    run_rows = [_run_row(one.scores, shown) for one in results]
    explained = "".join(f"<li><b>{METRICS[name][0]}</b>: {html.escape(METRICS[name][1])}</li>" for name in shown)
    return template.substitute(
        title=html.escape(title), head=head, means="\n".join(mean_rows), runs="\n".join(run_rows), picture=SHEET,
        explained=explained, classifier=html.escape(json.dumps(classifier_accuracy)),
    )  # fmt: skip


def _run_row(scores: Scores, shown: list[str]) -> str:
    cells = "".join(f"<td>{cell(scores.values.get(name))}</td>" for name in shown)
    notes = html.escape("; ".join([*scores.failed, *scores.notes]))
    about = html.escape(f"{scores.guidance}, {scores.scene}, {scores.split}, seed {scores.seed}")
    return f"<tr><th>{html.escape(scores.prompt)}</th><td>{about}</td>{cells}<td>{notes}</td></tr>"
