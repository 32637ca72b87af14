"""What the classifier makes of pictures, as numbers; the same numbers are taken of the truth, as a ceiling."""

import math
from collections.abc import Iterable
from random import Random

import torch
from jaxtyping import Bool
from torch import Tensor

from sds3d.evaluation.classifier import FRONTED, VIEWS, Classifier, Prediction, attributes_of
from sds3d.evaluation.renders import GREY, Pictures
from sds3d.priors.embedded.captions import Description, parse, random_description

CAPTIONS = 100  # that a picture has to be told apart from, its own among them
FRONT_DEG = 45.0 + 7.5  # a view farther from the front than this is no front view; the edge itself may be called either


def judged(
    classifier: Classifier, pictures: Pictures, meant: Description, captions: list[Description]
) -> dict[str, float]:
    """Shares of the views, [0, 1]:

    accuracy: right answers over the attributes that the caption speaks of; all_right: views with no wrong answer;
    r_precision: views whose own caption is the likeliest of `captions`; agreement: for each attribute the views with
    the commonest answer; janus (things with a front only): see `janus`. A view that shows nothing is wrong in all.
    """
    prediction = classifier.read(pictures.over(GREY), pictures.cameras)
    shown = torch.tensor(pictures.shown())
    right = {name: found & shown for name, found in prediction.correct(meant).items()}
    table = torch.stack(list(right.values())).float()
    scores = {
        "accuracy": float(table.mean()),
        "all_right": float(table.amin(0).mean()),
        "r_precision": float((is_retrieved(prediction, meant, captions) & shown).float().mean()),
        "agreement": agreement(prediction, list(right), shown),
    }
    if has_front(meant):
        scores["janus"] = janus(prediction, pictures, shown)
    return scores


def attribute_shares(classifier: Classifier, pictures: Pictures, meant: Description) -> dict[str, float]:
    """For each attribute that the caption speaks of the share of views that show it."""
    shown = torch.tensor(pictures.shown())
    found = classifier.read(pictures.over(GREY), pictures.cameras).correct(meant)
    return {name: float((right & shown).float().mean()) for name, right in found.items()}


def distractors(own: Iterable[Description], count: int = CAPTIONS) -> list[Description]:
    """`own` and random captions of the world until there are `count`, no two of which say the same to the classifier."""
    rng = Random("retrieval")
    found = {tuple(attributes_of(one).values()): one for one in own}
    while len(found) < count:
        one = random_description(rng)
        found.setdefault(tuple(attributes_of(one).values()), one)
    return list(found.values())


def captions_for(prompts: Iterable[str]) -> list[Description]:
    """What retrieval chooses from, for runs of these prompts."""
    return distractors(one for one in map(parse, prompts) if one is not None)


def is_retrieved(prediction: Prediction, meant: Description, captions: list[Description]) -> Bool[Tensor, "B"]:
    """R-precision at rank 1 (Jain et al. 2022, Dream Fields, with the classifier's likelihood for CLIP's similarity)."""
    others = [one for one in captions if attributes_of(one) != attributes_of(meant)]
    best = torch.stack([prediction.log_likelihood(one) for one in others]).amax(0)
    return prediction.log_likelihood(meant) > best


def agreement(prediction: Prediction, attributes: list[str], shown: Bool[Tensor, "B"]) -> float:
    """How far the views say the same, whether it is right or not; views that show nothing agree with none."""
    shares = []
    for name in attributes:
        said = [word for word, good in zip(prediction.likeliest(name), shown.tolist(), strict=True) if good]
        shares.append(max((said.count(word) for word in set(said)), default=0) / len(shown))
    return sum(shares) / len(shares)


def has_front(meant: Description) -> bool:
    """Whether it means anything to ask which side a picture shows."""
    return meant.relation is None and meant.thing.kind in FRONTED


def janus(prediction: Prediction, pictures: Pictures, shown: Bool[Tensor, "B"]) -> float:
    """Share of the views that are not from the front and look, from the picture alone, as if they were.

    Views that show nothing are left out; 0 where no view is left.
    """
    angle = torch.rad2deg((pictures.cameras.azimuth + math.pi) % (2.0 * math.pi) - math.pi).abs()
    asked = (angle > FRONT_DEG) & shown
    fronts = prediction.views.argmax(1) == VIEWS.index("front")
    return float((fronts & asked).sum() / asked.sum().clamp_min(1))
