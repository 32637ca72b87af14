"""What the page's buttons do to a run. Whatever goes wrong is shown on the page, in one line."""

import re
import secrets
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import gradio as gr

from sds3d.config import RunConfig
from sds3d.errors import ConfigError, Sds3dError
from sds3d.jobs.queue import FORKABLE, fork
from sds3d.priors import PriorConfig
from sds3d.priors.embedded.config import EmbeddedConfig
from sds3d.priors.embedded.object_kinds import KINDS
from sds3d.priors.embedded.words import things_of, words_of
from sds3d.prompts import unknown_word_warnings
from sds3d.run.events import Change, Command, FinishEarly, Pause, Resume, Stop
from sds3d.run.inputs import MESH

from . import fragments
from .controls import check_files, config_of
from .export_files import FileMaker
from .run_index import UNDO, RunEntry, RunIndex

COMMANDS: dict[str, Command] = {"pause": Pause(), "resume": Resume(), "stop": FinishEarly()}
SEEDS = 1_000_000  # that are drawn from: short enough to be told
TRIES = 3  # prompts that are offered in the place of one with unknown words
NAME = 200  # characters of a name that there is no run of
COMPARE = "compare"  # the tab of two runs side by side
Words = str  # HTML that answers a click


def start(index: RunIndex, entered: Mapping[str, Any] | None, more: str | None, fields: Mapping[str, Any]) -> Any:
    """Queue what the page describes: (its name, what is wrong or to know of it). Without a seed one is drawn."""
    fields = {**fields, "prompt": " ".join((fields["prompt"] or "").split("\n"))}
    if fields.get("seed") in (None, ""):
        fields["seed"] = secrets.randbelow(SEEDS)
    config = None
    try:
        config = config_of({**(entered or {}), **fields}, more)
        check_files(config, index.files)
        warnings = word_warnings(config)
        return index.add(config).name, warnings
    except Sds3dError as error:
        if config is not None and isinstance(error, ConfigError) and error.field == "prompt":
            unknown = _unknown(config)
            said = _says(unknown) if unknown else "It finds nothing to make in these words"
            return gr.skip(), fragments.problem(said, "prompt", suggestions(config, unknown))
        return gr.skip(), fragments.problem(str(error), error.field if isinstance(error, ConfigError) else "")


def word_warnings(config: RunConfig) -> Words:
    """The warning about words that the prior does not know, or nothing; ConfigError if it knows none of the prompt."""
    unknown = _unknown(config)
    if not unknown_word_warnings(unknown, config.prior, config.prompt):
        return ""
    return fragments.note(f"{_says(unknown)}; it goes by the others.", suggestions(config, unknown))


def _unknown(config: RunConfig) -> list[str]:
    return config.prior.unknown_words(f"{config.prompt} {config.negative_prompt}")


def _says(unknown: list[str]) -> str:
    return f"It does not know: {', '.join(unknown[:4])}{', ...' if len(unknown) > 4 else ''}"


def suggestions(config: RunConfig, unknown: list[str]) -> list[str]:
    """Prompts that the prior takes whole: this one with the nearest words in the place of the unknown ones, then
    examples."""
    near = {word: config.prior.nearest(word) for word in unknown}
    found = list[str]()
    for turn in range(TRIES):
        prompt = config.prompt
        for word, others in near.items():
            prompt = re.sub(rf"\b{re.escape(word)}\b", others[turn] if turn < len(others) else word, prompt, flags=re.I)
        found.append(prompt)
    known = [prompt for prompt in found if prompt != config.prompt and _takes(config.prior, prompt)]
    return list(dict.fromkeys([*known, *config.prior.examples]))[:TRIES]


def _takes(prior: PriorConfig, prompt: str) -> bool:
    """Whether the prior knows each word and each thing; of the one that ships, no thing may stand where a verb was."""
    try:
        warnings = unknown_word_warnings(prior.unknown_words(prompt), prior, prompt)
    except ConfigError:
        return False
    parts = things_of(words_of(prompt)) if isinstance(prior, EmbeddedConfig) else ()
    return not warnings and all(sum(word in KINDS for word in part) <= 1 + part.count("and") for part in parts)


def told(act: Callable[..., Words]) -> Callable[..., Words]:
    """`act(index, entry, ...)` as a click calls it: with a run's name for `entry`; what goes wrong is the answer."""

    @wraps(act)
    def answer(index: RunIndex, name: object, *values: object, **more: Any) -> Words:
        try:
            return act(index, index.chosen(name), *values, **more)
        except Sds3dError as error:
            return fragments.problem(str(error))

    return answer


