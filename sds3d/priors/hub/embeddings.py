"""Texts to embeddings, once: a text is read by the model's encoders, kept on disk, and found there from then on.

The encoders (T5 and Gemma have billions of weights) are loaded only for texts that are not there yet, and freed.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sds3d.atomic import write_atomic
from sds3d.priors.hub.adapters import Extras
from sds3d.priors.hub.loading import load_pipeline
from sds3d.priors.hub.locate import Found

CACHE = "SDS3D_CACHE"  # environment variable: a folder
VERSION = 1  # of what a family makes of a text; a change makes all that was kept unfindable


def cache_folder() -> Path:
    """Where sds3d keeps what can be made again."""
    base = os.environ.get(CACHE) or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sds3d"
    return Path(base) / "embeddings"


class TextReader:
    """The embeddings of one model."""

    def __init__(
        self, found: Found, network_config: Mapping[str, Any], extras: Extras, dtype: torch.dtype, device: torch.device
    ) -> None:
        self._found, self._network_config, self._extras = found, network_config, extras
        self._dtype, self._device = dtype, device
        self._fingerprint = fingerprint(found, extras, dtype)

    def __call__(self, texts: Sequence[str]) -> Float[Tensor, "T N D"]:
        """One embedding for each text, on the device and in the encoders' precision."""
        wanted = dict.fromkeys(texts)
        known = {text: self._kept(text) for text in wanted}
        missing = [text for text, embedding in known.items() if embedding is None]
        if missing:
            known |= self._read(missing)
        return torch.stack([known[text] for text in texts]).to(self._device)  # type: ignore[misc]

    @torch.no_grad()
    def _read(self, texts: Sequence[str]) -> dict[str, Tensor]:
        family = self._found.files.family
        pipeline = load_pipeline(self._found, family.encoders, self._dtype, self._device)
        self._extras.add_words(pipeline)
        made = {text: family.embed(pipeline, text, self._network_config, self._device).cpu() for text in texts}
        for text, embedding in made.items():
            self._keep(text, embedding)
        return made

    def _path(self, text: str) -> Path:
        key = hashlib.sha256(json.dumps([VERSION, self._fingerprint, text]).encode()).hexdigest()
        return cache_folder() / f"{key}.safetensors"

    def _kept(self, text: str) -> Tensor | None:
        """None where there is nothing, or nothing whole: then it is made again."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(self._path(text))["embedding"]
        except (OSError, SafetensorError, KeyError):
            return None

    def _keep(self, text: str, embedding: Tensor) -> None:
        """A cache that cannot be written costs time and nothing else."""
        from safetensors.torch import save

        from sds3d.errors import OutputError

        data = save({"embedding": embedding.contiguous()}, {"model": self._found.folder.name, "text": text})
        try:
            self._path(text).parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self._path(text), data)
        except (OSError, OutputError):
            return


def fingerprint(found: Found, extras: Extras, dtype: torch.dtype) -> str:
    """What the embeddings depend on, as far as that is seen without reading weights: names, sizes and times of files.

    In the Hugging Face cache a file is a link to one that is named after its content, so the time does not count there.
    """
    rows: list[list[object]] = [[found.files.family.name, found.revision, str(dtype), *extras.words_key()]]
    for name in sorted(set(found.files.family.encoders) & set(found.files.components)):
        for path in sorted((found.folder / name).iterdir()):
            stat = path.stat()
            rows.append(
                [f"{name}/{path.name}", stat.st_size, path.resolve().name if path.is_symlink() else stat.st_mtime_ns]
            )
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()
