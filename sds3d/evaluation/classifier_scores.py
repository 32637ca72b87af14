"""Numbers from the classifier's predictions; the truth gets the same numbers, as a ceiling."""

from collections.abc import Iterable
from random import Random

import torch
from jaxtyping import Bool
from torch import Tensor

from sds3d.evaluation.classifier import FRONTED, VIEWS, Classifier, Prediction, attributes_of
from sds3d.evaluation.renders import GREY, Renders
from sds3d.metrics.view_classifier import false_front_share
from sds3d.priors.embedded.captions import Description, parse, random_description

CAPTIONS = 100  # that retrieval chooses from, the right one included


def score_renders(
    classifier: Classifier, renders: Renders, description: Description, captions: list[Description]
) -> dict[str, float]:
    """Shares of the views, [0, 1]; a view that shows nothing is wrong in all.

    accuracy: right labels over the attributes that the caption mentions. all_right: views without a wrong label.
    r_precision: views whose own caption is the likeliest of `captions`. agreement: for each attribute, views with the
    most frequent label. janus, for objects with a front: see `false_front_share`.
    """
    prediction = classifier.predict(renders.over(GREY), renders.cameras)
    visible = renders.visible()
    right = {name: correct & visible for name, correct in prediction.correct(description).items()}
    table = torch.stack(list(right.values())).float()
    scores = {
        "accuracy": float(table.mean()),
        "all_right": float(table.amin(0).mean()),
        "r_precision": float((is_retrieved(prediction, description, captions) & visible).float().mean()),
        "agreement": agreement(prediction, list(right), visible),
    }
    if has_front(description):
        is_front = prediction.views.argmax(1) == VIEWS.index("front")
        scores["janus"] = false_front_share(is_front, renders.cameras.azimuth, visible)
    return scores


def attribute_shares(classifier: Classifier, renders: Renders, description: Description) -> dict[str, float]:
    """For each attribute that the caption mentions, the share of views in which the classifier finds it."""
    correct = classifier.predict(renders.over(GREY), renders.cameras).correct(description)
    return {name: float((right & renders.visible()).float().mean()) for name, right in correct.items()}


def captions_for(prompts: Iterable[str], count: int = CAPTIONS) -> list[Description]:
    """Those of the prompts, and random captions of the world up to `count`: all different, for retrieval."""
    rng = Random("retrieval")
    own = [one for one in map(parse, prompts) if one is not None]
    captions = {tuple(attributes_of(one).values()): one for one in own}
    while len(captions) < count:
        one = random_description(rng)
        captions.setdefault(tuple(attributes_of(one).values()), one)
    return list(captions.values())


def is_retrieved(prediction: Prediction, description: Description, captions: list[Description]) -> Bool[Tensor, " B"]:
    """R-precision at rank 1 (Jain et al. 2022, Dream Fields), by the classifier's likelihood instead of CLIP."""
    others = [one for one in captions if attributes_of(one) != attributes_of(description)]
    best = torch.stack([prediction.log_likelihood(one) for one in others]).amax(0)
    return prediction.log_likelihood(description) > best


def agreement(prediction: Prediction, attributes: list[str], visible: Bool[Tensor, " B"]) -> float:
    """Share of views with the most frequent label, right or wrong, mean over attributes; empty views never agree."""
    labels = prediction.labels()
    shares = [int(labels[name][visible].bincount(minlength=1).max()) / len(visible) for name in attributes]
    return sum(shares) / len(shares)


def has_front(description: Description) -> bool:
    """Whether the object is a single one that looks different from the front."""
    return description.relation is None and description.thing.kind in FRONTED
