"""Runs a Session for the command line: shows its events, hears signals, and says at the end where everything is."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sds3d import RunConfig, Session

from ..exit_codes import DONE, INTERRUPTED, say_note, stopped_by_signals
from ..progress import choose_display, follow
from .export import describe_mesh

SHOWN = ("particles.png", "image.png", "sheet.png", "orbit.mp4", "mesh.glb", "splats.ply", "report.json")


def start(config: RunConfig, out: Path | None, strict: bool, dry_run: bool, quiet: bool, as_json: bool) -> int:
    """A new run, or with `dry_run` only the checks that come before one."""
    session = Session(config, out, strict=strict)
    if dry_run:
        for warning in session.check():
            say_note(f"warning: {warning}")
        say_note(f"this would run, into {session.out_dir} (or the next free name)")
        return DONE
    return run(session, quiet, as_json)


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
    """What was made, where, and how long it took."""
    mesh = report["mesh"]
    several = report.get("particles", [])
    first = "particles.png" if several else "sheet.png"
    notes = {first: "look at this first", "mesh.glb": describe_mesh(mesh) if "faces" in mesh else ""}
    lines = [f"{folder}/ in {report['seconds']['total']:.0f} s"]
    lines += [f"  {name:13} {notes.get(name, '')}".rstrip() for name in SHOWN if (folder / name).exists()]
    lines += [f"  particle-{number}/" for number in range(2, len(several) + 1)]
    return "\n".join(lines)


def render_again(folder: Path, size: int, views: int) -> int:
    """Sheet and orbit of an old run."""
    for path in Session.resume(folder).draw(views, size):
        print(path)
    return DONE
