"""Captions and the objects they describe: random captions, parsing a sentence, and building the solids.

    THING    = [small|big] [PATTERN] COLOR [and COLOR] [MATERIAL] KIND
    sentence = THING [with [a] COLOR PART] | THING on THING | THING beside THING | two THINGs

Some combinations are held out of training, so that samples of them measure generalisation. Everything is a function of
the random state that is passed in.
"""

import re
import zlib
from dataclasses import dataclass, replace
from random import Random

from sds3d.priors.embedded.object_kinds import (
    BOTTOMS,
    COLORS,
    KINDS,
    MATERIALS,
    PARTS,
    PATTERNS,
    SIZES,
    SOLIDS,
    TOPS,
    USUAL,
    Color,
)
from sds3d.priors.embedded.shading import Surface
from sds3d.priors.embedded.solids import Solid, box, fit
from sds3d.priors.embedded.words import words_of

RADIUS = 0.92  # objects are scaled to fit a ball of this radius, which every camera sees whole
SUNK = 1e-4  # of what stands on another, so that rounding leaves no gap: the two are one body
RELATIONS = ("on", "beside", "two")

# Pairs of colour and kind that appear in no caption of the training data ...
HELD_OUT = {
    *(("green", "chair"), ("purple", "mug"), ("pink", "car"), ("orange", "rocket"), ("white", "cone")),
    *(("red", "teapot"), ("blue", "duck"), ("green", "bed"), ("yellow", "plane"), ("purple", "castle")),
    *(("orange", "bus"), ("cyan", "house"), ("gray", "cat"), ("pink", "train"), ("black", "penguin")),
    *(("white", "boat"), ("brown", "gift"), ("yellow", "sofa"), ("red", "fish"), ("blue", "cactus")),
    *(("cyan", "car"), ("gray", "table"), ("green", "robot"), ("purple", "umbrella"), ("orange", "letter_t")),
}
# ... and in "beside" and "two", one pair in this many is held out as well.
HELD_OUT_SHARE = 10
# How often training shows a kind (default 1): more often what is learned late, with differing sides or thin parts.
HARD = {
    **{"sphere": 0.6, "cube": 0.6, "cylinder": 0.7, "cone": 0.7, "pyramid": 0.7, "bottle": 0.8, "mushroom": 0.8},
    **{"mug": 1.5, "chair": 1.8, "table": 1.5, "car": 1.8, "house": 1.5, "dumbbell": 1.5, "snowman": 1.2},
    **{"bed": 1.8, "sofa": 1.5, "bus": 1.5, "train": 1.8, "boat": 1.8, "plane": 1.8, "duck": 1.8, "pig": 1.8},
    **{"cat": 1.8, "penguin": 1.5, "fish": 1.8, "robot": 1.8, "windmill": 1.8, "teapot": 1.8, "clock": 1.5},
    **{"letter_l": 1.5, "letter_t": 1.5, "letter_h": 1.5, "castle": 1.5, "flower": 1.5, "umbrella": 1.3},
}


@dataclass(frozen=True)
class Thing:
    """One object of a caption."""

    kind: str
    color: str
    pattern: str = "plain"
    second: str | None = None  # the pattern's other colour; None: white, or black on a white thing
    material: str = "matte"
    part_color: str | None = None
    size: str | None = None

    def words(self, plural: bool = False) -> str:
        """The phrase without the article and without the part."""
        kind = self.kind.replace("icecream", "ice cream").replace("_", " ")
        if plural:
            kind += {"fish": "", "bus": "es"}.get(self.kind, "s")
        second = f"and {self.second}" if self.second else ""
        material = "" if self.material == "matte" else self.material
        pattern = "" if self.pattern == "plain" else self.pattern
        return " ".join(filter(None, [self.size, pattern, self.color, second, material, kind]))


