"""Puts finished suites into docs/evaluation.md: `python docs/make_evaluation.py [SUITE ...] [--tuning NAME=SUITE ...]`.

Updates the table between the marks of the page, and suites.png: the metrics of each guidance and scene on seen and
held-out prompts, with the scatter of the runs. Each SUITE is a folder of `sds3d evaluate --suite NAME`. --tuning
updates the table that compares settings on the seen prompts of each SUITE.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from sds3d.evaluation.html_report import TABLE
from sds3d.evaluation.scores import LIMITS, METRICS, SILHOUETTE_LIMIT
from sds3d.export.contact_sheet import INK
from sds3d.sweeps.pages import format_number

PAGE, PICTURE = Path(__file__).with_name("evaluation.md"), Path(__file__).with_name("suites.png")
BEGIN, END = "<!-- table: docs/make_evaluation.py -->", "<!-- end of table -->"
BEGIN_TUNING, END_TUNING = "<!-- table: docs/make_evaluation.py --tuning -->", "<!-- end of tuning -->"
COMPARED = ("accuracy", "all_right", "r_precision", "silhouette_iou", "volume_iou", "agreement", "seconds")
PLOTTED = ("accuracy", "silhouette_iou")
ROW, BAR, LEFT, WIDTH = 30, 20, 250, 420  # pixels
COLORS = {"seen": (60, 120, 190), "held-out": (230, 150, 60), "unknown": (150, 150, 150)}
Row = dict[str, Any]


def rows_of(folders: list[Path]) -> tuple[list[Row], list[Row]]:
    """The means and the runs of all suites, in order."""
    tables = [json.loads((folder / TABLE).read_text()) for folder in folders]
    return [row for table in tables for row in table["means"]], [run for table in tables for run in table["runs"]]


def heading(row: Row) -> str:
    """Guidance, scene and split of a row of means."""
    return f"{row['guidance']}, {row['scene']}, {row['split']}"


def table(means: list[Row], runs: list[Row]) -> str:
    """Markdown: a line for each metric, a column for each guidance, scene and split."""
    names = [name for name in METRICS if any(name in row["values"] for row in means)]
    lines = ["| | " + " | ".join(f"{heading(row)}, {row['runs']} runs" for row in means) + " |"]
    lines.append("| --- |" + " --- |" * len(means))
    for name in names:
        cells = (format_number(row["values"].get(name)) for row in means)
        lines.append(f"| {METRICS[name][0]} | " + " | ".join(cells) + " |")
    most = (max(run["values"]["seconds"] for run in runs_of(row, runs)) for row in means)
    lines.append("| s, most | " + " | ".join(f"{seconds:.0f}" for seconds in most) + " |")
    lines.append("| missed a limit | " + " | ".join(str(row["failed"]) for row in means) + " |")
    return "\n".join(lines)


def tuning(suites: dict[str, Path]) -> str:
    """Markdown: a line for each setting, a column for each metric; means over the runs of seen prompts."""
    lines = ["| | " + " | ".join(METRICS[name][0] for name in COMPARED) + " |", "| --- |" + " --- |" * len(COMPARED)]
    for setting, folder in suites.items():
        (mean,) = (row for row in rows_of([folder])[0] if row["split"] == "seen")
        numbers = (format_number(mean["values"].get(name)) for name in COMPARED)
        lines.append(f"| {setting} | " + " | ".join(numbers) + " |")
    return "\n".join(lines)


def insert(page: str, begin: str, end: str, text: str) -> str:
    """The page with `text` between two marks."""
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n{text}\n{end}{after}"


def runs_of(mean: Row, runs: list[Row]) -> list[Row]:
    """The runs of a row of means."""
    return [run for run in runs if heading(run) == heading(mean)]


def plot(means: list[Row], runs: list[Row]) -> Image.Image:
    """For each metric of PLOTTED: a bar for each mean, a dot for each run, a line for the limit."""
    height = ROW * (len(means) + 2)
    picture = Image.new("RGB", (LEFT + len(PLOTTED) * (WIDTH + 40), height), "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(14)
    for index, mean in enumerate(means):
        draw.text((LEFT - 10, ROW * (index + 1) + BAR / 2), heading(mean), INK, font, anchor="rm")
    for column, name in enumerate(PLOTTED):
        x = LEFT + column * (WIDTH + 40)
        draw.text((x, 6), METRICS[name][0], INK, font)
        for index, mean in enumerate(means):
            top, color = ROW * (index + 1), COLORS[mean["split"]]
            value = mean["values"][name]
            draw.rectangle((x, top, x + WIDTH * value, top + BAR), fill=color)
            limit = LIMITS.get(mean["split"], 0.0) if name == "accuracy" else SILHOUETTE_LIMIT
            draw.line((x + WIDTH * limit, top - 2, x + WIDTH * limit, top + BAR + 2), fill=(190, 30, 30), width=2)
            for run in runs_of(mean, runs):
                at = x + WIDTH * run["values"][name]
                draw.ellipse((at - 3, top + BAR / 2 - 3, at + 3, top + BAR / 2 + 3), fill="white", outline=INK)
            draw.text((x + 6, top + BAR / 2), f"{value:.2f}", "white", font, anchor="lm")
        for tick in (0.0, 0.5, 1.0):
            draw.text((x + WIDTH * tick, height - 8), f"{tick:g}", INK, font, anchor="mb")
    return picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("suites", type=Path, nargs="*")
    parser.add_argument("--tuning", metavar="NAME=SUITE", nargs="+", default=[])
    arguments = parser.parse_args()
    if not arguments.suites and not arguments.tuning:
        parser.error("say the folder of at least one suite")
    if arguments.suites:
        means, runs = rows_of(arguments.suites)
        PAGE.write_text(insert(PAGE.read_text(), BEGIN, END, table(means, runs)))
        plot(means, runs).save(PICTURE)
    if arguments.tuning:
        suites = {name: Path(folder) for name, _, folder in (pair.rpartition("=") for pair in arguments.tuning)}
        PAGE.write_text(insert(PAGE.read_text(), BEGIN_TUNING, END_TUNING, tuning(suites)))
    print(PAGE)


if __name__ == "__main__":
    main()
