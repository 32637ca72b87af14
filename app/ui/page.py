"""The layout of the page, and what its controls do. It uses Gradio's public interface only."""

import os
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import gradio as gr

from sds3d.config import PARTS, PRESETS
from sds3d.run.artifacts import ARTIFACTS

from . import fragments
from .actions import FIELDS, change_run, command, delete_run, fork_run, make_format, start
from .controls import controls_html, examples_of
from .export_files import MODELS, FileMaker, copy_for_viewer, formats_of, models_version
from .run_index import RunEntry, RunIndex

CSS = resources.files("sds3d_app.ui").joinpath("page.css").read_text(encoding="utf-8")
SCRIPT = resources.files("sds3d_app.ui").joinpath("page.js").read_text(encoding="utf-8")
HEAD = f'<meta name="viewport" content="width=device-width, initial-scale=1"><script>{SCRIPT}</script>'
TICK = 4.0  # seconds between looks at all runs; the chosen one has its stream
CARDS, ACTIVE_CARDS = 300, 50  # that are shown at most
# No event goes through Gradio's queue: see Page. `js` of the button Generate puts in what was changed under Advanced.
PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "queue": False}
ANY: dict[str, Any] = {"allow_custom_value": True}  # a dropdown whose choices change: the server looks names up itself
FOLLOW = "sds3dFollow(element, props, watch, () => trigger('state_changed'))"
SHOW_MODELS = "sds3dModels(element, watch, () => trigger('models_changed'))"
WITH_OPTIONS = "(options, ...fields) => [sds3dOptions(), ...fields]"

Event = Callable[..., Any]


class Page(gr.Blocks):
    """Blocks whose queue is never started: no event uses it, and its loop would wake a thousand times a second."""

    def run_startup_events(self) -> None:
        """As of Blocks, without the queue."""
        self.is_running = True
        self.create_limiter()


def make_page(index: RunIndex, maker: FileMaker) -> gr.Blocks:
    """The page of these runs. What is shown of a run is read from its folder, so nothing is lost with a tab."""
    with Page(title="sds3d", delete_cache=(3600, 3600), analytics_enabled=False) as page:
        chosen, shown = gr.State(""), gr.State({})
        gr.HTML('<div id="title"><h1>sds3d</h1><span>3D objects from a few words</span></div>')
        with gr.Row():
            with gr.Column(scale=4, min_width=320):
                begun = _form(index, chosen)
            with gr.Column(scale=6, min_width=320):
                parts, acted = _view(index, maker, chosen)
        shelf, find, removed = _shelf(index)
        outputs = [{**parts, **shelf}[name] for name in SHOWN]

        def look(name: str, before: dict[str, Any], words: str) -> list[Any]:
            return refresh(index, maker, name, before, words)

        def choose(request: gr.Request) -> str:
            entry = index.find(request.query_params.get("run"))
            return entry.name if entry is not None else ""

        loaded = page.load(choose, None, chosen, **PRIVATE)
        after = [event.then for event in (loaded, begun, *acted, removed)]
        for event in (*after, gr.Timer(TICK).tick, parts["live"].state_changed, find.input):
            event(look, [chosen, shown, find], [shown, *outputs], **PRIVATE)
    return page


SHOWN = (
    "live", "details", "results", "active", "history", "pause", "resume", "stop", "again", "format",
    "exported", "first", "second", "doomed", "viewers", "about", "formats",
)  # fmt: skip
VARIANTS: dict[str, Any] = {"stop": "stop"}
STOPS = {"queued": "Leave the queue", "running": "Stop and keep it", "paused": "Stop and keep it"}


def refresh(index: RunIndex, maker: FileMaker, name: str, before: dict[str, Any], find: str) -> list[Any]:
    """[a key for each of SHOWN, then their values]; what has the key that it had `before` is left as it is."""
    now, values = {}, []
    for part, (key, make) in _parts(index, maker, index.find(name), find or "").items():
        now[part] = key
        values.append(gr.skip() if part in before and before[part] == key else make())
    return [now, *values]


