"""What the page's buttons do to a run. Whatever goes wrong is shown on the page, in one line."""

from collections.abc import Callable, Mapping
from typing import Any

import gradio as gr

from sds3d.config import LIVE, RunConfig
from sds3d.errors import ConfigError, Sds3dError
from sds3d.jobs.fork import fork
from sds3d.prompts import unknown_word_warnings
from sds3d.run.events import Change, Command, FinishEarly, Pause, Resume, Stop

from . import fragments
from .controls import check_files, config_of
from .export_files import FileMaker
from .run_index import RunEntry, RunIndex

FIELDS = ("prompt", "negative_prompt", "prior", "guidance", "scene", "preset", "seed", "timesteps", "noise")
COMMANDS: dict[str, Command] = {"pause": Pause(), "resume": Resume(), "stop": FinishEarly(), "leave": Stop()}
Words = str  # HTML that answers a click


def start(index: RunIndex, entered: object, more: object, *fields: object) -> tuple[Any, Words, Words]:
    """Queue what the page describes: (its name, what to know about its words, what is wrong)."""
    try:
        options = {**_mapping(entered), **dict(zip(FIELDS, fields, strict=True))}
        config = config_of(options, more)
        check_files(config, index.files)
        warnings = word_warnings(config)
        return index.add(config).name, fragments.note(warnings), ""
    except Sds3dError as error:
        return gr.skip(), "", fragments.problem(str(error), error.field if isinstance(error, ConfigError) else "")


def word_warnings(config: RunConfig) -> str:
    """The warning about words that the prior does not know, or nothing; ConfigError if it knows none of the prompt."""
    unknown = config.prior.unknown_words(f"{config.prompt} {config.negative_prompt}")
    return " ".join(unknown_word_warnings(unknown, config.prior, config.prompt))


def _mapping(entered: object) -> Mapping[str, object]:
    return entered if isinstance(entered, Mapping) else {}


def _guarded(index: RunIndex, act: Callable[..., Words]) -> Callable[..., Words]:
    """`act(entry, ...)` of the run of a name; its HTML, or the problem."""

    def answer(name: object, *values: object) -> Words:
        try:
            entry = index.find(name)
            return fragments.problem("choose a run first") if entry is None else act(entry, *values)
        except Sds3dError as error:
            return fragments.problem(str(error))

    return answer


def command(index: RunIndex, order: str) -> Callable[..., Words]:
    """Pause, resume, stop or retry a job. Stopped while it waits it only leaves the queue."""

    def act(entry: RunEntry) -> Words:
        if entry.job is None:
            return fragments.problem("this run was made on the command line: sds3d resume goes on with it")
        if order == "retry":
            index.queue.retry(entry.job)
        else:
            leaves = order == "stop" and entry.state == "queued"
            index.queue.command(entry.job, COMMANDS["leave" if leaves else order])
        return ""

    return _guarded(index, act)


def make_format(index: RunIndex, maker: FileMaker) -> Callable[..., Words]:
    """Begin to write a run in another format."""

    def act(entry: RunEntry, file_format: object) -> Words:
        maker.start(entry, file_format)
        return fragments.exported(entry, maker.last(entry))

    return _guarded(index, act)


def _changes(config: RunConfig, words: object, scale: object, **more: object) -> dict[str, Any]:
    """What was filled in; ConfigError names what cannot be, words that the prior does not know among them."""
    entered = {"prompt": words, "guidance.guidance_scale": scale, **more}
    changes = {key: value for key, value in entered.items() if value not in (None, "")}
    if not changes:
        raise ConfigError("nothing is filled in", hint="say other words, or another guidance scale")
    config.with_changes(changes, (*LIVE, *more))
    return changes


def change_run(index: RunIndex) -> Callable[..., Words]:
    """Change the words or the guidance scale of a job that waits or runs."""

    def act(entry: RunEntry, words: object, scale: object) -> Words:
        if entry.job is None:
            return fragments.problem("this run was made on the command line: it cannot be changed from here")
        changes = _changes(entry.config, words, scale)
        warnings = word_warnings(entry.config.with_changes(changes))
        index.queue.command(entry.job, Change(changes))
        return f"from the next step on{fragments.note(warnings)}"

    return _guarded(index, act)


def fork_run(index: RunIndex) -> Callable[..., tuple[Any, Words]]:
    """A new job from a run's newest checkpoint: (its name, the answer). What is not filled in stays as it is."""

    def answer(chosen: object, words: object, scale: object, steps: object) -> tuple[Any, Words]:
        names: list[str] = []

        def act(entry: RunEntry) -> Words:
            changes = _changes(entry.config, words, scale, steps=steps)
            warnings = word_warnings(entry.config.with_changes(changes, (*LIVE, "steps")))
            names.append(fork(index.queue, entry.folder, changes).name)
            return f"a new run is in the queue{fragments.note(warnings)}"

        answer = _guarded(index, act)(chosen)
        return (names[0] if names else gr.skip()), answer

    return answer


def delete_run(index: RunIndex) -> Callable[..., tuple[Words, bool]]:
    """Remove a run that nobody works on: (the answer, an empty tick)."""

    def act(entry: RunEntry, sure: object) -> Words:
        if sure is not True:
            return fragments.problem("say that you are sure first")
        index.delete(entry)
        return "removed"

    answer = _guarded(index, act)
    return lambda name, sure: (answer(name, sure), False)
