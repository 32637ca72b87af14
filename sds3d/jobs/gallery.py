"""What became of a batch: summary.json for programs, index.html with a picture of each result for people."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sds3d.atomic import write_atomic, write_json
from sds3d.errors import Sds3dError
from sds3d.jobs.queue import Job, Queue, State
from sds3d.sweeps.pages import render_page

SUMMARY, PAGE = "summary.json", "index.html"


@dataclass(frozen=True)
class JobOutcome:
    """One job and its results so far."""

    name: str
    prompt: str
    seed: int
    guidance: str
    scene: str
    state: State
    reason: str
    attempts: int
    run: str  # relative to the queue's folder, as the next
    picture: str | None
    seconds: float | None
    mesh: dict[str, Any]


def outcomes(queue: Queue, jobs: Sequence[Job]) -> list[JobOutcome]:
    """All of them, in order."""
    return [_outcome(queue.folder, job) for job in jobs]


def write_summary(folder: Path, results: Sequence[JobOutcome]) -> None:
    """Both files."""
    table = {"counts": Counter(each.state for each in results), "jobs": [asdict(each) for each in results]}
    write_json(folder / SUMMARY, table)
    write_atomic(folder / PAGE, page(results).encode())


def page(results: Sequence[JobOutcome]) -> str:
    """The page; every text from outside is escaped."""
    return render_page("batch", counts=Counter(each.state for each in results), results=results)


def _outcome(folder: Path, job: Job) -> JobOutcome:
    try:
        report = job.run.report() or {}
    except Sds3dError:  # damaged: then there are no figures to show
        report = {}
    seconds, mesh, picture = report.get("seconds"), report.get("mesh"), job.run.picture()
    total = seconds.get("total") if isinstance(seconds, dict) else None
    return JobOutcome(
        name=job.name,
        prompt=job.prompt,
        seed=job.seed,
        guidance=job.guidance,
        scene=job.scene,
        state=job.state,
        reason=job.reason,
        attempts=job.attempts,
        run=job.run.path.relative_to(folder).as_posix(),
        picture=None if picture is None else picture.relative_to(folder).as_posix(),
        seconds=total if isinstance(total, int | float) else None,
        mesh=mesh if isinstance(mesh, dict) else {},
    )