def _parts(
    index: RunIndex, maker: FileMaker, entry: RunEntry | None, find: str
) -> dict[str, tuple[Any, Callable[[], Any]]]:
    """(key, what makes the value) of each of SHOWN, in order. A key is cheap, and another whenever the value is."""
    entries, under_way, version = index.all()
    log = index.log(entry) if entry is not None else fragments.NO_LOG
    name, state = (entry.name, entry.state) if entry is not None else ("", "")
    is_job, ended = entry is not None and entry.job is not None, entry is not None and not entry.active

    def of(value: Any, make: Callable[[Any], Any] = lambda value: value) -> tuple[Any, Callable[[], Any]]:
        return value, lambda: make(value)

    def button(label: str) -> tuple[Any, Callable[[], Any]]:
        return of(label, lambda label: gr.Button(label or "-", visible=bool(label)))

    def live() -> str:
        return fragments.live(entry, log, index.place(entry) if entry is not None else 0)

    def history() -> str:
        return fragments.history(_matching(entries, find), len(entries), name)

    def choices() -> Any:
        return gr.Dropdown(choices=[(f"{one.prompt} ({one.name})", one.name) for one in entries[:CARDS]])

    cards = [(one, fragments.preview_address(one, index.log(one))) for one in under_way[:ACTIVE_CARDS]]
    formats = tuple(formats_of(entry)) if ended and entry is not None and entry.folder.exists() else ()
    return {
        "live": ((name, state, 0 if state in ("running", "queued") else version), live),  # those have a stream
        "details": of(fragments.details(entry, log)),
        "results": of(fragments.results(entry, log)),
        "active": of(fragments.cards(cards, name)),
        "history": ((version, name, find), history),
        "pause": button("Pause" if is_job and state == "running" else ""),
        "resume": button("Go on" if is_job and state == "paused" else ""),
        "stop": button(STOPS.get(state, "") if is_job else ""),
        "again": button(fragments.again(entry)),
        "format": of(formats, lambda formats: gr.Dropdown(choices=list(formats))),
        "exported": of(fragments.exported(entry, maker.last(entry) if entry is not None else None)),
        "first": (version, choices),
        "second": (version, choices),
        "doomed": (version, choices),
        "viewers": of(bool(entry is not None and models_version(entry)), lambda value: gr.Column(visible=value)),
        "about": of(entry is not None, lambda value: gr.Column(visible=value)),
        "formats": of(bool(formats), lambda value: gr.Row(visible=value)),
    }


def _matching(entries: Sequence[RunEntry], find: str) -> list[RunEntry]:
    """Ended runs with all of these words, newest first, at most CARDS."""
    words, matching = find.lower().split(), list[RunEntry]()
    for entry in entries:
        if not entry.active and all(word in f"{entry.prompt} {entry.name}".lower() for word in words):
            matching.append(entry)
            if len(matching) == CARDS:
                break
    return matching


def model(index: RunIndex, name: str, artifact: str) -> str | None:
    """A model for a viewer. An event of its own: a model that arrives with other things is not drawn."""
    entry = index.find(name)
    folder = Path(os.environ["GRADIO_TEMP_DIR"]) / "models"
    is_there = entry is not None and models_version(entry)
    return copy_for_viewer(entry.folder.artifact(artifact), folder) if entry is not None and is_there else None


def example(number: int, prior: str) -> Any:
    """The prompt that a person clicked; a prior's examples are few."""
    prompts = examples_of(prior)
    return prompts[number][0] if number in range(len(prompts)) else gr.skip()