@dataclass(frozen=True)
class Description:
    """The meaning of a caption: a thing, alone, twice, or on or beside another."""

    thing: Thing
    relation: str | None = None
    other: Thing | None = None

    def things(self) -> list[Thing]:
        return [self.thing] if self.other is None else [self.thing, self.other]

    def caption(self) -> str:
        if self.relation == "two":
            return f"two {self.thing.words(plural=True)}"
        text = _article(self.thing.words())
        if self.other:
            text += f" {self.relation} {_article(self.other.words())}"
        if self.thing.part_color:
            part = PARTS[self.thing.kind]
            text += f" with {'' if part.endswith('s') else 'a '}{self.thing.part_color} {part}"
        return text

    def held_out(self) -> bool:
        """Whether training never shows it: a pair of HELD_OUT, or one pair in HELD_OUT_SHARE of "beside" and "two"."""
        pairs = [(thing.color, thing.kind) for thing in self.things()]
        if self.relation not in ("beside", "two"):
            return not HELD_OUT.isdisjoint(pairs)
        keys = [f"{color} {kind} {self.relation}" for color, kind in pairs]
        return not HELD_OUT.isdisjoint(pairs) or any(zlib.crc32(key.encode()) % HELD_OUT_SHARE == 0 for key in keys)


def _article(text: str) -> str:
    return f"{'an' if text[0] in 'aeiou' else 'a'} {text}"


def random_description(rng: Random, held_out: bool = False) -> Description:
    """About 62% single things, half of them plain; none of them held out or, with `held_out`, all."""
    while True:
        description = _any_description(rng)
        if description.held_out() is held_out:
            return description


def _any_description(rng: Random) -> Description:
    # Pairs and patterns are learned last and shown most: 16% beside, 9% two, 28% decorated.
    roll, (color, other) = rng.random(), rng.sample(list(COLORS), 2)
    weights = [HARD.get(kind, 1.0) for kind in KINDS]
    kind = rng.choices(list(KINDS), weights)[0]
    if roll < 0.24:
        return Description(Thing(kind, color, size="small" if rng.random() < 0.08 else None))
    if roll < 0.52:
        return Description(_decorated(Thing(kind, color), other, rng))
    if roll < 0.62:
        return Description(Thing(rng.choice(list(PARTS)), color, part_color=other))
    if roll < 0.75:
        top = rng.choice(SOLIDS if rng.random() < 0.5 else TOPS)
        return Description(Thing(top, color), "on", Thing(rng.choice(BOTTOMS), other))
    if roll < 0.91:
        sizes = rng.choice(((None, None), ("small", "big"), ("big", "small")))
        second = Thing(rng.choices(list(KINDS), weights)[0], other, size=sizes[1])
        return Description(Thing(kind, color, size=sizes[0]), "beside", second)
    return Description(Thing(kind, color), "two")


def _decorated(thing: Thing, other: str, rng: Random) -> Thing:
    """The thing with a random pattern, material, or both."""
    roll = rng.random()
    pattern = rng.choice(PATTERNS[1:]) if roll < 0.75 else "plain"
    material = rng.choice(MATERIALS[1:]) if roll > 0.6 else "matte"
    two_colors = pattern == "two-tone" or (pattern != "plain" and rng.random() < 0.6)
    return replace(thing, pattern=pattern, second=other if two_colors else None, material=material)


def build(description: Description, rng: Random) -> list[Solid]:
    """The object as solids in a ball of RADIUS around the origin, with slightly varied colours and proportions."""
    return [solid for thing in build_things(description, rng) for solid in thing]


def build_things(description: Description, rng: Random) -> list[list[Solid]]:
    """The solids of each thing of the object: left before right, the lower before the one that stands on it."""
    thing = _solids(description.thing, rng)
    things = [thing]
    if description.relation == "two":
        things = _beside(thing, _solids(description.thing, rng), rng)
    elif description.other:
        other = _solids(description.other, rng)
        things = (_stacked if description.relation == "on" else _beside)(thing, other, rng)
    elif description.thing.size == "small":
        return [fit(thing, SIZES["small"] * RADIUS)]
    fitted = iter(fit([solid for placed in things for solid in placed], RADIUS * rng.uniform(0.9, 1.0)))
    return [[next(fitted) for _ in placed] for placed in things]


