"""Whether a model's folder holds what its index says, whole and in formats that cannot run code."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sds3d.errors import PriorUnavailable
from sds3d.priors.hub.families import FAMILIES, family_of
from sds3d.priors.hub.families.base import Family

OURS = "sds3d"  # the library of components that we make ourselves
INDEX = "model_index.json"
WEIGHTS = re.compile(
    r"(?P<stem>diffusion_pytorch_model|model)(\.(?P<variant>[a-z0-9_]+))?(?P<shard>-\d{5}-of-\d{5})?\.safetensors"
)
SHARDS = re.compile(r"(diffusion_pytorch_model|model)\.safetensors\.index(\.(?P<variant>[a-z0-9_]+))?\.json")
PICKLES = (".bin", ".pt", ".ckpt", ".pth")
PLAIN = (".json", ".txt", ".model", ".safetensors")  # no suffix of these can run code
MAX_HEADER = 100 << 20


@dataclass(frozen=True)
class ModelFiles:
    """What is in a model's folder."""

    pipeline: str  # diffusers' class
    family: Family
    components: Mapping[str, tuple[str, str]]  # name: (library, class)
    variants: Mapping[str, str | None]  # of the weights of each network: None, "fp16", ...
    pickled: tuple[str, ...]  # networks that come as pickles only


def inspect_model(folder: Path, allow_pickle: bool = False) -> ModelFiles:
    """Looks at all that will be loaded; reads no weights. PriorUnavailable names the first thing that is wrong."""
    index = _index(folder)
    pipeline = index.get("_class_name")
    if not isinstance(pipeline, str) or pipeline not in FAMILIES:
        supported = ", ".join(FAMILIES)
        raise PriorUnavailable(f"{folder} is a {pipeline}, which is not supported", f"supported: {supported}")
    family = family_of(pipeline, _network_config(folder, FAMILIES[pipeline].network))
    components = _components(folder, index, family)
    variants: dict[str, str | None] = {}
    pickled = []
    for name in components:
        if name.startswith(("tokenizer", "scheduler")):
            if not any((folder / name).glob("*.json")):
                raise _missing(folder / name, "its configuration")
            continue
        if not (folder / name / "config.json").is_file():
            raise _missing(folder / name, "config.json")
        variants[name] = _variant(folder / name, allow_pickle)
        if not _safe(folder / name):
            pickled.append(name)
    return ModelFiles(pipeline, family, components, variants, tuple(pickled))


def is_wanted(name: str) -> bool:
    """Whether a file of a repository is of any use: "unet/config.json"."""
    file = name.rsplit("/", maxsplit=1)[-1]
    if file.endswith((".safetensors", *PICKLES)):
        return bool(WEIGHTS.fullmatch(file)) or (
            is_pickle(file) and file.startswith(("diffusion_pytorch_", "pytorch_"))
        )
    return file.endswith(PLAIN)


def is_pickle(name: str) -> bool:
    """By its suffix."""
    return name.endswith(PICKLES)


def _index(folder: Path) -> dict[str, Any]:
    path = folder / INDEX
    if not path.is_file():
        raise PriorUnavailable(
            f"{folder} is no diffusers model: it has no {INDEX}", "give a folder written by diffusers' save_pretrained"
        )
    return read_object(path)


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a model's file; PriorUnavailable where it is anything else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PriorUnavailable(f"{path} cannot be read: {error}", "fetch the model again") from error
    if not isinstance(found, dict):
        raise PriorUnavailable(f"{path} is not a JSON object", "fetch the model again")
    return found


def _network_config(folder: Path, name: str) -> dict[str, Any]:
    """What the network's config.json says; nothing where there is none, which is told of elsewhere."""
    try:
        return read_object(folder / name / "config.json")
    except PriorUnavailable:
        return {}


def _components(folder: Path, index: Mapping[str, Any], family: Family) -> dict[str, tuple[str, str]]:
    """Those that the family needs, with their classes; some encoders may be absent by the index itself."""
    components: dict[str, tuple[str, str]] = {}
    for name in (family.network, "scheduler", *(("vae",) if family.latent else ()), *family.encoders):
        entry = index.get(name)
        if name in family.encoders and (entry is None or entry == [None, None]):
            continue
        if not (isinstance(entry, list) and len(entry) == 2 and all(isinstance(part, str) for part in entry)):
            raise PriorUnavailable(f"{folder / INDEX} names no {name}", "fetch the model again")
        library, kind = entry
        if family.foreign.get(name) == kind:
            library = OURS
        elif library not in ("diffusers", "transformers"):
            raise PriorUnavailable(
                f"{folder}: its {name} is {library}.{kind}, code that comes with the model", "sds3d runs no such code"
            )
        if not (folder / name).is_dir():
            raise _missing(folder, f"the folder {name}")
        components[name] = (library, kind)
    return components


def _variant(folder: Path, allow_pickle: bool) -> str | None:
    """Which of the sets of weights to load: the plain one where it is whole, else any that is."""
    safe = _safe(folder)
    if not safe:
        pickles = sorted(path.name for path in folder.iterdir() if is_pickle(path.name))
        if pickles and allow_pickle:
            return None
        if pickles:
            raise PriorUnavailable(
                f"{folder} has only pickled weights ({pickles[0]}), which can run code when they are loaded",
                "take a version with safetensors, or say --allow-pickle if you trust whoever made it",
            )
        raise _missing(folder, "its weights")
    variants = sorted({match["variant"] for match in safe.values()}, key=lambda name: (name is not None, name))
    chosen: str | None = variants[0]
    names = {name for name, match in safe.items() if match["variant"] == chosen}
    for index in folder.glob("*.json"):
        match = SHARDS.fullmatch(index.name)
        if match and match["variant"] == chosen:
            try:
                wanted = set(json.loads(index.read_text())["weight_map"].values())
            except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
                raise PriorUnavailable(f"{index} is damaged: {error}", "fetch the model again") from error
            if wanted - names:
                raise _missing(folder, min(wanted - names))
    if any(safe[name]["shard"] for name in names) and not any(SHARDS.fullmatch(p.name) for p in folder.glob("*.json")):
        raise _missing(folder, "the index of its shards")
    for name in names:
        _check_whole(folder / name)
    return chosen


def _safe(folder: Path) -> dict[str, re.Match[str]]:
    matches = {path.name: WEIGHTS.fullmatch(path.name) for path in folder.iterdir()}
    return {name: match for name, match in matches.items() if match}


def _check_whole(path: Path) -> None:
    """A safetensors file says in its header how long it is."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(MAX_HEADER, size - 8):
                raise ValueError("its header is cut off")
            header = json.loads(file.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        wanted = 8 + length + max(ends, default=0)
        if wanted != size:
            raise ValueError(f"{size:,} bytes of {wanted:,} are there")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise PriorUnavailable(f"{path} is not whole: {error}", "fetch the model again") from error


def _missing(folder: Path, what: str) -> PriorUnavailable:
    return PriorUnavailable(f"{folder} lacks {what}", "the download was cut off, or this is no diffusers model")
