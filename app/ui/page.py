"""The layout of the page, and what its controls do. It uses Gradio's public interface only."""

from collections.abc import Callable, Sequence
from functools import partial
from importlib import resources
from typing import Any

import gradio as gr

from sds3d.config import PARTS, PRESETS
from sds3d.run.artifacts import artifacts_of

from . import actions, fragments
from .controls import controls_html, examples_of, scenes_of
from .export_files import FileMaker
from .run_index import RunEntry, RunIndex

NAMES = ("page.css", "stage.js", "page.js")
CSS, *SCRIPTS = (resources.files("sds3d_app.ui").joinpath(name).read_text("utf-8") for name in NAMES)
HEAD = '<meta name="viewport" content="width=device-width, initial-scale=1">'
HEAD += "".join(f"<script>{script}</script>" for script in SCRIPTS)
THEME = gr.themes.Base(  # fonts of the system only: nothing is fetched
    font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"],
    font_mono=["ui-monospace", "SFMono-Regular", "Menlo", "monospace"],
    primary_hue="emerald", neutral_hue="slate", radius_size="md",
)  # fmt: skip
TICK = 4.0  # seconds between looks at all runs; the chosen one has its stream
ACTIVE_CARDS = 50  # that are shown at most
# No event goes through Gradio's queue: see Page. `js` of the button Generate puts in what was changed under Advanced.
PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "queue": False}
ANY: dict[str, Any] = {"allow_custom_value": True}  # a dropdown whose choices change: the server looks names up itself
FOLLOW = "sds3dFollow(element, props, watch, () => trigger('state_changed'))"
WITH_OPTIONS = "(options, ...fields) => [sds3dOptions(), ...fields]"
# What can be done to a job in a state, in the words of the button. Fourth is "again": see fragments.
BUTTONS = {
    "pause": {"running": "Pause"},
    "resume": {"paused": "Go on"},
    "stop": {"queued": "Leave the queue", "running": "Stop and keep it", "paused": "Stop and keep it"},
}
Part = tuple[Any, Callable[[], Any]]  # (a key, what makes the value)


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
        outputs = [{**parts, **shelf}[name] for name in _parts(index, maker, None, "")]

        def choose(request: gr.Request) -> str:
            entry = index.find(request.query_params.get("run"))
            return entry.name if entry is not None else ""

        loaded = page.load(choose, None, chosen, **PRIVATE)
        after = [event.then for event in (loaded, begun, *acted, removed)]
        for event in (*after, gr.Timer(TICK).tick, parts["live"].state_changed, find.input):
            event(partial(refresh, index, maker), [chosen, shown, find], [shown, *outputs], **PRIVATE)
    return page


def refresh(index: RunIndex, maker: FileMaker, name: str, before: dict[str, Any], find: str) -> list[Any]:
    """[a key for each part, then their values]; what has the key that it had `before` is left as it is."""
    parts = _parts(index, maker, index.find(name), find or "")
    values = [gr.skip() if part in before and before[part] == key else make() for part, (key, make) in parts.items()]
    return [{part: key for part, (key, _) in parts.items()}, *values]


def _parts(index: RunIndex, maker: FileMaker, entry: RunEntry | None, find: str) -> dict[str, Part]:
    """Each part of the page that changes. Its key is cheap, and another whenever the value is."""
    entries, under_way, version = index.all()
    log, export, place, name, state, is_job, formats = fragments.NO_LOG, None, 0, "", "", False, list[str]()
    if entry is not None:
        log, export, place = index.log(entry), maker.last.get(entry.name), index.place(entry)
        name, state, is_job = entry.name, fragments.state_of(entry, log), entry.job is not None
        formats = artifacts_of(entry.scene) if not entry.active and entry.folder.exists() else []

    def of(make: Callable[[Any], Any], value: Any) -> Part:
        return value, partial(make, value)

    watched = (name, state, 0 if state in ("queued", "running", "saving") else version)  # these have a stream
    cards = [(one, fragments.preview_address(one, index.log(one))) for one in under_way[:ACTIVE_CARDS]]
    return {
        "live": (watched, partial(fragments.live, entry, log, place)),
        "details": of(str, fragments.details(log)),
        "results": of(str, fragments.results(entry, log)),
        "active": of(str, fragments.cards(cards, name)),
        "history": ((version, name, find), partial(fragments.history, entries, find, name)),
        **{order: of(_button, labels.get(state, "") if is_job else "") for order, labels in BUTTONS.items()},
        "again": of(_button, fragments.again(entry)),
        "format": of(gr.Dropdown, formats),
        "exported": of(str, fragments.exported(entry, export)),
        **dict.fromkeys(("first", "second", "doomed"), (version, partial(_runs, entries))),
        "about": of(_visible, entry is not None),
        "formats": of(_visible, bool(formats)),
    }


def _button(label: str) -> gr.Button:
    return gr.Button(label or "-", visible=bool(label))


def _runs(entries: Sequence[RunEntry]) -> gr.Dropdown:
    return gr.Dropdown(choices=[(f"{one.prompt} ({one.name})", one.name) for one in entries[: fragments.CARDS]])


def _visible(is_visible: bool) -> gr.Column:
    return gr.Column(visible=is_visible)


def example(number: int, prior: str) -> Any:
    """The prompt that a person clicked; a prior's examples are few."""
    prompts = examples_of(prior)
    return prompts[number][0] if number in range(len(prompts)) else gr.skip()


