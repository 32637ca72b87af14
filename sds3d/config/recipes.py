"""Recipes: published methods as options of a run, each value with where it is from.

A recipe is a file of assets/recipes/ (the package sds3d_assets). It is a layer of the config between preset and file.
"""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, Field, ValidationError, model_validator

from sds3d.config.explain import explain, nearest, short
from sds3d.errors import ConfigError
from sds3d.options import Options

OURS = "ours"  # the origin of a value that no source has, or that means something else there
FOLDER = "recipes"


class Value(NamedTuple):
    """An option's value and its origin: "SOURCE KEY = VALUE" as it is written there, or "ours".

    `why` says how one follows from the other, or why it is ours; empty where they are the same.
    """

    value: Any
    origin: str
    why: str = ""

    @property
    def source(self) -> str:
        """The source's name in `Recipe.sources`, or "ours"."""
        return self.origin.partition(" ")[0]

    @property
    def published(self) -> Any:
        """The value in the source; None of one that is ours."""
        return json.loads(self.origin.partition(" = ")[2]) if self.source != OURS else None


def _check_value(value: Value) -> Value:
    if value.source == OURS:
        if value.origin != OURS or not value.why:
            raise ValueError('the origin "ours" stands alone, and the reason follows')
        return value
    try:
        published = value.published
    except ValueError:
        raise ValueError("the origin is SOURCE KEY = VALUE, with VALUE as JSON") from None
    if not value.why and published != value.value:
        raise ValueError("it differs from its source: say why")
    return value


Row = Annotated[Value, AfterValidator(_check_value)]


class RecipeStage(Options):
    """One stage: its steps, its options by dotted keys, and what a step asks of the prior for each view."""

    name: str
    steps: Row
    forwards: Annotated[float, Field(gt=0, description="mean forwards of the prior for a view of a step")]
    options: Mapping[str, Row]


class Recipe(Options):
    """A published method: `run` has the options of the whole run, each stage what changes in it.

    `needs` are options that a person has to give, with an example of each; `left_out` is what the sources have and this
    run has not, and why.
    """

    title: str
    sources: Annotated[Mapping[str, str], Field(min_length=1, description="repository and file, or paper")]
    needs: Mapping[str, str] = {}
    run: Mapping[str, Row] = {}
    stages: Annotated[tuple[RecipeStage, ...], Field(min_length=1)]
    left_out: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _names_its_sources(self) -> "Recipe":
        named = {row.source for _, _, row in self.rows()} - {OURS}
        if named != set(self.sources):
            raise ValueError(f"sources: {', '.join(sorted(named ^ set(self.sources)))} stands on one side only")
        return self

    @property
    def steps(self) -> int:
        """Of all stages."""
        return sum(stage.steps.value for stage in self.stages)

    @property
    def forwards(self) -> list[int]:
        """Images that the prior evaluates in each stage: steps x views x forwards of a view."""
        views, counts = 0, []
        for stage in self.stages:
            views = stage.options["cameras.views"].value if "cameras.views" in stage.options else views
            counts.append(round(stage.steps.value * views * stage.forwards))
        return counts

    def rows(self) -> Iterator[tuple[str, str, Value]]:
        """(stage, dotted option, value) of all that it says; the stage of what counts in all of them is "run"."""
        for key, row in self.run.items():
            yield "run", key, row
        for stage in self.stages:
            yield stage.name, "steps", stage.steps
            for key, row in stage.options.items():
                yield stage.name, key, row

    def options(self) -> dict[str, Any]:
        """What it says of a run, as `load_config` takes it: the first stage's options are the run's own."""
        first, *later = self.stages
        own = {key: row.value for key, row in {**self.run, **first.options}.items()}
        stages, done = [], first.steps.value
        for stage in later:
            options = {key: row.value for key, row in stage.options.items()}
            stages.append({"begin_at": done / self.steps, "options": options})
            done += stage.steps.value
        return {**own, "steps": self.steps, "stages": stages}


def recipe_names() -> list[str]:
    """All recipes, in the order of their names."""
    files = (resources.files("sds3d_assets") / FOLDER).iterdir()
    return sorted(file.name.removesuffix(".json") for file in files if file.name.endswith(".json"))


@cache
def read_recipe(name: str) -> Recipe:
    """The recipe of that name; ConfigError with the nearest one where there is none."""
    if name not in recipe_names():
        raise ConfigError(f"recipe {short(name)} is unknown", nearest(name, recipe_names()), "recipe")
    return parse_recipe((resources.files("sds3d_assets") / FOLDER / f"{name}.json").read_text(encoding="utf-8"), name)


def parse_recipe(text: str, name: str) -> Recipe:
    """The recipe in a file's text; ConfigError names what is wrong in it."""
    data = json.loads(text)
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise explain(Recipe, data, error, f"recipe {name}: ") from None
