"""What became of a batch: summary.json for programs, index.html with a picture of each result for people."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sds3d.atomic import write_atomic, write_json
from sds3d.errors import Sds3dError
from sds3d.jobs.queue import Job
from sds3d.sweeps.pages import render_page

SUMMARY, PAGE = "summary.json", "index.html"
FACTS = ("name", "prompt", "seed", "guidance", "scene", "state", "reason", "attempts")  # of a job, in the summary


def write_summary(folder: Path, jobs: Sequence[Job]) -> None:
    """Both files, into the queue's folder. On the page every text from outside is escaped."""
    counts, rows = Counter(job.state for job in jobs), [_row(folder, job) for job in jobs]
    write_json(folder / SUMMARY, {"counts": counts, "jobs": rows})
    write_atomic(folder / PAGE, render_page("batch", counts=counts, results=rows).encode())


def _row(folder: Path, job: Job) -> dict[str, Any]:
    """One job and its results so far; paths are relative to the folder."""
    try:
        report = job.run.report() or {}
    except Sds3dError:  # damaged: then there are no figures to show
        report = {}
    seconds, mesh, picture = report.get("seconds"), report.get("mesh"), job.run.picture()
    total = seconds.get("total") if isinstance(seconds, dict) else None
    return {
        **{fact: getattr(job, fact) for fact in FACTS},
        "run": job.run.path.relative_to(folder).as_posix(),
        "picture": None if picture is None else picture.relative_to(folder).as_posix(),
        "seconds": total if isinstance(total, int | float) else None,
        "mesh": mesh if isinstance(mesh, dict) else {},
    }
