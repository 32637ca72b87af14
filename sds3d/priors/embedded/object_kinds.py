"""What the embedded prior can draw: kinds of objects, their parts, colours, patterns, materials. Front is +x, up is +z.

A kind is a function (main colour, second colour, random state) -> solids, of any size: objects are scaled later. The
part in `PARTS` takes the second colour in "with a blue roof" and "two-tone red and blue"; otherwise the colour in
`USUAL`, else the main one. Seen from the front, +y is right.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from random import Random

from sds3d.priors.embedded.solids import Solid

Color = tuple[float, float, float]

COLORS: dict[str, Color] = {
    "red": (0.85, 0.12, 0.10),
    "orange": (0.95, 0.50, 0.08),
    "yellow": (0.95, 0.85, 0.15),
    "green": (0.15, 0.62, 0.20),
    "blue": (0.12, 0.28, 0.85),
    "purple": (0.50, 0.18, 0.68),
    "pink": (0.97, 0.55, 0.72),
    "brown": (0.45, 0.27, 0.13),
    "white": (0.95, 0.95, 0.95),
    "black": (0.10, 0.10, 0.11),
    "gray": (0.52, 0.53, 0.55),
    "cyan": (0.20, 0.80, 0.85),
}
PATTERNS = ("plain", "striped", "dotted", "checkered", "two-tone")
MATERIALS = ("matte", "glossy", "metal", "wooden")
SIZES = {"small": 0.62, "big": 1.0}  # factors
_DARK: Color = (0.16, 0.16, 0.18)
_GLASS: Color = (0.66, 0.82, 0.93)
_LIGHT: Color = (0.98, 0.95, 0.70)
_CREAM: Color = (0.93, 0.90, 0.82)
_TAN: Color = (0.80, 0.58, 0.32)
_SILVER: Color = (0.75, 0.76, 0.80)
_SIDE = 1.5708  # a quarter turn
_PARTS: dict[str, tuple[str, Color | None]] = {
    "house": ("roof", (0.45, 0.25, 0.18)),
    "mushroom": ("stem", _CREAM),
    "rocket": ("fins", _SILVER),
    "tree": ("trunk", COLORS["brown"]),
    "lamp": ("base", (0.30, 0.30, 0.33)),
    "table": ("legs", None),
    "teapot": ("lid", None),
    "umbrella": ("handle", COLORS["brown"]),
    "clock": ("face", COLORS["white"]),
    "gift": ("ribbon", COLORS["yellow"]),
    "cake": ("icing", COLORS["white"]),
    "icecream": ("cone", _TAN),
    "bed": ("frame", COLORS["brown"]),
    "boat": ("sail", COLORS["white"]),
    "plane": ("wings", _SILVER),
    "cactus": ("pot", (0.72, 0.36, 0.20)),
    "flower": ("center", COLORS["yellow"]),
    "castle": ("roof", (0.30, 0.34, 0.50)),
    "windmill": ("blades", COLORS["white"]),
    "robot": ("head", (0.70, 0.72, 0.76)),
}
PARTS = {kind: part for kind, (part, _) in _PARTS.items()}
USUAL = {kind: color for kind, (_, color) in _PARTS.items() if color}


def sphere(main: Color, second: Color, rng: Random) -> Iterator[Solid]:
    yield Solid("ball", (0, 0, 0), (1, 1, 1), main)


def cube(main: Color, second: Color, rng: Random) -> Iterator[Solid]:
    yield Solid("box", (0, 0, 0), (1, 1, 1), main)


def cylinder(main: Color, second: Color, rng: Random) -> Iterator[Solid]:
    yield Solid("frustum", (0, 0, 0), (0.85, 0.85, rng.uniform(1.0, 1.4)), main)


def cone(main: Color, second: Color, rng: Random) -> Iterator[Solid]:
    yield Solid("frustum", (0, 0, 0), (1, 1, rng.uniform(1.0, 1.4)), main, top=0.0)


def pyramid(main: Color, second: Color, rng: Random) -> Iterator[Solid]:
    yield Solid("pyramid", (0, 0, 0), (1, 1, rng.uniform(0.8, 1.0)), main)


def donut(main: Color, second: Color, rng: Random) -> Iterator[Solid]:
    yield Solid("ring", (0, 0, 0), (1, 1, 1), main, tube=rng.uniform(0.36, 0.46))


def mug(main: Color, second: Color, rng: Random) -> Iterator[Solid]:
    """Handle on the right (+y)."""
    h, handle = rng.uniform(0.95, 1.2), rng.uniform(0.52, 0.62)
    inside = (0.75 * main[0], 0.75 * main[1], 0.75 * main[2])
    yield Solid("cup", (0, 0, 0), (0.85, 0.85, h), main)
    yield Solid("frustum", (0, 0, -0.93 * h), (0.80, 0.80, 0.04 * h), inside)
    yield Solid("ring", (0, 0.92, 0), (handle, handle, handle), main, yaw=_SIDE, roll=_SIDE, tube=0.24)


def chair(main: Color, second: Color, rng: Random) -> Iterator[Solid]:
    """The back rest is behind the seat (-x)."""
    back, leg = rng.uniform(0.55, 0.8), rng.uniform(0.5, 0.7)
    for x, y in _corners(0.59, 0.59):
        yield Solid("box", (x, y, -leg), (0.11, 0.11, leg), main)
    yield Solid("box", (0, 0, 0.06), (0.72, 0.72, 0.11), main)
    yield Solid("box", (-0.62, 0, 0.1 + back), (0.10, 0.72, back), main)


def table(main: Color, second: Color, rng: Random) -> Iterator[Solid]:
    """Wider (y) than deep (x)."""
    leg, deep = rng.uniform(0.5, 0.65), rng.uniform(0.6, 0.75)
    for x, y in _corners(deep - 0.12, 0.9):
        yield Solid("box", (x, y, -leg), (0.10, 0.10, leg), second)
    yield Solid("box", (0, 0, 0.1), (deep, 1.08, 0.11), main)


def car(main: Color, second: Color, rng: Random) -> Iterator[Solid]:
    """Drives towards +x: long bonnet, cabin set back, headlights in front."""
    cabin = rng.uniform(-0.32, -0.22)
    yield from _wheels((-0.66, 0.66), 0.5, -0.28, 0.27)
    yield from _both(Solid("ball", (1.1, -0.34, 0.0), (0.09, 0.11, 0.10), _LIGHT))
    yield Solid("box", (0, 0, 0.0), (1.12, 0.52, 0.24), main)
    yield Solid("box", (cabin, 0, 0.36), (0.54, 0.44, 0.20), (0.62, 0.78, 0.90))
    yield Solid("box", (cabin, 0, 0.56), (0.56, 0.46, 0.06), main)


def house(main: Color, second: Color, rng: Random) -> Iterator[Solid]:
    """Door and windows in front (+x), chimney at the back."""
    h = rng.uniform(0.5, 0.65)
    yield Solid("box", (0, 0, 0), (0.8, 0.95, h), main)
    yield Solid("roof", (0, 0, h + 0.36), (0.98, 1.08, 0.38), second)
    yield Solid("box", (0.80, 0, -h + 0.32), (0.03, 0.19, 0.32), _DARK)
    yield from _both(Solid("box", (0.80, -0.52, 0.12), (0.03, 0.17, 0.17), (0.70, 0.85, 0.95)))
    yield Solid("box", (-0.45, 0.45, h + 0.55), (0.13, 0.13, 0.32), (0.55, 0.25, 0.20))


def snowman(main: Color, second: Color, rng: Random) -> Iterator[Solid]:
    """White; the named colour is its hat's and scarf's. Carrot nose in front (+x)."""
    snow = (0.95, 0.96, 0.98)
    yield Solid("ball", (0, 0, -0.35), (0.68, 0.68, 0.62), snow)
    yield Solid("ball", (0, 0, 0.35), (0.48, 0.48, 0.42), snow)
    yield Solid("ball", (0, 0, 0.88), (0.36, 0.36, 0.34), snow)
    yield Solid("frustum", (0.46, 0, 0.86), (0.09, 0.09, 0.18), COLORS["orange"], pitch=_SIDE, top=0.1)
    yield Solid("ring", (0, 0, 0.62), (0.33, 0.33, 0.33), main, tube=0.30)
    yield Solid("frustum", (0, 0, 1.14), (0.42, 0.42, 0.04), main)
    yield Solid("frustum", (0, 0, 1.36), (0.27, 0.27, 0.22), main)
    yield from _both(Solid("ball", (0.30, -0.14, 0.98), (0.06, 0.06, 0.06), _DARK))  # eyes


def mushroom(main: Color, second: Color, rng: Random) -> Iterator[Solid]:
    cap, stem = rng.uniform(0.5, 0.65), rng.uniform(0.55, 0.7)
    yield Solid("frustum", (0, 0, -0.55), (0.36, 0.36, stem), second, bottom=1.15, top=0.85)
    yield Solid("ball", (0, 0, 0.05), (0.95, 0.95, 0.16), second)
    yield Solid("frustum", (0, 0, 0.08), (0.98, 0.98, 0.08), main, top=0.97)
    yield Solid("ball", (0, 0, 0.12), (0.96, 0.96, cap), main)


def rocket(main: Color, second: Color, rng: Random) -> Iterator[Solid]:
    """A round window in front (+x)."""
    h = rng.uniform(0.75, 0.9)
    yield Solid("frustum", (0, 0, 0), (0.48, 0.48, h), main)
    yield Solid("frustum", (0, 0, h + 0.34), (0.48, 0.48, 0.34), second, top=0.05)
    yield Solid("ball", (0.44, 0, 0.32), (0.09, 0.20, 0.20), (0.62, 0.82, 0.95))
    for x, y in ((0.48, 0), (-0.48, 0), (0, 0.48), (0, -0.48)):
        yield Solid("box", (x, y, -h + 0.02), (0.32 if x else 0.06, 0.32 if y else 0.06, 0.26), second)  # fins


def tree(main: Color, second: Color, rng: Random) -> Iterator[Solid]:
    yield Solid("frustum", (0, 0, -0.65), (0.20, 0.20, rng.uniform(0.35, 0.45)), second)
    for z, r in ((0.0, 0.85), (0.45, 0.68), (0.88, 0.48)):
        yield Solid("frustum", (0, 0, z), (r, r, 0.42), main, top=0.15)


def lamp(main: Color, second: Color, rng: Random) -> Iterator[Solid]:
    h = rng.uniform(0.55, 0.7)
    yield Solid("frustum", (0, 0, -1.0), (0.50, 0.50, 0.08), second)
    yield Solid("frustum", (0, 0, -1.0 + h), (0.09, 0.09, h), second)
    yield Solid("frustum", (0, 0, -0.6 + 2 * h - 0.2), (0.75, 0.75, 0.42), main, top=0.55)


def dumbbell(main: Color, second: Color, rng: Random) -> Iterator[Solid]:
    """Lies along y."""
    r = rng.uniform(0.42, 0.5)
    yield from _both(Solid("ball", (0, -0.78, 0), (r, r, r), main))
    yield Solid("frustum", (0, 0, 0), (0.15, 0.15, 0.75), main, roll=_SIDE)


def bottle(main: Color, second: Color, rng: Random) -> Iterator[Solid]:
    h = rng.uniform(0.62, 0.75)
    yield Solid("frustum", (0, 0, -0.3), (0.45, 0.45, h), main)
    yield Solid("frustum", (0, 0, h - 0.3 + 0.14), (0.45, 0.45, 0.14), main, top=0.38)
    yield Solid("frustum", (0, 0, h + 0.12 + 0.1), (0.17, 0.17, 0.26), main)
    yield Solid("frustum", (0, 0, h + 0.52), (0.20, 0.20, 0.08), _DARK)


def teapot(main: Color, second: Color, rng: Random) -> Iterator[Solid]:
    """Spout on the right (+y), handle on the left."""
    h = rng.uniform(0.55, 0.68)
    yield Solid("ball", (0, 0, 0), (0.78, 0.78, h), main)
    yield Solid("frustum", (0, 0, -h + 0.04), (0.45, 0.45, 0.08), main)
    yield Solid("ball", (0, 0, h - 0.06), (0.42, 0.42, 0.14), second)
    yield Solid("ball", (0, 0, h + 0.14), (0.12, 0.12, 0.12), second)
    yield Solid("frustum", (0, 0.88, 0.12), (0.20, 0.20, 0.46), main, roll=-0.95, top=0.55)
    yield Solid("ring", (0, -0.78, 0.05), (0.36, 0.36, 0.36), main, yaw=_SIDE, roll=_SIDE, tube=0.24)


def candle(main: Color, second: Color, rng: Random) -> Iterator[Solid]:
    h = rng.uniform(0.55, 0.75)
    yield Solid("frustum", (0, 0, -h), (0.62, 0.62, 0.09), _TAN)
    yield Solid("frustum", (0, 0, 0.05), (0.30, 0.30, h), main)
    yield Solid("frustum", (0, 0, h + 0.10), (0.035, 0.035, 0.08), _DARK)
    yield Solid("ball", (0, 0, h + 0.30), (0.12, 0.12, 0.19), (0.98, 0.72, 0.15))


def umbrella(main: Color, second: Color, rng: Random) -> Iterator[Solid]:
    """Open, the hook of its handle to the right (+y)."""
    h = rng.uniform(0.34, 0.46)
    yield Solid("frustum", (0, 0, 0.55), (1.0, 1.0, 0.16), main, top=0.72)
    yield Solid("frustum", (0, 0, 0.71 + h / 2), (0.72, 0.72, h / 2), main, top=0.06)
    yield Solid("frustum", (0, 0, -0.10), (0.06, 0.06, 0.80), second)
    yield Solid("ring", (0, 0.16, -0.90), (0.16, 0.16, 0.16), second, yaw=_SIDE, roll=_SIDE, tube=0.40)
    yield Solid("frustum", (0, 0, 0.78 + h), (0.05, 0.05, 0.08), second)


def clock(main: Color, second: Color, rng: Random) -> Iterator[Solid]:
    """The face looks to the front (+x); two feet."""
    hour, minute = rng.uniform(0.0, 6.28), rng.uniform(0.0, 6.28)
    yield Solid("frustum", (0, 0, 0), (0.95, 0.95, 0.28), main, pitch=_SIDE)
    yield Solid("frustum", (0.27, 0, 0), (0.78, 0.78, 0.05), second, pitch=_SIDE)
    yield Solid("box", (0.34, 0, 0), (0.03, 0.07, 0.36), _DARK, roll=hour)
    yield Solid("box", (0.35, 0, 0), (0.03, 0.05, 0.58), _DARK, roll=minute)
    yield from _both(Solid("ball", (0, -0.5, -0.95), (0.15, 0.15, 0.15), main))  # feet
    yield from _both(Solid("ball", (0, -0.42, 0.92), (0.20, 0.24, 0.20), main))  # bells


def gift(main: Color, second: Color, rng: Random) -> Iterator[Solid]:
    h = rng.uniform(0.55, 0.85)
    yield Solid("box", (0, 0, 0), (0.8, 0.8, h), main)
    yield Solid("box", (0, 0, 0), (0.83, 0.16, h + 0.03), second)
    yield Solid("box", (0, 0, 0), (0.16, 0.83, h + 0.03), second)
    yield from _both(Solid("ball", (0, 0.25, h + 0.20), (0.12, 0.26, 0.17), second, roll=-0.5))  # bow


def apple(main: Color, second: Color, rng: Random) -> Iterator[Solid]:
    h = rng.uniform(0.72, 0.82)
    yield Solid("ball", (0, 0, 0.06), (0.9, 0.9, h), main)
    yield Solid("ball", (0, 0, -0.30), (0.66, 0.66, 0.56), main)
    yield Solid("frustum", (0, 0, h + 0.22), (0.13, 0.13, 0.28), COLORS["brown"])
    yield Solid("ball", (0, 0.42, h + 0.30), (0.20, 0.40, 0.13), COLORS["green"], roll=0.4)


def carrot(main: Color, second: Color, rng: Random) -> Iterator[Solid]:
    """Stands on its tip; green leaves."""
    h, leaf = rng.uniform(0.75, 0.95), COLORS["green"]
    yield Solid("frustum", (0, 0, 0), (0.42, 0.42, h), main, bottom=0.08)
    yield Solid("ball", (0, 0, h), (0.42, 0.42, 0.12), main)
    for a, b in ((0.0, 0.0), (0.45, 0.0), (-0.45, 0.0), (0.0, 0.45), (0.0, -0.45)):
        yield Solid("ball", (0.55 * a, -0.55 * b, h + 0.32), (0.11, 0.11, 0.38), leaf, pitch=a, roll=b)


def cake(main: Color, second: Color, rng: Random) -> Iterator[Solid]:
    h = rng.uniform(0.34, 0.46)
    yield Solid("frustum", (0, 0, -h - 0.06), (1.12, 1.12, 0.05), COLORS["white"])
    yield Solid("frustum", (0, 0, 0), (1.0, 1.0, h), main)
    yield Solid("frustum", (0, 0, h + 0.02), (1.02, 1.02, 0.09), second)
    for x, y in _circle(8):
        yield Solid("ball", (0.94 * x, 0.94 * y, h - 0.10), (0.16, 0.16, 0.20), second)
    yield Solid("ball", (0, 0, h + 0.27), (0.19, 0.19, 0.19), COLORS["red"])


def icecream(main: Color, second: Color, rng: Random) -> Iterator[Solid]:
    h = rng.uniform(0.6, 0.75)
    yield Solid("frustum", (0, 0, -h), (0.46, 0.46, h), second, bottom=0.06)
    yield Solid("ball", (0, 0, 0.22), (0.54, 0.54, 0.50), main)
    yield Solid("frustum", (0, 0, 0.02), (0.56, 0.56, 0.08), main)


def burger(main: Color, second: Color, rng: Random) -> Iterator[Solid]:
    """The named colour is the bun's."""
    h = rng.uniform(0.5, 0.62)
    yield Solid("frustum", (0, 0, -0.46), (0.94, 0.94, 0.19), main, bottom=0.88)
    yield Solid("frustum", (0, 0, -0.20), (0.98, 0.98, 0.12), (0.40, 0.20, 0.10))
    yield Solid("box", (0, 0, -0.07), (0.76, 0.76, 0.04), COLORS["yellow"], yaw=0.785)
    yield Solid("frustum", (0, 0, 0.02), (1.04, 1.04, 0.06), COLORS["green"])
    yield Solid("ball", (0, 0, 0.08), (0.95, 0.95, h), main)


