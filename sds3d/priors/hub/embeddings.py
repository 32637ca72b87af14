"""Texts to embeddings, each computed once: the model's encoders read a text, and a cache on disk keeps the result.

The encoders (T5 and Gemma have billions of weights) are loaded only for texts that the cache lacks, and freed at once.
"""

import hashlib
import json
import os
from bisect import bisect_left
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from sds3d.atomic import write_atomic
from sds3d.errors import OutputError
from sds3d.priors.base import VIEW_WORDS
from sds3d.priors.hub.adapters import Adapters
from sds3d.priors.hub.check_files import LocalModel
from sds3d.priors.hub.loading import load_pipeline, quiet

CACHE = "SDS3D_CACHE"  # environment variable: a folder
VERSION = 2  # of the embeddings' layout; a new number invalidates the cache


def cache_folder() -> Path | None:
    """`$SDS3D_CACHE/embeddings`, by default in `~/.cache/sds3d`. Safe to delete. None for a user without a home."""
    named, caches = os.environ.get(CACHE), os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if not named and caches.startswith("~"):
        return None
    return Path(named or Path(caches) / "sds3d") / "embeddings"


class Fitting:
    """A tokenizer that leaves out the words before the view words where a text is too long, not the view words: cut off
    at the end, all sides of an object would be the same text."""

    OWN = ("_tokenizer", "_fitted", "unread")

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer, self._fitted = tokenizer, dict[str, str]()
        self.unread = ""  # of what it was last given; whoever asks empties it before

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.OWN:
            super().__setattr__(name, value)
        else:  # pipelines say on which side to pad
            setattr(self._tokenizer, name, value)

    def __call__(self, texts: Any, *arguments: Any, **options: Any) -> Any:
        single = isinstance(texts, str)
        limit = options.get("max_length") if options.get("truncation") else None
        each = [texts] if single else texts
        fitted = [self._fitted.get(text, text) if limit is None else self._fit(text, limit) for text in each]
        return self._tokenizer(fitted[0] if single else fitted, *arguments, **options)

    def _fit(self, text: str, limit: int) -> str:
        end = next((f", {words}" for words in VIEW_WORDS if text.endswith(f", {words}")), "")
        head = text.removesuffix(end)
        places = [place for place, letter in enumerate(head) if letter == " "] or list(range(len(head)))

        def fits(place: int) -> bool:
            return len(self._tokenizer(head[:place] + end, verbose=False).input_ids) <= limit

        if not fits(len(head)):
            count = bisect_left(places, True, key=lambda place: not fits(place))  # of places where it still fits
            place = places[count - 1] if count else 0
            self.unread = head[place:].strip()
            self._fitted[text] = head[:place].rstrip(" ,;") + end
        return self._fitted.get(text, text)


class TextReader:
    """Text embeddings of one model."""

    def __init__(self, local: LocalModel, adapters: Adapters, dtype: torch.dtype, device: torch.device) -> None:
        self._local, self._adapters, self._dtype, self._device = local, adapters, dtype, device
        self._fingerprint = fingerprint(local, adapters, dtype)
        self._read_before = dict[str, tuple[Tensor, str]]()
        self.making_room: Callable[[], AbstractContextManager[None]] = nullcontext  # on the device, for the encoders

    def __call__(self, texts: Sequence[str]) -> Float[Tensor, "T N D"]:
        """One embedding for each text, on the device and in the encoders' precision."""
        return torch.stack([embedding for embedding, _ in self._all(texts)]).to(self._device)

    def unread(self, texts: Sequence[str]) -> list[str]:
        """What no encoder reads of each text, see `Fitting`."""
        return [unread for _, unread in self._all(texts)]

    def _all(self, texts: Sequence[str]) -> list[tuple[Tensor, str]]:
        known = self._read_before
        known |= {text: found for text in texts if text not in known and (found := self._load(text)) is not None}
        missing = [text for text in dict.fromkeys(texts) if text not in known]
        if missing:
            known |= self._read(missing)
        return [known[text] for text in texts]

    @torch.no_grad()
    def _read(self, texts: Sequence[str]) -> dict[str, tuple[Tensor, str]]:
        family, config = self._local.family, self._local.read_config(self._local.family.network)
        found = {}
        with self.making_room():
            pipeline = load_pipeline(self._local, family.encoders, self._dtype, self._device)
            self._adapters.add_lora_to_texts(pipeline, family.network, config)
            self._adapters.add_words(pipeline)
            tokenizers = list[Fitting]()
            for name in family.encoders:
                if name.startswith("tokenizer") and getattr(pipeline, name) is not None:
                    tokenizers.append(Fitting(getattr(pipeline, name)))
                    setattr(pipeline, name, tokenizers[-1])
            for text in texts:
                for tokenizer in tokenizers:
                    tokenizer.unread = ""
                with quiet():
                    embedding = family.embed(pipeline, text, config, self._device).cpu()
                found[text] = embedding, min((tokenizer.unread for tokenizer in tokenizers), key=len, default="")
            del pipeline
        for text, (embedding, unread) in found.items():
            self._save(text, embedding, unread)
        return found

    def _path(self, text: str) -> Path | None:
        key = hashlib.sha256(json.dumps([VERSION, self._fingerprint, text]).encode()).hexdigest()
        folder = cache_folder()
        return None if folder is None else folder / f"{key}.safetensors"

    def _load(self, text: str) -> tuple[Tensor, str] | None:
        """None if the cache has no readable file for the text."""
        path = self._path(text)
        if path is None:
            return None
        try:
            with safe_open(path, "pt") as file:
                return file.get_tensor("embedding"), file.metadata()["unread"]
        except (OSError, SafetensorError, KeyError, TypeError):
            return None

    def _save(self, text: str, embedding: Tensor, unread: str) -> None:
        """A cache that cannot be written only costs time."""
        path = self._path(text)
        about = {"model": self._local.folder.name, "text": text, "unread": unread}
        with suppress(OSError, OutputError):
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(path, save({"embedding": embedding.contiguous()}, about))


def fingerprint(local: LocalModel, adapters: Adapters, dtype: torch.dtype) -> str:
    """A hash of what embeddings depend on, without reading weights: the encoders' file names, sizes and times.

    In the Hugging Face cache a file is a link to one that is named by its content's hash: that name replaces the time.
    """
    rows: list[list[object]] = [[local.family.name, local.revision, str(dtype), *adapters.texts_key()]]
    for name in sorted(set(local.family.encoders) & set(local.components)):
        for path in sorted((local.folder / name).iterdir()):
            stat = path.stat()
            content = path.resolve().name if path.is_symlink() else stat.st_mtime_ns
            rows.append([f"{name}/{path.name}", stat.st_size, content])
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()
