"""Checks that a model's folder holds what its index names, complete and in formats that cannot run code."""

import json
import re
import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from sds3d.errors import PriorUnavailable
from sds3d.priors.hub.families import FAMILIES, family_of
from sds3d.priors.hub.families.base import Family
from sds3d.text_files import is_stand_in

OURS = "sds3d"  # stands for the library of components that a family's `make` builds
INDEX = "model_index.json"
WEIGHTS = re.compile(
    r"(diffusion_pytorch_model|model)(\.(?P<variant>[a-z0-9_]+))?(?P<shard>-\d{5}-of-\d{5})?(\.(?P<old>[a-z0-9_]+))?"
    r"\.safetensors"
)  # `old`: where older versions of diffusers put the variant of a shard
SHARDS = re.compile(r"(diffusion_pytorch_model|model)\.safetensors\.index(\.(?P<variant>[a-z0-9_]+))?\.json")
PICKLES = (".bin", ".pt", ".ckpt", ".pth")
PLAIN = (".json", ".txt", ".model", ".safetensors")  # no suffix of these can run code
MAX_HEADER = 100 << 20


@dataclass(frozen=True)
class LocalModel:
    """A model on this machine, checked."""

    folder: Path
    revision: str  # the hub's commit; "local" for a folder that was named
    pipeline: str  # diffusers' class
    family: Family
    components: Mapping[str, tuple[str, str]]  # name: (library, class)
    variants: Mapping[str, str | None]  # of the weights of each network: None, "fp16", ...
    pickled: tuple[str, ...]  # networks that come as pickles only
    notes: tuple[str, ...] = ()  # what a person should know

    def read_config(self, name: str) -> dict[str, Any]:
        """A component's config.json."""
        return read_object(self.folder / name / "config.json")


def inspect_model(folder: Path, allow_pickle: bool = False, revision: str = "local") -> LocalModel:
    """Check every file that will be loaded, without reading weights. PriorUnavailable names the first problem."""
    pipeline, family = family_in(folder)
    components = _components(folder, family)
    variants: dict[str, str | None] = {}
    notes = list[str]()
    for name in components:
        if name.startswith(("tokenizer", "scheduler")):
            if not any((folder / name).glob("*.json")):
                raise _missing(folder / name, "its configuration")
            continue
        if not (folder / name / "config.json").is_file():
            raise _missing(folder / name, "config.json")
        variants[name], damage = _variant(folder / name, allow_pickle)
        if damage is not None:
            notes.append(f"its {name} is loaded from the {variants[name] or 'plain'} weights, because {damage.args[0]}")
    pickled = tuple(name for name in variants if not matching(folder / name, WEIGHTS))
    notes += [f"its {name} was loaded from a pickle, which can run code" for name in pickled]
    return LocalModel(folder, revision, pipeline, family, components, variants, pickled, tuple(notes))


def family_in(folder: Path) -> tuple[str, Family]:
    """(diffusers' pipeline class, family) of a model's folder, from its index; PriorUnavailable if there is none."""
    if folder.is_file():
        raise _no_folder(folder)
    if not (folder / INDEX).is_file():
        raise PriorUnavailable(
            f"{folder} is not a diffusers model: it has no {INDEX}",
            "give a folder written by diffusers' save_pretrained",
        )
    pipeline = read_object(folder / INDEX).get("_class_name")
    if not isinstance(pipeline, str) or pipeline not in FAMILIES:
        supported = ", ".join(FAMILIES)
        raise PriorUnavailable(f"{folder} is a {pipeline}, which is not supported", f"supported: {supported}")
    network_config: dict[str, Any] = {}
    with suppress(PriorUnavailable):  # if it cannot be read, `inspect_model` says so
        network_config = read_object(folder / FAMILIES[pipeline].network / "config.json")
    return pipeline, family_of(pipeline, network_config)


STANDS_FOR = "it only stands for the file, which Git LFS has (git lfs pull)"
SINGLE = {  # a layer that tells what a file with a whole model is
    "conditioner.embedders.1.": "StableDiffusionXLPipeline",
    "joint_blocks.": "StableDiffusion3Pipeline",
    "double_blocks.": "FluxPipeline",
    "cond_stage_model.": "StableDiffusionPipeline",
}


def _no_folder(path: Path) -> PriorUnavailable:
    """What a file is that was given for a model's folder, and what to do with it."""
    if path.name == INDEX:
        return PriorUnavailable(f"{path} is a file of a model", f"give its folder: {path.parent}")
    if is_pointer(path):
        return PriorUnavailable(f"{path}: {STANDS_FOR}", "fetch it, then give the model's folder")
    try:
        with safe_open(path, "pt") as tensors:
            keys = list(tensors.keys())
    except (OSError, SafetensorError):
        return PriorUnavailable(
            f"{path} is a file, not a folder", "give a folder written by diffusers' save_pretrained"
        )
    if any("lora" in key for key in keys):
        return PriorUnavailable(f"{path} is a LoRA, not a model", f'give it beside one: prior.lora=["{path}"]')
    kind = next((kind for part, kind in SINGLE.items() if any(part in key for key in keys)), "StableDiffusionPipeline")
    code = f"from diffusers import {kind} as P; P.from_single_file({str(path)!r}).save_pretrained({path.stem!r})"
    hint = f"make a folder of it once, online: python -c {shlex.quote(code)}, then give {path.stem}"
    return PriorUnavailable(f"{path} is a whole model in one file, not a folder", hint)