def bed(main: Color, second: Color, rng: Random) -> Iterator[Solid]:
    """The head end is behind (-x); the named colour is the blanket's."""
    wide = rng.uniform(0.58, 0.72)
    for x, y in _corners(1, wide - 0.1):
        yield Solid("box", (x, y, -0.34), (0.08, 0.08, 0.18), second)
    yield Solid("box", (0, 0, -0.16), (1.08, wide, 0.10), second)
    yield Solid("box", (-1.08, 0, 0.16), (0.08, wide, 0.50), second)
    yield Solid("box", (1.08, 0, -0.02), (0.07, wide, 0.25), second)
    yield Solid("box", (-0.70, 0, 0.05), (0.32, wide - 0.05, 0.13), COLORS["white"])
    yield Solid("box", (0.32, 0, 0.07), (0.72, wide - 0.02, 0.16), main)
    yield Solid("ball", (-0.72, 0, 0.22), (0.22, wide - 0.18, 0.12), COLORS["white"])


def sofa(main: Color, second: Color, rng: Random) -> Iterator[Solid]:
    """The back is behind (-x)."""
    wide, back = rng.uniform(0.9, 1.1), rng.uniform(0.42, 0.55)
    for x, y in _corners(0.4, wide - 0.1):
        yield Solid("box", (x, y, -0.48), (0.07, 0.07, 0.1), _DARK)
    yield from _both(Solid("box", (0.02, -wide, 0.02), (0.50, 0.14, 0.38), main))  # arms
    yield Solid("box", (0.05, 0, -0.18), (0.50, wide, 0.20), main)
    yield Solid("box", (-0.42, 0, back - 0.30), (0.14, wide, back), main)


