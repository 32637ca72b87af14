"""Parts of the page as HTML: the macros of fragments.html. Addresses are of our own routes only, and quoted."""

import shlex
from collections.abc import Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from time import localtime, strftime
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from sds3d.config.layers import flatten
from sds3d.errors import ConfigError

from .export_files import Export, files_at
from .run_index import RunEntry
from .run_log import RunLog

NO_LOG = RunLog()
MODELS = {"mesh": "glb", "splats": "ply"}  # that stage.js reads, by the names of sds3d.run.artifacts
CARDS = 300  # that are shown at most


def address(entry: RunEntry, *parts: object) -> str:
    """Of a file of a run, as routes.py serves it; percent-quoted, so it needs no escaping."""
    return "/".join(["run", *(quote(str(part), safe="") for part in (entry.name, *parts))])


def preview_address(entry: RunEntry, log: RunLog) -> str:
    """Of the newest preview; empty where there is none yet."""
    return address(entry, "preview", log.preview) if log.preview else ""


def _newest(path: Path, entry: RunEntry, *parts: str) -> str:
    """The address of a file of a run, another when the file is; empty where there is none."""
    try:
        return f"{address(entry, *parts)}?v={path.stat().st_mtime_ns}"
    except OSError:
        return ""


def state_of(entry: RunEntry, log: RunLog) -> str:
    """Of a run, as a person is told it."""
    return "saving" if entry.state == "running" and log.exporting else entry.state


def stage_of(entry: RunEntry, log: RunLog) -> dict[str, Any]:
    """What stage.js shows of a run: addresses, each empty where there is nothing yet, and the light that falls on a
    finished mesh. Empty for what has no shape: flat images, and several particles, of which there are pictures.
    """
    config = entry.config
    if config.scene.is_flat or config.particles > 1:
        return {}
    folder = entry.folder
    found = {"live": _newest(folder.live_file, entry, "live", "all"), **dict.fromkeys(MODELS, "")}
    if not entry.active:
        paths = {name: folder.artifact(artifact) for name, artifact in MODELS.items()}
        found |= {name: _newest(path, entry, path.name) for name, path in paths.items()}
        if not any(found.values()):
            return {}
    hint = "waiting for its turn" if entry.state == "queued" else "getting ready"
    light = None if entry.active else _light(entry)
    picture = result_picture(entry) or preview_address(entry, log)
    return {"run": entry.name, "hint": hint, "picture": picture, "light": light, **found}


@lru_cache(4096)
def _light(entry: RunEntry) -> dict[str, Any] | None:
    """That of an ended run's scene, whose mesh has colours without it."""
    light = getattr(entry.scene, "light", None)
    return light.model_dump() if light is not None else None


def result_picture(entry: RunEntry) -> str:
    """Address of the picture that stands for an ended run; empty where there is none."""
    path = None if entry.active else entry.folder.picture()
    return _newest(path, entry, path.name) if path is not None else ""


@lru_cache(4096)
def thumbnail(entry: RunEntry) -> str:
    """Address of an ended run's picture: its result, else its newest preview. An entry that changes is another."""
    preview = entry.folder.newest_preview()
    return result_picture(entry) or (address(entry, "preview", preview.name) if preview is not None else "")


def prompt_of(entry: RunEntry) -> str:
    """The words of a run, as they are now if they were changed during the run."""
    try:
        return entry.config.prompt if entry.active else entry.prompt
    except ConfigError:
        return entry.prompt


def command(entry: RunEntry) -> str:
    """The command line that makes this run again."""
    return shlex.join(["sds3d", "generate", entry.prompt, "--config", str(entry.folder.config_file.resolve())])


USED = (
    address, command, files_at, preview_address, prompt_of, result_picture, stage_of, state_of, localtime, strftime,
)  # fmt: skip
ENVIRONMENT = Environment(
    loader=PackageLoader("sds3d_app.ui", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
    lstrip_blocks=True, auto_reload=False,
)  # fmt: skip
ENVIRONMENT.globals.update({function.__name__: function for function in USED})
MACROS = ENVIRONMENT.get_template("fragments.html").module


def render(macro: str, *values: Any) -> str:
    """One of the macros, filled with these values."""
    return str(getattr(MACROS, macro)(*values))


def live(entry: RunEntry | None, log: RunLog, place: int) -> str:
    """The large view of one run: its picture, how far it is, and what it is doing."""
    return render("live", entry, log, place)


def details(log: RunLog) -> str:
    """Curves of the losses and the last lines of the log."""
    return render("details", log)


def results(entry: RunEntry | None, log: RunLog) -> str:
    """Video, figures of the export's check, downloads, where it is, and how to make it again."""
    if entry is None or not entry.folder.exists():
        return ""
    return render("results", entry, log, entry.folder.artifacts().get("orbit"))


def exported(entry: RunEntry | None, export: Export | None) -> str:
    """The format that was asked for last: links to its files, that it is being made, or why it could not be."""
    return render("exported", entry, export) if entry is not None and export is not None else ""


def cards(entries: Sequence[tuple[RunEntry, str]], chosen: str) -> str:
    """A card for each (run, address of its picture)."""
    return render("cards", entries, chosen)


def history(entries: Sequence[RunEntry], find: str, chosen: str) -> str:
    """Cards of the newest ended runs with all of these words."""
    if not entries:
        return render("nothing", "No runs yet.")
    words = find.lower().split()
    ended = (entry for entry in entries if not entry.active)
    found = (entry for entry in ended if all(word in f"{entry.prompt} {entry.name}".lower() for word in words))
    return cards([(entry, thumbnail(entry)) for entry in islice(found, CARDS)], chosen)


def compared(runs: Sequence[tuple[RunEntry, RunLog]]) -> str:
    """Two runs side by side: pictures, and the options in which they differ."""
    if len(runs) < 2:
        return render("nothing", "Choose two runs.")
    a, b = (flatten(entry.config.to_dict()) for entry, _ in runs)
    different = [key for key in dict.fromkeys([*a, *b]) if a.get(key) != b.get(key)]
    return render("compared", runs, [(key, a.get(key, "-"), b.get(key, "-")) for key in different])


def again(entry: RunEntry | None) -> str:
    """What a job that ended early can do, in the words of its button."""
    if entry is None or entry.job is None or entry.state not in ("failed", "stopped"):
        return ""
    return "Go on from the last checkpoint" if entry.folder.checkpoint_steps() else "Try again"


def note(message: str) -> str:
    """Something that a person should know."""
    return render("note", message) if message else ""


def problem(message: str, field: str = "") -> str:
    """Something that a person has to correct; `field` is the option that it is about, and page.js puts it there."""
    return render("problem", message, field)
