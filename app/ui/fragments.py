"""Parts of the page as HTML. Every text from outside is escaped; addresses are of our own routes only, and quoted."""

import html
import shlex
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from sds3d.config.layers import flatten
from sds3d.errors import ConfigError

from .export_files import Export, files_at, models_version
from .run_index import RunEntry
from .run_log import RunLog

NO_LOG = RunLog()
STATES = {"queued": "waiting", "new": "beginning"}  # what the badge says, where that is not the state's own name


def text(value: object) -> str:
    return html.escape(str(value), quote=True)


def address(entry: RunEntry, *parts: str) -> str:
    """Of a file of a run, as routes.py serves it; percent-quoted, so it needs no escaping."""
    return "/".join(["/run", *(quote(part, safe="") for part in (entry.name, *parts))])


def result_address(entry: RunEntry, name: str, step: int | None = None) -> str:
    """Of a result, or of a file that was exported from the checkpoint of a step."""
    return address(entry, name) if step is None else address(entry, "exports", str(step), name)


def preview_address(entry: RunEntry, log: RunLog) -> str:
    """Of the newest preview; empty where there is none yet."""
    return address(entry, "preview", log.preview) if log.preview else ""


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def badge(state: str) -> str:
    return f'<span class="badge {text(state)}">{text(STATES.get(state, state))}</span>'


def live(entry: RunEntry | None, log: RunLog, place: int) -> str:
    """The large view of one run: its picture, how far it is, and what it is doing."""
    if entry is None:
        return (
            '<div class="empty"><div class="cube"></div><h3>Nothing here yet</h3>'
            "<p>Say what to make, or choose a run from the history.</p></div>"
        )
    return (
        f'<div class="live" data-run="{text(entry.name)}" data-state="{text(entry.state)}" '
        f'data-active="{"yes" if entry.active else ""}">'
        f'<div class="head"><h3>{text(prompt_of(entry))}</h3>{badge(entry.state)}</div>'
        f"{picture(entry, log)}{progress(entry, log, place)}</div>"
    )


def prompt_of(entry: RunEntry) -> str:
    """The words of a run, as they are now if they were changed during the run."""
    try:
        return entry.config.prompt if entry.active else entry.prompt
    except ConfigError:
        return entry.prompt


def result_picture(entry: RunEntry) -> str:
    """Address of the picture that stands for an ended run; empty where there is none."""
    path = None if entry.active else entry.folder.picture()
    return f"{result_address(entry, path.name)}?v={path.stat().st_mtime_ns}" if path is not None else ""


def picture(entry: RunEntry, log: RunLog) -> str:
    """The result where there is one, else the newest preview."""
    result, preview = result_picture(entry), preview_address(entry, log)
    if result or preview:
        about = "views of the result" if result else "views during the run"
        return f'<img class="view" alt="{about}" src="{result or preview}">'
    waits = "waiting for its turn" if entry.state == "queued" else "getting ready" if entry.active else "no picture"
    return f'<div class="view none">{waits}</div>'


def progress(entry: RunEntry, log: RunLog, place: int) -> str:
    """Bar, step, pace and time left; the reason of a failure in its place."""
    if entry.state == "failed":
        return f'<div class="reason"><b>It failed.</b> {text(entry.reason) or "No reason is known."}</div>'
    if entry.state == "queued" and log.step == 0:
        ahead = "next in line" if place == 0 else f"{place} run{'s' if place > 1 else ''} before it"
        return f'<div class="facts"><span>{ahead}</span></div>'
    steps = log.steps or entry.config.steps
    done = steps if entry.state == "done" else min(log.step, steps)
    facts = [f"step {done} of {steps}"]
    if entry.state == "paused" and entry.job is not None:
        facts.append("paused; others go on")
    elif entry.state == "running":
        pace, left = log.pace(), log.seconds_left()
        facts += [f"{pace:.1f} steps/s"] if pace else []
        facts += ["making the mesh"] if done >= steps else [f"{duration(left)} left"] if left is not None else []
    spans = "".join(f"<span>{fact}</span>" for fact in facts)
    share = 100.0 * done / max(1, steps)
    return f'<div class="bar"><div style="width:{share:.1f}%"></div></div><div class="facts">{spans}</div>'


def details(entry: RunEntry | None, log: RunLog) -> str:
    """Curves of the losses and the last lines of the log."""
    if entry is None:
        return ""
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


def results(entry: RunEntry | None, log: RunLog) -> str:
    """Video, figures of the export's check, downloads, where it is, and how to make it again."""
    if entry is None or not entry.folder.exists():
        return ""
    orbit = entry.folder.artifacts().get("orbit")
    video = ""
    if orbit is not None:
        video = f'<video src="{result_address(entry, orbit.name)}" autoplay loop muted playsinline></video>'
    links = "".join(link(entry, name) for name in files_at(entry, None))
    again = f"Its options again; {log.altered}, so they make another object" if log.altered else "The same again"
    return (
        f'<div class="results" data-models="{text(models_version(entry))}">{video}'
        f'<div>{figures(log.stats)}<div class="files">{links}</div>'
        f"<label>Folder</label><code>{text(entry.folder.path.resolve())}</code>"
        f"<label>{text(again)}</label><code>{text(command(entry))}</code></div></div>"
    )