def bus(main: Color, second: Color, rng: Random) -> Iterator[Solid]:
    """Drives towards +x: windscreen and headlights in front."""
    long = rng.uniform(1.1, 1.3)
    yield from _wheels((-0.62 * long, 0.62 * long), 0.42, -0.5, 0.22)
    yield Solid("box", (0, 0, 0.05), (long, 0.45, 0.52), main)
    for x in (-0.72, -0.28, 0.16, 0.60):
        yield Solid("box", (long * x, 0, 0.26), (0.17 * long, 0.47, 0.17), _GLASS)
    yield Solid("box", (long, 0, 0.24), (0.03, 0.38, 0.22), _GLASS)
    yield from _both(Solid("ball", (long, -0.3, -0.22), (0.07, 0.09, 0.09), _LIGHT))


def train(main: Color, second: Color, rng: Random) -> Iterator[Solid]:
    """A steam engine: boiler and chimney in front (+x), cab behind."""
    long = rng.uniform(0.7, 0.85)
    yield from _wheels((-0.75, -0.22, 0.3, 0.78), 0.38, -0.46, 0.23)
    yield Solid("box", (0, 0, -0.30), (1.1, 0.40, 0.10), _DARK)
    yield Solid("frustum", (0.28, 0, 0.10), (0.36, 0.36, long), main, pitch=_SIDE)
    yield Solid("frustum", (0.28 + long, 0, 0.10), (0.38, 0.38, 0.06), _DARK, pitch=_SIDE)
    yield Solid("frustum", (0.72, 0, 0.60), (0.15, 0.15, 0.22), _DARK, top=1.35)
    yield Solid("ball", (0.15, 0, 0.48), (0.17, 0.17, 0.13), _TAN)
    yield Solid("box", (-0.70, 0, 0.22), (0.40, 0.46, 0.50), main)
    yield Solid("box", (-0.70, 0, 0.42), (0.24, 0.48, 0.17), _GLASS)
    yield Solid("box", (-0.70, 0, 0.76), (0.48, 0.52, 0.06), _DARK)


