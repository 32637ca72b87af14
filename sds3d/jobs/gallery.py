"""What became of a batch: summary.json for programs, index.html with a picture of each result for people."""

import html
import json
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from sds3d.atomic import write_atomic
from sds3d.config.run_config import read_json_object
from sds3d.errors import Sds3dError
from sds3d.jobs.queue import Job, Ledger, State
from sds3d.training.session import REPORT

SUMMARY, PAGE = "summary.json", "index.html"
PICTURES = ("particles.png", "sheet.png", "image.png")


@dataclass(frozen=True)
class Outcome:
    """One job, as far as it is."""

    name: str
    prompt: str
    seed: int
    guidance: str
    scene: str
    state: State
    reason: str
    attempts: int
    run: str  # relative to the batch's folder
    seconds: float | None
    mesh: dict[str, Any]


def outcomes(ledger: Ledger, jobs: Sequence[Job]) -> list[Outcome]:
    """All of them, in order."""
    return [_outcome(ledger, job) for job in jobs]


def counts(found: Sequence[Outcome]) -> dict[str, int]:
    """How many jobs are in each state."""
    return dict(Counter(outcome.state for outcome in found))


def write_summary(ledger: Ledger, found: Sequence[Outcome]) -> None:
    """Both files, into the ledger's folder."""
    table = {"counts": counts(found), "jobs": [asdict(outcome) for outcome in found]}
    write_atomic(ledger.folder / SUMMARY, (json.dumps(table, indent=2, ensure_ascii=False) + "\n").encode())
    write_atomic(ledger.folder / PAGE, page(ledger.folder, found).encode())


def page(folder: Path, found: Sequence[Outcome]) -> str:
    """The page; every text from outside is escaped."""
    template = string.Template(resources.files("sds3d.sweeps").joinpath("pages", "batch.html").read_text())
    facts = ", ".join(f"{number} {state}" for state, number in counts(found).items())
    return template.substitute(facts=html.escape(facts), cards="\n".join(_card(folder, outcome) for outcome in found))


def _outcome(ledger: Ledger, job: Job) -> Outcome:
    status, config = ledger.status(job), job.config
    try:
        report = read_json_object(job.run / REPORT) if (job.run / REPORT).is_file() else {}
    except Sds3dError:  # damaged: then there are no figures to show
        report = {}
    seconds, mesh = report.get("seconds"), report.get("mesh")
    return Outcome(
        name=job.name,
        prompt=config.prompt,
        seed=config.seed,
        guidance=config.guidance.name,
        scene=config.scene.name,
        state=status.state,
        reason=status.reason,
        attempts=status.attempts,
        run=job.run.relative_to(ledger.folder).as_posix(),
        seconds=seconds.get("total") if isinstance(seconds, dict) else None,
        mesh=mesh if isinstance(mesh, dict) else {},
    )


def _card(folder: Path, outcome: Outcome) -> str:
    picture = next((name for name in PICTURES if (folder / outcome.run / name).is_file()), None)
    shown = f'<a href="{outcome.run}/{picture}"><img src="{outcome.run}/{picture}" alt=""></a>' if picture else ""
    took = f", {outcome.seconds:.0f} s" if outcome.seconds is not None else ""
    mesh = outcome.mesh.get("refused") or (f"{outcome.mesh['faces']} triangles" if "faces" in outcome.mesh else "")
    notes = " ".join(part for part in (outcome.reason, str(mesh)) if part)
    return (
        f'<figure class="{outcome.state}">{shown}<figcaption><b>{html.escape(outcome.prompt)}</b> '
        f"<span>{outcome.state}</span><br>{html.escape(outcome.guidance)}, {html.escape(outcome.scene)}, "
        f"seed {outcome.seed}{took}<br>{html.escape(notes)}</figcaption></figure>"
    )
