"""The classifier: what captions mean to it, that it learns, its files; and the shipped one on fresh true renders."""

import json
import math
from dataclasses import replace
from random import Random

import pytest
import torch

from sds3d.cameras import orbit, orbit_cameras
from sds3d.errors import PriorUnavailable
from sds3d.evaluation.classifier import (
    ATTRIBUTES,
    FRONTED,
    LABELS,
    VIEWS,
    Classifier,
    ClassifierNetwork,
    Prediction,
    attributes_of,
    load_classifier,
    save_classifier,
    view_labels,
)
from sds3d.evaluation.classifier_training import augmented, carry_over, classifier_loss, measure, train_classifier
from sds3d.priors.embedded.captions import build, parse, random_description
from sds3d.priors.embedded.data import make_batch
from sds3d.priors.embedded.object_kinds import KINDS
from sds3d.priors.embedded.render import over, render_solids


@pytest.mark.parametrize(
    ("caption", "said"),
    [
        ("a red mug", {"kind": "mug", "color": "red", "relation": "none", "pattern": "plain", "second_color": "none"}),
        ("a striped red mug", {"pattern": "striped", "second_color": "white"}),
        ("a striped white mug", {"pattern": "striped", "color": "white", "second_color": "black"}),
        ("a striped white and red mug", {"color": "red", "second_color": "white"}),
        ("a dotted white and red mug", {"color": "white", "second_color": "red"}),
        ("a dotted red and blue metal mug", {"pattern": "dotted", "second_color": "blue", "material": "metal"}),
        ("a white house with a blue roof", {"pattern": "two-tone", "second_color": "blue", "color": "white"}),
        ("a red cone on a blue cube", {"relation": "on", "other_kind": "cube", "other_color": "blue"}),
        ("two red mugs", {"relation": "two", "other_kind": "none"}),
    ],
)
def test_captions_mean_labels(caption, said):
    found = attributes_of(parse(caption))
    assert {name: found[name] for name in said} == said
    assert set(found) == set(ATTRIBUTES)


def test_every_caption_of_the_world_has_labels():
    rng = Random(0)
    for _ in range(300):
        for name, label in attributes_of(random_description(rng)).items():
            assert label in LABELS[name]


def test_views_are_named_by_the_nearest_quarter():
    turns = torch.tensor([0.0, 0.7, 0.9, math.pi, -math.pi / 2, 2 * math.pi - 0.1])
    assert [VIEWS[i] for i in view_labels(turns).tolist()] == ["front", "front", "left", "back", "right", "front"]


def likeliest(prediction: Prediction, attribute: str) -> list[str]:
    """One label for each image."""
    return [LABELS[attribute][index] for index in prediction.labels()[attribute].tolist()]


def test_a_prediction_is_right_if_the_likeliest_label_is_the_captions():
    description = parse("a red cone on a blue cube")
    said = attributes_of(description)
    certain = {
        name: torch.nn.functional.one_hot(torch.tensor([labels.index(said[name])] * 2), len(labels)).float().log()
        for name, labels in LABELS.items()
    }
    certain["color"] = certain["color"].roll(1, dims=1).clone()
    prediction = Prediction(certain, torch.zeros(2, 4))
    right = prediction.correct(description)
    assert set(right) == {"relation", "kind", "color", "pattern", "material", "other_kind", "other_color"}
    assert not right["color"].any()
    assert all(right[name].all() for name in right if name != "color")
    assert (prediction.log_likelihood(description) == -math.inf).all()
    assert likeliest(prediction, "kind") == ["cone", "cone"]


def _prediction(**shares):
    """Of one image: shares of some labels by attribute, the rest even and small."""
    found = {}
    for name, labels in LABELS.items():
        row = torch.full((1, len(labels)), 1e-3)
        for label, share in shares.get(name, {}).items():
            row[0, labels.index(label)] = share
        found[name] = row.log()
    return Prediction(found, torch.zeros(1, 4))


def test_what_no_caption_could_mean_is_not_read():
    pattern, color = {"checkered": 0.9}, {"blue": 0.5, "yellow": 0.4}
    prediction = _prediction(pattern=pattern, color=color, second_color={"blue": 0.9, "yellow": 0.1})
    assert likeliest(prediction, "color") + likeliest(prediction, "second_color") == ["yellow", "blue"]
    assert prediction.correct(parse("a checkered blue and yellow gift"))["color"].all()
    prediction = _prediction(pattern=pattern, color=color, second_color={"white": 0.9})
    assert likeliest(prediction, "color") + likeliest(prediction, "second_color") == ["blue", "white"]
    kinds = {"none": 0.5, "mug": 0.4, "cube": 0.3}  # nothing stands on a mug
    prediction = _prediction(relation={"on": 0.9}, other_kind=kinds, other_color={"red": 0.9})
    assert likeliest(prediction, "relation") + likeliest(prediction, "other_kind") == ["on", "cube"]
    prediction = _prediction(relation={"none": 0.9, "on": 0.05}, other_kind={"none": 0.4, "cube": 0.5})
    assert likeliest(prediction, "relation") + likeliest(prediction, "other_kind") == ["none", "none"]


def test_every_caption_can_be_read():
    rng = Random(1)
    for _ in range(300):
        description = random_description(rng)
        prediction = _prediction(**{name: {label: 1.0} for name, label in attributes_of(description).items()})
        assert all(right.all() for right in prediction.correct(description).values()), description.caption()