def boat(main: Color, second: Color, rng: Random) -> Iterator[Solid]:
    """Sails towards +x; a small cabin behind the mast."""
    tall = rng.uniform(0.65, 0.8)
    yield Solid("box", (-0.18, 0, -0.42), (0.78, 0.36, 0.18), main)
    yield Solid("pyramid", (0.88, 0, -0.40), (0.16, 0.36, 0.30), main, pitch=_SIDE)
    yield Solid("box", (-0.18, 0, -0.25), (0.72, 0.30, 0.03), COLORS["brown"])
    yield Solid("box", (-0.62, 0, -0.12), (0.24, 0.22, 0.14), _CREAM)
    yield Solid("frustum", (0.12, 0, 0.35), (0.045, 0.045, 0.62), COLORS["brown"])
    yield Solid("pyramid", (-0.25, 0, 0.28 + tall / 4), (0.36, 0.045, tall / 1.5), second)
    yield Solid("pyramid", (0.45, 0, 0.10 + tall / 4), (0.24, 0.045, tall / 2), second)


def plane(main: Color, second: Color, rng: Random) -> Iterator[Solid]:
    """Flies towards +x."""
    span = rng.uniform(0.95, 1.15)
    yield Solid("ball", (0, 0, 0), (1.1, 0.24, 0.25), main)
    yield Solid("ball", (0.62, 0, 0.16), (0.26, 0.15, 0.13), _GLASS)
    yield Solid("box", (0.12, 0, -0.04), (0.24, span, 0.045), second)
    yield Solid("box", (-0.88, 0, 0.06), (0.15, 0.42, 0.04), second)
    yield Solid("box", (-0.90, 0, 0.28), (0.16, 0.045, 0.26), main, pitch=-0.35)
    yield Solid("ball", (1.06, 0, 0), (0.10, 0.10, 0.10), _DARK)