def _solids(thing: Thing, rng: Random) -> list[Solid]:
    """One thing with its pattern and material, scaled to the radius that its size word means."""
    main = _vary(COLORS[thing.color], rng)
    usual = _vary(COLORS[thing.part_color], rng) if thing.part_color else USUAL.get(thing.kind, main)
    other = _vary(COLORS[thing.second or ("black" if thing.color == "white" else "white")], rng)
    by_part = thing.pattern == "two-tone" and thing.kind in PARTS
    solids = list(KINDS[thing.kind](main, other if by_part else usual, rng))
    if thing.pattern != "plain" or thing.material != "matte":
        low, high = box(solids)
        extent = (high - low) * (1.0, 1.0, 1.2)  # stripes are level unless the thing is long
        x, y, z = ((low + high) / 2.0).tolist()
        pattern = "plain" if by_part else thing.pattern
        paint = Surface(pattern, other, thing.material, int(extent.argmax()), (x, y, z))
        paints = {other if by_part else usual: replace(paint, pattern="plain")}
        paints[main] = paint  # last: the part may have the main colour
        solids = [replace(solid, surface=paints.get(solid.color)) for solid in solids]
    return fit(solids, SIZES.get(thing.size or "", 1.0))


def _stacked(upper: list[Solid], lower: list[Solid], rng: Random) -> list[list[Solid]]:
    scale = rng.uniform(0.72, 0.95)
    rest = float(box(lower)[1][2]) - scale * float(box(upper)[0][2]) - SUNK
    return [lower, [solid.moved(scale, (0.0, 0.0, rest)) for solid in upper]]


def _beside(left: list[Solid], right: list[Solid], rng: Random) -> list[list[Solid]]:
    """Left and right as seen from the front (+x), on one level."""
    gap = rng.uniform(0.06, 0.16)
    low, high = box(left)
    placed = [solid.moved(1.0, (0.0, -gap - float(high[1]), -float(low[2]))) for solid in left]
    low, _ = box(right)
    return [placed, [solid.moved(1.0, (0.0, gap - float(low[1]), -float(low[2]))) for solid in right]]


def _vary(color: Color, rng: Random) -> Color:
    r, g, b = (min(1.0, max(0.0, c + rng.uniform(-0.035, 0.035))) for c in color)
    return r, g, b


# [SIZE] [PATTERN] COLOR [and COLOR] [MATERIAL] KIND
_THING = re.compile(
    f"((?P<size>{'|'.join(SIZES)}) )?((?P<pattern>{'|'.join(PATTERNS)}) )?(?P<color>{'|'.join(COLORS)}) "
    f"(and (?P<second>{'|'.join(COLORS)}) )?((?P<material>{'|'.join(MATERIALS)}) )?(?P<kind>{'|'.join(KINDS)})"
)


def parse(text: str) -> Description | None:
    """The description of a caption in the grammar above; None for any other sentence."""
    sentence = " ".join(words_of(text))
    [(two, first, link, rest)] = re.findall("^(two )?(.*?)(?: (on|beside|with) (.*))?$", sentence)
    thing, other = _parse_thing(first), _parse_thing(rest)
    if thing is None or (two and (link or thing.size)):
        return None
    if two or not link:
        return Description(thing, "two" if two else None)
    if link == "with":
        color, _, part = rest.partition(" ")
        good = color in COLORS and PARTS.get(thing.kind) == part
        return Description(replace(thing, part_color=color)) if good else None
    if other is None or (link == "on" and other.kind not in BOTTOMS):
        return None
    return Description(thing, link, other)


def _parse_thing(text: str) -> Thing | None:
    match = _THING.fullmatch(text)
    if match is None:
        return None
    found = {name: word for name, word in match.groupdict().items() if word}
    if "second" in found and found.get("pattern", "plain") == "plain":
        found["pattern"] = "two-tone"
    return Thing(**found)
