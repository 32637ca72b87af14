"""`sds3d evaluate`: scores of finished runs, or of a suite that is run first."""

import itertools
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from sds3d import RunConfig, load_config
from sds3d.errors import ConfigError
from sds3d.evaluation.classifier import load_classifier
from sds3d.evaluation.classifier_scores import captions_for
from sds3d.evaluation.clip import Clip
from sds3d.evaluation.html_report import PAGE, SHEET, means, write_summary
from sds3d.evaluation.scores import METRICS, Evaluated, evaluate_run
from sds3d.evaluation.suite import Suite, suite_prompts
from sds3d.run.events import Started, Warned
from sds3d.run.folder import RunFolder
from sds3d.sweeps.pages import format_number

from ..arguments import overrides_of
from ..exit_codes import DONE, INTERRUPTED, say_note
from ..signals import stopped_by_signals


def suite_configs(
    suite: str,
    guidances: Iterable[str],
    scenes: Iterable[str],
    seeds: Iterable[int],
    preset: str | None,
    settings: Mapping[str, Any],
) -> list[RunConfig]:
    """One config for each prompt, guidance, scene and seed."""
    guidances, scenes = list(guidances), list(scenes)
    if not guidances or not scenes:
        raise ConfigError("no guidance or no scene is named")
    own = [
        {"prompt": prompt, "guidance": guidance, "scene": scene, "seed": seed}
        for scene, guidance, seed, prompt in itertools.product(scenes, guidances, seeds, suite_prompts(suite))
    ]
    return [load_config(None, preset, overrides_of(options, settings)) for options in own]


def evaluate_suite(suite: str, configs: list[RunConfig], out: Path | None, clip: Path | None, as_json: bool) -> int:
    """All runs that are missing, then the scores; the exit code."""
    classifier, model = load_classifier(), Clip(clip) if clip else None
    folder = out or Path("outputs") / f"suite-{suite}"
    evaluated = Suite(configs, folder)
    runs = evaluated.runs
    with stopped_by_signals(runs.stop):
        for path, event in runs.run():
            if as_json:
                print(json.dumps({"run": str(path), **event.to_dict()}), flush=True)
            elif isinstance(event, Started):
                say_note(f"{path.name}: {runs.configs[path].prompt}")
            elif isinstance(event, Warned):
                say_note(f"warning: {path.name}: {event.message}")
    if not runs.finished():
        say_note(f"interrupted and saved in {shlex.quote(str(folder))}; the same command goes on")
        return INTERRUPTED
    results = list(evaluated.evaluate(classifier, model))
    write_summary(results, classifier.accuracy, folder, f"suite {suite}")
    return _print_scores(results, folder, as_json)


def evaluate_runs(runs: Sequence[Path], out: Path | None, clip: Path | None, as_json: bool) -> int:
    """Scores of runs that are there already; the exit code."""
    classifier, model = load_classifier(), Clip(clip) if clip else None
    captions = captions_for(RunFolder(run).config().prompt for run in runs)
    results = [evaluate_run(run, classifier, captions, model) for run in runs]
    if out is not None:
        write_summary(results, classifier.accuracy, out, "evaluation")
    return _print_scores(results, out, as_json)


def _print_scores(results: list[Evaluated], folder: Path | None, as_json: bool) -> int:
    rows = means(results)
    if as_json:
        scores = {"means": [asdict(row) for row in rows], "runs": [one.scores.to_dict() for one in results]}
        print(json.dumps({"event": "Evaluated", **scores, "out_dir": str(folder) if folder else None}))
        return DONE
    shown = [name for name in METRICS if any(name in one.scores.values for one in results)]
    # one metric a line: there are more of them than a terminal is wide
    table = Table("", *(_heading(one) for one in results) if len(results) <= 3 else (), box=SIMPLE)
    if len(results) <= 3:
        for name in shown:
            table.add_row(METRICS[name][0], *(format_number(one.scores.values.get(name)) for one in results))
    else:
        for row in rows:
            table.add_column(f"{row.guidance}, {row.scene}\n{row.split}, {row.runs} runs")
        for name in shown:
            table.add_row(METRICS[name][0], *(format_number(row.values.get(name)) for row in rows))
        table.add_row("failed", *(f"{row.failed} of {row.runs}" for row in rows))
        table.add_row("diversity", *(format_number(row.diversity) for row in rows))
    Console().print(table)
    for one in results:
        for reason in [*one.scores.failed, *one.scores.notes]:
            say_note(f"{one.scores.run}: {one.scores.prompt}: {reason}")
    if folder is not None:
        print(f"{folder / SHEET}\n{folder / PAGE}")
    return DONE


def _heading(one: Evaluated) -> str:
    return f"{one.scores.prompt}\n{one.scores.guidance}, {one.scores.scene}, seed {one.scores.seed}"
