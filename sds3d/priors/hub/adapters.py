"""What people add to a model: LoRA files, and words learned by textual inversion."""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from safetensors import SafetensorError, safe_open

from sds3d.errors import PriorUnavailable, first_line
from sds3d.options import split_strength
from sds3d.priors.hub.check_files import is_pointer

GIVE = "give a .safetensors file"


TEXT = "text_encoder"  # begins the names of all text encoders, and of their layers
TEXT_KEYS = (TEXT, "lora_te")  # diffusers' and kohya's


@dataclass(frozen=True)
class Adapters:
    """Files on this machine, safetensors only; of LoRA files with a strength: style.safetensors:0.6."""

    lora: Sequence[str] = ()
    words: Sequence[str] = ()

    def check(self) -> None:
        """PriorUnavailable if a file is missing or of a format that can run code."""
        for option, names in (("lora", [split_strength(name)[0] for name in self.lora]), ("words", self.words)):
            for name in names:
                if not name.endswith(".safetensors"):
                    raise PriorUnavailable(f"prior.{option}: {name} is not a .safetensors file", GIVE)
                if not Path(os.path.expanduser(name)).is_file():
                    raise PriorUnavailable(f"prior.{option}: there is no file {name}", GIVE)
                if is_pointer(Path(os.path.expanduser(name))):
                    raise PriorUnavailable(
                        f"prior.{option}: {name} only stands for the file, which Git LFS has", "git lfs pull"
                    )

    def add_lora(self, pipeline: Any) -> None:
        """Fuse the LoRA files' parts for the network into its weights (Hu et al. 2021), by their strengths."""
        for name, strength in map(split_strength, self.lora):
            with _fitting("lora", name) as path, _only(pipeline, lambda key: not key.startswith(TEXT)):
                pipeline.load_lora_into_text_encoder = _nothing  # there is none
                pipeline.load_lora_weights(str(path.parent), weight_name=path.name, local_files_only=True)
                if any(pipeline.get_list_adapters().values()):
                    pipeline.fuse_lora(lora_scale=strength)
                    pipeline.unload_lora_weights()
                elif not _has_text(path):
                    raise ValueError("none of its layers is in the model")

    def add_lora_to_texts(self, pipeline: Any, network: str, network_config: Mapping[str, Any]) -> None:
        """The same with their parts for text encoders, in a pipeline of these alone."""
        for name, strength in map(split_strength, self.lora):
            with _fitting("lora", name) as path, _only(pipeline, lambda key: key.startswith(TEXT)):
                if not _has_text(path):
                    continue
                setattr(pipeline, network, SimpleNamespace(config=SimpleNamespace(**network_config)))
                setattr(pipeline, f"load_lora_into_{network}", _nothing)
                pipeline.load_lora_weights(str(path.parent), weight_name=path.name, local_files_only=True)
                found = [part for part in pipeline.get_list_adapters() if part.startswith(TEXT)]
                if not found:
                    raise ValueError("none of its layers is in a text encoder of the model")
                pipeline.fuse_lora(components=found, lora_scale=strength)
                pipeline.unload_lora_weights()  # it is in the weights: the next file is added to those

    def add_words(self, pipeline: Any) -> None:
        """Add learned words to tokenizer and text encoder (Gal et al. 2022): toy.safetensors is `<toy>` in a prompt."""
        for name in self.words:
            with _fitting("words", name) as path:
                pipeline.load_textual_inversion(str(path.parent), weight_name=path.name, token=f"<{path.stem}>")

    def texts_key(self) -> list[str]:
        """What embeddings depend on: SHA-256 of each file of words, and of a LoRA file for texts with its strength."""
        loras = [(Path(os.path.expanduser(name)), strength) for name, strength in map(split_strength, self.lora)]
        used = [(path, f" {strength:g}") for path, strength in loras if _has_text(path)]
        files = [*((Path(os.path.expanduser(name)), "") for name in self.words), *used]
        return [hashlib.sha256(path.read_bytes()).hexdigest() + strength for path, strength in files]


def _nothing(*arguments: Any, **options: Any) -> None:
    """In place of a part of diffusers' loading that is not wanted."""


def _has_text(path: Path) -> bool:
    """Whether a LoRA file has a part for text encoders; False for one that cannot be read, which is told elsewhere."""
    try:
        with safe_open(path, "pt") as tensors:
            return any(key.startswith(TEXT_KEYS) for key in tensors.keys())  # noqa: SIM118
    except (OSError, SafetensorError):
        return False


@contextmanager
def _only(pipeline: Any, keeps: Callable[[str], bool]) -> Iterator[None]:
    """Inside, the pipeline reads of LoRA files those layers alone, by diffusers' names for them."""
    read = pipeline.lora_state_dict

    def some(*arguments: Any, **options: Any) -> Any:
        found = read(*arguments, **options)
        state, *rest = found if isinstance(found, tuple) else (found,)
        state = {key: value for key, value in state.items() if keeps(key)}
        return (state, *rest) if isinstance(found, tuple) else state

    pipeline.lora_state_dict = some
    try:
        yield
    finally:
        del pipeline.lora_state_dict


@contextmanager
def _fitting(option: str, name: str) -> Iterator[Path]:
    """The file's path. Whatever goes wrong inside means that it does not fit; diffusers and peft raise many types."""
    try:
        yield Path(os.path.expanduser(name))
    except Exception as error:
        message = f"prior.{option}: {name} does not fit this model: {first_line(error)}"
        raise PriorUnavailable(message, "use a file made for the model's family") from error
