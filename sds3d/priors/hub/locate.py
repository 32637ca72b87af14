"""Where a model's files are: a local folder, else the Hugging Face cache, else the hub. Offline, no socket opens."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sds3d.errors import PriorUnavailable
from sds3d.priors.hub.check_files import INDEX, ModelFiles, inspect_model, is_pickle, is_wanted
from sds3d.priors.hub.model_list import KNOWN

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
OFFLINE, ALLOW_PICKLE = "HF_HUB_OFFLINE", "SDS3D_ALLOW_PICKLE"  # environment variables; --offline and --allow-pickle
GIVE = "give a folder written by diffusers' save_pretrained, or a hub id such as stabilityai/sd-turbo"


@dataclass(frozen=True)
class Found:
    """A model on this machine."""

    folder: Path
    revision: str  # the hub's commit; "local" for a folder of the person's own
    files: ModelFiles


def find_model(model: str, revision: str = "") -> Found:
    """The model's folder, whole and safe to load; downloads what the cache lacks.

    `model` is a folder, or OWNER/NAME on the hub, there at `revision` (a commit, branch or tag; the pinned one of
    `KNOWN` or else main). PriorUnavailable says in one line what is missing, damaged or refused, and what to do.
    """
    folder = Path(model).expanduser()
    if folder.exists():
        return Found(folder, "local", inspect_model(folder, allows_pickle()))
    if model.startswith((".", "/", "~")) or not HUB_ID.fullmatch(model):
        raise PriorUnavailable(f"there is no folder {model}, and that is no hub id", GIVE)
    return _cached_or_downloaded(model, revision)


def find_here(model: str, revision: str = "") -> Found:
    """As `find_model`, and never asks the hub, online or not."""
    folder = Path(model).expanduser()
    if not folder.exists() and HUB_ID.fullmatch(model):
        here = cached(model, revision)
        if here is None:
            raise PriorUnavailable(f"{model} is not in the Hugging Face cache", f"sds3d priors pull {model}")
        return Found(here, here.name, inspect_model(here, allows_pickle()))
    return find_model(model)


def cached(model: str, revision: str = "") -> Path | None:
    """The model's folder in the Hugging Face cache, whole or not; None where there is none."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    known = KNOWN.get(model)
    wanted = revision or (known.revision if known else "") or None
    try:
        return Path(snapshot_download(model, revision=wanted, local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def is_offline() -> bool:
    """Whether the person said that nothing may be fetched."""
    return _is_set(OFFLINE)


def allows_pickle() -> bool:
    """Whether the person said that pickled weights may be loaded, which can run code."""
    return _is_set(ALLOW_PICKLE)


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "").upper() in {"1", "ON", "YES", "TRUE"}


def _cached_or_downloaded(model: str, revision: str) -> Found:
    try:
        return find_here(model, revision)
    except PriorUnavailable as error:
        if is_offline():
            raise PriorUnavailable(
                f"cannot load {model} offline: {error.args[0]}", f"go online once: sds3d priors pull {model}"
            ) from error
    known = KNOWN.get(model)
    folder = _download(model, revision or (known.revision if known else "") or None)
    return Found(folder, folder.name, inspect_model(folder, allows_pickle()))


def _download(model: str, revision: str | None) -> Path:
    """The files that are needed, from the model's own place or its mirror; errors in one line."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    known = KNOWN.get(model)
    try:
        try:
            return _fetch(model, revision)
        except RepositoryNotFoundError as error:
            if isinstance(error, GatedRepoError) or not (known and known.mirror):
                raise
            return _fetch(known.mirror, None)
    except GatedRepoError as error:
        raise PriorUnavailable(
            f"{model} is gated: its makers want their licence accepted",
            f"accept it at https://huggingface.co/{model}, then run: hf auth login",
        ) from error
    except RepositoryNotFoundError as error:
        raise PriorUnavailable(f"{model} is not on the hub (renamed, private or gone)", "sds3d priors list") from error
    except RevisionNotFoundError as error:
        raise PriorUnavailable(f"{model} has no revision {revision}", "leave prior.revision out") from error
    except Exception as error:  # of the hub's HTTP library, which changed between its versions, or of the disk
        found = str(error).strip().split("\n", 1)[0] or type(error).__name__
        hint = "check the connection, or work with what is here: --offline"
        raise PriorUnavailable(f"cannot fetch {model}: {found}", hint) from error


def _fetch(model: str, revision: str | None) -> Path:
    from huggingface_hub import HfApi, snapshot_download

    wanted = choose(HfApi().list_repo_files(model, revision=revision), allows_pickle())
    return Path(snapshot_download(model, revision=revision, allow_patterns=wanted))


def choose(files: Iterable[str], with_pickles: bool) -> list[str]:
    """What to download of a repository's files: configs, tokenizers and one set of weights for each component.

    Full precision is left out where the same weights are there as fp16, for that is half the download.
    """
    files = [name for name in files if name == INDEX or (name.count("/") == 1 and is_wanted(name))]
    half = {name.split("/")[0] for name in files if ".fp16" in name and name.endswith(".safetensors")}
    safe = {name.split("/")[0] for name in files if name.endswith(".safetensors")}
    chosen = []
    for name in files:
        component = name.split("/")[0]
        if is_pickle(name) and (not with_pickles or component in safe):
            continue
        is_weights = name.endswith((".safetensors", ".index.json", ".index.fp16.json"))
        if is_weights and component in half and ".fp16" not in name:
            continue
        chosen.append(name)
    return chosen
