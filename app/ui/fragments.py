"""Pieces of the page as HTML. Every text from outside is escaped; addresses are of our own routes only."""

import html
import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sds3d.run.artifacts import ARTIFACTS, artifacts_of
from sds3d.training.session import CHECKPOINTS

from .run_index import Work
from .run_log import RunLog, log_of, newest_preview

STATES = {
    "queued": "waiting", "running": "running", "paused": "paused", "stopped": "stopped", "failed": "failed",
    "done": "done", "unfinished": "unfinished",
}  # fmt: skip
PICTURES = ("particles.png", "sheet.png", "image.png")


def text(value: object) -> str:
    return html.escape(str(value), quote=True)


def address(work: Work, *parts: str) -> str:
    """Of a file of a run, as server.py serves it."""
    return "/".join(["/run", text(work.name), *map(text, parts)])


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return (
        f"{seconds:.0f} s"
        if seconds < 90
        else f"{seconds / 60:.0f} min"
        if seconds < 5400
        else f"{seconds / 3600:.1f} h"
    )


def badge(state: str) -> str:
    return f'<span class="badge {text(state)}">{STATES.get(state, text(state))}</span>'


def live(work: Work | None, place: int) -> str:
    """The large view of one run: its picture, how far it is, and what it is doing."""
    if work is None:
        return (
            '<div class="empty"><div class="cube"></div><h3>Nothing here yet</h3>'
            "<p>Say what to make, or choose a run from the history.</p></div>"
        )
    log = log_of(work.run)
    return (
        f'<div class="live" data-run="{text(work.name)}" data-state="{text(work.state)}">'
        f'<div class="head"><h3>{text(work.config.prompt)}</h3>{badge(work.state)}</div>'
        f"{picture(work)}{progress(work, log, place)}</div>"
    )


def picture(work: Work) -> str:
    """The result where there is one, else the newest preview."""
    shown = next((name for name in PICTURES if (work.run / name).is_file()), None)
    if shown is not None and not work.active:
        version = int((work.run / shown).stat().st_mtime)
        return f'<img class="view" alt="views of the result" src="{address(work, shown)}?v={version}">'
    newest = newest_preview(work.run)
    if newest is not None:
        return f'<img class="view" alt="views on the way" src="{address(work, "previews", newest)}">'
    waits = "waiting for its turn" if work.state == "queued" else "getting ready" if work.active else "no picture"
    return f'<div class="view none">{waits}</div>'


def progress(work: Work, log: RunLog, place: int) -> str:
    """Bar, step, pace and time left; the reason of a failure in its place."""
    if work.state == "failed":
        return f'<div class="reason"><b>It failed.</b> {text(work.reason) or "No reason is known."}</div>'
    if work.state == "queued" and log.step == 0:
        ahead = "next in line" if place == 0 else f"{place} run{'s' if place > 1 else ''} before it"
        return f'<div class="facts"><span>{ahead}</span></div>'
    steps = log.steps or work.config.steps
    done = steps if work.state == "done" else min(log.step, steps)
    facts = [f"step {done} of {steps}"]
    if work.state == "running":
        pace = log.pace()
        facts += [f"{pace:.1f} steps/s"] if pace else []
        facts += [f"{duration(log.seconds_left())} left" if done < steps else "making the mesh"]
    spans = "".join(f"<span>{fact}</span>" for fact in facts)
    share = 100.0 * done / max(1, steps)
    return f'<div class="bar"><div style="width:{share:.1f}%"></div></div><div class="facts">{spans}</div>'


def details(work: Work | None) -> str:
    """Curves of the losses and the last lines of the log."""
    if work is None:
        return ""
    log = log_of(work.run)
    curves = "".join(curve(name, points) for name, points in log.losses.items() if len(points) > 1)
    lines = "\n".join(text(line) for line in log.lines[-12:])
    return f'<div class="curves">{curves}</div><pre class="log">{lines}</pre>'


def curve(name: str, points: Sequence[tuple[int, float]], width: int = 180, height: int = 44) -> str:
    """A line over the steps, from the least value to the most."""
    steps, values = [step for step, _ in points], [value for _, value in points]
    low, high = min(values), max(values)
    across, up = max(1, steps[-1] - steps[0]), (high - low) or 1.0
    path = " ".join(
        f"{(step - steps[0]) / across * width:.1f},{height - 2 - (value - low) / up * (height - 4):.1f}"
        for step, value in points
    )
    return (
        f'<figure><svg viewBox="0 0 {width} {height}" preserveAspectRatio="none" role="img" aria-label="{text(name)}">'
        f'<polyline points="{path}"/></svg><figcaption>{text(name)} <b>{values[-1]:.4g}</b></figcaption></figure>'
    )


