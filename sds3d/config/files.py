"""Options that name files of the machine: where they stand in a config, and other names for what is there."""

import os
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, get_args

from sds3d.config.layers import MAX_DEPTH, PARTS, Leaf
from sds3d.options import LocalFile, Options, split_strength
from sds3d.reference_image import ReferenceImageConfig

Rename = Callable[[str, str], str]  # (dotted key, name of the file) -> another name


@cache
def file_keys() -> frozenset[str]:
    """Dotted keys of all options marked `LocalFile`, of whichever part; those of stages have the same."""
    own = _marked(ReferenceImageConfig, "reference_image")
    return frozenset([*own, *(key for part in PARTS for kind in PARTS[part].values() for key in _marked(kind, part))])


def _marked(kind: type[Options], prefix: str) -> Iterator[str]:
    for name, field in kind.model_fields.items():
        if any(isinstance(mark, LocalFile) for mark in field.metadata):
            yield f"{prefix}.{name}"
        for inner in (field.annotation, *get_args(field.annotation)):
            if isinstance(inner, type) and issubclass(inner, Options):
                yield from _marked(inner, f"{prefix}.{name}")


def map_files(data: Any, rename: Rename, key: str = "") -> Any:
    """Options, nested or dotted, as plain data or as a tree of leaves, with other names for the files in them."""
    if isinstance(data, Leaf):
        return data._replace(value=map_files(data.value, rename, key))
    if isinstance(data, Mapping) and key.count(".") < MAX_DEPTH:
        begin = key and f"{key}."
        return {name: map_files(value, rename, f"{begin}{name}") for name, value in data.items()}
    if key == "stages" and isinstance(data, list | tuple):
        return [_stage(stage, rename) for stage in data]
    if key == "prior" and isinstance(data, str) and "/" in data:  # a model's folder or id
        key = "prior.model"
    if key not in file_keys():
        return data
    if isinstance(data, str):
        file, _ = split_strength(data) if key == "prior.lora" else (data, 1.0)
        return rename(key, file) + data[len(file) :]
    is_list = isinstance(data, list | tuple)
    return [map_files(name, rename, key) for name in data] if is_list else data


def _stage(stage: Any, rename: Rename) -> Any:
    if not (isinstance(stage, Mapping) and isinstance(stage.get("options"), Mapping)):
        return stage
    return {**stage, "options": map_files(stage["options"], rename)}


def beside(folder: Path) -> Rename:
    """Names as they are meant in a file in `folder`: beside that file or, where there is none, in the working folder.

    All become absolute but ids of models on the hub, which are no files.
    """

    def rename(key: str, name: str) -> str:
        path = os.path.expanduser(name)
        places = [os.path.abspath(os.path.join(folder, path)), os.path.abspath(path)]
        there = next((place for place in places if os.path.exists(place)), None)
        return name if not name or (there is None and key == "prior.model") else there or places[0]

    return rename
