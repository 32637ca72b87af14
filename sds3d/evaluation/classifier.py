"""A small classifier of the attributes of an object, trained on renders of the procedural world.

It predicts kind, colours, pattern, material and relation from one image and its camera, and, from the image alone,
which side of the object is seen. Its own accuracy on true renders is stored beside its weights and quoted with every
score: no result can be measured more exactly than that.
"""

import json
import math
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from sds3d.atomic import write_json
from sds3d.errors import PriorUnavailable, first_line
from sds3d.priors.embedded.captions import RELATIONS, Description
from sds3d.priors.embedded.object_kinds import BOTTOMS, COLORS, KINDS, MATERIALS, PATTERNS
from sds3d.types import Cameras

NONE = "none"
LABELS: dict[str, tuple[str, ...]] = {
    "relation": (NONE, *RELATIONS),
    "kind": tuple(KINDS),
    "color": tuple(COLORS),
    "other_kind": (NONE, *KINDS),
    "other_color": (NONE, *COLORS),
    "pattern": PATTERNS,
    "second_color": (NONE, *COLORS),
    "material": MATERIALS,
}
ATTRIBUTES = tuple(LABELS)
VIEWS = ("front", "left", "back", "right")  # of the object: azimuth 0, 90, 180 and 270 degrees
FRONTED = (
    *("chair", "car", "house", "snowman", "mug", "clock", "bed", "sofa", "bus", "train", "boat", "plane"),
    *("windmill", "robot", "duck", "pig", "cat", "penguin", "fish", "letter_l"),
)
SIZE, BLOCK = 64, 4
WIDTHS = (96, 160, 224)  # channels at 16, 8 and 4 pixels
CAMERA = 6
QUERIES, KEY = 6, 48  # of the attention by camera


def attributes_of(description: Description) -> dict[str, str]:
    """The label of each attribute of LABELS for a caption.

    What looks the same gets the same labels: a part in a colour of its own is a two-tone pattern, and the colours of
    stripes and checks are in the order of the catalogue.
    """
    thing, other = description.thing, description.other
    pattern, second = thing.pattern, thing.second
    if thing.part_color:
        pattern, second = "two-tone", thing.part_color
    elif pattern != "plain" and second is None:
        second = "black" if thing.color == "white" else "white"
    color = thing.color
    if second and pattern in ("striped", "checkered"):
        color, second = sorted((color, second), key=list(COLORS).index)
    return {
        "relation": description.relation or NONE,
        "kind": thing.kind,
        "color": color,
        "other_kind": other.kind if other else NONE,
        "other_color": other.color if other else NONE,
        "pattern": pattern,
        "second_color": second or NONE,
        "material": thing.material,
    }


@dataclass(frozen=True)
class Prediction:
    """The classifier's output for B images."""

    log_probabilities: dict[str, Float[Tensor, "B K"]]  # for each attribute, over its LABELS
    views: Float[Tensor, "B 4"]  # log-probabilities of VIEWS; meaningful for FRONTED kinds only

    def log_likelihood(self, description: Description) -> Float[Tensor, " B"]:
        """Log-likelihood of a caption: the sum over all attributes; "none" is a label, too."""
        labels = attributes_of(description)
        return torch.stack([self.log_probabilities[n][:, LABELS[n].index(labels[n])] for n in ATTRIBUTES]).sum(0)

    def labels(self) -> dict[str, Int[Tensor, " B"]]:
        """The likeliest label of each attribute, among combinations that a caption can have: no blue checks on blue."""
        p = {name: values.clamp_min(-1e4) for name, values in self.log_probabilities.items()}
        labels = {name: values.argmax(1) for name, values in p.items()}
        for names, possible in _possible().items():
            a, b, c = (p[name] for name in names)
            joint = a[:, :, None, None] + b[:, None, :, None] + c[:, None, None]
            best = joint.masked_fill(~possible, -math.inf).flatten(1).argmax(1)
            labels |= dict(zip(names, torch.unravel_index(best, possible.shape), strict=True))
        return labels

    def correct(self, description: Description) -> dict[str, Bool[Tensor, " B"]]:
        """For each attribute that the caption mentions, whether the predicted label is the caption's."""
        true, predicted = attributes_of(description), self.labels()
        mentioned = {"relation", "kind", "color", "pattern", "material"}
        mentioned |= {name for name in ("other_kind", "other_color", "second_color") if true[name] != NONE}
        return {name: predicted[name] == LABELS[name].index(true[name]) for name in ATTRIBUTES if name in mentioned}


@cache
def _possible() -> dict[tuple[str, str, str], Bool[Tensor, "X Y Z"]]:
    """The combinations of labels of three attributes that `attributes_of` can give."""
    order = list(COLORS).index

    def surface(color: str, second: str, pattern: str) -> bool:
        if pattern == "plain" or second == NONE:
            return pattern == "plain" and second == NONE
        sorted_alike = pattern not in ("striped", "checkered") or order(color) < order(second)
        return sorted_alike and (color != second or pattern == "two-tone")

    def other(relation: str, kind: str, color: str) -> bool:
        if relation in (NONE, "two"):
            return kind == NONE and color == NONE
        return NONE not in (kind, color) and (relation != "on" or kind in BOTTOMS)

    rules = {("color", "second_color", "pattern"): surface, ("relation", "other_kind", "other_color"): other}
    return {
        (a, b, c): torch.tensor([[[rule(x, y, z) for z in LABELS[c]] for y in LABELS[b]] for x in LABELS[a]])
        for (a, b, c), rule in rules.items()
    }


