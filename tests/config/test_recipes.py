"""Recipes: what they say is what a run gets, each value beside its source, and what they cost is what is asked."""

import json
import re
from functools import cache
from typing import Any

import pytest
import torch

from sds3d.cameras import orbit
from sds3d.config import RunConfig, load_config, read_recipe, recipe_names
from sds3d.config.recipes import OURS, Recipe, Value, parse_recipe
from sds3d.errors import ConfigError
from sds3d.guidance.base import GuidanceInput
from sds3d.priors.analytic import AnalyticConfig
from sds3d.priors.forward_counter import ForwardCounter
from sds3d.prompts import Prompts
from sds3d.scenes import SCENES
from sds3d.scenes.background import MAP_LEARNING_RATE
from sds3d.types import ViewCondition

NAMES = [
    *("cfd", "cfd-sd", "csd", "dreamfusion", "dreamgaussian", "fantasia3d", "gaussiandreamer", "image-to-3d"),
    *("luciddreamer", "magic3d", "mvdream", "nfsd", "prolificdreamer", "sdi", "sjc"),
]
STAGES = [(name, number) for name in recipe_names() for number in range(len(read_recipe(name).stages))]
REFERENCE = re.compile(r"([\w-]+/[\w.-]+@[0-9a-f]{7} \S+|arXiv \d{4}\.\d{5}).*")


def resolved(name: str, **overrides: Any) -> RunConfig:
    return load_config(overrides={"prompt": "a red mug", **read_recipe(name).needs, **overrides}, recipe=name)


@cache
def rates(scene: str) -> dict[str, float]:
    """Learning rates of a scene's parameters, and of the background."""
    small = {"nerf": {"field": {"levels": 1, "log2_table": 4}}, "gaussians": {"count": 4}}.get(scene, {})
    built = SCENES[scene](**small).build(torch.Generator())
    return {"background": MAP_LEARNING_RATE, **{group.name: group.lr for group in built.param_groups()}}


def in_stage(recipe: Recipe, number: int) -> dict[str, Value]:
    """The values that a recipe says of a stage or of the whole run."""
    return {**recipe.run, **recipe.stages[number].options}


def test_the_methods_that_are_here() -> None:
    assert recipe_names() == NAMES


@pytest.mark.parametrize(("name", "number"), STAGES)
def test_a_run_has_the_values_of_its_recipe(name: str, number: int) -> None:
    recipe, config = read_recipe(name), resolved(name).in_stage(number)
    assert config.steps == recipe.stages[number].steps.value
    for key, row in in_stage(recipe, number).items():
        found: Any = config.to_dict()
        for part in key.split("."):
            found = found[part]
        assert found == row.value, key


@pytest.mark.parametrize("name", recipe_names())
def test_each_value_says_that_it_is_from_the_recipe(name: str) -> None:
    config = resolved(name)
    keys = {**read_recipe(name).run, **read_recipe(name).stages[0].options}
    for key in keys:
        given = {source for other, source in config.sources.items() if f"{other}.".startswith(f"{key}.")}
        assert given == {f"recipe {name}"}, key
    assert config.sources["steps"] == f"recipe {name}"


def test_what_a_person_says_goes_before_a_recipe() -> None:
    own = resolved("magic3d", prior="analytic", **{"cameras.elevation_deg": [0, 10]})
    assert (own.prior.name, own.cameras.elevation_deg, own.final.scene.name) == ("analytic", (0, 10), "mesh")
    assert (own.sources["cameras.elevation_deg"], own.sources["prior.name"]) == ("you", "you")
    assert load_config(overrides=own.said) == own  # as config.json has it


@pytest.mark.parametrize("name", recipe_names())
def test_sources_are_repositories_with_a_commit_and_a_file_or_papers(name: str) -> None:
    assert all(REFERENCE.fullmatch(source) for source in read_recipe(name).sources.values())