def suited(prior: str) -> tuple[gr.Dataset, gr.Dropdown]:
    """The examples of a prior, and the scenes, of which the first is its default."""
    return gr.Dataset(samples=examples_of(prior)), gr.Dropdown(choices=scenes_of(prior))


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
        guidance = _choice("Guidance", sorted(PARTS["guidance"]), "sds")
        scene = _choice("Scene", scenes_of("embedded"), "")
        preset = _choice("Preset", list(PRESETS), "default")
    with gr.Row():
        prior = gr.Textbox(
            value="embedded", label="Prior", info="embedded, or a model's folder or hub id", elem_id="prior",
            max_length=500,
        )  # fmt: skip
        seed = gr.Number(value=0, label="Seed", elem_id="seed", info="same seed, same object")
    prior.change(suited, prior, [examples, scene], **PRIVATE)
    examples.click(example, [examples, prior], prompt, **PRIVATE)
    go = gr.Button("Generate", variant="primary", elem_id="go")
    problem = gr.HTML(elem_id="problem")
    with gr.Accordion("Advanced", open=False, elem_id="advanced"):
        with gr.Row():
            timesteps = _choice("Timesteps", [("as it suits", ""), *sorted(PARTS["timesteps"])], "")
            noise = _choice("Noise", [("as it suits", ""), *sorted(PARTS["noise"])], "")
        more = gr.Textbox(
            label="Further options", placeholder="optim.lr_scale=0.5", lines=2, max_length=4000, elem_id="more",
            info="KEY=VALUE, one a line: anything that sds3d generate --set takes",
        )  # fmt: skip
        fields: dict[str, Any] = {
            "prompt": prompt, "negative_prompt": negative, "prior": prior, "guidance": guidance, "scene": scene,
            "preset": preset, "seed": seed, "timesteps": timesteps, "noise": noise,
        }  # fmt: skip
        parts = {name: field for name, field in fields.items() if name in (*PARTS, "preset")}

        def controls(more: str, *values: str) -> str:
            return controls_html(dict(zip(parts, values, strict=True)), more)

        defaults = controls("", *(field.value for field in parts.values()))
        options = gr.HTML(defaults, elem_id="options", js_on_load="sds3dControls(element, watch)")
        changes: list[Any] = [*(field.change for field in parts.values()), more.blur]
        gr.on(changes, controls, [more, *parts.values()], options, **PRIVATE)

    def start(entered: Any, more: str | None, *values: Any) -> Any:
        return actions.start(index, entered, more, dict(zip(fields, values, strict=True)))

    inputs = [options, more, *fields.values()]
    return go.click(start, inputs, [chosen, words, problem], js=WITH_OPTIONS, **PRIVATE)


def _choice(label: str, names: Sequence[Any], value: str) -> gr.Dropdown:
    return gr.Dropdown(names, value=value, label=label, elem_id=label.lower(), min_width=140)


def _view(index: RunIndex, maker: FileMaker, chosen: gr.State) -> tuple[dict[str, Any], list[Any]]:
    """The chosen run, large, and what can be done with it: (its parts, the events that do something)."""
    gr.HTML(fragments.render("stage"), elem_id="stage", js_on_load="sds3dStage(element)")
    live, answer = gr.HTML(elem_id="live", js_on_load=FOLLOW), gr.HTML(elem_id="answer")
    buttons, acted = dict[str, Any](), list[Any]()
    with gr.Row():
        for order in (*BUTTONS, "again"):
            variant: Any = "stop" if order == "stop" else "secondary"
            button = buttons[order] = gr.Button("-", visible=False, elem_id=order, size="sm", variant=variant)
            acted.append(button.click(partial(actions.command, index, order=order), chosen, answer, **PRIVATE))
    results = gr.HTML(elem_id="results")
    with gr.Column(visible=False) as about:
        with gr.Accordion("Curves and log", open=True, elem_id="curves"):
            details = gr.HTML(elem_id="details")
        with gr.Accordion("Change or fork", open=False, elem_id="changing"):
            acted += _changing(index, chosen)
    with gr.Row(visible=False, elem_id="formats") as formats:
        file_format = gr.Dropdown([], label="Another format", elem_id="format", min_width=160, **ANY)
        make = gr.Button("Make the file", elem_id="make", size="sm", min_width=140)
    exported = gr.HTML(elem_id="made")
    make_format = partial(actions.make_format, index, maker=maker)
    acted.append(make.click(make_format, [chosen, file_format], exported, **PRIVATE))
    parts = {
        "live": live, "details": details, "results": results, "format": file_format,
        "exported": exported, "about": about, "formats": formats, **buttons,
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
        change.click(partial(actions.change_run, index), [chosen, words, scale], answer, **PRIVATE),
        fork.click(partial(actions.fork_run, index), [chosen, words, scale, steps], [chosen, answer], **PRIVATE),
    ]


def _shelf(index: RunIndex) -> tuple[dict[str, Any], gr.Textbox, Any]:
    """All runs, two side by side, and removing one: (parts, words to find, the event that removes)."""

    def compare(*names: object) -> str:
        return fragments.compared([(entry, index.log(entry)) for name in names if (entry := index.find(name))])

    def delete(name: object, sure: object) -> tuple[str, bool]:
        return actions.delete_run(index, name, sure), False  # and the tick is gone

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
            button, answer = gr.Button("Delete", variant="stop", elem_id="delete"), gr.HTML(elem_id="deleted")
            removed = button.click(delete, [doomed, sure], [answer, sure], **PRIVATE)
    parts = {"active": active, "history": history, "first": pair[0], "second": pair[1], "doomed": doomed}
    return parts, find, removed
