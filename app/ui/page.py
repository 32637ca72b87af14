"""The layout of the page, and what its controls do. It uses Gradio's public interface only."""

from collections.abc import Callable, Sequence
from functools import partial
from importlib import resources
from typing import Any

import gradio as gr

from sds3d.config import PARTS

from . import actions, fragments
from .controls import controls_html, examples_of, scenes_of
from .export_files import FileMaker
from .run_index import RunEntry, RunIndex

NAMES = ("page.css", "stage.js", "page.js")
CSS, *SCRIPTS = (resources.files("sds3d_app.ui").joinpath(name).read_text("utf-8") for name in NAMES)
HEAD = '<meta name="viewport" content="width=device-width, initial-scale=1, viewport-fit=cover">'
HEAD += f"<style>{CSS}</style>" + "".join(f"<script>{script}</script>" for script in SCRIPTS)
CALM = {"body_text_color_subdued": "*neutral_600", "body_text_color_subdued_dark": "*neutral_300"}
PRIMARY = {
    f"button_primary_{what}{dark}": value
    for dark in ("", "_dark")
    for what, value in (
        ("background_fill", "*primary_700"), ("background_fill_hover", "*primary_800"), ("text_color", "white"),
    )
}  # fmt: skip
THEME = gr.themes.Base(  # fonts of the system only: nothing is fetched
    font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"],
    font_mono=["ui-monospace", "SFMono-Regular", "Menlo", "monospace"],
    primary_hue="emerald", neutral_hue="slate", radius_size="md",
).set(**CALM, **PRIMARY)  # fmt: skip
TICK = 4.0  # seconds between looks at all runs; the chosen one has its stream
ACTIVE_CARDS = 50  # that are shown at most
# No event goes through Gradio's queue: see Page. `js` of an event puts in what page.js knows: what was changed under
# Options, and which card or button was clicked.
PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "queue": False}
FOLLOW = "sds3dFollow(element, props, watch, () => trigger('state_changed'))"
STRIP = "sds3dStrip(element, watch, () => trigger('acted'))"
COMPARE = "sds3dCompare(element, watch)"
WITH_OPTIONS = "(options, ...fields) => [sds3dOptions(), ...fields]"
WITH_ORDER = "(ended, chosen) => [sds3dOrder(), chosen]"
QUALITIES = {"draft": "Draft", "default": "Normal", "fine": "Fine"}  # what the page calls the presets
# What "a red mug" took with each, from its first step to its files: one thread of an AMD EPYC, on 30 November 2026.
TOOK, TOOK_ON = {"draft": "25 s", "default": "35 s", "fine": "5 min"}, "embedded"
part_of_page = partial(gr.HTML, apply_default_css=False)
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
        part_of_page("<h1>sds3d</h1>", elem_id="title")
        prompt, go, quality, tries, say = _ask()
        with gr.Row(elem_id="desk"):
            with gr.Column(elem_id="options-column"):
                begun = _options(index, chosen, (prompt, go, quality, tries, say))
            with gr.Column(elem_id="show"):
                part_of_page(fragments.render("stage"), elem_id="stage", js_on_load="sds3dStage(element)")
                live = part_of_page(fragments.live(None, fragments.NO_LOG, 0), elem_id="live", js_on_load=FOLLOW)
                orders = part_of_page(elem_id="orders")
                downloads = part_of_page(elem_id="downloads", js_on_load="sds3dMenu(element, watch)")
        with gr.Row(elem_id="runs"):
            find = gr.Textbox(placeholder="find a run", max_length=100, elem_id="find", label="Find", container=False)
            with gr.Row(elem_id="strip"):
                under_way, ended = part_of_page(elem_id="under-way"), part_of_page(elem_id="ended", js_on_load=STRIP)
        results, details, compared, changed = _more(index, chosen)
        told = [chosen, prompt, say, *compared]
        acted = ended.acted(partial(actions.act, index, maker), [ended, chosen], told, js=WITH_ORDER, **PRIVATE)
        parts = {
            "live": live, "orders": orders, "downloads": downloads, "under_way": under_way, "ended": ended,
            "results": results, "details": details,
        }  # fmt: skip
        outputs = [parts[name] for name in _parts(index, maker, None, "")]

        def choose(request: gr.Request) -> tuple[str, Any]:
            entry = index.find(request.query_params.get("run"))
            if entry is None:
                return actions.named(request.query_params.get("run")), gr.skip()
            return entry.name, fragments.prompt_of(entry)

        loaded = page.load(choose, None, [chosen, prompt], **PRIVATE)
        look: Any = (partial(refresh, index, maker), [chosen, shown, find], [shown, *outputs])
        for event in (loaded, acted):
            event.then(*look, **PRIVATE).then(None, js="() => sds3dActed()", **PRIVATE)
        after = [event.then for event in (begun, *changed)]
        for event in (*after, gr.Timer(TICK).tick, live.state_changed, find.change):
            event(*look, **PRIVATE)
    return page


