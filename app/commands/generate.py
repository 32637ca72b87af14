"""`sds3d generate`, `resume` and `render`: run Sessions, show their events, and print where the results are."""

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from .. import shared_options as shared
from ..arguments import out_of, overrides_of, parse_settings, prior_option, refuse_together, require
from ..exit_codes import DONE, INTERRUPTED, say_interrupted, say_note
from ..shared_options import Output, Part
from ..signals import stopped_by_signals
from .export import describe_mesh

if TYPE_CHECKING:
    from sds3d import RunConfig, RunFolder, Session
    from sds3d.sweeps.best_of import BestOf


def generate(
    prompt: shared.Prompt,
    settings: shared.Settings = None,
    preset: shared.Preset = None,
    recipe: shared.Recipe = None,
    steps: shared.Steps = None,
    seed: shared.Seed = None,
    negative_prompt: shared.Negative = None,
    image: shared.Image = None,
    config_file: shared.ConfigFile = None,
    assignments: shared.AnyOption = None,
    prior: shared.Prior = None,
    guidance: shared.Guidance = None,
    scene: shared.Scene = None,
    rasterizer: Annotated[
        str | None, Part(metavar="NAME", help="of splats: auto, native, gsplat (CUDA), torch")
    ] = None,
    device: shared.Device = None,
    out: Annotated[
        Path | None, Output(metavar="PATH", help="run folder, default outputs/PROMPT-SEED; or a file: mug.glb")
    ] = None,
    best_of: Annotated[int | None, Output(min=2, max=64, metavar="N", help="begin N seeds, finish the best")] = None,
    until: Annotated[int | None, Output(min=1, metavar="STEP", help="with --best-of: where the best is chosen")] = None,
    print_config: Annotated[
        bool, Output("--print-config", help="print each option and who set it; --json for --config")
    ] = False,
    dry_run: shared.DryRun = False,
    strict: shared.Strict = False,
    quiet: shared.Quiet = False,
    as_json: shared.Events = False,
) -> int:
    """Make a 3D object from PROMPT."""
    runs = {"--best-of": best_of, "--out": out, "--dry-run": dry_run, "--strict": strict, "--quiet": quiet}
    refuse_together("--print-config", print_config, runs)
    refuse_together("--json", as_json, {"--quiet": quiet})
    require("--best-of", best_of is not None, {"--until": until})
    options = {
        "prompt": prompt,
        "negative_prompt": negative_prompt,
        "prior": prior_option(prior),
        "reference_image.path": None if image is None else str(image),
        "guidance": guidance,
        "scene": scene,
        "steps": steps,
        "seed": seed,
        "device": device,
        "scene.rasterizer": rasterizer,
    }
    overrides = overrides_of(options, parse_settings([*(assignments or []), *(settings or [])]))
    out, file = out_of(out)
    from sds3d import Session, load_config
    from sds3d.config import printable

    config = load_config(config_file, preset, overrides, recipe)
    if print_config:
        print(json.dumps(printable(config), indent=2) if as_json else config_text(config))
        return DONE
    if file is not None:
        check_file(file, config)
    plan = f", and write {file}" if file is not None else ""
    if best_of is None:
        session = Session(config, out, strict=strict)
        return report_checks(session, plan, quiet, as_json) if dry_run else run(session, quiet, as_json, file)
    from sds3d.evaluation.scores import scorer_for  # with it comes the classifier that ranks the seeds
    from sds3d.run.folder import run_name
    from sds3d.sweeps.best_of import BestOf

    folder = out or Path("outputs") / f"{run_name(config)}-best-of-{best_of}"
    until = until or max(1, config.steps // 4)
    best = BestOf(config, best_of, until, folder, scorer_for(config), strict)
    if not dry_run:
        return run_best(best, quiet, as_json, file)
    plan += f": {best_of} seeds to step {until}, then the best to step {config.steps}"
    return report_checks(Session(config, folder, strict=strict), plan, quiet, as_json)


def config_text(config: "RunConfig") -> str:
    """One line for each option, `key = value  # source`, with values as JSON; --set takes them so, but for prompts."""
    from sds3d.config.layers import flatten

    sources = config.sources
    rows = {key: f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in flatten(config.to_dict()).items()}
    width = min(60, max(map(len, rows.values())))
    return "\n".join(f"{row:{width}}  # {sources[key]}" for key, row in rows.items())


def report_checks(session: "Session", plan: str, quiet: bool, as_json: bool) -> int:
    """The warnings of a run that is only checked, and where it would go."""
    warnings = session.check()
    if as_json:
        print(json.dumps({"event": "Checked", "warnings": warnings, "out_dir": str(session.out_dir)}))
        return DONE
    for warning in warnings:
        say_note(f"warning: {warning}")
    if quiet:
        print(session.out_dir)
    else:
        say_note(f"this would run into {session.out_dir} (or the next free name){plan}")
    return DONE


def check_file(file: Path, config: "RunConfig") -> None:
    """An error, before anything runs, where the run's result cannot become that file."""
    from sds3d.run.artifacts import format_for

    format_for(file, config.final.scene)


def run_best(best: "BestOf", quiet: bool, as_json: bool, file: Path | None = None) -> int:
    """All seeds up to the ranking, then the best of them to its end; the exit code."""
    from sds3d import Session
    from sds3d.run.folder import RunFolder
    from sds3d.sweeps.best_of import RANKING

    from ..progress import choose_display, follow

    with stopped_by_signals(best.runs.stop):
        for path, events in best.stages():
            if not (quiet or as_json):
                ranked = (best.folder / RANKING).is_file()
                say_note(f"{path.name} {'is the best so far: to its end' if ranked else f'to step {best.until}'}")
            follow(events, choose_display(quiet, as_json))
    if best.runs.stopped and not best.finished():
        return say_interrupted(best.folder)
    ranking = best.ranking()
    chosen = best.folder / ranking[0].folder
    if as_json:
        print(json.dumps({"ranking": [vars(row) for row in ranking], "best": str(chosen)}), flush=True)
    elif quiet:
        print(chosen)
    else:
        for row in ranking:
            scores = ", ".join(f"{name} {value:.3f}" for name, value in row.scores.items())
            say_note(f"{row.folder}: {scores} at step {row.step}")
        print(summary(RunFolder(chosen)))
    if file is not None:
        hand_over(Session.resume(chosen), file, quiet, as_json)
    return DONE


def resume(folder: shared.Run, quiet: shared.Quiet = False, as_json: shared.Events = False) -> int:
    """Go on with a run that was interrupted."""
    refuse_together("--json", as_json, {"--quiet": quiet})
    from sds3d import Session

    return run(Session.resume(folder), quiet, as_json)


def run(session: "Session", quiet: bool, as_json: bool, file: Path | None = None) -> int:
    """All of a run, and its result as `file`; the exit code."""
    from sds3d.errors import OutputError
    from sds3d.run.events import Stop

    from ..progress import choose_display, follow

    try:
        with stopped_by_signals(lambda: session.send(Stop())):
            last = follow(session.run(), choose_display(quiet, as_json))
    except OutputError as error:
        if session.folder.exists():
            error.hint = error.hint or f"when there is room: sds3d resume {shlex.quote(str(session.out_dir))}"
        raise
    if last.interrupted:
        folder = shlex.quote(str(session.out_dir))
        then = "" if file is None else f", then: sds3d export {folder} --out {shlex.quote(str(file))}"
        say_note(f"interrupted and saved; to go on: sds3d resume {folder}{then}")
        return INTERRUPTED
    if quiet:
        print(session.out_dir)
    elif not as_json:
        print(summary(session.folder))
    if file is not None:
        hand_over(session, file, quiet, as_json)
    return DONE


def hand_over(session: "Session", file: Path, quiet: bool, as_json: bool) -> None:
    """The result of a finished run as the file that was asked for."""
    written = session.hand_over(file)
    if as_json:
        print(json.dumps(written.to_dict()), flush=True)
    elif not quiet:
        print(file)


def summary(folder: "RunFolder") -> str:
    """The results of a finished run and how long it took."""
    report, artifacts = folder.report(), folder.artifacts()
    assert report is not None, "a run that is finished has a report"
    mesh, particles = report["mesh"], report.get("particles", [])
    notes = {"glb": describe_mesh(mesh) if "faces" in mesh else "", next(iter(artifacts), ""): "look at this first"}
    stages = [(stage["scene"], stage["seconds"]) for stage in report.get("stages", []) if "seconds" in stage]
    spent = [*stages, ("export", report["seconds"]["export"])] if stages else []
    parts = ", ".join(f"{name} {seconds:.0f}" for name, seconds in spent)
    lines = [f"{folder.path}/ in {report['seconds']['total']:.0f} s{': ' if parts else ''}{parts}"]
    lines += [f"  {path.name:13} {notes.get(name, '')}".rstrip() for name, path in artifacts.items()]
    lines += [f"  {folder.results_folder(number).name}/" for number in range(2, len(particles) + 1)]
    return "\n".join(lines)


def render(
    folder: shared.Run,
    size: Annotated[int, Option(min=16, max=2048, metavar="N", help="side of each view in pixels")] = 256,
    views: Annotated[int, Option(min=1, max=64, metavar="N", help="views on the sheet")] = 8,
) -> None:
    """Draw a run's sheet and orbit again."""
    from sds3d import Session

    for path in Session.resume(folder).draw(views, size):
        print(path)
