"""The same prompt, seeds and budget under several guidances: the runs, one sheet, one table."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from sds3d.atomic import write_atomic, write_json, writing
from sds3d.cameras import orbit
from sds3d.config import RunConfig
from sds3d.export.contact_sheet import BACKGROUND, arrange, azimuth_label, to_uint8
from sds3d.export.png import write_png
from sds3d.export.views import render_views
from sds3d.metrics.image import diversity
from sds3d.run.artifacts import ARTIFACTS
from sds3d.run.folder import RunFolder
from sds3d.sweeps.pages import render_page
from sds3d.sweeps.run_set import RunSet, failure
from sds3d.training.session import Session

VIEWS, SIZE = 4, 192
SHEET, TABLE, PAGE = "compare.png", "compare.json", "compare.html"
COLUMNS = {  # number fields of Row, with their headings
    **{"seconds_per_step": "s/step", "prior_forwards_per_step": "forwards"},
    **{name: name for name in ("saturation", "coverage", "translucency", "diversity")},
}


@dataclass(frozen=True)
class Row:
    """The metrics of one guidance: means over its seeds and their particles."""

    guidance: str
    seeds: list[int]
    seconds_per_step: float
    prior_forwards_per_step: float  # for each view
    saturation: float
    coverage: float
    translucency: float
    janus: float | None  # share of views whose side the prior recognizes; None if it tells no sides apart
    diversity: float | None  # between seeds; None for a single one
    notes: list[str]  # why a run diverged, or why there is no mesh


class Comparison:
    """One config after the other in <folder>/<guidance>-<seed>/, and a summary in <folder>."""

    def __init__(self, configs: list[RunConfig], folder: Path) -> None:
        """ConfigError if a folder of that name holds a run with another config; nothing is written yet."""
        self.folder, self.runs = folder, RunSet({folder / run_folder(config): config for config in configs})
        assert len(self.runs.configs) == len(configs), "two configs have one folder"

    def write(self) -> list[Row]:
        """compare.png, compare.json and compare.html from the finished runs."""
        by_guidance: dict[str, dict[Path, RunConfig]] = {}
        for path, config in self.runs.configs.items():
            by_guidance.setdefault(config.guidance.name, {})[path] = config
        rows, images, labels = [], [], []
        for name, configs in by_guidance.items():
            renders = [_renders(path) for path in configs]
            rows.append(_row(name, configs, renders))
            if len(renders[0]) == 1:  # flat scenes: the image of each seed; of others the views of the first
                images += [views[0] for views in renders]
                labels += [f"{name} seed {config.seed}" for config in configs.values()]
            else:
                images += list(renders[0])
                labels += [f"{name} {azimuth_label(360.0 * index / VIEWS)}" for index in range(VIEWS)]
        with writing(self.folder / SHEET):
            columns = len(images) // len(rows)
            write_png(arrange(to_uint8(np.stack(images)), labels, columns), self.folder / SHEET)
        first = next(iter(self.runs.configs.values()))
        table = {"prompt": first.prompt, "steps": first.steps, "rows": [asdict(row) for row in rows]}
        write_json(self.folder / TABLE, table)
        write_atomic(self.folder / PAGE, page(first, rows).encode())
        return rows


def run_folder(config: RunConfig) -> str:
    """<guidance>-<seed>: never the prompt, which could be any path."""
    return f"{config.guidance.name}-{config.seed}"


def page(config: RunConfig, rows: list[Row]) -> str:
    """The HTML page beside the image."""
    image = ARTIFACTS[config.final.scene.results[0]]  # a sheet, or the flat image
    return render_page("compare", config=config, rows=rows, columns=COLUMNS, image=image, sheet=SHEET)


def _renders(path: Path) -> np.ndarray:
    """[V, SIZE, SIZE, 3]: views all around, or the one image of a flat scene."""
    session = Session.resume(path)
    views = 1 if session.config.final.scene.is_flat else VIEWS
    return render_views(session.scene(), orbit(views, size=SIZE), BACKGROUND).rgb


def _row(name: str, configs: dict[Path, RunConfig], renders: list[np.ndarray]) -> Row:
    reports = [report for path in configs if (report := RunFolder(path).report()) is not None]

    def mean(values: list[float]) -> float:
        return round(float(np.mean(values)), 4)

    parts = ("prior", "render", "backward", "optimizer")
    per_step = [sum(report["seconds"][part] for part in parts) / max(1, report["steps"]) for report in reports]
    scenes = [scene for report in reports for scene in report.get("particles", [report])]
    metrics = [scene["metrics"] for scene in scenes]
    failures = [(config.seed, failure(path)) for path, config in configs.items()]
    notes = [f"seed {seed} ended early: {reason}" for seed, reason in failures if reason is not None]
    notes += [f"no mesh: {scene['mesh']['refused']}" for scene in scenes if "refused" in scene["mesh"]]
    return Row(
        guidance=name,
        seeds=[config.seed for config in configs.values()],
        seconds_per_step=mean(per_step),
        prior_forwards_per_step=mean([report["prior_forwards_per_step"] for report in reports]),
        **{key: mean([each[key] for each in metrics]) for key in ("saturation", "coverage", "translucency")},
        janus=mean([each["janus"]["agreement"] for each in metrics]) if "janus" in metrics[0] else None,
        diversity=round(float(diversity(torch.from_numpy(np.stack(renders)))), 4) if len(renders) > 1 else None,
        notes=notes,
    )
