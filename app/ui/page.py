"""The layout of the page, and what its controls do."""

import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import gradio as gr

from sds3d.config import PARTS, PRESETS
from sds3d.errors import ConfigError, Sds3dError
from sds3d.prompts import unknown_word_warnings

from . import fragments as pieces
from .actions import change_run, delete_run, fork_run, make_format, tell
from .controls import GROUPS, OWN, component, config_of, controls_of, examples_of
from .export_files import for_viewer, formats_of
from .run_index import Work, Works

CSS = resources.files("sds3d_app.ui").joinpath("page.css").read_text(encoding="utf-8")
SCRIPT = resources.files("sds3d_app.ui").joinpath("page.js").read_text(encoding="utf-8")
HEAD = f'<meta name="viewport" content="width=device-width, initial-scale=1"><script>{SCRIPT}</script>'
TICK = 4.0  # seconds between looks at everything; page.js looks at the chosen run more often
PREVIEW_SECONDS = 1.1  # and up to half a second until page.js looks: a new picture within two seconds
SHOW_ADDRESS = (
    "(name) => { if (name) { history.replaceState(null, '', '?run=' + encodeURIComponent(name)); sds3dNudge(); } }"
)
PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}


def make_page(works: Works) -> gr.Blocks:
    """The page of these runs. What is shown of a run is read from its folder, so nothing is lost with a tab."""
    with gr.Blocks(title="sds3d", delete_cache=(3600, 3600), analytics_enabled=False) as page:
        chosen, shown, options = gr.State(""), gr.State({}), gr.State({})
        begun = gr.Textbox(visible="hidden", elem_id="begun")  # a run's name on its way to the address bar
        gr.HTML('<div id="title"><h1>sds3d</h1><span>3D objects from a few words</span></div>')
        with gr.Row():
            with gr.Column(scale=4, min_width=320):
                asked = _asking(works, chosen, options)
            with gr.Column(scale=6, min_width=320):
                looked = _looking(works, chosen, begun)
        looked |= _shelf(works, chosen)
        outputs = [looked[name] for name in LOOKED]

        def look(name: str, before: dict[str, Any]) -> list[Any]:
            return refresh(works, name, before)

        def begin(request: gr.Request) -> str:
            work = works.find(request.query_params.get("run"))
            return work.name if work is not None else ""

        def update(event: Any) -> None:
            event(look, [chosen, shown], [shown, *outputs], queue=False, **PRIVATE)

        update(page.load(begin, None, chosen, **PRIVATE).then)
        update(gr.Timer(TICK).tick)
        update(gr.Button(visible="hidden", elem_id="nudge").click)  # page.js, when a run's state is another
        made = [chosen, begun, asked["words"], asked["problem"]]
        asked["go"].click(
            lambda *given: start(works, *given), asked["inputs"], made, concurrency_id="orders", **PRIVATE
        )
        begun.change(None, begun, None, js=SHOW_ADDRESS, **PRIVATE)
    return page


LOOKED = (
    "live", "details", "results", "history", "pause", "resume", "stop", "again", "viewable", "format",
    "first", "second", "doomed", "viewers", "about", "formats",
)  # fmt: skip


def refresh(works: Works, name: str, before: dict[str, Any]) -> list[Any]:
    """[what is shown now, then a value for each of LOOKED]; what has not changed is left as it is."""
    every = works.all()
    work = next((one for one in every if one.name == name), None)
    state = work.state if work is not None else ""
    place = works.place(work) if work is not None and state == "queued" else 0
    names = [(f"{one.config.prompt} ({one.name})", one.name) for one in every]
    viewable = work if work is not None and not work.active else None
    now: dict[str, Any] = {
        "live": pieces.live(work, place),
        "details": pieces.details(work),
        "results": pieces.results(work),
        "history": pieces.history(every, name),
        "pause": "Pause" if state == "running" else "",
        "resume": "Go on" if state == "paused" else "",
        "stop": STOPS.get(state, ""),
        "again": pieces.again(work),
        "viewable": _version(viewable),
        "format": formats_of(viewable),
        "first": names,
        "second": names,
        "doomed": names,
        "viewers": viewable is not None and viewable.run.is_dir(),
        "about": work is not None,
        "formats": viewable is not None and viewable.run.is_dir(),
    }
    makers = {
        **dict.fromkeys(
            ("pause", "resume", "stop", "again"), lambda value: gr.Button(value or "-", visible=bool(value))
        ),
        **dict.fromkeys(("viewers", "about"), lambda value: gr.Column(visible=value)),
        "formats": lambda value: gr.Row(visible=value),
        **dict.fromkeys(("first", "second", "doomed", "format"), lambda value: gr.Dropdown(choices=value)),
    }
    changed = [
        gr.skip() if key in before and before[key] == now[key] else makers.get(key, lambda value: value)(now[key])
        for key in LOOKED
    ]
    return [now, *changed]