def cactus(main: Color, second: Color, rng: Random) -> Iterator[Solid]:
    """Two arms: the higher one on the right (+y)."""
    h = rng.uniform(0.6, 0.75)
    for side, low in ((1, 0.10), (-1, -0.18)):
        yield Solid("frustum", (0, 0.38 * side, low), (0.13, 0.13, 0.24), main, roll=_SIDE)
        yield Solid("frustum", (0, 0.58 * side, low + 0.20), (0.14, 0.14, 0.24), main)
        yield Solid("ball", (0, 0.58 * side, low + 0.44), (0.14, 0.14, 0.14), main)
        yield Solid("ball", (0, 0.58 * side, low), (0.14, 0.14, 0.14), main)
    yield Solid("frustum", (0, 0, 0.0), (0.24, 0.24, h), main)
    yield Solid("ball", (0, 0, h), (0.24, 0.24, 0.24), main)
    yield Solid("frustum", (0, 0, -h - 0.08), (0.44, 0.44, 0.26), second, bottom=0.7)


def flower(main: Color, second: Color, rng: Random) -> Iterator[Solid]:
    """The blossom looks to the front (+x) and is in the named colour."""
    size, petals = rng.uniform(0.25, 0.30), rng.choice((5, 6))
    for y, z in _circle(petals):
        yield Solid("ball", (0.12, 0.44 * y, 0.55 + 0.44 * z), (0.09, size, size), main)
    yield from _both(Solid("ball", (0, 0.25, -0.55), (0.12, 0.27, 0.06), COLORS["green"], roll=0.5))  # leaves
    yield Solid("ball", (0.17, 0, 0.55), (0.14, 0.24, 0.24), second)
    yield Solid("frustum", (0, 0, -0.35), (0.06, 0.06, 0.72), COLORS["green"])


