"""Texts to embeddings, each computed once: the model's encoders read a text, and a cache on disk keeps the result.

The encoders (T5 and Gemma have billions of weights) are loaded only for texts that the cache lacks, and freed at once.
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from sds3d.atomic import write_atomic
from sds3d.errors import OutputError
from sds3d.priors.hub.adapters import Adapters
from sds3d.priors.hub.check_files import LocalModel
from sds3d.priors.hub.loading import load_pipeline

CACHE = "SDS3D_CACHE"  # environment variable: a folder
VERSION = 1  # of the embeddings' layout; a new number invalidates the cache


def cache_folder() -> Path | None:
    """`$SDS3D_CACHE/embeddings`, by default in `~/.cache/sds3d`. Safe to delete. None for a user without a home."""
    named, caches = os.environ.get(CACHE), os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if not named and caches.startswith("~"):
        return None
    return Path(named or Path(caches) / "sds3d") / "embeddings"


class TextReader:
    """Text embeddings of one model."""

    def __init__(self, local: LocalModel, adapters: Adapters, dtype: torch.dtype, device: torch.device) -> None:
        self._local, self._adapters, self._dtype, self._device = local, adapters, dtype, device
        self._fingerprint = fingerprint(local, adapters, dtype)
        self.making_room: Callable[[], AbstractContextManager[None]] = nullcontext  # on the device, for the encoders

    def __call__(self, texts: Sequence[str]) -> Float[Tensor, "T N D"]:
        """One embedding for each text, on the device and in the encoders' precision."""
        embeddings = {text: self._load(text) for text in dict.fromkeys(texts)}
        missing = [text for text, embedding in embeddings.items() if embedding is None]
        if missing:
            embeddings |= self._read(missing)
        return torch.stack([embeddings[text] for text in texts]).to(self._device)  # type: ignore[misc]

    @torch.no_grad()
    def _read(self, texts: Sequence[str]) -> dict[str, Tensor]:
        family, config = self._local.family, self._local.read_config(self._local.family.network)
        with self.making_room():
            pipeline = load_pipeline(self._local, family.encoders, self._dtype, self._device)
            self._adapters.add_lora_to_texts(pipeline, family.network, config)
            self._adapters.add_words(pipeline)
            embeddings = {text: family.embed(pipeline, text, config, self._device).cpu() for text in texts}
            del pipeline
        for text, embedding in embeddings.items():
            self._save(text, embedding)
        return embeddings

    def _path(self, text: str) -> Path | None:
        key = hashlib.sha256(json.dumps([VERSION, self._fingerprint, text]).encode()).hexdigest()
        folder = cache_folder()
        return None if folder is None else folder / f"{key}.safetensors"

    def _load(self, text: str) -> Tensor | None:
        """None if the cache has no readable file for the text."""
        path = self._path(text)
        if path is None:
            return None
        try:
            return load_file(path)["embedding"]
        except (OSError, SafetensorError, KeyError):
            return None

    def _save(self, text: str, embedding: Tensor) -> None:
        """A cache that cannot be written only costs time."""
        path = self._path(text)
        data = save({"embedding": embedding.contiguous()}, {"model": self._local.folder.name, "text": text})
        with suppress(OSError, OutputError):
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(path, data)


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