def refresh(index: RunIndex, maker: FileMaker, name: str, before: dict[str, Any], find: str) -> list[Any]:
    """[a key for each part, then their values]; what has the key that it had `before` is left as it is."""
    parts = _parts(index, maker, index.find(name), find or "", name or "")
    values = [gr.skip() if part in before and before[part] == key else make() for part, (key, make) in parts.items()]
    return [{part: key for part, (key, _) in parts.items()}, *values]


def _parts(index: RunIndex, maker: FileMaker, entry: RunEntry | None, find: str, missing: str = "") -> dict[str, Part]:
    """Each part of the page that changes. Its key is cheap, and another whenever the value is. `missing` is the name
    of the run that was asked for, where there is none."""
    entries, under_way, version = index.all()
    log, export, place, name, state = fragments.NO_LOG, None, 0, "", ""
    if entry is not None:
        log, export, place = index.log(entry), maker.last.get(entry.name), index.place(entry)
        name, state, missing = entry.name, fragments.state_of(entry, log), ""

    def of(value: str) -> Part:
        return value, lambda: value

    watched = (name, state, 0 if state in ("queued", "running", "saving") else version)  # these have a stream
    sought = fragments.with_words(under_way, find)[:ACTIVE_CARDS]
    cards = [(one, fragments.under_way(one, index.log(one))) for one in sought]
    return {
        "live": ((watched, missing), partial(fragments.live, entry, log, place, missing)),
        "orders": (watched, partial(fragments.orders, entry, state)),
        "downloads": ((watched, repr(export)), partial(fragments.downloads, entry, export)),
        "under_way": of(fragments.cards(cards, name)),
        "ended": ((version, name, find), partial(fragments.history, entries, find, name)),
        "results": of(fragments.results(entry, log)),
        "details": of(fragments.details(log)),
    }


def suited(prior: str) -> tuple[str, gr.Dropdown, gr.Radio]:
    """The prompts to try with a prior, the scenes, of which the first is its default, and the qualities."""
    return fragments.tries(examples_of(prior)), gr.Dropdown(choices=scenes_of(prior)), gr.Radio(**_qualities(prior))


def _qualities(prior: str) -> dict[str, Any]:
    """With the time that each takes, where that was measured."""
    is_known = prior == TOOK_ON
    choices = [(f"{label} {TOOK[preset]}" if is_known else label, preset) for preset, label in QUALITIES.items()]
    return {"choices": choices, "label": "on one CPU core:" if is_known else "Quality:"}


def _ask() -> tuple[Any, ...]:
    """What a newcomer needs: (prompt, button, quality, prompts to try, one line that answers)."""
    with gr.Row(elem_id="ask"):
        prompt = gr.Textbox(
            label="What to make", placeholder="for example: a red mug", lines=1, max_lines=2, max_length=500,
            elem_id="prompt", autofocus=True, container=False, scale=1,
        )  # fmt: skip
        go = gr.Button("Generate", variant="primary", elem_id="go", scale=0, min_width=110)
    quality = gr.Radio(**_qualities("embedded"), value="default", elem_id="quality", container=False)
    with gr.Row(elem_id="tries"):
        tries = part_of_page(fragments.tries(examples_of("embedded")), elem_id="chips")
        part_of_page('<button type="button" aria-expanded="false">Options</button>', elem_id="options-button")
    say = part_of_page(elem_id="say", js_on_load="sds3dSay(element, props, watch)")
    return prompt, go, quality, tries, say