def is_pointer(path: Path) -> bool:
    """Whether a file only stands for another, see `is_stand_in`."""
    with path.open("rb") as file:
        return is_stand_in(file.read(64))


def is_wanted(name: str) -> bool:
    """Whether a file of a repository, such as "unet/config.json", can be part of a model."""
    file = name.rsplit("/", maxsplit=1)[-1]
    if is_pickle(file):
        return file.startswith(("diffusion_pytorch_", "pytorch_"))
    return bool(WEIGHTS.fullmatch(file)) if file.endswith(".safetensors") else file.endswith(PLAIN)


def is_pickle(name: str) -> bool:
    """By its suffix."""
    return name.endswith(PICKLES)


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a model's file; PriorUnavailable if it holds anything else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PriorUnavailable(f"{path} cannot be read: {error}", "fetch the model again") from error
    if not isinstance(value, dict):
        raise PriorUnavailable(f"{path} is not a JSON object", "fetch the model again")
    return value


def _components(folder: Path, family: Family) -> dict[str, tuple[str, str]]:
    """The components that the family needs, with their classes; the index may leave text encoders out."""
    index, components = read_object(folder / INDEX), dict[str, tuple[str, str]]()
    for name in (family.network, "scheduler", *(("vae",) if family.latent else ()), *family.encoders):
        entry = index.get(name)
        if name in family.encoders and (entry is None or entry == [None, None]):
            continue
        if not (isinstance(entry, list) and len(entry) == 2 and all(isinstance(part, str) for part in entry)):
            raise PriorUnavailable(f"{folder / INDEX} does not name a {name}", "fetch the model again")
        library, kind = entry
        if family.foreign.get(name) == kind:
            library = OURS
        elif library not in ("diffusers", "transformers"):
            raise PriorUnavailable(
                f"{folder}: its {name} is {library}.{kind}, code that comes with the model",
                "sds3d never runs such code",
            )
        if not (folder / name).is_dir():
            raise _missing(folder, f"the folder {name}")
        components[name] = (library, kind)
    return components


def variant_of(match: re.Match[str]) -> str | None:
    """Of a file of weights, such as "fp16"; None for the plain ones."""
    found: str | None = match["variant"] or match["old"]
    return found


def _variant(folder: Path, allow_pickle: bool) -> tuple[str | None, PriorUnavailable | None]:
    """The set of weights to load: of the plain one and the variants by name the first that is whole; what is wrong with
    one before it. PriorUnavailable where none is whole."""
    safe = matching(folder, WEIGHTS)
    if not safe:
        pickles = sorted(path.name for path in folder.iterdir() if is_pickle(path.name))
        if pickles and allow_pickle:
            return None, None
        if pickles:
            raise PriorUnavailable(
                f"{folder} has only pickled weights ({pickles[0]}), which can run code when they are loaded",
                "use a version with safetensors, or --allow-pickle if you trust whoever made it",
            )
        raise _missing(folder, "its weights")
    damage: PriorUnavailable | None = None
    for variant in sorted({variant_of(match) for match in safe.values()}, key=lambda name: name or ""):
        try:
            _check_set(folder, variant, {name: m for name, m in safe.items() if variant_of(m) == variant})
        except PriorUnavailable as error:
            damage = damage or error
        else:
            return variant, damage
    assert damage is not None
    raise damage


def _check_set(folder: Path, variant: str | None, files: Mapping[str, re.Match[str]]) -> None:
    """PriorUnavailable if the weights of a variant are not all there."""
    indexes = [file for file, match in matching(folder, SHARDS).items() if match["variant"] == variant]
    if any(match["shard"] for match in files.values()) and not indexes:
        raise _missing(folder, "the index of its shards")
    for index in indexes:
        try:
            shards = set(json.loads((folder / index).read_text())["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            raise PriorUnavailable(f"{folder / index} is damaged: {error}", "fetch the model again") from error
        if shards - files.keys():
            raise _missing(folder, min(shards - files.keys()))
    for name in files:
        _check_whole(folder / name)


def matching(folder: Path, pattern: re.Pattern[str]) -> dict[str, re.Match[str]]:
    """The names of a folder's files that are of the pattern, with their parts."""
    matches = {path.name: pattern.fullmatch(path.name) for path in folder.iterdir()}
    return {name: match for name, match in matches.items() if match}


def _check_whole(path: Path) -> None:
    """PriorUnavailable if a safetensors file is shorter or longer than its header says."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(MAX_HEADER, size - 8):
                raise ValueError("its header is cut off" if not is_pointer(path) else STANDS_FOR)
            header = json.loads(file.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        expected = 8 + length + max(ends, default=0)
        if expected != size:
            raise ValueError(f"{size:,} bytes of {expected:,} are there")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise PriorUnavailable(f"{path} is incomplete: {error}", "fetch the model again") from error


def _missing(folder: Path, what: str) -> PriorUnavailable:
    return PriorUnavailable(f"{folder} lacks {what}", "the download was cut off, or this is not a diffusers model")
