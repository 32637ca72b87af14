"""Loads a model's components, each with the class that the model's index names: diffusers' and transformers' only."""

import importlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from safetensors.torch import load_file

from sds3d.errors import OutOfMemory, PriorUnavailable, first_line, is_out_of_memory
from sds3d.priors.hub.check_files import OURS, WEIGHTS, LocalModel, matching, variant_of

KINDS = {
    "tokenizer": ("transformers", "PreTrainedTokenizerBase"),
    "text_encoder": ("transformers", "PreTrainedModel"),
    "image_encoder": ("transformers", "PreTrainedModel"),
    "scheduler": ("diffusers", "SchedulerMixin"),
}
NETWORK = ("diffusers", "ModelMixin")


def load_component(local: LocalModel, name: str, dtype: torch.dtype, device: torch.device) -> Any:
    """One network, tokenizer or scheduler, frozen and on the device. In one line: OutOfMemory where it does not fit,
    PriorUnavailable where it fails otherwise."""
    try:
        with quiet():
            return _load(local, name, dtype, device)
    except PriorUnavailable:
        raise
    except Exception as error:  # diffusers, transformers, safetensors and tokenizers raise dozens of types
        if is_out_of_memory(error):
            problem = f"{local.folder / name} does not fit into the memory of {device}: {first_line(error)}"
            raise OutOfMemory(problem, "use prior.dtype=bfloat16 or float16, a smaller model, or device=cpu") from error
        raise PriorUnavailable(
            f"cannot load {local.folder / name}: {first_line(error)}",
            "fetch the model again, or update diffusers and transformers",
        ) from error


def load_pipeline(local: LocalModel, names: Sequence[str], dtype: torch.dtype, device: torch.device) -> Any:
    """diffusers' pipeline with these components and None for all others."""
    with quiet():
        import diffusers

        kind = getattr(diffusers, local.family.built_as or local.pipeline)
    loaded = {name: load_component(local, name, dtype, device) for name in names if name in local.components}
    return pipeline_of(kind, loaded)


def pipeline_of(kind: Any, components: Mapping[str, Any]) -> Any:
    """A pipeline of the components, with None for those that are missing."""
    parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]
    arguments = {p.name: components.get(p.name) for p in parameters if p.default is p.empty or p.name in components}
    if any(p.name == "requires_safety_checker" for p in parameters):
        arguments["requires_safety_checker"] = False
    return kind(**arguments)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the libraries' progress bars and advice, which would break the run's own progress."""
    from transformers.utils import logging

    had_bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if had_bars:
            logging.enable_progress_bar()


def _load(local: LocalModel, name: str, dtype: torch.dtype, device: torch.device) -> Any:
    folder, library = local.folder / name, local.components[name][0]
    if library == OURS:
        network = local.family.make(name, local.read_config(name), _tensors(local, name)).to(dtype)
    elif name.startswith(("tokenizer", "scheduler")):
        return _class(local, name).from_pretrained(folder)
    else:
        network = _class(local, name).from_pretrained(
            folder,
            use_safetensors=name not in local.pickled,
            variant=local.variants[name],
            local_files_only=True,
            **{"dtype" if library == "transformers" else "torch_dtype": dtype},
        )
    return network.to(device).eval().requires_grad_(False)


def _tensors(local: LocalModel, name: str) -> dict[str, torch.Tensor]:
    """The weights of a component, by their names in the file."""
    folder, tensors = local.folder / name, dict[str, torch.Tensor]()
    if name in local.pickled:
        for path in sorted(folder.glob("*.bin")):
            tensors |= torch.load(path, map_location="cpu", weights_only=True)
    for file, match in matching(folder, WEIGHTS).items():
        if variant_of(match) == local.variants[name]:
            tensors |= load_file(folder / file)
    return tensors


def _class(local: LocalModel, name: str) -> Any:
    """The component's class; PriorUnavailable if a component of this name cannot be of that class."""
    library, class_name = local.components[name]
    component = getattr(importlib.import_module(library), class_name, None)
    package, base = KINDS.get(name.rstrip("_0123456789"), NETWORK)
    if not (inspect.isclass(component) and issubclass(component, getattr(importlib.import_module(package), base))):
        raise PriorUnavailable(
            f"{local.folder} says that its {name} is {library}.{class_name}, which is not a {base} here",
            "update diffusers and transformers, or fetch the model again",
        )
    return component