@pytest.mark.parametrize(("name", "number"), STAGES)
def test_values_follow_from_those_of_their_sources(name: str, number: int) -> None:
    """Those that differ from their source, where the relation is one of the usual: schedules in steps of the stage,
    learning rates, the guidance scale, and shares."""
    recipe, config = read_recipe(name), resolved(name).in_stage(number)
    stage = recipe.stages[number]
    groups = rates(config.scene.name)
    for key, row in stage.options.items():
        if row.source == OURS or not row.why:
            continue
        published = row.published
        if row.why.startswith("rate:"):
            group = key.rpartition(".")[2]
            assert row.value * groups[group] == pytest.approx(published, rel=1e-4), key
        elif row.why.startswith("S + 1"):
            assert row.value == published + 1, key
        elif row.why.startswith("steps over"):
            steps = stage.steps.value
            assert row.why == f"steps over {steps}"
            if isinstance(published, list):
                first, start, end, last = published
                last = first if last == first + 1 else last  # one step: a jump
                times = {"begin_at": first / steps, "end_at": last / steps}
                assert row.value == pytest.approx({"start": start, "end": end, **times}, abs=1e-5), key
            else:
                assert row.value == pytest.approx(published / steps, abs=1.5 / steps), key


@pytest.mark.parametrize(("name", "number"), STAGES)
def test_a_step_asks_the_prior_as_often_as_the_recipe_says(name: str, number: int) -> None:
    recipe, config = read_recipe(name), resolved(name).in_stage(number)
    views, prior = config.cameras.views, AnalyticConfig(size=8).build("cpu")
    counter, cameras = ForwardCounter.of(prior), orbit(views, size=8)
    generator = torch.Generator().manual_seed(0)
    state = config.guidance.init(prior, generator)
    cond = Prompts(prior, "red", config.negative_prompt and "blue", config.view_prompting, True).at(cameras)
    x, samples = torch.zeros(views, 3, 8, 8), 40
    for sample in range(samples):
        progress = (sample + 0.5) / samples
        times = 1 if config.cameras.orthogonal_views else views
        t = config.timesteps.sample(progress, times, generator).expand(views)
        noise = torch.ones_like(x)
        inputs = GuidanceInput(x, t, noise, prior, cond, ViewCondition(cameras), progress, generator)
        config.guidance.step(inputs, state)
    asked = counter.forwards / views / samples
    assert asked == pytest.approx(recipe.stages[number].forwards, rel=0.05)
    assert recipe.forwards[number] == pytest.approx(config.steps * views * asked, rel=0.05)


def test_what_is_wrong_in_a_file_is_named() -> None:
    good = {
        "title": "t",
        "sources": {"a": "owner/name@1234567 file"},
        "run": {"prior.name": ["analytic", "ours", "because"]},
        "stages": [{"name": "one", "steps": [10, "a max = 10"], "forwards": 2, "options": {}}],
    }
    assert parse_recipe(json.dumps(good), "good").options() == {"prior.name": "analytic", "steps": 10, "stages": []}
    stage = good["stages"][0]
    for change, problem in (
        ({"run": {"seed": [1, "ours"]}}, "the reason follows"),
        ({"run": {"seed": [1, "a seed = 2"]}}, "say why"),
        ({"run": {"seed": [1, "a seed is 1"]}}, "VALUE as JSON"),
        ({"sources": {"a": "x", "b": "y"}}, "b stands on one side only"),
        ({"stages": [{**stage, "steps": [10, "c max = 10"]}]}, "a, c stands on one side only"),
        ({"stages": [{**stage, "begin_at": 0.5}]}, "begin_at is not an option"),
    ):
        with pytest.raises(ConfigError, match=problem) as caught:
            parse_recipe(json.dumps({**good, **change}), "bad")
        assert str(caught.value).startswith("recipe bad: ")
    with pytest.raises(ConfigError, match="recipe 'dreamfuson' is unknown"):
        load_config(recipe="dreamfuson", overrides={"prompt": "a mug"})