def results(work: Work | None) -> str:
    """Video, figures of the export's check, downloads, where it is, and how to make it again."""
    if work is None or not work.run.is_dir():
        return ""
    files = [name for name in download_names(work) if (work.run / name).is_file()]
    links = "".join(f'<a class="file" download href="{address(work, name)}">{text(name)}</a>' for name in files)
    video = ""
    if (work.run / "orbit.mp4").is_file():
        video = f'<video src="{address(work, "orbit.mp4")}" autoplay loop muted playsinline></video>'
    folder, log = text(work.run.resolve()), log_of(work.run)
    again = f"Its options again; {log.altered}, so they make another object" if log.altered else "The same again"
    return (
        f'<div class="results">{video}<div>{figures(log.stats)}<div class="files">{links}</div>'
        f"<label>Folder</label><code>{folder}</code><label>{again}</label><code>{text(command(work))}</code>"
        "</div></div>"
    )


def figures(stats: Mapping[str, Any]) -> str:
    """What the check of the mesh found."""
    rows = [
        (label, form.format(stats[key]) if not isinstance(stats[key], bool) else ("yes" if stats[key] else "no"))
        for key, label, form in (
            ("silhouette_iou", "silhouette", "{:.3f}"), ("psnr", "colours", "{:.1f} dB"), ("faces", "faces", "{:,}"),
            ("watertight", "closed", "{}"), ("pieces", "pieces", "{}"),
        )
        if stats.get(key) is not None
    ]  # fmt: skip
    return (
        ""
        if not rows
        else '<dl class="figures">' + "".join(f"<div><dt>{a}</dt><dd>{b}</dd></div>" for a, b in rows) + "</dl>"
    )


def download_names(work: Work) -> list[str]:
    """Files of a run that may be fetched, by name."""
    made = [ARTIFACTS[name].file_name for name in artifacts_of(work.config) if name in ARTIFACTS]
    return [*dict.fromkeys([*made, "report.json", "config.json", *PICTURES])]


def command(work: Work) -> str:
    """The command line that makes this run again."""
    return shlex.join(["sds3d", "generate", work.config.prompt, "--config", str((work.run / "config.json").resolve())])


def history(works: Sequence[Work], chosen: str | None) -> str:
    """A card for each run."""
    if not works:
        return '<p class="none">No runs yet.</p>'
    return '<div class="cards">' + "".join(card(work, work.name == chosen) for work in works) + "</div>"


def card(work: Work, chosen: bool) -> str:
    when = time.strftime("%d %b %H:%M", time.localtime(work.added))
    return (
        f'<a class="card{" chosen" if chosen else ""}" href="?run={text(work.name)}" data-state="{text(work.state)}">'
        f'{thumbnail(work)}<span class="words">{text(work.config.prompt)}</span>'
        f'<span class="meta">{badge(work.state)} {when} · {text(work.config.guidance.name)}</span></a>'
    )


def thumbnail(work: Work) -> str:
    shown = next((name for name in PICTURES if (work.run / name).is_file()), None)
    newest = newest_preview(work.run) if shown is None else None
    if shown is None and newest is None:
        return '<span class="thumb none"></span>'
    parts = (shown,) if shown is not None else ("previews", str(newest))
    version = f"?v={int((work.run / Path(*parts)).stat().st_mtime)}" if shown else ""
    return f'<span class="thumb" style="background-image:url(\'{address(work, *parts)}{version}\')"></span>'


def compared(first: Work | None, second: Work | None) -> str:
    """Two runs side by side: pictures, and the options in which they differ."""
    if first is None or second is None:
        return '<p class="none">Choose two runs.</p>'
    halves = "".join(
        f"<div><h4>{text(work.config.prompt)}</h4>{badge(work.state)}{picture(work)}</div>" for work in (first, second)
    )
    a, b = (flat(work.config.to_dict()) for work in (first, second))
    keys = [key for key in dict.fromkeys([*a, *b]) if a.get(key) != b.get(key)]
    cells = [(text(key), text(a.get(key, "-")), text(b.get(key, "-"))) for key in keys]
    rows = "".join(f"<tr><th>{key}</th><td>{one}</td><td>{other}</td></tr>" for key, one, other in cells)
    table = f"<table>{rows}</table>" if rows else "<p>The same options.</p>"
    return f'<div class="pair">{halves}</div>{table}'


def flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested options by dotted keys."""
    found: dict[str, Any] = {}
    for key, value in data.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def again(work: Work | None) -> str:
    """What a run that ended early can do, in the words of its button."""
    if work is None or work.state not in ("failed", "stopped"):
        return ""
    begun = any((work.run / CHECKPOINTS).glob("step-*"))
    return "Go on from the last checkpoint" if begun else "Try again"


def note(message: str) -> str:
    """Something that a person should know."""
    return f'<div class="note">{text(message)}</div>' if message else ""


def problem(message: str, field: str = "") -> str:
    """Something that a person has to mend; `field` is the option that it is about, and page.js puts it there."""
    return f'<div class="problem" role="alert" data-field="{text(field)}">{text(message)}</div>' if message else ""
