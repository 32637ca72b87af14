"""The Janus meter against priors that know exactly what each side looks like, and objects with one face too many."""

import math

import pytest
import torch

from sds3d.cameras import orbit
from sds3d.config.run_config import load_config
from sds3d.evaluation.ground_truth import draw_truths
from sds3d.metrics.view_classifier import false_front_share, measure, residuals
from sds3d.priors.analytic import AnalyticPrior
from sds3d.priors.embedded.captions import parse
from sds3d.priors.embedded.render import render_solids
from sds3d.scenes import GaussiansConfig
from sds3d.types import RenderOutput, ViewCondition

CPU = torch.device("cpu")
SIDES = ("front", "side", "back")


def config(**overrides):
    return load_config(overrides={"prompt": "a mug", **overrides})


def measured(prior, config, scene):
    return measure(prior, config.prior, config.prompt, scene, CPU)


class Words(AnalyticPrior):
    """A mixture of three pictures that are chosen by the words front, side and back."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.pictures = torch.rand(3, 3, 16, 16, generator=generator)
        super().__init__(2 * self.pictures - 1, torch.full((3,), 0.1), torch.ones(3), SIDES)


class Faces:
    """A scene that shows one of the prior's pictures from each side, by `side_of` its azimuth in degrees."""

    def __init__(self, pictures, side_of):
        self.pictures, self.side_of = pictures, side_of

    def render(self, cameras, background):
        turned = [abs((math.degrees(a) + 180) % 360 - 180) for a in cameras.azimuth.tolist()]
        rgb = torch.stack([self.pictures[self.side_of(angle)] for angle in turned]).permute(0, 2, 3, 1)
        return RenderOutput(rgb=rgb, opacity=torch.ones_like(rgb[..., :1]), depth=torch.ones_like(rgb[..., :1]))


def true_side(angle):
    return 0 if angle < 45 else 2 if angle > 135 else 1


def words_config():
    return config(**{"prior": {"name": "diffusers", "model": "./any"}, "cameras.size": 16})


def test_an_object_with_its_own_back_is_read_as_what_it_is():
    prior = Words()
    found = measured(prior, words_config(), Faces(prior.pictures, true_side))
    assert found.agreement == 1.0
    assert found.front == found.truly_front == 2 / 8
    assert found.margin > 0.1


def test_a_face_on_every_side_is_read_as_a_front_on_every_side():
    prior = Words()
    found = measured(prior, words_config(), Faces(prior.pictures, lambda angle: 0))
    assert found.front == 1.0
    assert found.agreement == 2 / 8


def test_a_second_face_at_the_back_is_counted():
    prior = Words()
    scene = Faces(prior.pictures, lambda angle: 0 if angle < 45 or angle > 135 else 1)
    found = measured(prior, words_config(), scene)
    assert found.front == 4 / 8
    assert found.agreement == 6 / 8


def test_the_residual_is_the_mean_square_of_what_the_prior_gets_wrong():
    """For one Gaussian per side: by the closed form of its noise prediction."""
    prior = Words()
    x = 2 * prior.pictures[:1] - 1
    text = prior.embed(["front", "back"])
    views = ViewCondition(orbit(1))
    errors = residuals(prior, x, [(text[:1], views), (text[1:], views)])
    generator, wanted = torch.Generator().manual_seed(0), []
    for time in (0.4, 0.55, 0.7):
        noise = torch.randn(x.shape, generator=generator)
        alpha, sigma = prior.alpha_sigma(torch.tensor([time]))
        x_t = alpha * x + sigma * noise
        variance = alpha.square() * 0.1**2 + sigma.square()
        predicted = [sigma * (x_t - alpha * (2 * prior.pictures[k] - 1)) / variance for k in (0, 2)]
        wanted.append([(eps - noise).square().mean() for eps in predicted])
    torch.testing.assert_close(errors[0], torch.tensor(wanted).mean(dim=0), rtol=1e-4, atol=1e-5)


def test_priors_that_tell_no_sides_apart_and_flat_scenes_have_no_meter(small_config):
    solid = small_config().scene.build(torch.Generator().manual_seed(0))
    assert measured(small_config().prior.build("cpu"), small_config(), solid) is None
    flat = config(scene="image", **{"scene.size": 16})
    assert measured(Words(), words_config(), flat.scene.build(torch.Generator().manual_seed(0))) is None


def test_fronts_are_false_where_the_view_is_not_from_the_front():
    azimuth = torch.deg2rad(torch.tensor([0.0, 50.0, 90.0, 180.0, -60.0, 359.0]))
    every = torch.ones(6, dtype=torch.bool)
    assert false_front_share(every, azimuth, every) == 1.0
    assert false_front_share(torch.tensor([True, True, True, False, False, True]), azimuth, every) == pytest.approx(
        1 / 3
    )
    assert false_front_share(every, azimuth, ~every) == 0.0


class Truth:
    """A procedural object; `from_front` shows its front from everywhere, as a Janus object does."""

    def __init__(self, text, from_front=False):
        self.solids, self.from_front = draw_truths(parse(text))[0], from_front

    def render(self, cameras, background):
        seen = (
            orbit(1, size=cameras.width).select(torch.zeros(len(cameras), dtype=torch.long))
            if self.from_front
            else cameras
        )
        rgba = render_solids(self.solids, seen)
        rgb = rgba[..., :3] + (1 - rgba[..., 3:]) * background[:, None, None]
        return RenderOutput(rgb=rgb, opacity=rgba[..., 3:], depth=rgba[..., 3:])


@pytest.mark.slow
@pytest.mark.parametrize("text", ["a red car", "a yellow duck"])
def test_the_embedded_prior_tells_a_true_object_from_one_with_faces_all_around(text):
    prior = config().prior.build("cpu")
    truth = measured(prior, config(prompt=text), Truth(text))
    janus = measured(prior, config(prompt=text), Truth(text, from_front=True))
    assert truth.agreement >= 0.75, truth
    assert janus.agreement <= 0.5, janus
    assert janus.front > truth.front


@pytest.mark.exports
@pytest.mark.slow
def test_a_run_measures_on_the_way_and_at_the_end_and_does_not_count_those_forwards(tmp_path, monkeypatch):
    import json

    from sds3d.run.events import Measured
    from sds3d.training.session import Session

    monkeypatch.setattr(GaussiansConfig, "artifacts", ("ply",))
    monkeypatch.setattr("sds3d.metrics.view_classifier.TIMES", (0.55,))  # when it measures, not how well
    options = {
        "prompt": "a red duck",
        "scene": "gaussians",
        "steps": 2,
        "preview_every": 0,
        "cameras.views": 2,
        "scene.count": 300,
    }
    plain, metered = (config(**options, **more) for more in ({}, {"checkpoint_every": 1, "milestone_every": 1}))
    events = list(Session(metered, tmp_path / "metered").run())
    measured = [event for event in events if isinstance(event, Measured)]
    assert [event.step for event in measured] == [1, 2]
    report = json.loads((tmp_path / "metered" / "report.json").read_text())
    assert report["metrics"]["janus"] == measured[-1].metrics["janus"]
    assert report["prior_forwards_per_step"] == 2
    list(Session(plain, tmp_path / "plain").run())
    ply = [(tmp_path / name / "splats.ply").read_bytes() for name in ("metered", "plain")]
    assert ply[0].split(b"end_header")[1] == ply[1].split(b"end_header")[1], "looking changes nothing"