class ClassifierNetwork(nn.Module):
    """Residual convolutions at 16, 8 and 4 pixels. One head for each attribute, which gets the camera, and one for the
    side that is seen, which does not."""

    def __init__(self) -> None:
        super().__init__()
        first, second, third = WIDTHS
        self.trunk = nn.Sequential(
            nn.PixelUnshuffle(BLOCK),
            _convolution(3 * BLOCK**2, first),
            _Residual(first),
            _convolution(first, second, stride=2),
            _Residual(second),
            _Residual(second),
            _convolution(second, third, stride=2),
            _Residual(third),
        )
        self.place = nn.Conv2d(third, KEY, 1)
        features = KEY * 16 + third
        self.look = _CameraAttention(second, third)
        self.mix = nn.Sequential(nn.Linear(features + CAMERA + QUERIES * second, 384), nn.GELU())
        self.heads = nn.ModuleDict({name: nn.Linear(384, len(labels)) for name, labels in LABELS.items()})
        self.view = nn.Sequential(nn.Linear(features, 128), nn.GELU(), nn.Linear(128, len(VIEWS)))

    def forward(
        self, images: Float[Tensor, "B 3 64 64"], camera: Float[Tensor, "B 6"]
    ) -> tuple[dict[str, Float[Tensor, "B K"]], Float[Tensor, "B 4"]]:
        fine = self.trunk[:6](2.0 * images - 1.0)
        maps = self.trunk[6:](fine)
        overall = maps.mean((2, 3))
        features = torch.cat([self.place(maps).flatten(1), overall], dim=1)
        mixed = self.mix(torch.cat([features, camera, self.look(fine, overall, camera)], dim=1))
        return {name: head(mixed) for name, head in self.heads.items()}, self.view(features)


class _CameraAttention(nn.Module):
    """Attention whose queries come from the camera: of two objects, the first is the left one from the front only."""

    def __init__(self, width: int, overall: int) -> None:
        super().__init__()
        self.ask = nn.Sequential(nn.Linear(overall + CAMERA, 128), nn.GELU(), nn.Linear(128, QUERIES * KEY))
        self.key = nn.Conv2d(width, KEY, 1)
        self.positions = nn.Parameter(0.1 * torch.randn(KEY, (SIZE // BLOCK // 2) ** 2))

    def forward(
        self, maps: Float[Tensor, "B C 8 8"], overall: Float[Tensor, "B D"], camera: Float[Tensor, "B 6"]
    ) -> Float[Tensor, "B L"]:
        queries = self.ask(torch.cat([overall, camera], dim=1)).unflatten(1, (QUERIES, KEY))
        weights = (queries @ (self.key(maps).flatten(2) + self.positions)).softmax(-1)
        return (weights @ maps.flatten(2).transpose(1, 2)).flatten(1)


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_convolution(width, width), nn.Conv2d(width, width, 3, 1, 1, bias=False))
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.norm(self.body(x)))


def _convolution(inside: int, outside: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inside, outside, 3, stride, 1, bias=False), nn.BatchNorm2d(outside), nn.ReLU())


def camera_vector(azimuth: Float[Tensor, " B"], elevation: Float[Tensor, " B"]) -> Float[Tensor, "B 6"]:
    """Two harmonics of the azimuth, and the elevation."""
    return torch.stack(
        [azimuth.sin(), azimuth.cos(), (2 * azimuth).sin(), (2 * azimuth).cos(), elevation.sin(), elevation.cos()], -1
    )


def view_labels(azimuth: Float[Tensor, " B"]) -> Int[Tensor, " B"]:
    """Index of the nearest of VIEWS."""
    return (azimuth / (math.pi / 2.0)).round().long() % len(VIEWS)


class Classifier:
    """The trained network; `accuracy` is its own on true renders, by attribute."""

    def __init__(self, network: ClassifierNetwork, accuracy: dict[str, Any]) -> None:
        self.network, self.accuracy = network.eval().requires_grad_(False), accuracy

    @torch.no_grad()
    def predict(self, images: Float[Tensor, "B 3 H W"], cameras: Cameras) -> Prediction:
        """Prediction for images in [0, 1] over any solid background, resized to 64 x 64, and their cameras."""
        if images.shape[2:] != (SIZE, SIZE):
            images = functional.interpolate(images, size=(SIZE, SIZE), mode="bilinear", antialias=True)
        heads, views = self.network(images, camera_vector(cameras.azimuth, cameras.elevation))
        return Prediction({name: logits.log_softmax(1) for name, logits in heads.items()}, views.log_softmax(1))


def save_classifier(network: ClassifierNetwork, accuracy: dict[str, Any], folder: Path) -> None:
    """model.safetensors in float16 and classifier.json, which names the labels in their order."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in network.state_dict().items()}
    save_file(tensors, folder / "model.safetensors")
    write_json(folder / "classifier.json", {"labels": LABELS, "accuracy": accuracy})


def load_classifier(folder: Path | None = None) -> Classifier:
    """The classifier of assets/evaluator, or of another folder of the same layout.

    PriorUnavailable, naming the folder, if it is missing, broken, or was trained on other labels.
    """
    hint = "reinstall sds3d, or train one: python -m sds3d_app.tools.train_classifier"
    source = resources.files("sds3d_assets") / "evaluator" if folder is None else folder
    with resources.as_file(source) as path:
        try:
            facts = json.loads((path / "classifier.json").read_text())
            network = ClassifierNetwork()
            network.load_state_dict(load_file(path / "model.safetensors"))
        except Exception as error:  # of many types; each means that the folder cannot be used
            why = f"cannot read the evaluator's classifier in {path}: {first_line(error)}"
            raise PriorUnavailable(why, hint) from error
    if facts["labels"] != {name: list(labels) for name, labels in LABELS.items()}:
        raise PriorUnavailable(f"the evaluator's classifier in {path} was trained on other labels", hint)
    return Classifier(network, facts["accuracy"])