def models(works: Works, name: str) -> tuple[str | None, str | None]:
    """Mesh and splats for the viewers. An event of its own: a model that arrives with other things is not drawn."""
    work, folder = works.find(name.partition(" ")[0]), Path(os.environ["GRADIO_TEMP_DIR"]) / "models"
    if work is None:
        return None, None
    return for_viewer(work, "mesh.glb", folder), for_viewer(work, "splats.ply", folder)


STOPS = {"queued": "Leave the queue", "running": "Stop and keep it", "paused": "Stop and keep it"}


def _version(work: Work | None) -> str:
    """The run's name and when its mesh was made; empty where there is nothing to view."""
    if work is None or not (work.run / "report.json").is_file():
        return ""
    return f"{work.name} {(work.run / 'report.json').stat().st_mtime_ns}"


def start(works: Works, options: Mapping[str, object], more: object, *fields: object) -> tuple[Any, Any, str, str]:
    """Queue what the page describes: its name, twice, or what is wrong in their place: with the words, or the rest."""
    said = {**options, **dict(zip(FIELDS, fields, strict=True))}
    try:
        config = config_of({"preview_seconds": PREVIEW_SECONDS, **said}, more)
        unknown = config.prior.unknown_words(f"{config.prompt} {config.negative_prompt}")
        warnings = unknown_word_warnings(unknown, config.prior, config.prompt)
        name = works.add(config).name
        return name, name, pieces.note(" ".join(warnings)), ""
    except Sds3dError as error:
        field = error.field if isinstance(error, ConfigError) else ""
        return gr.skip(), gr.skip(), "", pieces.problem(str(error), field)


FIELDS = ("prompt", "negative_prompt", "prior", "guidance", "scene", "preset", "seed", "timesteps", "noise")


def _asking(works: Works, chosen: gr.State, options: gr.State) -> dict[str, Any]:
    """What to make and how."""
    prompt = gr.Textbox(label="What to make", placeholder="a red mug", lines=2, max_length=500, elem_id="prompt")
    examples = gr.Dataset(
        components=[prompt], samples=examples_of("embedded"), type="values", elem_id="examples",
        label="The chosen prior knows",
    )  # fmt: skip
    examples.click(lambda sample: sample[0], examples, prompt, **PRIVATE)
    words = gr.HTML(elem_id="words")
    negative = gr.Textbox(label="What it should not look like", max_length=500, elem_id="negative", lines=1)
    with gr.Row():
        guidance = gr.Dropdown(
            sorted(PARTS["guidance"]), value="sds", label="Guidance", elem_id="guidance", min_width=140
        )
        scene = gr.Dropdown(sorted(PARTS["scene"]), value="gaussians", label="Scene", elem_id="scene", min_width=140)
        preset = gr.Dropdown(list(PRESETS), value="default", label="Preset", elem_id="preset", min_width=140)
    with gr.Row():
        prior = gr.Textbox(
            value="embedded",
            label="Prior",
            info="embedded, or a model's folder or hub id",
            elem_id="prior",
            max_length=500,
        )
        prior.change(lambda name: gr.Dataset(samples=examples_of(name)), prior, examples, **PRIVATE)
        seed = gr.Number(value=0, label="Seed", elem_id="seed", info="same seed, same object")
    go = gr.Button("Generate", variant="primary", elem_id="go")
    problem = gr.HTML(elem_id="problem")
    with gr.Accordion("Advanced", open=False, elem_id="advanced"):
        with gr.Row():
            timesteps = gr.Dropdown([("as it suits", ""), *sorted(PARTS["timesteps"])], value="", label="Times")
            noise = gr.Dropdown([("as it suits", ""), *sorted(PARTS["noise"])], value="", label="Noise")
        more = gr.Textbox(
            label="Further options", placeholder="optim.lr_scale=0.5", lines=2, max_length=4000, elem_id="more",
            info="KEY=VALUE, one a line: anything that sds3d generate --set takes",
        )  # fmt: skip
        _advanced(options, {"guidance": guidance, "scene": scene, "timesteps": timesteps, "noise": noise})
    fields = [prompt, negative, prior, guidance, scene, preset, seed, timesteps, noise]
    return {"go": go, "words": words, "problem": problem, "inputs": [options, more, *fields]}


def _advanced(options: gr.State, parts: Mapping[str, Any]) -> None:
    """A control for each plain option of each part; those of parts are made anew when another part is chosen."""

    def forget(group: str) -> Any:
        return lambda said: {key: value for key, value in said.items() if not key.startswith(f"{group}.")}

    for group, dropdown in parts.items():
        dropdown.change(forget(group), options, options, **PRIVATE)

    def put(key: str) -> Any:
        return lambda value, said: {**said, key: value}

    @gr.render(inputs=list(parts.values()))
    def controls(*chosen: str) -> None:
        names = dict(zip(parts, chosen, strict=True))
        for group in (OWN, *GROUPS):
            found = controls_of(group, names.get(group) or None)
            if not found:
                continue
            with gr.Accordion(group.replace("_", " "), open=group == OWN):
                for control in found:
                    made = component(control)
                    made.input(put(control.key), [made, options], options, **PRIVATE)


