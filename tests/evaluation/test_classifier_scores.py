"""Scores from the shipped classifier: the truth scores high; what is wrong with a picture shows in the right score."""

from random import Random

import pytest
import torch

from sds3d.evaluation.classifier import LABELS, Prediction, attributes_of, load_classifier
from sds3d.evaluation.classifier_scores import (
    agreement,
    captions_for,
    has_front,
    is_retrieved,
    score_renders,
)
from sds3d.evaluation.ground_truth import draw_truths
from sds3d.evaluation.renders import Renders, scored_cameras, true_renders
from sds3d.priors.embedded.captions import build, parse

CHAIR = "a red chair"


@pytest.fixture(scope="module")
def classifier():
    return load_classifier()


@pytest.fixture(scope="module")
def captions():
    return captions_for([CHAIR, "a blue chair", "a red mug", "a green robot"])


def scores(classifier, captions, shown: str, description: str):
    renders = true_renders(draw_truths(parse(shown))[0], scored_cameras())
    return score_renders(classifier, renders, parse(description), captions)


def test_the_truth_scores_near_one(classifier, captions):
    found = scores(classifier, captions, CHAIR, CHAIR)
    assert found["accuracy"] > 0.9
    assert found["all_right"] > 0.7
    assert found["r_precision"] > 0.8
    assert found["agreement"] > 0.9
    assert found["janus"] < 0.2


def test_a_wrong_colour_and_a_wrong_kind_cost_what_they_should(classifier, captions):
    right = scores(classifier, captions, CHAIR, CHAIR)
    color = scores(classifier, captions, "a blue chair", CHAIR)
    kind = scores(classifier, captions, "a red mug", CHAIR)
    for wrong in (color, kind):
        assert wrong["all_right"] < 0.1
        assert wrong["r_precision"] < 0.2
        assert 0.1 < right["accuracy"] - wrong["accuracy"] < 0.5  # one of five attributes
        assert wrong["agreement"] > 0.6  # all views are equally wrong


def test_a_blank_scene_scores_nothing(classifier, captions):
    cameras = scored_cameras()
    blank = Renders(cameras, torch.zeros(12, 128, 128, 3), torch.zeros(12, 128, 128))
    found = score_renders(classifier, blank, parse(CHAIR), captions)
    assert found == {"accuracy": 0.0, "all_right": 0.0, "r_precision": 0.0, "agreement": 0.0, "janus": 0.0}


def test_a_face_on_every_side_is_seen_as_janus(classifier, captions):
    description = parse("a green robot")
    one = true_renders(build(description, Random(0)), scored_cameras())
    faces = Renders(one.cameras, one.rgb[:1].expand_as(one.rgb), one.opacity[:1].expand_as(one.opacity))
    assert score_renders(classifier, one, description, captions)["janus"] < 0.15
    assert score_renders(classifier, faces, description, captions)["janus"] == 1.0


def test_only_single_things_with_a_front_are_asked_for_it(classifier, captions):
    assert has_front(parse("a red chair"))
    assert not has_front(parse("a red cone"))
    assert not has_front(parse("two red chairs"))
    assert "janus" not in scores(classifier, captions, "a red cone", "a red cone")


def certain(text: str) -> Prediction:
    said = attributes_of(parse(text))
    rows = {}
    for name, labels in LABELS.items():
        rows[name] = torch.full((2, len(labels)), -9.0)
        rows[name][:, labels.index(said[name])] = 0.0
    return Prediction(rows, torch.zeros(2, 4))


def test_retrieval_is_by_the_likeliest_caption():
    captions = captions_for(["a red mug", "a blue mug"], count=20)
    assert len(captions) == 20
    assert is_retrieved(certain("a red mug"), parse("a red mug"), captions).all()
    assert not is_retrieved(certain("a red mug"), parse("a blue mug"), captions).any()


def test_agreement_counts_the_commonest_answer():
    prediction = certain("a red mug")
    prediction.log_probabilities["kind"][1] = certain("a red cone").log_probabilities["kind"][1]
    both = torch.tensor([True, True])
    assert agreement(prediction, ["kind", "color"], both) == 0.75
    assert agreement(prediction, ["color"], torch.tensor([True, False])) == 0.5