def castle(main: Color, second: Color, rng: Random) -> Iterator[Solid]:
    """The gate is in front (+x)."""
    h = rng.uniform(0.55, 0.7)
    for x, y in _corners(0.7, 0.7):
        yield Solid("frustum", (x, y, h - 0.4), (0.27, 0.27, h), main)
        yield Solid("frustum", (x, y, 2 * h - 0.4 + 0.24), (0.34, 0.34, 0.24), second, top=0.0)
    yield Solid("box", (0, 0, -0.08), (0.68, 0.68, 0.32), main)
    yield Solid("box", (0.69, 0, -0.18), (0.03, 0.19, 0.22), _DARK)
    yield Solid("box", (-0.1, 0, 0.3), (0.30, 0.30, 0.36), main)


def windmill(main: Color, second: Color, rng: Random) -> Iterator[Solid]:
    """Four blades in front (+x)."""
    turn, h = rng.uniform(0.5, 1.05), rng.uniform(0.62, 0.72)
    for roll in (turn, turn + _SIDE):
        yield Solid("box", (0.52, 0, 0.52), (0.035, 0.12, 0.86), second, roll=roll)
    yield Solid("frustum", (0, 0, -0.2), (0.52, 0.52, h), main, top=0.66)
    yield Solid("frustum", (0, 0, h + 0.02), (0.40, 0.40, 0.24), (0.42, 0.26, 0.16), top=0.1)
    yield Solid("frustum", (0.44, 0, 0.52), (0.08, 0.08, 0.14), _DARK, pitch=_SIDE)
    yield Solid("box", (0.46, 0, -h - 0.02), (0.05, 0.13, 0.20), _DARK)


