"""What each guidance asks of the prior: forwards for one view in one step. A new guidance adds its line to COSTS."""

from typing import Any

import pytest
import torch

from sds3d.cameras import orbit
from sds3d.guidance import GUIDANCE
from sds3d.guidance.base import GuidanceInput
from sds3d.priors.analytic import AnalyticConfig
from sds3d.priors.forward_counter import ForwardCounter
from sds3d.prompts import Prompts
from sds3d.types import ViewCondition

OFFICIAL_INVERSION = {"inversion_steps": 10, "inversion_start": 0.0}
RISING = {"start": 0, "end": 1, "end_at": 0.5}

# name, options, negative prompt, t, progress of the run, forwards
COSTS: list[tuple[str, dict[str, Any], str, float, float, int]] = [
    ("sds", {}, "", 0.5, 0.0, 2),
    ("sds", {"rescale": 0.5}, "blue", 0.5, 0.0, 2),
    ("sjc", {}, "", 0.5, 0.0, 2),
    ("csd", {}, "", 0.5, 0.2, 2),
    ("csd", {"negative_scale": RISING}, "blue", 0.5, 0.0, 2),  # w2 = 0
    ("csd", {"negative_scale": RISING}, "blue", 0.5, 0.2, 3),
    ("csd", {"negative_scale": RISING}, "blue", 0.5, 0.5, 2),  # w1 = w2
    ("nfsd", {}, "", 0.5, 0.0, 2),
    ("nfsd", {}, "blue", 0.5, 0.0, 3),
    ("nfsd", {}, "blue", 0.1, 0.0, 2),  # below t_clean
    ("ssd", {}, "", 0.1, 0.0, 2),
    ("ssd", {}, "blue", 0.5, 0.0, 2),
    ("ism", {}, "", 0.1, 0.0, 3),  # s is where the inversion starts
    ("ism", {}, "", 0.25, 0.0, 4),
    ("ism", {}, "", 0.5, 0.0, 5),
    ("ism", {}, "blue", 0.98, 0.0, 8),
    ("sdi", {}, "", 0.03, 0.0, 2),
    ("sdi", {}, "", 0.5, 0.0, 8),
    ("sdi", {}, "blue", 0.98, 0.0, 12),
    ("sdi", OFFICIAL_INVERSION, "", 0.25, 0.0, 8),
    ("sdi", OFFICIAL_INVERSION, "", 0.98, 0.0, 22),
    ("vsd", {}, "", 0.5, 0.0, 2),  # and two of the critic, one with gradients, which are not the prior's
    ("cfd", {}, "", 0.5, 0.0, 2),
]


def forwards(name: str, options: dict[str, Any], negative: str, t: list[float], progress: float) -> float:
    prior, count = AnalyticConfig(size=8).build("cpu"), len(t)
    counter, cameras = ForwardCounter.of(prior), orbit(count, size=8)
    method = GUIDANCE[name](**options)
    state = method.init(prior, torch.Generator())
    x = torch.zeros(count, 3, 8, 8)
    cond, view = Prompts(prior, "red", negative).at(cameras), ViewCondition(cameras)
    method.step(GuidanceInput(x, torch.tensor(t), torch.ones_like(x), prior, cond, view, progress), state)
    return counter.forwards / count


@pytest.mark.parametrize(("name", "options", "negative", "t", "progress", "expected"), COSTS)
def test_a_step_asks_the_prior_as_often_as_the_table_says(
    name: str, options: dict[str, Any], negative: str, t: float, progress: float, expected: int
) -> None:
    assert forwards(name, options, negative, [t, t, t], progress) == expected


def test_the_table_has_every_guidance() -> None:
    assert {row[0] for row in COSTS} == set(GUIDANCE)


def test_views_of_one_batch_are_asked_together() -> None:
    """One view that needs eps_neg, or a longer inversion, sets the price for all."""
    assert forwards("nfsd", {}, "blue", [0.1, 0.5], 0.0) == 3
    assert forwards("ism", {}, "", [0.1, 0.5], 0.0) == 5
    assert forwards("sdi", {}, "", [0.1, 0.5], 0.0) == 8
