"""The same prompt, seed and budget under several guidances, side by side: the runs, one sheet, one table."""

import html
import json
import string
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sds3d.atomic import write_atomic, writing
from sds3d.cameras import orbit
from sds3d.config.run_config import RunConfig
from sds3d.export import arrange, azimuth_label, write_png
from sds3d.export.contact_sheet import BACKGROUND, to_uint8
from sds3d.export.views import render_views
from sds3d.metrics.image import diversity
from sds3d.run.artifacts import ARTIFACTS
from sds3d.sweeps.run_set import ManyRuns, cell, failure
from sds3d.training.session import REPORT, Session

VIEWS, SIZE = 4, 192
SHEET, TABLE, PAGE = "compare.png", "compare.json", "compare.html"


@dataclass(frozen=True)
class Row:
    """One guidance in numbers; means over its seeds and their particles."""

    guidance: str
    seeds: list[int]
    seconds_per_step: float
    prior_forwards_per_step: float  # for each view
    saturation: float
    coverage: float
    translucency: float
    janus: float | None  # share of views that the prior reads as the side that they are; None where it tells none apart
    diversity: float | None  # between seeds; None for a single one
    refused: list[str]  # why a run diverged, or what the export said where there is no mesh


class Comparison(ManyRuns):
    """Runs one config after the other in <folder>/<guidance>-<seed>/ and sums them up in <folder>."""

    def __init__(self, configs: list[RunConfig], folder: Path) -> None:
        """ConfigError where a folder of that name holds a run with another config; nothing is written yet."""
        names = [run_folder(config) for config in configs]
        assert len(set(names)) == len(names), f"two configs have one folder: {names}"
        super().__init__({folder / name: config for name, config in zip(names, configs, strict=True)})
        self.folder = folder

    def write(self) -> list[Row]:
        """compare.png, compare.json and compare.html from the finished runs."""
        by_guidance: dict[str, list[Path]] = {}
        for path, config in self.runs.items():
            by_guidance.setdefault(config.guidance.name, []).append(path)
        rows, pictures, labels = [], [], []
        for name, paths in by_guidance.items():
            renders = [_renders(Session.resume(path, self.prior)) for path in paths]
            rows.append(_row(name, paths, [self.runs[path] for path in paths], renders))
            flat = len(renders[0]) == 1
            for index, view in enumerate([r[0] for r in renders] if flat else renders[0]):
                pictures.append(view)
                side = f"seed {self.runs[paths[index]].seed}" if flat else azimuth_label(360.0 * index / VIEWS)
                labels.append(f"{name} {side}")
        columns = len(pictures) // len(rows)
        with writing(self.folder / SHEET):
            write_png(arrange(to_uint8(np.stack(pictures)), labels, columns), self.folder / SHEET)
        first = next(iter(self.runs.values()))
        table = {"prompt": first.prompt, "steps": first.steps, "rows": [asdict(row) for row in rows]}
        write_atomic(self.folder / TABLE, (json.dumps(table, indent=2) + "\n").encode())
        write_atomic(self.folder / PAGE, page(first, rows).encode())
        return rows


def run_folder(config: RunConfig) -> str:
    """<guidance>-<seed>: names of our own only, never the prompt."""
    return f"{config.guidance.name}-{config.seed}"


def columns() -> dict[str, str]:
    """Fields of Row that are numbers, with their headings."""
    return {
        "seconds_per_step": "s / step",
        "prior_forwards_per_step": "forwards / step",
        "saturation": "saturation",
        "coverage": "coverage",
        "translucency": "translucency",
        "diversity": "diversity",
    }


def page(config: RunConfig, rows: list[Row]) -> str:
    """One HTML page beside the picture; every text that a person wrote is escaped."""
    template = string.Template((resources.files("sds3d.sweeps") / "pages" / "compare.html").read_text(encoding="utf-8"))
    head = "".join(f"<th>{heading}</th>" for heading in columns().values())
    shown = ARTIFACTS[config.scene.artifacts[0]].file_name  # a sheet, or the flat image
    body = []
    for row in rows:
        cells = "".join(f"<td>{cell(getattr(row, name))}</td>" for name in columns())
        links = " ".join(f'<a href="{row.guidance}-{seed}/{shown}">{seed}</a>' for seed in row.seeds)
        notes = html.escape("; ".join(row.refused))
        body.append(f"<tr><th>{row.guidance}</th>{cells}<td>{links}</td><td>{notes}</td></tr>")
    scene, prior = html.escape(config.scene.name), html.escape(config.prior.name)
    return template.substitute(
        prompt=html.escape(config.prompt),
        facts=f"{config.steps} steps, scene {scene}, prior {prior}",
        head=head, body="\n".join(body), picture=SHEET,
    )  # fmt: skip


def _renders(session: Session) -> np.ndarray:
    """[V, SIZE, SIZE, 3]: views all around, or the one image of a flat scene."""
    views = 1 if session.config.scene.is_flat else VIEWS
    return render_views(session.scene(), orbit(views, size=SIZE), BACKGROUND).rgb


def _row(name: str, paths: list[Path], configs: list[RunConfig], renders: list[np.ndarray]) -> Row:
    reports: list[Mapping[str, Any]] = [json.loads((path / REPORT).read_text()) for path in paths]

    def mean(values: list[float]) -> float:
        return round(float(np.mean(values)), 4)

    parts = ("prior", "render", "backward", "optimizer")
    per_step = [sum(r["seconds"][part] for part in parts) / max(1, r["steps"]) for r in reports]
    scenes = [scene for report in reports for scene in report.get("particles", [report])]
    images = torch.from_numpy(np.stack(renders))
    return Row(
        guidance=name,
        seeds=[config.seed for config in configs],
        seconds_per_step=mean(per_step),
        prior_forwards_per_step=mean([r["prior_forwards_per_step"] for r in reports]),
        **{key: mean([s["metrics"][key] for s in scenes]) for key in ("saturation", "coverage", "translucency")},
        janus=mean([s["metrics"]["janus"]["agreement"] for s in scenes]) if "janus" in scenes[0]["metrics"] else None,
        diversity=round(float(diversity(images)), 4) if len(paths) > 1 else None,
        refused=[
            *(reason for path in paths if (reason := failure(path)) is not None),
            *(s["mesh"]["refused"] for s in scenes if "refused" in s["mesh"]),
        ],
    )
