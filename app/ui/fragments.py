"""Parts of the page as HTML: the macros of fragments.html. Addresses are of our own routes only, and quoted."""

import re
import shlex
from collections.abc import Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from sds3d.config.layers import flatten
from sds3d.errors import ConfigError, Sds3dError
from sds3d.run.artifacts import artifacts_of

from .export_files import Export, files_at
from .run_index import RunEntry
from .run_log import RunLog

NO_LOG = RunLog()
# Shown first: a default run of the prior that ships, with export.faces=3000 and export.texture_size=256.
EXAMPLE = {
    "run": "example", "prompt": "a red mug", "hint": "", "picture": "example/mug.png", "mesh": "example/mug.glb",
    "light": {"direction": [0.55, 0.35, 0.76], "ambient": 0.7, "diffuse": 0.34}, "live": "", "splats": "",
    "turns": True,
}  # fmt: skip
# What can be done to a job in a state: in words, and what comes of it.
STOP = ("Stop and keep it", "makes the results of what is there; it can go on later")
ORDERS: dict[str, dict[str, tuple[str, str]]] = {
    "queued": {"stop": ("Leave the queue", "it is not made")},
    "running": {"pause": ("Pause", "the next run of the queue begins"), "stop": STOP},
    "paused": {"resume": ("Go on", "it waits for its turn"), "stop": STOP},
}
FORMATS = {  # in words, where these say more than the name
    "glb": "GLB, for most programs", "stl": "STL, for printing", "3mf": "3MF, for printing", "usdz": "USDZ, for Apple",
    "obj": "OBJ", "gltf": "glTF with its files", "mesh-ply": "PLY of the mesh", "ply": "PLY of the splats",
    "splat": "SPLAT", "sheet": "Sheet of views", "orbit": "Video", "check": "Check of the mesh",
    "turntable": "Video of the mesh", "image": "PNG",
}  # fmt: skip
STEPS = {"mesh": "Mesh", "image": "Picture"}  # what the steps of a scene make; others make a shape
MODELS = {"mesh": "glb", "splats": "ply"}  # that stage.js reads, by the names of sds3d.run.artifacts
CARDS = 300  # that are shown at most


def address(entry: RunEntry, *parts: object) -> str:
    """Of a file of a run, as routes.py serves it, from the page; percent-quoted, so it needs no escaping."""
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


def stages_of(entry: RunEntry, log: RunLog) -> list[tuple[str, str]]:
    """(name, "done", "now", "failed" or "") of all that a run goes through, in order."""
    config, state = entry.config, state_of(entry, log)
    scenes = [config.in_stage(number).scene for number in range(len(config.stages) + 1)]
    steps = [STEPS.get(scene.name, "Shape") for scene in scenes]
    last = "Save" if "glb" not in scenes[-1].results else "Check" if "Mesh" in steps else "Mesh"
    names = ["Queue", "Load", *steps, last]
    if state == "done" or (state == "stopped" and result_picture(entry)):
        return [(name, "done") for name in names]
    at = len(names) - 1 if log.exporting else 2 + min(log.stage, len(steps) - 1) if log.started else 1
    at = 0 if state == "queued" and not log.started else at
    now = "failed" if state == "failed" else "now"
    return [(name, "done" if place < at else now if place == at else "") for place, name in enumerate(names)]


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
def thumbnail(entry: RunEntry) -> tuple[str, bool]:
    """Of an ended run: (address of its result, else of its newest preview; whether that is no sheet of views). An entry
    that changes is another."""
    preview = entry.folder.newest_preview()
    picture = result_picture(entry) or (address(entry, "preview", preview.name) if preview is not None else "")
    return picture, _is_flat(entry)


def under_way(entry: RunEntry, log: RunLog) -> tuple[str, bool]:
    """As `thumbnail`, of a run that has not ended."""
    return preview_address(entry, log), _is_flat(entry)


def _is_flat(entry: RunEntry) -> bool:
    try:
        return entry.config.scene.is_flat and entry.config.particles == 1
    except Sds3dError:  # it is damaged, or gone
        return False


def prompt_of(entry: RunEntry) -> str:
    """The words of a run, as they are now if they were changed during the run."""
    try:
        return entry.config.prompt if entry.active else entry.prompt
    except ConfigError:
        return entry.prompt


def size_of(path: Path) -> str:
    """Of a file, in words."""
    try:
        size = path.stat().st_size
    except OSError:
        return "gone"
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{max(1, round(size / 1e3))} KB"


def kind_of(name: str) -> str:
    """Of a file, by its name."""
    return Path(name).suffix[1:].upper()


def file_name(entry: RunEntry, name: str) -> str:
    """Of a file that stands alone, where it is taken home to: by the words of its run."""
    words = re.findall(r"\w+", entry.prompt.lower())
    return "-".join(words)[:80] + Path(name).suffix if words else name


