"""`sds3d generate`, `resume` and `render`: run Sessions, show their events, and print where the results are."""

import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sds3d import RunConfig, Session
from sds3d.run.folder import run_name
from sds3d.sweeps.best_of import RANKING, BestOf

from ..exit_codes import DONE, INTERRUPTED, say_note, stopped_by_signals
from ..progress import choose_display, follow
from .export import describe_mesh

SHOWN = ("particles.png", "image.png", "sheet.png", "orbit.mp4", "mesh.glb", "splats.ply", "report.json")


def print_config(config: RunConfig, as_json: bool) -> int:
    """Every option: as JSON, which --config reads, or a line each with where the value is from."""
    if as_json:
        print(json.dumps(config.to_dict(), indent=2))
    else:
        print("\n".join(config_lines(config.to_dict(), config.sources)))
    return DONE


def config_lines(values: Mapping[str, Any], sources: Mapping[str, str]) -> list[str]:
    """`key  value  source` in columns; a value without a source of its own has that of the option it belongs to."""
    rows = []
    for key, value in flattened(values):
        owner = key
        while owner not in sources and "." in owner:
            owner = owner.rpartition(".")[0]
        rows.append((key, json.dumps(value, ensure_ascii=False), sources.get(owner, "default")))
    wide = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
    return [f"{key:{wide[0]}}  {text:{min(wide[1], 40)}}  {source}" for key, text, source in rows]


def flattened(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of everything that is not a mapping with entries."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flattened(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


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
    best = BestOf(config, count, until or max(1, config.steps // 4), folder, strict=strict)
    if dry_run:
        plan = f": {count} seeds to step {best.until}, then the best to step {config.steps}"
        return report_checks(Session(config, folder, strict=strict), folder, plan, quiet, as_json)
    with stopped_by_signals(best.stop):
        for path, events in best.stages():
            if not (quiet or as_json):
                ranked = (folder / RANKING).is_file()
                say_note(f"{path.name} {'is the best so far: to its end' if ranked else f'to step {best.until}'}")
            last = follow(events, choose_display(quiet, as_json))
            if last.interrupted and best.stopped:
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
    print(chosen if quiet else summary(chosen, json.loads((chosen / "report.json").read_text())))
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
    with stopped_by_signals(session.stop):
        last = follow(session.run(), choose_display(quiet, as_json))
    if last.interrupted:
        say_note(f"interrupted and saved; to go on: sds3d resume {shlex.quote(str(session.out_dir))}")
        return INTERRUPTED
    if quiet:
        print(session.out_dir)
    elif not as_json:
        print(summary(session.out_dir, last.report))
    return DONE


def summary(folder: Path, report: Mapping[str, Any]) -> str:
    """The files of a finished run and how long it took."""
    mesh, particles = report["mesh"], report.get("particles", [])
    first = "particles.png" if particles else "sheet.png"
    notes = {first: "look at this first", "mesh.glb": describe_mesh(mesh) if mesh else ""}
    lines = [f"{folder}/ in {report['seconds']['total']:.0f} s"]
    lines += [f"  {name:13} {notes.get(name, '')}".rstrip() for name in SHOWN if (folder / name).exists()]
    lines += [f"  particle-{number}/" for number in range(2, len(particles) + 1)]
    return "\n".join(lines)


def render_again(folder: Path, size: int, views: int) -> int:
    """Sheet and orbit of an old run."""
    for path in Session.resume(folder).draw(views, size):
        print(path)
    return DONE
