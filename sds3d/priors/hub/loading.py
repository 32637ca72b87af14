"""Loads a model's components, each by the class in the model's index: diffusers' and transformers' classes only."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from sds3d.errors import PriorUnavailable
from sds3d.priors.hub.check_files import OURS, WEIGHTS, read_object
from sds3d.priors.hub.locate import Found

KINDS = {
    "tokenizer": ("transformers", "PreTrainedTokenizerBase"),
    "text_encoder": ("transformers", "PreTrainedModel"),
    "image_encoder": ("transformers", "PreTrainedModel"),
    "scheduler": ("diffusers", "SchedulerMixin"),
}
NETWORK = ("diffusers", "ModelMixin")


def load_component(found: Found, name: str, dtype: torch.dtype, device: torch.device) -> Any:
    """One network, tokenizer or scheduler, frozen and on the device; PriorUnavailable in one line where it fails."""
    try:
        with _quiet():
            return _load(found, name, dtype, device)
    except PriorUnavailable:
        raise
    except Exception as error:  # diffusers, transformers, safetensors and tokenizers raise dozens of types
        said = str(error).strip().split("\n", 1)[0] or type(error).__name__
        raise PriorUnavailable(
            f"cannot load {found.folder / name}: {said}", "fetch the model again, or update diffusers and transformers"
        ) from error


def load_pipeline(found: Found, names: Sequence[str], dtype: torch.dtype, device: torch.device) -> Any:
    """diffusers' pipeline with these components and None for all others."""
    with _quiet():
        import diffusers

        kind = getattr(diffusers, found.files.family.built_as or found.files.pipeline)
    loaded = {name: load_component(found, name, dtype, device) for name in names if name in found.files.components}
    return pipeline_of(kind, loaded)


def pipeline_of(kind: Any, components: Mapping[str, Any]) -> Any:
    """A pipeline of the components, None for those that are not there."""
    parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]
    given = {p.name: components.get(p.name) for p in parameters if p.default is p.empty or p.name in components}
    if any(p.name == "requires_safety_checker" for p in parameters):
        given["requires_safety_checker"] = False
    return kind(**given)


def read_config(found: Found, name: str) -> dict[str, Any]:
    """A network's config.json."""
    return read_object(found.folder / name / "config.json")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the libraries' progress bars and advice: what a person sees is the run's own progress."""
    from transformers.utils import logging

    showed, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if showed:
            logging.enable_progress_bar()


def _load(found: Found, name: str, dtype: torch.dtype, device: torch.device) -> Any:
    folder: Path = found.folder / name
    if found.files.components[name][0] == OURS:
        network = found.files.family.make(name, read_config(found, name), _tensors(found, name))
        return network.to(device, dtype).eval().requires_grad_(False)
    kind = _class(found, name)
    if name.startswith(("tokenizer", "scheduler")):
        return kind.from_pretrained(folder)
    precision = {"dtype": dtype} if found.files.components[name][0] == "transformers" else {"torch_dtype": dtype}
    safe = name not in found.files.pickled
    network = kind.from_pretrained(
        folder, use_safetensors=safe, variant=found.files.variants[name], local_files_only=True, **precision
    )
    return network.to(device).eval().requires_grad_(False)


def _tensors(found: Found, name: str) -> dict[str, torch.Tensor]:
    """The weights of a component under their own names."""
    from safetensors.torch import load_file

    folder, tensors = found.folder / name, dict[str, torch.Tensor]()
    if name in found.files.pickled:
        for path in sorted(folder.glob("*.bin")):
            tensors |= torch.load(path, map_location="cpu", weights_only=True)
    for path in sorted(folder.iterdir()):
        match = WEIGHTS.fullmatch(path.name)
        if match and match["variant"] == found.files.variants[name]:
            tensors |= load_file(path)
    return tensors


def _class(found: Found, name: str) -> Any:
    """The component's class, if it is of the kind that a component of this name has to be."""
    import importlib

    library, kind = found.files.components[name]
    found_class = getattr(importlib.import_module(library), kind, None)
    package, base = KINDS.get(name.rstrip("_0123456789"), NETWORK)
    wanted = getattr(importlib.import_module(package), base)
    if not (inspect.isclass(found_class) and issubclass(found_class, wanted)):
        raise PriorUnavailable(
            f"{found.folder} says that its {name} is {library}.{kind}, which is no {base} here",
            "update diffusers and transformers, or fetch the model again",
        )
    return found_class
