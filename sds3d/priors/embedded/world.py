"""Captions and the objects they mean, drawn at random or read from a sentence; both directions are deterministic.

The grammar is `[a] [COLOR] KIND [with [a] COLOR PART]` and `[a] [COLOR] TOP on [a] [COLOR] BOTTOM`. Some combinations
are held out of training, so that what the prior makes of them measures generalisation.
"""

from dataclasses import dataclass
from random import Random

import torch

from sds3d.priors.embedded.catalogue import BOTTOMS, COLORS, KINDS, PARTS, TOPS, USUAL, Color
from sds3d.priors.embedded.solids import Solid

RADIUS = 0.92  # objects are fitted into a ball of this radius, so that every camera sees them whole
HELD_OUT = {("green", "chair"), ("purple", "mug"), ("pink", "car"), ("orange", "rocket"), ("white", "cone")}
ARTICLES = {"a", "an", "the"}
WORDS = [*COLORS, *KINDS, "on", "with", *sorted(set(PARTS.values()))]
# Training shows these more often: they look different from every side, or have thin parts, and are learned last.
HARD = {"mug": 2.0, "chair": 3.0, "table": 2.0, "car": 3.0, "house": 2.0, "donut": 1.5, "dumbbell": 2.0, "snowman": 1.5}


@dataclass(frozen=True)
class Description:
    """What a caption says: `color kind`, and either a part in a second colour or a thing it stands on."""

    kind: str
    color: str
    part_color: str | None = None
    below_kind: str | None = None
    below_color: str | None = None

    def caption(self) -> str:
        text = f"a {self.color} {self.kind}"
        if self.below_kind:
            text += f" on a {self.below_color} {self.below_kind}"
        if self.part_color:
            part = PARTS[self.kind]
            text += f" with {'' if part.endswith('s') else 'a '}{self.part_color} {part}"
        return text

    def held_out(self) -> bool:
        """True for colour-kind pairs that training never shows."""
        pairs = {(self.color, self.kind), (self.below_color, self.below_kind)}
        return bool(pairs & HELD_OUT)


def random_description(rng: Random) -> Description:
    """60% single objects, 15% with a coloured part, 25% one thing on another; never a held-out pair."""
    weights = [HARD.get(kind, 1.0) for kind in KINDS]
    while True:
        roll, colors = rng.random(), list(COLORS)
        color, other = rng.sample(colors, 2)
        if roll < 0.60:
            found = Description(rng.choices(list(KINDS), weights)[0], color)
        elif roll < 0.75:
            found = Description(rng.choice(list(PARTS)), color, part_color=other)
        else:
            found = Description(rng.choice(TOPS), color, below_kind=rng.choice(BOTTOMS), below_color=other)
        if not found.held_out():
            return found


def build(description: Description, rng: Random) -> list[Solid]:
    """The object as solids, centred and fitted into a ball of RADIUS, with slightly varied colours and proportions."""
    main = _vary(COLORS[description.color], rng)
    second = _vary(COLORS[description.part_color], rng) if description.part_color else USUAL.get(description.kind, main)
    solids = KINDS[description.kind](main, second, rng)
    if description.below_kind and description.below_color:
        below_color = _vary(COLORS[description.below_color], rng)
        below = KINDS[description.below_kind](below_color, below_color, rng)
        scale = rng.uniform(0.8, 1.0)
        top_low = min(float(s.bounds()[0][2]) for s in solids)
        rest = max(float(s.bounds()[1][2]) for s in below)
        solids = [*below, *(s.moved(scale, (0.0, 0.0, rest - scale * top_low)) for s in solids)]
    return fit(solids, RADIUS * rng.uniform(0.9, 1.0))


def fit(solids: list[Solid], radius: float) -> list[Solid]:
    """The same object, its bounding box centred on the origin and its farthest point at `radius`."""
    points = torch.cat([solid.outline() for solid in solids])
    center = (points.amin(0) + points.amax(0)) / 2.0
    scale = radius / float((points - center).norm(dim=-1).max())
    x, y, z = (-scale * center).tolist()
    return [solid.moved(scale, (x, y, z)) for solid in solids]


def _vary(color: Color, rng: Random) -> Color:
    r, g, b = (min(1.0, max(0.0, c + rng.uniform(-0.035, 0.035))) for c in color)
    return r, g, b


def words_of(text: str) -> list[str]:
    """Lower-case words of a prompt without punctuation, articles removed."""
    cleaned = "".join(c if c.isalnum() else " " for c in text.lower())
    return [word for word in cleaned.split() if word not in ARTICLES]


def parse(text: str) -> Description | None:
    """The description that a caption of the grammar stands for; None for any other sentence."""
    words = words_of(text)
    for i, word in enumerate(words):
        if word in ("on", "with"):
            left, right = words[:i], words[i + 1 :]
            break
    else:
        left, right, word = words, [], ""
    if len(left) != 2 or left[0] not in COLORS or left[1] not in KINDS:
        return None
    color, kind = left
    if not word:
        return Description(kind, color)
    if len(right) != 2 or right[0] not in COLORS:
        return None
    if word == "with":
        return Description(kind, color, part_color=right[0]) if PARTS.get(kind) == right[1] else None
    good = kind in TOPS and right[1] in BOTTOMS
    return Description(kind, color, below_kind=right[1], below_color=right[0]) if good else None