def _form(index: RunIndex, chosen: gr.State) -> Any:
    """What to make and how; the event that begins it."""
    prompt = gr.Textbox(label="What to make", placeholder="a red mug", lines=2, max_length=500, elem_id="prompt")
    examples = gr.Dataset(
        components=[prompt], samples=examples_of("embedded"), type="index", elem_id="examples",
        label="The chosen prior knows",
    )  # fmt: skip
    words = gr.HTML(elem_id="words")
    negative = gr.Textbox(label="What it should not look like", max_length=500, elem_id="negative", lines=1)
    with gr.Row():
        guidance, scene, preset = (
            gr.Dropdown(names, value=value, label=label, elem_id=label.lower(), min_width=140)
            for label, names, value in (
                ("Guidance", sorted(PARTS["guidance"]), "sds"),
                ("Scene", sorted(PARTS["scene"]), "gaussians"),
                ("Preset", list(PRESETS), "default"),
            )
        )
    with gr.Row():
        prior = gr.Textbox(
            value="embedded", label="Prior", info="embedded, or a model's folder or hub id", elem_id="prior",
            max_length=500,
        )  # fmt: skip
        seed = gr.Number(value=0, label="Seed", elem_id="seed", info="same seed, same object")
    prior.change(lambda name: gr.Dataset(samples=examples_of(name)), prior, examples, **PRIVATE)
    examples.click(example, [examples, prior], prompt, **PRIVATE)
    go = gr.Button("Generate", variant="primary", elem_id="go")
    problem = gr.HTML(elem_id="problem")
    with gr.Accordion("Advanced", open=False, elem_id="advanced"):
        with gr.Row():
            timesteps, noise = (
                gr.Dropdown([("as it suits", ""), *sorted(PARTS[part])], value="", label=label, elem_id=part)
                for label, part in (("Timesteps", "timesteps"), ("Noise", "noise"))
            )
        more = gr.Textbox(
            label="Further options", placeholder="optim.lr_scale=0.5", lines=2, max_length=4000, elem_id="more",
            info="KEY=VALUE, one a line: anything that sds3d generate --set takes",
        )  # fmt: skip
        fields: list[Any] = [prompt, negative, prior, guidance, scene, preset, seed, timesteps, noise]
        parts = {name: field for name, field in zip(FIELDS, fields, strict=True) if name in (*PARTS, "preset")}

        def controls(more: str, *values: str) -> str:
            return controls_html(dict(zip(parts, values, strict=True)), more)

        defaults = controls("", *(field.value for field in parts.values()))
        options = gr.HTML(defaults, elem_id="options", js_on_load="sds3dControls(element, watch)")
        changes: list[Any] = [*(field.change for field in parts.values()), more.blur]
        gr.on(changes, controls, [more, *parts.values()], options, **PRIVATE)
    return go.click(
        lambda *values: start(index, *values), [options, more, *fields], [chosen, words, problem], js=WITH_OPTIONS,
        **PRIVATE,
    )  # fmt: skip


