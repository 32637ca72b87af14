"""What people add to a model: LoRA files, and words learned by textual inversion."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sds3d.errors import PriorUnavailable, first_line

GIVE = "give a .safetensors file"


@dataclass(frozen=True)
class Adapters:
    """Files on this machine, safetensors only."""

    lora: Sequence[str] = ()
    words: Sequence[str] = ()

    def check(self) -> None:
        """PriorUnavailable if a file is missing or of a format that can run code."""
        for option, names in (("lora", self.lora), ("words", self.words)):
            for name in names:
                if not name.endswith(".safetensors"):
                    raise PriorUnavailable(f"prior.{option}: {name} is not a .safetensors file", GIVE)
                if not Path(os.path.expanduser(name)).is_file():
                    raise PriorUnavailable(f"prior.{option}: there is no file {name}", GIVE)

    def add_lora(self, pipeline: Any) -> None:
        """Fuse the LoRA files into the network's weights, each at full strength (Hu et al. 2021)."""
        for name in self.lora:
            with _fitting("lora", name) as path:
                pipeline.load_lora_weights(str(path.parent), weight_name=path.name, local_files_only=True)
                if not any(pipeline.get_list_adapters().values()):
                    raise ValueError("none of its layers is in the model")
                pipeline.fuse_lora()
                pipeline.unload_lora_weights()

    def add_words(self, pipeline: Any) -> None:
        """Add learned words to tokenizer and text encoder (Gal et al. 2022): toy.safetensors is `<toy>` in a prompt."""
        for name in self.words:
            with _fitting("words", name) as path:
                pipeline.load_textual_inversion(str(path.parent), weight_name=path.name, token=f"<{path.stem}>")

    def words_key(self) -> list[str]:
        """SHA-256 of each file of words: embeddings depend on their content."""
        return [hashlib.sha256(Path(os.path.expanduser(name)).read_bytes()).hexdigest() for name in self.words]


@contextmanager
def _fitting(option: str, name: str) -> Iterator[Path]:
    """The file's path. Whatever goes wrong inside means that it does not fit; diffusers and peft raise many types."""
    try:
        yield Path(os.path.expanduser(name))
    except Exception as error:
        message = f"prior.{option}: {name} does not fit this model: {first_line(error)}"
        raise PriorUnavailable(message, "use a file made for the model's family") from error