def _options(index: RunIndex, chosen: gr.State, ask: tuple[Any, ...]) -> Any:
    """Everything else that a run can be told; the event that begins one."""
    prompt, go, quality, tries, say = ask
    negative = gr.Textbox(label="What it should not look like", max_length=500, elem_id="negative", lines=1)
    seed = gr.Textbox(label="Seed", placeholder="drawn for each run", max_length=20, elem_id="seed")
    guidance = _choice("Guidance", sorted(PARTS["guidance"]), "sds")
    scene = _choice("Scene", scenes_of("embedded"), "")
    prior = gr.Textbox(
        value="embedded", label="Prior", info="embedded, or a model's folder or hub id", elem_id="prior", max_length=500
    )
    timesteps = _choice("Timesteps", [("as it suits", ""), *sorted(PARTS["timesteps"])], "")
    noise = _choice("Noise", [("as it suits", ""), *sorted(PARTS["noise"])], "")
    more = gr.Textbox(
        label="Further options", placeholder="optim.lr_scale=0.5", lines=2, max_length=4000, elem_id="more",
        info="KEY=VALUE, one a line: anything that sds3d generate --set takes",
    )  # fmt: skip
    prior.change(suited, prior, [tries, scene, quality], **PRIVATE)
    fields: dict[str, Any] = {
        "prompt": prompt, "negative_prompt": negative, "prior": prior, "guidance": guidance, "scene": scene,
        "preset": quality, "seed": seed, "timesteps": timesteps, "noise": noise,
    }  # fmt: skip
    parts = {name: field for name, field in fields.items() if name in (*PARTS, "preset")}

    def controls(more: str, *values: str) -> str:
        return controls_html(dict(zip(parts, values, strict=True)), more)

    defaults = controls("", *(field.value for field in parts.values()))
    options = part_of_page(defaults, elem_id="options", js_on_load="sds3dControls(element, watch)")
    changes: list[Any] = [*(field.change for field in parts.values()), more.blur]
    gr.on(changes, controls, [more, *parts.values()], options, **PRIVATE)

    def start(entered: Any, more: str | None, *values: Any) -> Any:
        return actions.start(index, entered, more, dict(zip(fields, values, strict=True)))

    inputs = [options, more, *fields.values()]
    return gr.on([go.click, prompt.submit], start, inputs, [chosen, say], js=WITH_OPTIONS, **PRIVATE)


def _choice(label: str, names: Sequence[Any], value: str) -> gr.Dropdown:
    return gr.Dropdown(names, value=value, label=label, elem_id=label.lower(), min_width=140)


def _more(index: RunIndex, chosen: gr.State) -> tuple[Any, Any, tuple[Any, ...], list[Any]]:
    """What few look for, folded: (about the result, curves and log, what shows two runs side by side: these, the fold
    and its tabs; the events of changes)."""
    fold = gr.Accordion("Details, changes, comparison", open=False, elem_id="details-box")
    with fold, gr.Tabs() as tabs:
        with gr.Tab("Result"):
            results = part_of_page(elem_id="results")
        with gr.Tab("Curves and log"):
            details = part_of_page(elem_id="details")
        with gr.Tab("Change or fork"):
            changed = _changing(index, chosen)
        with gr.Tab("Compare", id=actions.COMPARE):
            pair = part_of_page(
                fragments.render("nothing", "Choose two cards with \u21cb."), elem_id="pair", js_on_load=COMPARE
            )
    return results, details, (pair, fold, tabs), changed


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
    answer = part_of_page(elem_id="changed")
    return [
        change.click(partial(actions.change_run, index), [chosen, words, scale], answer, **PRIVATE),
        fork.click(partial(actions.fork_run, index), [chosen, words, scale, steps], [chosen, answer], **PRIVATE),
    ]