def _view(index: RunIndex, maker: FileMaker, chosen: gr.State) -> tuple[dict[str, Any], list[Any]]:
    """The chosen run, large, and what can be done with it: (its parts, the events that do something)."""
    live, answer = gr.HTML(elem_id="live", js_on_load=FOLLOW), gr.HTML(elem_id="answer")
    with gr.Row():
        buttons = {
            name: gr.Button(
                "-", visible=False, elem_id=name, size="sm", variant="stop" if name == "stop" else "secondary"
            )
            for name in ("pause", "resume", "stop", "again")
        }
    orders = {"pause": "pause", "resume": "resume", "stop": "stop", "again": "retry"}
    acted = [buttons[name].click(command(index, orders[name]), chosen, answer, **PRIVATE) for name in buttons]
    with gr.Column(visible=False) as viewers, gr.Tabs() as tabs:
        labels = [ARTIFACTS[name] for name in MODELS]
        with gr.Tab("Mesh", id="mesh"):
            mesh = gr.Model3D(label=labels[0], height=360, elem_id="mesh", interactive=False)
        with gr.Tab("Splats", id="splats") as behind:
            splats = gr.Model3D(label=labels[1], height=360, elem_id="splats", interactive=False)
    results = gr.HTML(elem_id="results", js_on_load=SHOW_MODELS)
    results.models_changed(
        lambda name: (model(index, name, "glb"), None, gr.Tabs(selected="mesh")),
        chosen,
        [mesh, splats, tabs],
        **PRIVATE,
    )
    behind.select(lambda name: model(index, name, "ply"), chosen, splats, **PRIVATE)  # out of sight nothing is drawn
    with gr.Column(visible=False) as about:
        with gr.Accordion("Curves and log", open=True, elem_id="curves"):
            details = gr.HTML(elem_id="details")
        with gr.Accordion("Change or fork", open=False, elem_id="changing"):
            acted += _changing(index, chosen)
    with gr.Row(visible=False, elem_id="formats") as formats:
        file_format = gr.Dropdown([], label="Another format", elem_id="format", min_width=160, **ANY)
        make = gr.Button("Make the file", elem_id="make", size="sm", min_width=140)
    exported = gr.HTML(elem_id="made")
    acted.append(make.click(make_format(index, maker), [chosen, file_format], exported, **PRIVATE))
    parts = {
        "live": live, "details": details, "results": results, "format": file_format,
        "exported": exported, "viewers": viewers, "about": about, "formats": formats, **buttons,
    }  # fmt: skip
    return parts, acted


def _changing(index: RunIndex, chosen: gr.State) -> list[Any]:
    """Other words for a run under way, or a new run from its newest checkpoint; the two events.

    Text boxes throughout: a number field of Gradio that is left empty arrives as 0.
    """
    words = gr.Textbox(label="Other words", placeholder="as they are", max_length=500, elem_id="other-words")
    with gr.Row():
        scale, steps = (
            gr.Textbox(label=label, placeholder="as it is", max_length=20, elem_id=elem_id)
            for label, elem_id in (("Guidance scale", "other-scale"), ("Steps of the fork", "fork-steps"))
        )
    with gr.Row():
        change = gr.Button("Change this run", elem_id="change", size="sm")
        fork = gr.Button("Fork into a new run", elem_id="fork", size="sm")
    answer = gr.HTML(elem_id="changed")
    return [
        change.click(change_run(index), [chosen, words, scale], answer, **PRIVATE),
        fork.click(fork_run(index), [chosen, words, scale, steps], [chosen, answer], **PRIVATE),
    ]


def _shelf(index: RunIndex) -> tuple[dict[str, Any], gr.Textbox, Any]:
    """All runs, two side by side, and removing one: (parts, words to find, the event that removes)."""

    def compare(*names: object) -> str:
        entries = [index.find(name) for name in names]
        return fragments.compared(*((entry, index.log(entry)) if entry is not None else None for entry in entries))

    with gr.Tabs():
        with gr.Tab("History"), gr.Column(elem_id="history"):
            active = gr.HTML()
            find = gr.Textbox(label="Find", placeholder="words of a prompt", max_length=100, elem_id="find")
            history = gr.HTML()
        with gr.Tab("Compare"):
            with gr.Row():
                pair = [gr.Dropdown([], label=label, elem_id=f"compare-{label}", **ANY) for label in ("one", "other")]
            both = gr.HTML(elem_id="pair")
            gr.on([dropdown.input for dropdown in pair], compare, pair, both, **PRIVATE)
        with gr.Tab("Delete"):
            doomed = gr.Dropdown([], label="Run", elem_id="doomed", **ANY)
            sure = gr.Checkbox(label="Yes, remove it and all its files", elem_id="sure")
            delete, answer = gr.Button("Delete", variant="stop", elem_id="delete"), gr.HTML(elem_id="deleted")
            removed = delete.click(delete_run(index), [doomed, sure], [answer, sure], **PRIVATE)
    parts = {"active": active, "history": history, "first": pair[0], "second": pair[1], "doomed": doomed}
    return parts, find, removed