@told
def command(index: RunIndex, entry: RunEntry, order: str) -> Words:
    """Pause, resume, stop or retry a job. Stopped while it waits it only leaves the queue."""
    if entry.job is None:
        raise ConfigError("this run was made on the command line: sds3d resume goes on with it")
    if order == "again":
        index.queue.retry(entry.job)
    else:
        leaves = order == "stop" and entry.state == "queued"
        index.queue.command(entry.job, Stop() if leaves else COMMANDS[order])
    return ""


@told
def make_format(index: RunIndex, entry: RunEntry, file_format: object, maker: FileMaker) -> Words:
    """Begin to write a run in another format; its menu tells what comes of it.

    A run folder may be anybody's: it must name no mesh of the server.
    """
    check_files(entry.config, index.files, entry.folder.path, only=MESH)
    maker.start(entry, file_format)
    return ""


@told
def change_run(index: RunIndex, entry: RunEntry, words: object, scale: object) -> Words:
    """Change the words or the guidance scale of a job that waits or runs."""
    if entry.job is None:
        raise ConfigError("this run was made on the command line: it cannot be changed from here")
    changes, warnings = _changes(entry.config, words, scale)
    index.queue.command(entry.job, Change(changes))
    return f"from the next step on{warnings}"


def fork_run(index: RunIndex, name: object, words: object, scale: object, steps: object) -> tuple[Any, Words]:
    """A new job from a run's newest checkpoint: (its name, the answer). What is not filled in stays as it is.

    The run must name no file of the server outside its folder: it may have been made elsewhere, by anybody.
    """
    try:
        entry = index.chosen(name)
        check_files(entry.config, index.files, entry.folder.path)
        changes, warnings = _changes(entry.config, words, scale, steps)
        return fork(index.queue, entry.folder, changes).name, f"a new run is in the queue{warnings}"
    except Sds3dError as error:
        return gr.skip(), fragments.problem(str(error))


def _changes(config: RunConfig, words: object, scale: object, steps: object = None) -> tuple[dict[str, Any], Words]:
    """(what was filled in, what to know about its words); ConfigError names what cannot be."""
    entered = {"prompt": words, "guidance.guidance_scale": scale, "steps": steps}
    changes = {key: value for key, value in entered.items() if value not in (None, "")}
    if not changes:
        raise ConfigError("nothing is filled in", hint="say other words, or another guidance scale")
    return changes, word_warnings(config.with_changes(changes, FORKABLE))


@told
def delete_run(index: RunIndex, entry: RunEntry) -> Words:
    """Remove a run that nobody works on; for some seconds that can be undone."""
    index.put_away(entry)
    return fragments.removed(entry, UNDO)


def named(name: object) -> str:
    """What a visitor takes for the name of a run, to be told that there is none."""
    return name[:NAME] if isinstance(name, str) else ""


def act(index: RunIndex, maker: FileMaker, wanted: Mapping[str, Any] | None, chosen: str) -> tuple[Any, ...]:
    """What a click on a card or a button of the stage wants, {"act": ..., "run": its name, ...}; with "keep" the words
    in the prompt are a person's own.

    (The run that is chosen now, the words for the prompt, what to say of it, two runs side by side, the fold that
    these are in, its tabs)
    """
    wanted = wanted or {}
    order, name = wanted.get("act"), wanted.get("run")
    said, words, pair, fold, tabs = (gr.skip() for _ in range(5))  # what can be undone stays said until it cannot
    if order == "choose":
        entry = index.find(name)
        chosen = named(name)
        if not wanted.get("keep"):
            words = fragments.prompt_of(entry) if entry is not None else ""
    elif order == "delete":
        said = delete_run(index, name)
        chosen = chosen if index.find(chosen) is not None else ""
    elif order == "undo":
        try:
            chosen, said = index.bring_back(name).name, ""
        except Sds3dError as error:
            said = fragments.problem(str(error))
    elif order == "make":
        said = make_format(index, name, wanted.get("format"), maker) or said
    elif order == "compare":
        both = [entry for one in (name, wanted.get("other")) if (entry := index.find(one)) is not None]
        pair = fragments.compared([(entry, index.log(entry)) for entry in both])
        fold, tabs = gr.Accordion(open=True), gr.Tabs(selected=COMPARE)
    elif order in (*COMMANDS, "again"):
        said = command(index, name, str(order)) or said
    return chosen, words, said, pair, fold, tabs