def robot(main: Color, second: Color, rng: Random) -> Iterator[Solid]:
    """Eyes and a chest plate in front (+x)."""
    wide = rng.uniform(0.42, 0.5)
    yield Solid("box", (0, 0, 0), (0.30, wide, 0.42), main)
    yield Solid("box", (0, 0, 0.66), (0.27, 0.32, 0.24), second)
    yield Solid("box", (0.30, 0, 0.06), (0.03, 0.22, 0.16), _GLASS)
    yield Solid("frustum", (0, 0, 0.98), (0.03, 0.03, 0.10), _DARK)
    yield Solid("ball", (0, 0, 1.12), (0.08, 0.08, 0.08), COLORS["red"])
    yield from _both(Solid("ball", (0.28, -0.15, 0.68), (0.06, 0.09, 0.09), COLORS["yellow"]))  # eyes
    yield from _both(Solid("box", (0, -wide - 0.14, -0.02), (0.12, 0.10, 0.36), main))  # arms
    yield from _both(Solid("box", (0, -0.22, -0.68), (0.15, 0.14, 0.28), second))  # legs


def duck(main: Color, second: Color, rng: Random) -> Iterator[Solid]:
    """Looks to the front (+x)."""
    head = rng.uniform(0.32, 0.38)
    yield Solid("ball", (0, 0, -0.15), (0.78, 0.54, 0.46), main)
    yield Solid("ball", (0.42, 0, 0.48), (head, head, head), main)
    yield Solid("ball", (0.84, 0, 0.42), (0.24, 0.19, 0.08), COLORS["orange"])
    yield Solid("frustum", (-0.74, 0, 0.12), (0.20, 0.26, 0.28), main, pitch=-0.8, top=0.1)
    yield from _both(Solid("ball", (0.62, -0.22, 0.56), (0.07, 0.06, 0.07), _DARK))  # eyes
    yield from _both(Solid("ball", (-0.08, -0.50, -0.08), (0.42, 0.14, 0.24), main))  # wings


def pig(main: Color, second: Color, rng: Random) -> Iterator[Solid]:
    """Looks to the front (+x)."""
    fat = rng.uniform(0.46, 0.54)
    nose = (0.85 * main[0], 0.75 * main[1], 0.75 * main[2])
    for x, y in _corners(0.42, 0.26):
        yield Solid("frustum", (x, y, -0.52), (0.14, 0.14, 0.22), main)
    yield Solid("ball", (0, 0, 0), (0.78, fat, fat), main)
    yield Solid("ball", (0.72, 0, 0.14), (0.38, 0.38, 0.36), main)
    yield Solid("frustum", (1.08, 0, 0.10), (0.17, 0.17, 0.07), nose, pitch=_SIDE)
    yield Solid("ring", (-0.82, 0, 0.12), (0.11, 0.11, 0.11), main, roll=_SIDE, tube=0.4)
    yield from _both(Solid("ball", (1.0, -0.18, 0.28), (0.06, 0.06, 0.07), _DARK))  # eyes
    yield from _both(Solid("frustum", (0.68, -0.28, 0.48), (0.15, 0.15, 0.16), main, roll=0.28, top=0.1))  # ears


def cat(main: Color, second: Color, rng: Random) -> Iterator[Solid]:
    """Sits and looks to the front (+x)."""
    h = rng.uniform(0.52, 0.62)
    yield Solid("ball", (-0.08, 0, -0.32), (0.48, 0.44, h), main)
    yield Solid("ball", (0.20, 0, 0.48), (0.38, 0.42, 0.38), main)
    yield Solid("ball", (0.56, 0, 0.40), (0.08, 0.12, 0.09), COLORS["white"])
    yield Solid("ball", (0.62, 0, 0.45), (0.04, 0.05, 0.04), COLORS["pink"])
    yield Solid("frustum", (-0.66, 0, -0.40), (0.09, 0.09, 0.46), main, pitch=-0.35)
    yield from _both(Solid("ball", (0.52, -0.16, 0.52), (0.06, 0.08, 0.09), COLORS["yellow"]))  # eyes
    yield from _both(Solid("frustum", (0.18, -0.24, 0.88), (0.15, 0.15, 0.17), main, top=0.05))  # ears
    yield from _both(Solid("frustum", (0.30, -0.18, -0.52), (0.13, 0.13, 0.36), main))  # paws