def link(entry: RunEntry, name: str, step: int | None = None) -> str:
    return f'<a class="file" download href="{result_address(entry, name, step)}">{text(name)}</a>'


def exported(entry: RunEntry | None, export: Export | None) -> str:
    """The format that was asked for last: links to its files, that it is being made, or why it could not be."""
    if entry is None or export is None:
        return ""
    if export.problem:
        return problem(f"{export.file_format}: {export.problem}")
    if not export.names:
        return f'<div class="note">making {text(export.file_format)}</div>'
    where = "" if export.step is None else f"<span>as it was at step {export.step}:</span>"
    links = "".join(link(entry, name, export.step) for name in export.names)
    return f'<div class="files">{where}{links}</div>'


FIGURES = (
    ("silhouette_iou", "silhouette", "{:.3f}"), ("psnr", "colours", "{:.1f} dB"), ("faces", "faces", "{:,}"),
    ("watertight", "closed", "{}"), ("pieces", "pieces", "{}"),
)  # fmt: skip


def figures(stats: Mapping[str, Any]) -> str:
    """What the check of the mesh measured."""
    values = {key: "yes" if value is True else "no" if value is False else value for key, value in stats.items()}
    rows = "".join(
        f"<div><dt>{label}</dt><dd>{form.format(values[key])}</dd></div>"
        for key, label, form in FIGURES
        if values.get(key) is not None
    )
    return f'<dl class="figures">{rows}</dl>' if rows else ""


def command(entry: RunEntry) -> str:
    """The command line that makes this run again."""
    return shlex.join(["sds3d", "generate", entry.prompt, "--config", str(entry.folder.config_file.resolve())])


def cards(entries: Sequence[tuple[RunEntry, str]], chosen: str) -> str:
    """A card for each (run, address of its picture)."""
    return f'<div class="cards">{"".join(card(*pair, chosen) for pair in entries)}</div>' if entries else ""


def history(entries: Sequence[RunEntry], total: int, chosen: str) -> str:
    """Cards of ended runs; of more than fit the newest."""
    if total == 0:
        return '<p class="none">No runs yet.</p>'
    return cards([(entry, thumbnail(entry)) for entry in entries], chosen)


@lru_cache(4096)
def thumbnail(entry: RunEntry) -> str:
    """Address of an ended run's picture: its result, else its newest preview. An entry that changes is another."""
    preview = entry.folder.newest_preview()
    return result_picture(entry) or (address(entry, "preview", preview.name) if preview is not None else "")


def card(entry: RunEntry, picture: str, chosen: str) -> str:
    when = time.strftime("%d %b %H:%M", time.localtime(entry.added))
    style = f"thumb\" style=\"background-image:url('{picture}')" if picture else "thumb none"
    return (
        f'<a class="card{" chosen" if entry.name == chosen else ""}" href="?run={quote(entry.name, safe="")}" '
        f'data-state="{text(entry.state)}"><span class="{style}"></span>'
        f'<span class="words">{text(entry.prompt)}</span>'
        f'<span class="meta">{badge(entry.state)} {when} · {text(entry.guidance)}</span></a>'
    )


def compared(first: tuple[RunEntry, RunLog] | None, second: tuple[RunEntry, RunLog] | None) -> str:
    """Two runs side by side: pictures, and the options in which they differ."""
    if first is None or second is None:
        return '<p class="none">Choose two runs.</p>'
    halves = "".join(
        f"<div><h4>{text(entry.prompt)}</h4>{badge(entry.state)}{picture(entry, log)}</div>"
        for entry, log in (first, second)
    )
    a, b = (flatten(entry.config.to_dict()) for entry, _ in (first, second))
    rows = "".join(
        f"<tr><th>{text(key)}</th><td>{text(a.get(key, '-'))}</td><td>{text(b.get(key, '-'))}</td></tr>"
        for key in dict.fromkeys([*a, *b])
        if a.get(key) != b.get(key)
    )
    table = f"<table>{rows}</table>" if rows else "<p>The same options.</p>"
    return f'<div class="pair">{halves}</div>{table}'


def again(entry: RunEntry | None) -> str:
    """What a job that ended early can do, in the words of its button."""
    if entry is None or entry.job is None or entry.state not in ("failed", "stopped"):
        return ""
    return "Go on from the last checkpoint" if entry.folder.checkpoint_steps() else "Try again"


def note(message: str) -> str:
    """Something that a person should know."""
    return f'<div class="note">{text(message)}</div>' if message else ""


def problem(message: str, field: str = "") -> str:
    """Something that a person has to correct; `field` is the option that it is about, and page.js puts it there."""
    return f'<div class="problem" role="alert" data-field="{text(field)}">{text(message)}</div>' if message else ""