def _looking(works: Works, chosen: gr.State, begun: gr.Textbox) -> dict[str, Any]:
    """The chosen run, large, and what can be told it."""
    live, problem = gr.HTML(elem_id="live"), gr.HTML(elem_id="told")
    with gr.Row():
        pause = gr.Button("Pause", visible=False, elem_id="pause", size="sm")
        resume = gr.Button("Go on", visible=False, elem_id="resume", size="sm")
        stop = gr.Button("Stop and keep", visible=False, elem_id="stop", size="sm", variant="stop")
        again = gr.Button("Go on from the last checkpoint", visible=False, elem_id="again", size="sm")
    for button, order in ((pause, "pause"), (resume, "run"), (stop, "stop"), (again, "retry")):
        button.click(tell(works, order), chosen, problem, concurrency_id="orders", **PRIVATE)
    with gr.Column(visible=False) as viewers, gr.Tabs() as tabs:
        with gr.Tab("Mesh", id="mesh"):
            mesh = gr.Model3D(label="mesh.glb", height=360, elem_id="mesh", interactive=False)
        with gr.Tab("Splats", id="splats") as behind:
            splats = gr.Model3D(label="splats.ply", height=360, elem_id="splats", interactive=False)
    viewable = gr.Textbox(visible="hidden")
    viewable.change(
        lambda name: (models(works, name)[0], None, gr.Tabs(selected="mesh")), viewable, [mesh, splats, tabs], **PRIVATE
    )
    behind.select(lambda name: models(works, name)[1], viewable, splats, **PRIVATE)  # out of sight nothing is drawn
    results = gr.HTML(elem_id="results")
    with gr.Column(visible=False) as about:
        with gr.Accordion("Curves and log", open=True, elem_id="curves"):
            details = gr.HTML(elem_id="details")
        with gr.Accordion("Change or fork", open=False, elem_id="changing"):
            _changing(works, chosen, begun)
    with gr.Row(visible=False, elem_id="formats") as formats:
        file_format = gr.Dropdown([], label="Another format", elem_id="format", min_width=160)
        make = gr.Button("Make the file", elem_id="make", size="sm", min_width=140)
    made = gr.HTML(elem_id="made")
    make.click(
        make_format(works), [chosen, file_format], made, concurrency_id="exports", concurrency_limit=1, **PRIVATE
    )
    return {
        "live": live, "details": details, "results": results, "pause": pause, "resume": resume, "stop": stop,
        "again": again, "viewable": viewable, "format": file_format, "viewers": viewers, "about": about,
        "formats": formats,
    }  # fmt: skip


def _changing(works: Works, chosen: gr.State, begun: gr.Textbox) -> None:
    """Other words for a run under way, or a new run from its newest checkpoint."""
    words = gr.Textbox(label="Other words", max_length=500, elem_id="other-words", info="empty: as they are")
    with gr.Row():
        scale = gr.Number(label="Guidance scale", elem_id="other-scale", info="empty: as it is")
        steps = gr.Number(
            label="Steps of the fork", precision=0, minimum=1, elem_id="fork-steps", info="empty: as many"
        )
    with gr.Row():
        change = gr.Button("Change this run", elem_id="change", size="sm")
        fork = gr.Button("Fork into a new run", elem_id="fork", size="sm")
    said = gr.HTML(elem_id="changed")
    change.click(change_run(works), [chosen, words, scale], said, concurrency_id="orders", **PRIVATE)
    given, made = [chosen, words, scale, steps], [chosen, begun, said]
    fork.click(fork_run(works), given, made, concurrency_id="orders", **PRIVATE)


def _shelf(works: Works, chosen: gr.State) -> dict[str, Any]:
    """All runs; two side by side; and removing one."""
    with gr.Tabs():
        with gr.Tab("History"):
            history = gr.HTML(elem_id="history")
        with gr.Tab("Compare"):
            with gr.Row():
                first, second = (gr.Dropdown([], label=label, elem_id=f"compare-{label}") for label in ("one", "other"))
            pair = gr.HTML(elem_id="pair")
            for dropdown in (first, second):
                dropdown.input(
                    lambda a, b: pieces.compared(works.find(a), works.find(b)), [first, second], pair, **PRIVATE
                )
        with gr.Tab("Delete"):
            doomed = gr.Dropdown([], label="Run", elem_id="doomed")
            sure = gr.Checkbox(label="Yes, remove it and all its files", elem_id="sure")
            delete, said = gr.Button("Delete", variant="stop", elem_id="delete"), gr.HTML(elem_id="deleted")
            delete.click(delete_run(works), [doomed, sure], [said, sure], concurrency_id="orders", **PRIVATE)
    return {"history": history, "first": first, "second": second, "doomed": doomed}
