"""What people add to a model: LoRA files, and words learned by textual inversion."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sds3d.errors import PriorUnavailable

SAFE = "give a .safetensors file"


@dataclass(frozen=True)
class Extras:
    """Files on this machine, safetensors only."""

    lora: Sequence[str] = ()
    words: Sequence[str] = ()

    def check(self) -> None:
        """PriorUnavailable where a file is missing, or of a kind that can run code."""
        for option, names in (("lora", self.lora), ("words", self.words)):
            for name in names:
                if not name.endswith(".safetensors"):
                    raise PriorUnavailable(f"prior.{option}: {name} is no .safetensors file", SAFE)
                if not Path(name).expanduser().is_file():
                    raise PriorUnavailable(f"prior.{option}: there is no file {name}", SAFE)

    def add_to_network(self, pipeline: Any) -> None:
        """Adds the LoRA files to the network's weights, each at its own full strength."""
        for name in self.lora:
            path = Path(name).expanduser()
            self._guarded(name, "lora", lambda path=path: self._fuse(pipeline, path))

    def add_words(self, pipeline: Any) -> None:
        """Teaches the tokenizer and the text encoder the words; each is called as its file is, or says itself."""
        for name in self.words:
            path = Path(name).expanduser()
            self._guarded(name, "words", lambda path=path: self._teach(pipeline, path))

    def words_key(self) -> list[str]:
        """What embeddings depend on: the content of the files."""
        return [hashlib.sha256(Path(name).expanduser().read_bytes()).hexdigest() for name in self.words]

    def _fuse(self, pipeline: Any, path: Path) -> None:
        pipeline.load_lora_weights(str(path.parent), weight_name=path.name, local_files_only=True)
        if not any(pipeline.get_list_adapters().values()):
            raise ValueError("it holds no layer that the model has")
        pipeline.fuse_lora()
        pipeline.unload_lora_weights()

    def _teach(self, pipeline: Any, path: Path) -> None:
        pipeline.load_textual_inversion(str(path.parent), weight_name=path.name, token=f"<{path.stem}>")

    def _guarded(self, name: str, option: str, act: Any) -> None:
        try:
            act()
        except Exception as error:  # diffusers and peft raise many types
            said = str(error).strip().split("\n", 1)[0] or type(error).__name__
            raise PriorUnavailable(
                f"prior.{option}: {name} does not fit this model: {said}", "use a file made for the model's family"
            ) from error
