"""Lists of what to make: a text file of prompts, or a table of options, as configs that are checked before any runs."""

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from sds3d.config.run_config import RunConfig, load_config, with_whole_paths
from sds3d.errors import ConfigError
from sds3d.jobs.queue import check_words
from sds3d.text_files import numbered_lines, read_table, read_text

MAX_BYTES = 16 * 2**20
COMMENT = re.compile(r"(^|\s)#.*")  # as in a shell: "number#1" has none
VARY = "vary"  # the key of an item whose lists are multiplied out
Item = Mapping[str, Any]


def read_job_list(
    path: Path,
    preset: str | None = None,
    base: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    vary: Mapping[str, Sequence] | None = None,
) -> list[RunConfig]:
    """The configs of a list, in order and each once: every item times every combination of what varies.

    .txt: a prompt a line, `#` at its start or after a space begins a comment. .csv, .tsv: options in columns
    (`read_table`), an empty cell leaves the option alone.
    .jsonl: a prompt or an object with options a line. .yaml, .yml: a list of the same. Options have dotted keys
    ("guidance.guidance_scale"), and `vary` in an object holds lists of values: {"prompt": "a red mug", "vary":
    {"seed": [0, 1, 2]}}. Files that it names are looked for beside the list, then in the working folder. An item's
    options override `overrides`, which override the file `base`, which overrides the preset.
    ConfigError names the file, the line or item, and what is wrong.
    """
    configs: dict[str, RunConfig] = {}
    said = with_whole_paths(overrides or {}, Path())
    for where, item in _items(path):
        own = with_whole_paths(item, path.parent)
        varied = own.pop(VARY, {})
        try:
            if not isinstance(varied, Mapping) or not all(isinstance(v, list) and v for v in varied.values()):
                raise ConfigError(f"{VARY} must be an object of lists that are not empty", 'such as {"seed": [0, 1]}')
            each = {
                key: [with_whole_paths({key: v}, path.parent)[key] for v in values] for key, values in varied.items()
            }
            lists = {**(vary or {}), **each}
            for values in itertools.product(*lists.values()):
                combination = dict(zip(lists, values, strict=True))
                config = load_config(base, preset, {**said, **own, **combination})
                check_words(config)
                configs.setdefault(json.dumps(config.to_dict(), sort_keys=True), config)
        except ConfigError as error:
            raise ConfigError(f"{path}, {where}: {error.args[0]}", hint=error.hint) from error
    if not configs:
        raise ConfigError(f"{path} holds no prompt")
    return list(configs.values())


def _items(path: Path) -> Iterator[tuple[str, Item]]:
    """(where, options) of everything in the list."""
    kinds = {
        ".txt": _of_text,
        ".csv": _of_csv,
        ".tsv": _of_csv,
        ".jsonl": _of_json_lines,
        ".yaml": _of_yaml,
        ".yml": _of_yaml,
    }
    if path.suffix.lower() not in kinds:
        raise ConfigError(f"{path} is no list that can be read", hint="known: " + ", ".join(kinds))
    text = read_text(path, MAX_BYTES, "a list of prompts")
    for where, value in kinds[path.suffix.lower()](text, path):
        item = {"prompt": value} if isinstance(value, str) else value
        if not isinstance(item, Mapping) or not isinstance(item.get("prompt"), str):
            raise ConfigError(
                f"{path}, {where}: expected a prompt, or an object with one", hint='{"prompt": "a red mug"}'
            )
        yield where, item


def _of_text(text: str, path: Path) -> Iterator[tuple[str, object]]:
    for number, line in numbered_lines(text):
        prompt = COMMENT.sub("", line).strip()
        if prompt:
            yield f"line {number}", prompt


def _of_csv(text: str, path: Path) -> Iterator[tuple[str, object]]:
    try:
        for line, cells in read_table(text, "prompt"):
            if "prompt" not in cells:
                raise ValueError(
                    f"line {line}: there is no prompt; the first line names the columns, one of them prompt"
                )
            yield f"line {line}", cells
    except ValueError as error:
        raise ConfigError(f"{path}, {error}") from error


def _of_json_lines(text: str, path: Path) -> Iterator[tuple[str, object]]:
    for number, line in numbered_lines(text):
        try:
            yield f"line {number}", json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{path}, line {number}: not valid JSON: {error}") from error


def _of_yaml(text: str, path: Path) -> Iterator[tuple[str, object]]:
    try:
        items = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(items, list):
        raise ConfigError(f"{path} holds no list", hint="begin each prompt's line with a hyphen")
    for number, item in enumerate(items, 1):
        yield f"item {number}", item
