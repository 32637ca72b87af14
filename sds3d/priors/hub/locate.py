"""Finds a model's files: a local folder, else the Hugging Face cache, else the hub. Offline, no socket is opened."""

import os
import re
import shlex
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from sds3d.errors import PriorUnavailable, first_line
from sds3d.priors.hub.check_files import INDEX, LocalModel, family_in, inspect_model, is_pickle, is_wanted
from sds3d.priors.hub.model_list import MODELS

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
OFFLINE, ALLOW_PICKLE = "HF_HUB_OFFLINE", "SDS3D_ALLOW_PICKLE"  # environment variables; --offline and --allow-pickle
GIVE = "give a folder written by diffusers' save_pretrained, or a hub id such as stabilityai/sd-turbo"


def find_model(model: str, revision: str = "") -> LocalModel:
    """The model, complete and safe to load; downloads what the cache lacks.

    `model` is a folder, or OWNER/NAME on the hub at `revision` (a commit, branch or tag; by default the one pinned in
    `MODELS`, else main). PriorUnavailable says in one line what is missing, damaged or refused, and what to do.
    """
    try:
        return find_here(model, revision)
    except PriorUnavailable as error:
        if Path(os.path.expanduser(model)).exists() or not HUB_ID.fullmatch(model):
            raise
        if _is_set(OFFLINE):
            raise PriorUnavailable(
                f"cannot load {model} offline: {error.args[0]}", f"go online once: sds3d priors pull {model}"
            ) from error
    folder = _download(model, _revision(model, revision))
    return inspect_model(folder, _is_set(ALLOW_PICKLE), folder.name)


def find_here(model: str, revision: str = "") -> LocalModel:
    """As `find_model`, but never asks the hub."""
    folder = Path(os.path.expanduser(model))
    if folder.exists():
        return inspect_model(folder, _is_set(ALLOW_PICKLE))
    if folder.is_absolute():
        hint = f"put it there again, or a link to where it is now: ln -s FOLDER {shlex.quote(model)}"
        raise PriorUnavailable(f"there is no folder {model} with the model", hint)
    if not HUB_ID.fullmatch(model):
        raise PriorUnavailable(f"there is no folder {model}, and that is not a hub id", GIVE)
    problem = PriorUnavailable(f"{model} is not in the Hugging Face cache", f"sds3d priors pull {model}")
    wanted = _revision(model, revision)
    there = list(snapshots(model, revision))
    for number, here in enumerate(there):
        try:
            local = inspect_model(here, _is_set(ALLOW_PICKLE), here.name)
        except PriorUnavailable as error:  # an interrupted download; another may be whole
            problem = error if number == 0 else problem
            continue
        if wanted == here.name or revision or (wanted is None and len(there) == 1):
            return local
        others = f"the one known to fit is {wanted}" if wanted else f"with {len(there) - 1} more"
        note = f"of {model} the revision {here.name[:12]} is used, which is in the cache; {others}"
        return replace(local, notes=(*local.notes, note))
    raise problem


def prior_name_of(model: str, revision: str = "") -> str:
    """The `prior.name` for a model, by the family of its folder or in the table of known models. Never asks the hub.

    A model of the hub that is neither in the cache nor in the table counts as text to image; if it turns out to be of
    another family, `build` says which `prior.name` it needs. PriorUnavailable if a local folder is no model.
    """
    folder = Path(os.path.expanduser(model))
    if folder.exists():
        return family_in(folder)[1].prior
    here = cached(model, revision) if HUB_ID.fullmatch(model) else None
    if here is not None:
        with suppress(PriorUnavailable):  # an interrupted download
            return family_in(here)[1].prior
    return MODELS[model].family.prior if model in MODELS else "diffusers"


def cached(model: str, revision: str = "") -> Path | None:
    """The model's folder in the Hugging Face cache, complete or not; None if there is none."""
    return next(snapshots(model, revision), None)


def snapshots(model: str, revision: str = "") -> Iterator[Path]:
    """Folders of the model in the Hugging Face cache, whoever fetched them and however much of them: that of the
    revision and, where nobody asked for one, those of others, main first, then by the time of their download."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    given = set[Path]()
    for asked in [_revision(model, revision), *([] if revision else [None])]:
        try:
            found: str | None = snapshot_download(model, revision=asked, local_files_only=True)
        except LocalEntryNotFoundError as error:
            found = getattr(error, "snapshot_path", None)  # some of its files are not there; perhaps none that we need
        if found is not None and Path(found) not in given:
            given.add(Path(found))
            yield Path(found)
    if not revision:
        every = Path(constants.HF_HUB_CACHE, f"models--{model.replace('/', '--')}", "snapshots")
        there = [folder for folder in every.glob("*") if folder.is_dir() and folder not in given]
        yield from sorted(there, key=lambda folder: -folder.stat().st_mtime)


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "").upper() in {"1", "ON", "YES", "TRUE"}


def _revision(model: str, revision: str) -> str | None:
    """The revision that was asked for, else the pinned one; None for the newest."""
    pinned = MODELS[model].revision if model in MODELS else ""
    return revision or pinned or None


def _download(model: str, revision: str | None) -> Path:
    """The files that are needed, from the model's repository or its mirror; errors in one line."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    mirror = MODELS[model].mirror if model in MODELS else ""
    try:
        try:
            return _fetch(model, revision)
        except RepositoryNotFoundError as error:
            if isinstance(error, GatedRepoError) or not mirror:
                raise
            return _fetch(mirror, None)
    except GatedRepoError as error:
        raise PriorUnavailable(
            f"{model} is gated: its licence has to be accepted first",
            f"accept it at https://huggingface.co/{model}, then run: hf auth login",
        ) from error
    except RepositoryNotFoundError as error:
        raise PriorUnavailable(f"{model} is not on the hub (renamed, private or gone)", "sds3d priors list") from error
    except RevisionNotFoundError as error:
        raise PriorUnavailable(f"{model} has no revision {revision}", "leave prior.revision out") from error
    except Exception as error:  # of the hub's HTTP library, which changed between its versions, or of the disk
        hint = "check the connection, or use only what is here: --offline"
        raise PriorUnavailable(f"cannot download {model}: {first_line(error)}", hint) from error


def _fetch(model: str, revision: str | None) -> Path:
    from huggingface_hub import HfApi, snapshot_download

    files = choose(HfApi().list_repo_files(model, revision=revision), _is_set(ALLOW_PICKLE))
    return Path(snapshot_download(model, revision=revision, allow_patterns=files))


def choose(files: Iterable[str], with_pickles: bool) -> list[str]:
    """The files of a repository to download: configs, tokenizers and one set of weights for each component.

    Of weights that are there in fp16 as well, fp16 is taken: half the download.
    """
    files = [name for name in files if name == INDEX or (name.count("/") == 1 and is_wanted(name))]
    half = {name.partition("/")[0] for name in files if ".fp16" in name and name.endswith(".safetensors")}
    safe = {name.partition("/")[0] for name in files if name.endswith(".safetensors")}

    def is_needed(name: str) -> bool:
        component = name.partition("/")[0]
        if is_pickle(name):
            return with_pickles and component not in safe
        is_weights = name.endswith((".safetensors", ".index.json", ".index.fp16.json"))
        return not (is_weights and component in half and ".fp16" not in name)

    return [name for name in files if is_needed(name)]
