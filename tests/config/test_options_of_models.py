"""What holds for the options of all models: how many there are, which name files, and which facts they state."""

import typing
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from sds3d.config import PARTS, RunConfig
from sds3d.options import LocalFile, Options, Schedule
from sds3d.priors import PRIORS
from sds3d.priors.base import DensityPrior
from sds3d.prompts import VIEW_WORDS
from sds3d.scenes import SCENES


def members(annotation: Any) -> Iterator[Any]:
    """The annotation and all types it is made of, without the choices of Literals."""
    yield annotation
    if typing.get_origin(annotation) is not typing.Literal:
        for inner in typing.get_args(annotation):
            yield from members(inner)


def models() -> list[type[Options]]:
    """All models that a config can be made of: RunConfig, every part, and what is inside of them."""
    found: list[type[Options]] = []
    waiting: list[type[Options]] = [RunConfig, *(kind for table in PARTS.values() for kind in table.values())]
    while waiting:
        model = waiting.pop(0)
        if model not in found:
            found.append(model)
            kinds = [kind for field in model.model_fields.values() for kind in members(field.annotation)]
            waiting += [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Options)]
    return [model for model in found if not getattr(model, "__abstractmethods__", None)]


def options_of(model: type[Options]) -> list[str]:
    """The options that a model declares itself: neither those it inherits, nor its name, nor models of their own."""
    inherited = {name for base in model.__mro__[1:] for name in getattr(base, "model_fields", {})}
    return [
        name
        for name, field in model.model_fields.items()
        if name not in {*inherited, "name"} and not any(is_model(kind) for kind in members(field.annotation))
    ]


def is_model(kind: Any) -> bool:
    """Whether it is a model whose options count; a schedule is a value."""
    return isinstance(kind, type) and issubclass(kind, Options) and kind is not Schedule


def test_there_are_no_more_options_than_people_can_find_their_way_in() -> None:
    """Each is counted where it is declared; the choice of a part (guidance, noise, ...) counts as one."""
    declaring = {base for model in models() for base in model.__mro__ if is_model(base)}
    count = {model.__name__: options_of(model) for model in sorted(declaring, key=lambda model: model.__name__)}
    count["parts"] = list(PARTS)
    assert {"RunConfig", "CamerasConfig", "GaussiansConfig", "DiffusersConfig", "SDS", "SceneConfig"} <= count.keys()
    assert count["ViewPrompting"] == ["mode"]
    total = sum(map(len, count.values()))
    assert total <= MOST_OPTIONS, f"{total} options: {count}"


# The last ten: prompts for unknown things; place and size of exports; exact shapes; flat colours or any; a file to
# begin as, how it stands, may it move.
MOST_OPTIONS = 143

# Texts that are no names of files. Every other option that takes a text is opened as a file somewhere.
PLAIN_TEXTS = {"prompt", "negative_prompt", "device", "revision"}


def test_every_option_that_names_files_is_marked() -> None:
    marked = {}
    for model in models():
        for name, field in model.model_fields.items():  # loss_weights and the like name losses
            is_text = str in list(members(field.annotation)) and typing.get_origin(field.annotation) is not Mapping
            is_marked = any(isinstance(mark, LocalFile) for mark in field.metadata)
            if name != "name":
                assert is_marked == (is_text and name not in PLAIN_TEXTS), f"{model.__name__}.{name}"
            if is_marked:
                marked.setdefault(model.__name__, set()).add(name)
    assert marked["ReferenceImageConfig"] == {"path", "mask", "depth", "normal"}
    assert marked["EmbeddedConfig"] == {"weights"}
    assert marked["Zero123Config"] == marked["DiffusersConfig"] == {"model", "lora", "words"}


def test_what_a_prior_is_said_to_know_is_what_it_knows() -> None:
    for name, kind in PRIORS.items():
        assert kind.takes_reference_image == ("reference_image" in kind.model_fields), name
        if name not in ("diffusers", "multiview", "zero123"):  # their own tests have networks for them
            prior = kind().build("cpu")
            assert isinstance(prior, DensityPrior) == kind.knows_density, name
            assert (not prior.unknown_words(" ".join(VIEW_WORDS))) == kind.reads_views, name


@pytest.mark.parametrize("name", SCENES)
def test_a_scene_has_views_of_all_sides_unless_it_is_flat(name: str) -> None:
    assert SCENES[name].is_flat == ("sheet" not in SCENES[name].artifacts) == ("image" in SCENES[name].artifacts)


@pytest.mark.parametrize(("key", "name"), [(key, name) for key in PARTS for name in PARTS[key]])
def test_every_part_has_a_name_that_is_its_key(key: str, name: str) -> None:
    assert PARTS[key][name].model_fields["name"].default == name