@pytest.mark.slow
def test_it_learns_a_few_pictures_by_heart(monkeypatch):
    monkeypatch.setattr(
        "sds3d.evaluation.classifier_training.make_batch", lambda seed, first, count, **_: make_batch(0, 0, count)
    )
    torch.manual_seed(0)
    network = ClassifierNetwork()
    losses = list(train_classifier(network, steps=12, batch=8))
    assert losses[-1] < 0.6 * losses[0]


def test_augmented_images_keep_their_range_and_differ():
    rgba = make_batch(0, 0, 1, views=6).rgba
    images = augmented(rgba, torch.Generator().manual_seed(0))
    assert images.shape == (len(rgba), 3, 64, 64)
    assert images.min() >= 0
    assert images.max() <= 1
    assert not torch.equal(images, augmented(rgba, torch.Generator().manual_seed(1)))


def test_the_side_is_learned_only_from_things_that_have_a_front():
    torch.manual_seed(0)
    network = ClassifierNetwork()
    views = make_batch(0, 0, 1, views=6)

    def view_gradient(caption):
        batch = replace(views, captions=[caption] * 6)
        network.zero_grad()
        classifier_loss(network, batch, augmented(batch.rgba, torch.Generator().manual_seed(0))).backward()
        return network.view[0].weight.grad

    assert view_gradient("a red sphere") is None
    assert view_gradient("two red chairs") is None
    assert view_gradient("a red chair").abs().sum() > 0
    assert set(FRONTED) <= set(KINDS)


def test_files_go_round_and_mistakes_are_one_line(tmp_path):
    torch.manual_seed(0)
    network = ClassifierNetwork().eval()
    save_classifier(network, {"seen": {"kind": 0.5}}, tmp_path)
    classifier = load_classifier(folder=tmp_path)
    assert classifier.accuracy == {"seen": {"kind": 0.5}}
    images = torch.rand(2, 3, 64, 64)
    mine, theirs = Classifier(network, {}).predict(images, orbit(2)), classifier.predict(images, orbit(2))
    torch.testing.assert_close(mine.log_probabilities["kind"], theirs.log_probabilities["kind"], rtol=0, atol=0.05)
    facts = json.loads((tmp_path / "classifier.json").read_text())
    facts["labels"]["kind"].pop()
    (tmp_path / "classifier.json").write_text(json.dumps(facts))
    with pytest.raises(PriorUnavailable, match="other labels"):
        load_classifier(folder=tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\x80\x04nothing")
    with pytest.raises(PriorUnavailable) as caught:
        load_classifier(folder=tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_earlier_weights_go_on_where_the_mixing_layer_took_in_less():
    torch.manual_seed(0)
    earlier, network = ClassifierNetwork().state_dict(), ClassifierNetwork()
    own = network.mix[0].weight.detach().clone()
    released = {name: value for name, value in earlier.items() if not name.startswith("look.")}
    released["mix.0.weight"] = earlier["mix.0.weight"][:, :-5]
    carry_over(network, released)
    assert torch.equal(network.mix[0].weight[:, :-5], earlier["mix.0.weight"][:, :-5])
    assert torch.equal(network.mix[0].weight[:, -5:], own[:, -5:])
    assert torch.equal(network.heads["kind"].weight, earlier["heads.kind.weight"])


def test_the_shipped_classifier_knows_left_from_right_from_every_side():
    """Of two things beside each other the first is the left one from the front, and the right one from the back."""
    classifier, texts = load_classifier(), ("a red chair beside a blue mug", "a blue mug beside a red chair")
    cameras = orbit_cameras(
        torch.tensor([0.0, 0.5, -0.5, math.pi, math.pi - 0.5, math.pi + 0.5]),
        *(torch.full((6,), value) for value in (0.35, 3.0, math.radians(40.0))),
        64,
    )
    for number, text in enumerate(texts):
        rgba = render_solids(build(parse(text), Random(number)), cameras)
        prediction = classifier.predict(over(rgba, torch.full((6, 3), 0.6)).permute(0, 3, 1, 2), cameras)
        assert prediction.correct(parse(text))["color"].float().mean() > 0.8, text
        assert prediction.correct(parse(texts[1 - number]))["color"].float().mean() < 0.2, text


@pytest.mark.slow
def test_the_shipped_classifier_reads_fresh_true_renders():
    """Objects and cameras that its training never saw; the figures beside its weights come from such objects too."""
    classifier = load_classifier()
    found = measure(classifier, make_batch(777_777, 0, 40, views=6), 6)
    for name in ("kind", "color", "relation"):
        assert found[name] > classifier.accuracy["seen"][name] - 0.06, name
    assert found["view"] > 0.8


def test_the_shipped_classifier_sees_a_wrong_colour_and_a_wrong_kind():
    classifier, cameras = load_classifier(), orbit(8, elevation_deg=20, size=64)
    rgba = render_solids(build(parse("a red chair"), Random(0)), cameras)
    prediction = classifier.predict(over(rgba, torch.full((8, 3), 0.6)).permute(0, 3, 1, 2), cameras)
    assert prediction.correct(parse("a red chair"))["kind"].float().mean() > 0.7
    assert prediction.correct(parse("a blue chair"))["color"].float().mean() < 0.2
    assert prediction.correct(parse("a red mug"))["kind"].float().mean() < 0.2
    right, wrong = (prediction.log_likelihood(parse(text)).mean() for text in ("a red chair", "a red mug"))
    assert right > wrong + 2.0