def command(entry: RunEntry) -> str:
    """The command line that makes this run again."""
    return shlex.join(["sds3d", "generate", entry.prompt, "--config", str(entry.folder.config_file.resolve())])


USED = (
    address, command, file_name, kind_of, preview_address, prompt_of, result_picture, size_of, stage_of, stages_of,
    state_of,
)  # fmt: skip
ENVIRONMENT = Environment(
    loader=PackageLoader("sds3d_app.ui", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
    lstrip_blocks=True, auto_reload=False,
)  # fmt: skip
ENVIRONMENT.globals.update({function.__name__: function for function in USED}, example=EXAMPLE)
MACROS = ENVIRONMENT.get_template("fragments.html").module


def render(macro: str, *values: Any) -> str:
    """One of the macros, filled with these values."""
    return str(getattr(MACROS, macro)(*values))


def live(entry: RunEntry | None, log: RunLog, place: int, missing: str = "") -> str:
    """What stands over and below the stage of one run: its words, how far it is, and what it is doing. Without one, an
    example, and that there is no run of the name `missing` any more if somebody asked for it."""
    return render("live", entry, log, place, missing)


def details(log: RunLog) -> str:
    """Curves of the losses and the last lines of the log."""
    return render("details", log)


def results(entry: RunEntry | None, log: RunLog) -> str:
    """Video, figures of the export's check, downloads, where it is, and how to make it again."""
    if entry is None or not entry.folder.exists():
        return ""
    return render("results", entry, log, entry.folder.artifacts().get("orbit"))


def orders(entry: RunEntry | None, state: str) -> str:
    """Buttons for what can be done to a job now."""
    if entry is None or entry.job is None:
        return ""
    labels = ORDERS.get(state, {})
    if state in ("failed", "stopped"):
        goes_on = bool(entry.folder.checkpoint_steps())
        labels = {"again": ("Go on", "from the last checkpoint") if goes_on else ("Try again", "from the beginning")}
    return render("orders", entry, labels)


def downloads(entry: RunEntry | None, export: Export | None) -> str:
    """The file that most want, a menu of the others, and what can be made; nothing while there is none."""
    if entry is None or entry.active or not entry.folder.exists():
        return ""
    files, made = files_at(entry, None), entry.folder.artifacts()
    first = next((made[name].name for name in ("glb", "textured", "ply", "image", "sheet") if name in made), "")
    formats = {name: FORMATS.get(name, name.upper()) for name in artifacts_of(entry.scene) if name not in made}
    return render("downloads", entry, files, first, formats, export)


def cards(entries: Sequence[tuple[RunEntry, tuple[str, bool]]], chosen: str) -> str:
    """A card for each (run, its picture as of `thumbnail`)."""
    return render("cards", entries, chosen)


def history(entries: Sequence[RunEntry], find: str, chosen: str) -> str:
    """Cards of the newest ended runs with all of these words."""
    if not entries:
        return render("nothing", "Your runs will stand here.")
    found = with_words(entries, find)
    if not found:
        return render("nothing", "No run has these words.")
    ended = (entry for entry in found if not entry.active)
    return cards([(entry, thumbnail(entry)) for entry in islice(ended, CARDS)], chosen)


def with_words(entries: Sequence[RunEntry], find: str) -> list[RunEntry]:
    """Those with all of these words in their prompts or names."""
    words = find.lower().split()
    return [entry for entry in entries if all(word in f"{entry.prompt} {entry.name}".lower() for word in words)]


def compared(runs: Sequence[tuple[RunEntry, RunLog]]) -> str:
    """Two runs side by side: pictures, and the options in which they differ."""
    if len(runs) < 2:
        return render("nothing", "Choose two runs.")
    a, b = (flatten(entry.config.to_dict()) for entry, _ in runs)
    different = [key for key in dict.fromkeys([*a, *b]) if a.get(key) != b.get(key)]
    return render("compared", runs, [(key, a.get(key, "-"), b.get(key, "-")) for key in different])


def note(message: str, prompts: Sequence[str] = ()) -> str:
    """Something that a person should know, and prompts to try."""
    return render("note", message, prompts)


def problem(message: str, field: str = "", prompts: Sequence[str] = ()) -> str:
    """Something that a person has to correct, and prompts to try; `field` is the option that it is about, and page.js
    puts it there."""
    return render("problem", message, field, prompts)


def removed(entry: RunEntry, seconds: float) -> str:
    """That a run is out of sight, and for how long that can be undone."""
    return render("removed", entry, seconds)


def tries(prompts: Sequence[str]) -> str:
    """Prompts to click."""
    return render("tries", prompts)