def penguin(main: Color, second: Color, rng: Random) -> Iterator[Solid]:
    """White belly and orange beak in front (+x)."""
    fat = rng.uniform(0.44, 0.52)
    yield Solid("ball", (0, 0, -0.20), (fat, fat, 0.72), main)
    yield Solid("ball", (0.14, 0, -0.24), (fat - 0.06, fat - 0.08, 0.60), COLORS["white"])
    yield Solid("ball", (0, 0, 0.66), (0.36, 0.36, 0.36), main)
    yield Solid("frustum", (0.44, 0, 0.64), (0.11, 0.11, 0.15), COLORS["orange"], pitch=_SIDE, top=0.1)
    yield from _both(Solid("ball", (0.30, -0.14, 0.78), (0.06, 0.08, 0.08), COLORS["white"]))  # eyes
    yield from _both(Solid("ball", (0.20, -0.22, -0.90), (0.26, 0.15, 0.08), COLORS["orange"]))  # feet
    yield from _both(Solid("ball", (0, -fat, -0.12), (0.18, 0.09, 0.46), main, roll=-0.5 * fat))  # wings


def fish(main: Color, second: Color, rng: Random) -> Iterator[Solid]:
    """Swims towards +x."""
    tall = rng.uniform(0.46, 0.58)
    yield Solid("ball", (0.08, 0, 0), (0.82, 0.28, tall), main)
    yield Solid("pyramid", (-0.86, 0, 0), (0.46, 0.06, 0.34), main, pitch=_SIDE)
    yield Solid("pyramid", (-0.02, 0, tall + 0.05), (0.34, 0.05, 0.20), main)
    yield from _both(Solid("ball", (0.56, -0.20, 0.14), (0.10, 0.06, 0.10), COLORS["white"]))  # eyes
    yield from _both(Solid("ball", (0.60, -0.25, 0.14), (0.05, 0.04, 0.05), _DARK))  # pupils
    yield from _both(Solid("ball", (0.05, -0.34, -0.14), (0.22, 0.05, 0.12), main, yaw=-0.34))  # fins


def letter_l(main: Color, second: Color, rng: Random) -> Iterator[Solid]:
    return _strokes(main, rng, [(-0.45, 0, 0.17, 0.9), (0.0, -0.73, 0.62, 0.17)])


def letter_t(main: Color, second: Color, rng: Random) -> Iterator[Solid]:
    return _strokes(main, rng, [(0, -0.1, 0.17, 0.8), (0, 0.73, 0.70, 0.17)])


def letter_h(main: Color, second: Color, rng: Random) -> Iterator[Solid]:
    return _strokes(main, rng, [(-0.5, 0, 0.17, 0.9), (0.5, 0, 0.17, 0.9), (0, 0, 0.5, 0.15)])


def _strokes(color: Color, rng: Random, bars: list[tuple[float, float, float, float]]) -> Iterator[Solid]:
    """A letter that is read from the front: bars by middle (right, up) and half sizes (right, up)."""
    deep = rng.uniform(0.17, 0.28)
    for y, z, wide, tall in bars:
        yield Solid("box", (0, y, z), (deep, wide, tall), color)


def _both(solid: Solid) -> tuple[Solid, Solid]:
    """The solid and its mirror image on the other side (y -> -y)."""
    x, y, z = solid.center
    return solid, replace(solid, center=(x, -y, z), yaw=-solid.yaw, roll=-solid.roll)


def _wheels(along: tuple[float, ...], side: float, z: float, radius: float) -> Iterator[Solid]:
    for x in along:
        for y in (-side, side):
            yield Solid("frustum", (x, y, z), (radius, radius, 0.10), _DARK, roll=_SIDE)


def _corners(x: float, y: float) -> list[tuple[float, float]]:
    return [(-x, -y), (-x, y), (x, -y), (x, y)]


def _circle(count: int) -> list[tuple[float, float]]:
    return [(math.cos(6.2832 * k / count), math.sin(6.2832 * k / count)) for k in range(count)]


Kind = Callable[[Color, Color, Random], Iterator[Solid]]
_ALL: tuple[Kind, ...] = (
    *(sphere, cube, cylinder, cone, pyramid, donut, mug, chair, table, car),
    *(house, snowman, mushroom, rocket, tree, lamp, dumbbell, bottle),
    *(teapot, candle, umbrella, clock, gift),
    *(apple, carrot, cake, icecream, burger),
    *(bed, sofa, bus, train, boat, plane),
    *(cactus, flower, castle, windmill, robot),
    *(duck, pig, cat, penguin, fish, letter_l, letter_t, letter_h),
)
KINDS: dict[str, Kind] = {kind.__name__: kind for kind in _ALL}
SOLIDS = ("sphere", "cube", "cylinder", "cone", "pyramid", "donut")
TOPS = (*SOLIDS, "mug", "teapot", "candle", "apple", "cake", "duck", "cat", "gift")  # what may stand on something
BOTTOMS = ("cube", "cylinder", "table")  # what something may stand on
