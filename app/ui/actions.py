"""What the page's buttons do to a run. Whatever goes wrong is shown on the page, in one line."""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import gradio as gr

from sds3d.config import RunConfig
from sds3d.errors import ConfigError, Sds3dError
from sds3d.jobs.queue import FORKABLE, fork
from sds3d.prompts import unknown_word_warnings
from sds3d.run.events import Change, Command, FinishEarly, Pause, Resume, Stop
from sds3d.run.inputs import MESH

from . import fragments
from .controls import check_files, config_of
from .export_files import FileMaker
from .run_index import RunEntry, RunIndex

COMMANDS: dict[str, Command] = {"pause": Pause(), "resume": Resume(), "stop": FinishEarly()}
Words = str  # HTML that answers a click


def start(
    index: RunIndex, entered: Mapping[str, Any] | None, more: str | None, fields: Mapping[str, Any]
) -> tuple[Any, Words, Words]:
    """Queue what the page describes: (its name, what to know about its words, what is wrong)."""
    try:
        config = config_of({**(entered or {}), **fields}, more)
        check_files(config, index.files)
        warnings = word_warnings(config)
        return index.add(config).name, warnings, ""
    except Sds3dError as error:
        return gr.skip(), "", fragments.problem(str(error), error.field if isinstance(error, ConfigError) else "")


def word_warnings(config: RunConfig) -> Words:
    """The warning about words that the prior does not know, or nothing; ConfigError if it knows none of the prompt."""
    unknown = config.prior.unknown_words(f"{config.prompt} {config.negative_prompt}")
    return fragments.note(" ".join(unknown_word_warnings(unknown, config.prior, config.prompt)))


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
    """Begin to write a run in another format. A run folder may be anybody's: it must name no mesh of the server."""
    check_files(entry.config, index.files, entry.folder.path, only=MESH)
    maker.start(entry, file_format)
    return fragments.exported(entry, maker.last.get(entry.name))


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
def delete_run(index: RunIndex, entry: RunEntry, sure: object) -> Words:
    """Remove a run that nobody works on."""
    if sure is not True:
        raise ConfigError("say that you are sure first")
    index.delete(entry)
    return "removed"
