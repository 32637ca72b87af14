"""`sds3d evaluate`: scores of finished runs, or of a suite that is run first."""

import itertools
import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, BadParameter, Option

from ..arguments import folder_of, overrides_of, parse_settings, require, split_names
from ..exit_codes import DONE, say_interrupted, say_note
from ..shared_options import Events
from ..terminal import show_table

if TYPE_CHECKING:
    from sds3d.evaluation.scores import Evaluated

SuiteOption = partial(Option, rich_help_panel="With --suite")


def evaluate(
    runs: Annotated[list[Path] | None, Argument(metavar="RUN", help="finished run folders")] = None,
    suite: Annotated[
        str | None, Option(metavar="NAME", help="run a suite of prompts first: quick, standard or seen")
    ] = None,
    guidance: Annotated[str | None, SuiteOption(metavar="NAMES", help="sds (default) or sds,vsd,...")] = None,
    scene: Annotated[
        str | None, SuiteOption(metavar="NAMES", help="gaussians,nerf; default: splats, then a mesh")
    ] = None,
    seeds: Annotated[int | None, SuiteOption(min=1, max=100, metavar="N", help="runs of each (default 1)")] = None,
    preset: Annotated[str | None, SuiteOption(metavar="NAME", help="draft, default or fine")] = None,
    assignments: Annotated[list[str] | None, SuiteOption("--set", metavar="KEY=VALUE", help="any option")] = None,
    clip: Annotated[Path | None, Option(metavar="DIR", help="a CLIP model's folder, for its score as well")] = None,
    out: Annotated[
        Path | None, Option(metavar="DIR", help="where the page goes; with --suite: outputs/suite-NAME")
    ] = None,
    as_json: Events = False,
) -> int:
    """Score finished RUNs, or a suite of prompts, against the true objects of the procedural world."""
    if bool(runs) == bool(suite):
        raise BadParameter("say either RUN folders or --suite NAME")
    of_the_suite = {"--guidance": guidance, "--scene": scene, "--seeds": seeds, "--preset": preset}
    require("--suite", suite is not None, {**of_the_suite, "--set": assignments})
    settings, out = parse_settings(assignments), folder_of(out)
    guidances, scenes = split_names(guidance or "sds"), [None] if scene is None else split_names(scene)
    if not guidances or not scenes:
        raise BadParameter("no guidance or no scene is named")
    from sds3d import RunFolder, load_config
    from sds3d.evaluation.classifier import load_classifier
    from sds3d.evaluation.classifier_scores import captions_for
    from sds3d.evaluation.clip import Clip
    from sds3d.evaluation.html_report import write_summary
    from sds3d.evaluation.scores import evaluate_run
    from sds3d.evaluation.suite import Suite, suite_prompts

    from ..progress import follow_all

    classifier, model = load_classifier(), Clip(clip) if clip else None
    if suite is None:
        title, folders = "evaluation", runs or []
        captions = captions_for(RunFolder(folder).config().prompt for folder in folders)
        results = [evaluate_run(folder, classifier, captions, model) for folder in folders]
    else:
        title, out = f"suite {suite}", out or Path("outputs") / f"suite-{suite}"
        configs = []
        for each in itertools.product(scenes, guidances, range(seeds or 1), suite_prompts(suite)):
            options = dict(zip(("scene", "guidance", "seed", "prompt"), each, strict=True))
            configs.append(load_config(None, preset, overrides_of(options, settings)))
        suite_runs = Suite(configs, out)
        if not follow_all(suite_runs.runs, as_json):
            return say_interrupted(out)
        results = list(suite_runs.evaluate(classifier, model))
    if out is not None:
        write_summary(results, classifier.accuracy, out, title)
    print_scores(results, out, as_json)
    return DONE


def print_scores(results: "list[Evaluated]", folder: Path | None, as_json: bool) -> None:
    """A table of the runs, or of the means of many; one metric a line, for there are more than a terminal is wide."""
    from rich.box import SIMPLE

    from sds3d.evaluation.html_report import PAGE, SHEET, means
    from sds3d.evaluation.scores import METRICS
    from sds3d.sweeps.pages import format_number

    runs, rows = [one.scores for one in results], means(results)
    if as_json:
        scores = {"means": [asdict(row) for row in rows], "runs": [run.to_dict() for run in runs]}
        print(json.dumps({"event": "Evaluated", **scores, "out_dir": str(folder) if folder else None}))
        return
    if len(runs) <= 3:
        headings = [f"{run.prompt}\n{run.guidance}, {run.scene}, seed {run.seed}" for run in runs]
        columns = [run.values for run in runs]
    else:
        headings = [f"{row.guidance}, {row.scene}\n{row.split}, {row.runs} runs" for row in rows]
        columns = [row.values for row in rows]
    table = list[list[str]]()
    for name, (label, _) in METRICS.items():
        if any(name in run.values for run in runs):
            table.append([label, *(format_number(values.get(name)) for values in columns)])
    if len(runs) > 3:
        table.append(["failed", *(f"{row.failed} of {row.runs}" for row in rows)])
        table.append(["diversity", *(format_number(row.diversity) for row in rows)])
    show_table(["", *headings], table, SIMPLE)
    for run in runs:
        for reason in [*run.failed, *run.notes]:
            say_note(f"{run.run}: {run.prompt}: {reason}")
    if folder is not None:
        print(f"{folder / SHEET}\n{folder / PAGE}")
