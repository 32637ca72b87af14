"""`sds3d generate`, `resume` and `render`: run Sessions, show their events, and print where the results are."""

import json
import shlex
from pathlib import Path

from sds3d import RunConfig, Session
from sds3d.run.events import Stop
from sds3d.run.folder import RunFolder, run_name
from sds3d.sweeps.best_of import RANKING, BestOf

from ..exit_codes import DONE, INTERRUPTED, say_note
from ..progress import choose_display, follow
from ..signals import stopped_by_signals
from .export import describe_mesh


def start(config: RunConfig, out: Path | None, strict: bool, dry_run: bool, quiet: bool, as_json: bool) -> int:
    """A new run; with `dry_run` only the checks that come before one. Returns the exit code."""
    session = Session(config, out, strict=strict)
    if dry_run:
        return report_checks(session, session.out_dir, "", quiet, as_json)
    return run(session, quiet, as_json)


def start_best(
    config: RunConfig,
    count: int,
    until: int | None,
    out: Path | None,
    strict: bool,
    dry_run: bool,
    quiet: bool,
    as_json: bool,
) -> int:
    """`count` seeds up to step `until` (a quarter of all by default), then the best of them to its end."""
    folder = out or Path("outputs") / f"{run_name(config)}-best-of-{count}"
    from sds3d.evaluation.scores import scorer_for  # with it comes the classifier that ranks the seeds

    best = BestOf(config, count, until or max(1, config.steps // 4), folder, scorer_for(config), strict)
    if dry_run:
        plan = f": {count} seeds to step {best.until}, then the best to step {config.steps}"
        return report_checks(Session(config, folder, strict=strict), folder, plan, quiet, as_json)
    with stopped_by_signals(best.runs.stop):
        for path, events in best.stages():
            if not (quiet or as_json):
                ranked = (folder / RANKING).is_file()
                say_note(f"{path.name} {'is the best so far: to its end' if ranked else f'to step {best.until}'}")
            last = follow(events, choose_display(quiet, as_json))
            if last.interrupted and best.runs.stopped:
                say_note(f"interrupted and saved in {shlex.quote(str(folder))}; the same command goes on")
                return INTERRUPTED
    if best.runs.stopped and not best.finished():  # between two stages
        say_note(f"interrupted and saved in {shlex.quote(str(folder))}; the same command goes on")
        return INTERRUPTED
    ranking = best.ranking()
    chosen = folder / ranking[0].folder
    if as_json:
        print(json.dumps({"ranking": [vars(row) for row in ranking], "best": str(chosen)}), flush=True)
        return DONE
    for row in [] if quiet else ranking:
        scores = ", ".join(f"{name} {value:.3f}" for name, value in row.scores.items())
        say_note(f"{row.folder}: {scores} at step {row.step}")
    print(chosen if quiet else summary(RunFolder(chosen)))
    return DONE


def report_checks(session: Session, folder: Path, plan: str, quiet: bool, as_json: bool) -> int:
    """The warnings of a run that is only checked, and where it would go."""
    warnings = session.check()
    if as_json:
        print(json.dumps({"event": "Checked", "warnings": warnings, "out_dir": str(folder)}))
        return DONE
    for warning in warnings:
        say_note(f"warning: {warning}")
    if quiet:
        print(folder)
    else:
        say_note(f"this would run into {folder} (or the next free name){plan}")
    return DONE


def go_on(folder: Path, quiet: bool, as_json: bool) -> int:
    """An old run from its newest checkpoint to the end."""
    return run(Session.resume(folder), quiet, as_json)


def run(session: Session, quiet: bool, as_json: bool) -> int:
    """All of a run; the exit code."""
    with stopped_by_signals(lambda: session.send(Stop())):
        last = follow(session.run(), choose_display(quiet, as_json))
    if last.interrupted:
        say_note(f"interrupted and saved; to go on: sds3d resume {shlex.quote(str(session.out_dir))}")
        return INTERRUPTED
    if quiet:
        print(session.out_dir)
    elif not as_json:
        print(summary(session.folder))
    return DONE


def summary(folder: RunFolder) -> str:
    """The results of a finished run and how long it took."""
    report, artifacts = folder.report(), folder.artifacts()
    assert report is not None, "a run that is finished has a report"
    mesh, particles = report["mesh"], report.get("particles", [])
    notes = {"glb": describe_mesh(mesh) if "faces" in mesh else "", next(iter(artifacts), ""): "look at this first"}
    lines = [f"{folder.path}/ in {report['seconds']['total']:.0f} s"]
    lines += [f"  {path.name:13} {notes.get(name, '')}".rstrip() for name, path in artifacts.items()]
    lines += [f"  {folder.results_folder(number).name}/" for number in range(2, len(particles) + 1)]
    return "\n".join(lines)


def render_again(folder: Path, size: int, views: int) -> int:
    """Sheet and orbit of an old run."""
    for path in Session.resume(folder).draw(views, size):
        print(path)
    return DONE
