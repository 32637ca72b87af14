"""What the embedded prior can draw: kinds of objects, their parts, colours, patterns, materials. Front is +x, up is +z.

A kind is a function (main colour, second colour, random state) -> solids, of any size: objects are scaled later. The
part in `PARTS` takes the second colour in "with a blue roof" and "two-tone red and blue"; otherwise the colour in
`USUAL`, else the main one. Seen from the front, +y is right.
"""

import math
from collections.abc import Callable
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
PARTS = {
    "house": "roof",
    "mushroom": "stem",
    "rocket": "fins",
    "tree": "trunk",
    "lamp": "base",
    "table": "legs",
    "teapot": "lid",
    "umbrella": "handle",
    "clock": "face",
    "gift": "ribbon",
    "cake": "icing",
    "icecream": "cone",
    "bed": "frame",
    "boat": "sail",
    "plane": "wings",
    "cactus": "pot",
    "flower": "center",
    "castle": "roof",
    "windmill": "blades",
    "robot": "head",
}
_DARK: Color = (0.16, 0.16, 0.18)
_GLASS: Color = (0.66, 0.82, 0.93)
_CREAM: Color = (0.93, 0.90, 0.82)
_TAN: Color = (0.80, 0.58, 0.32)
_SIDE = 1.5708  # a quarter turn
USUAL: dict[str, Color] = {
    "house": (0.45, 0.25, 0.18),
    "mushroom": _CREAM,
    "rocket": (0.75, 0.76, 0.80),
    "tree": COLORS["brown"],
    "lamp": (0.30, 0.30, 0.33),
    "umbrella": COLORS["brown"],
    "clock": COLORS["white"],
    "gift": COLORS["yellow"],
    "cake": COLORS["white"],
    "icecream": _TAN,
    "bed": COLORS["brown"],
    "boat": COLORS["white"],
    "plane": (0.75, 0.76, 0.80),
    "cactus": (0.72, 0.36, 0.20),
    "flower": COLORS["yellow"],
    "castle": (0.30, 0.34, 0.50),
    "windmill": COLORS["white"],
    "robot": (0.70, 0.72, 0.76),
}


def sphere(main: Color, second: Color, rng: Random) -> list[Solid]:
    return [Solid("ball", (0, 0, 0), (1, 1, 1), main)]


def cube(main: Color, second: Color, rng: Random) -> list[Solid]:
    return [Solid("box", (0, 0, 0), (1, 1, 1), main)]


def cylinder(main: Color, second: Color, rng: Random) -> list[Solid]:
    h = rng.uniform(1.0, 1.4)
    return [Solid("frustum", (0, 0, 0), (0.85, 0.85, h), main)]


def cone(main: Color, second: Color, rng: Random) -> list[Solid]:
    h = rng.uniform(1.0, 1.4)
    return [Solid("frustum", (0, 0, 0), (1, 1, h), main, top=0.0)]


def pyramid(main: Color, second: Color, rng: Random) -> list[Solid]:
    return [Solid("pyramid", (0, 0, 0), (1, 1, rng.uniform(0.8, 1.0)), main)]


def donut(main: Color, second: Color, rng: Random) -> list[Solid]:
    return [Solid("ring", (0, 0, 0), (1, 1, 1), main, tube=rng.uniform(0.36, 0.46))]


def mug(main: Color, second: Color, rng: Random) -> list[Solid]:
    """Handle on the right (+y)."""
    h, handle = rng.uniform(0.95, 1.2), rng.uniform(0.52, 0.62)
    inside = (0.75 * main[0], 0.75 * main[1], 0.75 * main[2])
    return [
        Solid("cup", (0, 0, 0), (0.85, 0.85, h), main),
        Solid("frustum", (0, 0, -0.93 * h), (0.80, 0.80, 0.04 * h), inside),
        Solid("ring", (0, 0.92, 0), (handle, handle, handle), main, yaw=1.5708, roll=1.5708, tube=0.24),
    ]


def chair(main: Color, second: Color, rng: Random) -> list[Solid]:
    """The back rest is behind the seat (-x)."""
    back, leg = rng.uniform(0.55, 0.8), rng.uniform(0.5, 0.7)
    legs = [Solid("box", (x, y, -leg), (0.11, 0.11, leg), main) for x in (-0.59, 0.59) for y in (-0.59, 0.59)]
    return [
        *legs,
        Solid("box", (0, 0, 0.06), (0.72, 0.72, 0.11), main),
        Solid("box", (-0.62, 0, 0.1 + back), (0.10, 0.72, back), main),
    ]


def table(main: Color, second: Color, rng: Random) -> list[Solid]:
    """Wider (y) than deep (x)."""
    leg, deep = rng.uniform(0.5, 0.65), rng.uniform(0.6, 0.75)
    legs = [
        Solid("box", (x, y, -leg), (0.10, 0.10, leg), second) for x in (-deep + 0.12, deep - 0.12) for y in (-0.9, 0.9)
    ]
    return [*legs, Solid("box", (0, 0, 0.1), (deep, 1.08, 0.11), main)]


def car(main: Color, second: Color, rng: Random) -> list[Solid]:
    """Drives towards +x: long bonnet, cabin set back, headlights in front."""
    glass = (0.62, 0.78, 0.90)
    cabin = rng.uniform(-0.32, -0.22)
    wheels = [
        Solid("frustum", (x, y, -0.28), (0.27, 0.27, 0.10), _DARK, roll=1.5708)
        for x in (-0.66, 0.66)
        for y in (-0.5, 0.5)
    ]
    lights = [Solid("ball", (1.1, y, 0.0), (0.09, 0.11, 0.10), (0.98, 0.95, 0.70)) for y in (-0.34, 0.34)]
    return [
        *wheels,
        *lights,
        Solid("box", (0, 0, 0.0), (1.12, 0.52, 0.24), main),
        Solid("box", (cabin, 0, 0.36), (0.54, 0.44, 0.20), glass),
        Solid("box", (cabin, 0, 0.56), (0.56, 0.46, 0.06), main),
    ]


def house(main: Color, second: Color, rng: Random) -> list[Solid]:
    """Door and windows in front (+x), chimney at the back."""
    h, window = rng.uniform(0.5, 0.65), (0.70, 0.85, 0.95)
    panes = [Solid("box", (0.80, y, 0.12), (0.03, 0.17, 0.17), window) for y in (-0.52, 0.52)]
    return [
        Solid("box", (0, 0, 0), (0.8, 0.95, h), main),
        Solid("roof", (0, 0, h + 0.36), (0.98, 1.08, 0.38), second),
        Solid("box", (0.80, 0, -h + 0.32), (0.03, 0.19, 0.32), _DARK),
        *panes,
        Solid("box", (-0.45, 0.45, h + 0.55), (0.13, 0.13, 0.32), (0.55, 0.25, 0.20)),
    ]


def snowman(main: Color, second: Color, rng: Random) -> list[Solid]:
    """White; the named colour is its hat's and scarf's. Carrot nose in front (+x)."""
    snow = (0.95, 0.96, 0.98)
    eyes = [Solid("ball", (0.30, y, 0.98), (0.06, 0.06, 0.06), _DARK) for y in (-0.14, 0.14)]
    return [
        Solid("ball", (0, 0, -0.35), (0.68, 0.68, 0.62), snow),
        Solid("ball", (0, 0, 0.35), (0.48, 0.48, 0.42), snow),
        Solid("ball", (0, 0, 0.88), (0.36, 0.36, 0.34), snow),
        Solid("frustum", (0.46, 0, 0.86), (0.09, 0.09, 0.18), COLORS["orange"], pitch=1.5708, top=0.1),
        Solid("ring", (0, 0, 0.62), (0.33, 0.33, 0.33), main, tube=0.30),
        Solid("frustum", (0, 0, 1.14), (0.42, 0.42, 0.04), main),
        Solid("frustum", (0, 0, 1.36), (0.27, 0.27, 0.22), main),
        *eyes,
    ]


def mushroom(main: Color, second: Color, rng: Random) -> list[Solid]:
    cap, stem = rng.uniform(0.5, 0.65), rng.uniform(0.55, 0.7)
    return [
        Solid("frustum", (0, 0, -0.55), (0.36, 0.36, stem), second, bottom=1.15, top=0.85),
        Solid("ball", (0, 0, 0.05), (0.95, 0.95, 0.16), second),
        Solid("frustum", (0, 0, 0.08), (0.98, 0.98, 0.08), main, top=0.97),
        Solid("ball", (0, 0, 0.12), (0.96, 0.96, cap), main),
    ]


def rocket(main: Color, second: Color, rng: Random) -> list[Solid]:
    """A round window in front (+x)."""
    h = rng.uniform(0.75, 0.9)
    fins = [
        Solid("box", (x, y, -h + 0.02), (0.32 if x else 0.06, 0.32 if y else 0.06, 0.26), second)
        for x, y in ((0.48, 0), (-0.48, 0), (0, 0.48), (0, -0.48))
    ]
    return [
        Solid("frustum", (0, 0, 0), (0.48, 0.48, h), main),
        Solid("frustum", (0, 0, h + 0.34), (0.48, 0.48, 0.34), second, top=0.05),
        Solid("ball", (0.44, 0, 0.32), (0.09, 0.20, 0.20), (0.62, 0.82, 0.95)),
        *fins,
    ]


def tree(main: Color, second: Color, rng: Random) -> list[Solid]:
    layers = [(0.0, 0.85), (0.45, 0.68), (0.88, 0.48)]
    crown = [Solid("frustum", (0, 0, z), (r, r, 0.42), main, top=0.15) for z, r in layers]
    return [Solid("frustum", (0, 0, -0.65), (0.20, 0.20, rng.uniform(0.35, 0.45)), second), *crown]


def lamp(main: Color, second: Color, rng: Random) -> list[Solid]:
    h = rng.uniform(0.55, 0.7)
    return [
        Solid("frustum", (0, 0, -1.0), (0.50, 0.50, 0.08), second),
        Solid("frustum", (0, 0, -1.0 + h), (0.09, 0.09, h), second),
        Solid("frustum", (0, 0, -0.6 + 2 * h - 0.2), (0.75, 0.75, 0.42), main, top=0.55),
    ]


def dumbbell(main: Color, second: Color, rng: Random) -> list[Solid]:
    """Lies along y."""
    r = rng.uniform(0.42, 0.5)
    ends = [Solid("ball", (0, y, 0), (r, r, r), main) for y in (-0.78, 0.78)]
    return [*ends, Solid("frustum", (0, 0, 0), (0.15, 0.15, 0.75), main, roll=1.5708)]


def bottle(main: Color, second: Color, rng: Random) -> list[Solid]:
    h = rng.uniform(0.62, 0.75)
    return [
        Solid("frustum", (0, 0, -0.3), (0.45, 0.45, h), main),
        Solid("frustum", (0, 0, h - 0.3 + 0.14), (0.45, 0.45, 0.14), main, top=0.38),
        Solid("frustum", (0, 0, h + 0.12 + 0.1), (0.17, 0.17, 0.26), main),
        Solid("frustum", (0, 0, h + 0.52), (0.20, 0.20, 0.08), _DARK),
    ]


def teapot(main: Color, second: Color, rng: Random) -> list[Solid]:
    """Spout on the right (+y), handle on the left."""
    h = rng.uniform(0.55, 0.68)
    return [
        Solid("ball", (0, 0, 0), (0.78, 0.78, h), main),
        Solid("frustum", (0, 0, -h + 0.04), (0.45, 0.45, 0.08), main),
        Solid("ball", (0, 0, h - 0.06), (0.42, 0.42, 0.14), second),
        Solid("ball", (0, 0, h + 0.14), (0.12, 0.12, 0.12), second),
        Solid("frustum", (0, 0.88, 0.12), (0.20, 0.20, 0.46), main, roll=-0.95, top=0.55),
        Solid("ring", (0, -0.78, 0.05), (0.36, 0.36, 0.36), main, yaw=_SIDE, roll=_SIDE, tube=0.24),
    ]


def candle(main: Color, second: Color, rng: Random) -> list[Solid]:
    h = rng.uniform(0.55, 0.75)
    return [
        Solid("frustum", (0, 0, -h), (0.62, 0.62, 0.09), _TAN),
        Solid("frustum", (0, 0, 0.05), (0.30, 0.30, h), main),
        Solid("frustum", (0, 0, h + 0.10), (0.035, 0.035, 0.08), _DARK),
        Solid("ball", (0, 0, h + 0.30), (0.12, 0.12, 0.19), (0.98, 0.72, 0.15)),
    ]


def umbrella(main: Color, second: Color, rng: Random) -> list[Solid]:
    """Open, the hook of its handle to the right (+y)."""
    h = rng.uniform(0.34, 0.46)
    return [
        Solid("frustum", (0, 0, 0.55), (1.0, 1.0, 0.16), main, top=0.72),
        Solid("frustum", (0, 0, 0.71 + h / 2), (0.72, 0.72, h / 2), main, top=0.06),
        Solid("frustum", (0, 0, -0.10), (0.06, 0.06, 0.80), second),
        Solid("ring", (0, 0.16, -0.90), (0.16, 0.16, 0.16), second, yaw=_SIDE, roll=_SIDE, tube=0.40),
        Solid("frustum", (0, 0, 0.78 + h), (0.05, 0.05, 0.08), second),
    ]


def clock(main: Color, second: Color, rng: Random) -> list[Solid]:
    """The face looks to the front (+x); two feet."""
    hour, minute = rng.uniform(0.0, 6.28), rng.uniform(0.0, 6.28)
    feet = [Solid("ball", (0, y, -0.95), (0.15, 0.15, 0.15), main) for y in (-0.5, 0.5)]
    bells = [Solid("ball", (0, y, 0.92), (0.20, 0.24, 0.20), main) for y in (-0.42, 0.42)]
    return [
        Solid("frustum", (0, 0, 0), (0.95, 0.95, 0.28), main, pitch=_SIDE),
        Solid("frustum", (0.27, 0, 0), (0.78, 0.78, 0.05), second, pitch=_SIDE),
        Solid("box", (0.34, 0, 0), (0.03, 0.07, 0.36), _DARK, roll=hour),
        Solid("box", (0.35, 0, 0), (0.03, 0.05, 0.58), _DARK, roll=minute),
        *feet,
        *bells,
    ]


def gift(main: Color, second: Color, rng: Random) -> list[Solid]:
    h = rng.uniform(0.55, 0.85)
    bow = [
        Solid("ball", (0, y, h + 0.20), (0.12, 0.26, 0.17), second, roll=-turn)
        for y, turn in ((0.25, 0.5), (-0.25, -0.5))
    ]
    return [
        Solid("box", (0, 0, 0), (0.8, 0.8, h), main),
        Solid("box", (0, 0, 0), (0.83, 0.16, h + 0.03), second),
        Solid("box", (0, 0, 0), (0.16, 0.83, h + 0.03), second),
        *bow,
    ]


def apple(main: Color, second: Color, rng: Random) -> list[Solid]:
    h = rng.uniform(0.72, 0.82)
    return [
        Solid("ball", (0, 0, 0.06), (0.9, 0.9, h), main),
        Solid("ball", (0, 0, -0.30), (0.66, 0.66, 0.56), main),
        Solid("frustum", (0, 0, h + 0.22), (0.13, 0.13, 0.28), COLORS["brown"]),
        Solid("ball", (0, 0.42, h + 0.30), (0.20, 0.40, 0.13), COLORS["green"], roll=0.4),
    ]


def carrot(main: Color, second: Color, rng: Random) -> list[Solid]:
    """Stands on its tip; green leaves."""
    h, leaf = rng.uniform(0.75, 0.95), COLORS["green"]
    tips = ((0.0, 0.0), (0.45, 0.0), (-0.45, 0.0), (0.0, 0.45), (0.0, -0.45))
    leaves = [
        Solid("ball", (0.55 * a, -0.55 * b, h + 0.32), (0.11, 0.11, 0.38), leaf, pitch=a, roll=b) for a, b in tips
    ]
    return [
        Solid("frustum", (0, 0, 0), (0.42, 0.42, h), main, bottom=0.08),
        Solid("ball", (0, 0, h), (0.42, 0.42, 0.12), main),
        *leaves,
    ]


def cake(main: Color, second: Color, rng: Random) -> list[Solid]:
    h = rng.uniform(0.34, 0.46)
    drops = [Solid("ball", (0.94 * x, 0.94 * y, h - 0.10), (0.16, 0.16, 0.20), second) for x, y in _circle(8)]
    return [
        Solid("frustum", (0, 0, -h - 0.06), (1.12, 1.12, 0.05), COLORS["white"]),
        Solid("frustum", (0, 0, 0), (1.0, 1.0, h), main),
        Solid("frustum", (0, 0, h + 0.02), (1.02, 1.02, 0.09), second),
        *drops,
        Solid("ball", (0, 0, h + 0.27), (0.19, 0.19, 0.19), COLORS["red"]),
    ]


def icecream(main: Color, second: Color, rng: Random) -> list[Solid]:
    h = rng.uniform(0.6, 0.75)
    return [
        Solid("frustum", (0, 0, -h), (0.46, 0.46, h), second, bottom=0.06),
        Solid("ball", (0, 0, 0.22), (0.54, 0.54, 0.50), main),
        Solid("frustum", (0, 0, 0.02), (0.56, 0.56, 0.08), main),
    ]


def burger(main: Color, second: Color, rng: Random) -> list[Solid]:
    """The named colour is the bun's."""
    h = rng.uniform(0.5, 0.62)
    return [
        Solid("frustum", (0, 0, -0.46), (0.94, 0.94, 0.19), main, bottom=0.88),
        Solid("frustum", (0, 0, -0.20), (0.98, 0.98, 0.12), (0.40, 0.20, 0.10)),
        Solid("box", (0, 0, -0.07), (0.76, 0.76, 0.04), COLORS["yellow"], yaw=0.785),
        Solid("frustum", (0, 0, 0.02), (1.04, 1.04, 0.06), COLORS["green"]),
        Solid("ball", (0, 0, 0.08), (0.95, 0.95, h), main),
    ]


def bed(main: Color, second: Color, rng: Random) -> list[Solid]:
    """The head end is behind (-x); the named colour is the blanket's."""
    wide = rng.uniform(0.58, 0.72)
    posts = [
        Solid("box", (x, y, -0.34), (0.08, 0.08, 0.18), second) for x in (-1, 1) for y in (-wide + 0.1, wide - 0.1)
    ]
    return [
        *posts,
        Solid("box", (0, 0, -0.16), (1.08, wide, 0.10), second),
        Solid("box", (-1.08, 0, 0.16), (0.08, wide, 0.50), second),
        Solid("box", (1.08, 0, -0.02), (0.07, wide, 0.25), second),
        Solid("box", (-0.70, 0, 0.05), (0.32, wide - 0.05, 0.13), COLORS["white"]),
        Solid("box", (0.32, 0, 0.07), (0.72, wide - 0.02, 0.16), main),
        Solid("ball", (-0.72, 0, 0.22), (0.22, wide - 0.18, 0.12), COLORS["white"]),
    ]


def sofa(main: Color, second: Color, rng: Random) -> list[Solid]:
    """The back is behind (-x)."""
    wide, back = rng.uniform(0.9, 1.1), rng.uniform(0.42, 0.55)
    feet = [
        Solid("box", (x, y, -0.48), (0.07, 0.07, 0.1), _DARK) for x in (-0.4, 0.4) for y in (-wide + 0.1, wide - 0.1)
    ]
    arms = [Solid("box", (0.02, y, 0.02), (0.50, 0.14, 0.38), main) for y in (-wide, wide)]
    return [
        *feet,
        *arms,
        Solid("box", (0.05, 0, -0.18), (0.50, wide, 0.20), main),
        Solid("box", (-0.42, 0, back - 0.30), (0.14, wide, back), main),
    ]


def bus(main: Color, second: Color, rng: Random) -> list[Solid]:
    """Drives towards +x: windscreen and headlights in front."""
    long = rng.uniform(1.1, 1.3)
    panes = [Solid("box", (long * x, 0, 0.26), (0.17 * long, 0.47, 0.17), _GLASS) for x in (-0.72, -0.28, 0.16, 0.60)]
    lights = [Solid("ball", (long, y, -0.22), (0.07, 0.09, 0.09), (0.98, 0.95, 0.70)) for y in (-0.3, 0.3)]
    return [
        *_wheels((-0.62 * long, 0.62 * long), 0.42, -0.5, 0.22),
        Solid("box", (0, 0, 0.05), (long, 0.45, 0.52), main),
        *panes,
        Solid("box", (long, 0, 0.24), (0.03, 0.38, 0.22), _GLASS),
        *lights,
    ]


def train(main: Color, second: Color, rng: Random) -> list[Solid]:
    """A steam engine: boiler and chimney in front (+x), cab behind."""
    long = rng.uniform(0.7, 0.85)
    return [
        *_wheels((-0.75, -0.22, 0.3, 0.78), 0.38, -0.46, 0.23),
        Solid("box", (0, 0, -0.30), (1.1, 0.40, 0.10), _DARK),
        Solid("frustum", (0.28, 0, 0.10), (0.36, 0.36, long), main, pitch=_SIDE),
        Solid("frustum", (0.28 + long, 0, 0.10), (0.38, 0.38, 0.06), _DARK, pitch=_SIDE),
        Solid("frustum", (0.72, 0, 0.60), (0.15, 0.15, 0.22), _DARK, top=1.35),
        Solid("ball", (0.15, 0, 0.48), (0.17, 0.17, 0.13), _TAN),
        Solid("box", (-0.70, 0, 0.22), (0.40, 0.46, 0.50), main),
        Solid("box", (-0.70, 0, 0.42), (0.24, 0.48, 0.17), _GLASS),
        Solid("box", (-0.70, 0, 0.76), (0.48, 0.52, 0.06), _DARK),
    ]


def boat(main: Color, second: Color, rng: Random) -> list[Solid]:
    """Sails towards +x; a small cabin behind the mast."""
    tall = rng.uniform(0.65, 0.8)
    return [
        Solid("box", (-0.18, 0, -0.42), (0.78, 0.36, 0.18), main),
        Solid("pyramid", (0.88, 0, -0.40), (0.16, 0.36, 0.30), main, pitch=_SIDE),
        Solid("box", (-0.18, 0, -0.25), (0.72, 0.30, 0.03), COLORS["brown"]),
        Solid("box", (-0.62, 0, -0.12), (0.24, 0.22, 0.14), _CREAM),
        Solid("frustum", (0.12, 0, 0.35), (0.045, 0.045, 0.62), COLORS["brown"]),
        Solid("pyramid", (-0.25, 0, 0.28 + tall / 4), (0.36, 0.045, tall / 1.5), second),
        Solid("pyramid", (0.45, 0, 0.10 + tall / 4), (0.24, 0.045, tall / 2), second),
    ]


def plane(main: Color, second: Color, rng: Random) -> list[Solid]:
    """Flies towards +x."""
    span = rng.uniform(0.95, 1.15)
    return [
        Solid("ball", (0, 0, 0), (1.1, 0.24, 0.25), main),
        Solid("ball", (0.62, 0, 0.16), (0.26, 0.15, 0.13), _GLASS),
        Solid("box", (0.12, 0, -0.04), (0.24, span, 0.045), second),
        Solid("box", (-0.88, 0, 0.06), (0.15, 0.42, 0.04), second),
        Solid("box", (-0.90, 0, 0.28), (0.16, 0.045, 0.26), main, pitch=-0.35),
        Solid("ball", (1.06, 0, 0), (0.10, 0.10, 0.10), _DARK),
    ]


def cactus(main: Color, second: Color, rng: Random) -> list[Solid]:
    """Two arms: the higher one on the right (+y)."""
    h = rng.uniform(0.6, 0.75)
    arms = []
    for side, low in ((1, 0.10), (-1, -0.18)):
        arms += [
            Solid("frustum", (0, 0.38 * side, low), (0.13, 0.13, 0.24), main, roll=_SIDE),
            Solid("frustum", (0, 0.58 * side, low + 0.20), (0.14, 0.14, 0.24), main),
            Solid("ball", (0, 0.58 * side, low + 0.44), (0.14, 0.14, 0.14), main),
            Solid("ball", (0, 0.58 * side, low), (0.14, 0.14, 0.14), main),
        ]
    return [
        *arms,
        Solid("frustum", (0, 0, 0.0), (0.24, 0.24, h), main),
        Solid("ball", (0, 0, h), (0.24, 0.24, 0.24), main),
        Solid("frustum", (0, 0, -h - 0.08), (0.44, 0.44, 0.26), second, bottom=0.7),
    ]


def flower(main: Color, second: Color, rng: Random) -> list[Solid]:
    """The blossom looks to the front (+x) and is in the named colour."""
    size, count = rng.uniform(0.25, 0.30), rng.choice((5, 6))
    petals = [Solid("ball", (0.12, 0.44 * y, 0.55 + 0.44 * z), (0.09, size, size), main) for y, z in _circle(count)]
    leaves = [
        Solid("ball", (0, y, -0.55), (0.12, 0.27, 0.06), COLORS["green"], roll=roll)
        for y, roll in ((0.25, 0.5), (-0.25, -0.5))
    ]
    return [
        *petals,
        *leaves,
        Solid("ball", (0.17, 0, 0.55), (0.14, 0.24, 0.24), second),
        Solid("frustum", (0, 0, -0.35), (0.06, 0.06, 0.72), COLORS["green"]),
    ]


def castle(main: Color, second: Color, rng: Random) -> list[Solid]:
    """The gate is in front (+x)."""
    h = rng.uniform(0.55, 0.7)
    towers: list[Solid] = []
    for x, y in ((-0.7, -0.7), (-0.7, 0.7), (0.7, -0.7), (0.7, 0.7)):
        towers += [
            Solid("frustum", (x, y, h - 0.4), (0.27, 0.27, h), main),
            Solid("frustum", (x, y, 2 * h - 0.4 + 0.24), (0.34, 0.34, 0.24), second, top=0.0),
        ]
    return [
        *towers,
        Solid("box", (0, 0, -0.08), (0.68, 0.68, 0.32), main),
        Solid("box", (0.69, 0, -0.18), (0.03, 0.19, 0.22), _DARK),
        Solid("box", (-0.1, 0, 0.3), (0.30, 0.30, 0.36), main),
    ]


def windmill(main: Color, second: Color, rng: Random) -> list[Solid]:
    """Four blades in front (+x)."""
    turn, h = rng.uniform(0.5, 1.05), rng.uniform(0.62, 0.72)
    blades = [Solid("box", (0.52, 0, 0.52), (0.035, 0.12, 0.86), second, roll=turn + k * _SIDE) for k in (0, 1)]
    return [
        *blades,
        Solid("frustum", (0, 0, -0.2), (0.52, 0.52, h), main, top=0.66),
        Solid("frustum", (0, 0, h + 0.02), (0.40, 0.40, 0.24), (0.42, 0.26, 0.16), top=0.1),
        Solid("frustum", (0.44, 0, 0.52), (0.08, 0.08, 0.14), _DARK, pitch=_SIDE),
        Solid("box", (0.46, 0, -h - 0.02), (0.05, 0.13, 0.20), _DARK),
    ]


def robot(main: Color, second: Color, rng: Random) -> list[Solid]:
    """Eyes and a chest plate in front (+x)."""
    wide = rng.uniform(0.42, 0.5)
    eyes = [Solid("ball", (0.28, y, 0.68), (0.06, 0.09, 0.09), COLORS["yellow"]) for y in (-0.15, 0.15)]
    limbs = [Solid("box", (0, y, -0.02), (0.12, 0.10, 0.36), main) for y in (-wide - 0.14, wide + 0.14)]
    legs = [Solid("box", (0, y, -0.68), (0.15, 0.14, 0.28), second) for y in (-0.22, 0.22)]
    return [
        Solid("box", (0, 0, 0), (0.30, wide, 0.42), main),
        Solid("box", (0, 0, 0.66), (0.27, 0.32, 0.24), second),
        Solid("box", (0.30, 0, 0.06), (0.03, 0.22, 0.16), _GLASS),
        Solid("frustum", (0, 0, 0.98), (0.03, 0.03, 0.10), _DARK),
        Solid("ball", (0, 0, 1.12), (0.08, 0.08, 0.08), COLORS["red"]),
        *eyes,
        *limbs,
        *legs,
    ]


def duck(main: Color, second: Color, rng: Random) -> list[Solid]:
    """Looks to the front (+x)."""
    head = rng.uniform(0.32, 0.38)
    eyes = [Solid("ball", (0.62, y, 0.56), (0.07, 0.06, 0.07), _DARK) for y in (-0.22, 0.22)]
    wings = [Solid("ball", (-0.08, y, -0.08), (0.42, 0.14, 0.24), main) for y in (-0.50, 0.50)]
    return [
        Solid("ball", (0, 0, -0.15), (0.78, 0.54, 0.46), main),
        Solid("ball", (0.42, 0, 0.48), (head, head, head), main),
        Solid("ball", (0.84, 0, 0.42), (0.24, 0.19, 0.08), COLORS["orange"]),
        Solid("frustum", (-0.74, 0, 0.12), (0.20, 0.26, 0.28), main, pitch=-0.8, top=0.1),
        *eyes,
        *wings,
    ]


def pig(main: Color, second: Color, rng: Random) -> list[Solid]:
    """Looks to the front (+x)."""
    fat = rng.uniform(0.46, 0.54)
    nose = (0.85 * main[0], 0.75 * main[1], 0.75 * main[2])
    eyes = [Solid("ball", (1.0, y, 0.28), (0.06, 0.06, 0.07), _DARK) for y in (-0.18, 0.18)]
    ears = [Solid("frustum", (0.68, y, 0.48), (0.15, 0.15, 0.16), main, roll=-y, top=0.1) for y in (-0.28, 0.28)]
    return [
        *_legs(0.42, 0.26, -0.52, 0.14, main),
        Solid("ball", (0, 0, 0), (0.78, fat, fat), main),
        Solid("ball", (0.72, 0, 0.14), (0.38, 0.38, 0.36), main),
        Solid("frustum", (1.08, 0, 0.10), (0.17, 0.17, 0.07), nose, pitch=_SIDE),
        Solid("ring", (-0.82, 0, 0.12), (0.11, 0.11, 0.11), main, roll=_SIDE, tube=0.4),
        *eyes,
        *ears,
    ]


def cat(main: Color, second: Color, rng: Random) -> list[Solid]:
    """Sits and looks to the front (+x)."""
    h = rng.uniform(0.52, 0.62)
    eyes = [Solid("ball", (0.52, y, 0.52), (0.06, 0.08, 0.09), COLORS["yellow"]) for y in (-0.16, 0.16)]
    ears = [Solid("frustum", (0.18, y, 0.88), (0.15, 0.15, 0.17), main, top=0.05) for y in (-0.24, 0.24)]
    paws = [Solid("frustum", (0.30, y, -0.52), (0.13, 0.13, 0.36), main) for y in (-0.18, 0.18)]
    return [
        Solid("ball", (-0.08, 0, -0.32), (0.48, 0.44, h), main),
        Solid("ball", (0.20, 0, 0.48), (0.38, 0.42, 0.38), main),
        Solid("ball", (0.56, 0, 0.40), (0.08, 0.12, 0.09), COLORS["white"]),
        Solid("ball", (0.62, 0, 0.45), (0.04, 0.05, 0.04), COLORS["pink"]),
        Solid("frustum", (-0.66, 0, -0.40), (0.09, 0.09, 0.46), main, pitch=-0.35),
        *eyes,
        *ears,
        *paws,
    ]


def penguin(main: Color, second: Color, rng: Random) -> list[Solid]:
    """White belly and orange beak in front (+x)."""
    fat = rng.uniform(0.44, 0.52)
    eyes = [Solid("ball", (0.30, y, 0.78), (0.06, 0.08, 0.08), COLORS["white"]) for y in (-0.14, 0.14)]
    feet = [Solid("ball", (0.20, y, -0.90), (0.26, 0.15, 0.08), COLORS["orange"]) for y in (-0.22, 0.22)]
    wings = [Solid("ball", (0, y, -0.12), (0.18, 0.09, 0.46), main, roll=y * 0.5) for y in (-fat, fat)]
    return [
        Solid("ball", (0, 0, -0.20), (fat, fat, 0.72), main),
        Solid("ball", (0.14, 0, -0.24), (fat - 0.06, fat - 0.08, 0.60), COLORS["white"]),
        Solid("ball", (0, 0, 0.66), (0.36, 0.36, 0.36), main),
        Solid("frustum", (0.44, 0, 0.64), (0.11, 0.11, 0.15), COLORS["orange"], pitch=_SIDE, top=0.1),
        *eyes,
        *feet,
        *wings,
    ]


def fish(main: Color, second: Color, rng: Random) -> list[Solid]:
    """Swims towards +x."""
    tall = rng.uniform(0.46, 0.58)
    eyes = [Solid("ball", (0.56, y, 0.14), (0.10, 0.06, 0.10), COLORS["white"]) for y in (-0.20, 0.20)]
    pupils = [Solid("ball", (0.60, y, 0.14), (0.05, 0.04, 0.05), _DARK) for y in (-0.25, 0.25)]
    fins = [Solid("ball", (0.05, y, -0.14), (0.22, 0.05, 0.12), main, yaw=y) for y in (-0.34, 0.34)]
    return [
        Solid("ball", (0.08, 0, 0), (0.82, 0.28, tall), main),
        Solid("pyramid", (-0.86, 0, 0), (0.46, 0.06, 0.34), main, pitch=_SIDE),
        Solid("pyramid", (-0.02, 0, tall + 0.05), (0.34, 0.05, 0.20), main),
        *eyes,
        *pupils,
        *fins,
    ]


def letter_l(main: Color, second: Color, rng: Random) -> list[Solid]:
    return _strokes(main, rng, [(-0.45, 0, 0.17, 0.9), (0.0, -0.73, 0.62, 0.17)])


def letter_t(main: Color, second: Color, rng: Random) -> list[Solid]:
    return _strokes(main, rng, [(0, -0.1, 0.17, 0.8), (0, 0.73, 0.70, 0.17)])


def letter_h(main: Color, second: Color, rng: Random) -> list[Solid]:
    return _strokes(main, rng, [(-0.5, 0, 0.17, 0.9), (0.5, 0, 0.17, 0.9), (0, 0, 0.5, 0.15)])


def _strokes(color: Color, rng: Random, bars: list[tuple[float, float, float, float]]) -> list[Solid]:
    """A letter that is read from the front: bars by middle (right, up) and half sizes (right, up)."""
    deep = rng.uniform(0.17, 0.28)
    return [Solid("box", (0, y, z), (deep, wide, tall), color) for y, z, wide, tall in bars]


def _wheels(along: tuple[float, ...], side: float, z: float, radius: float) -> list[Solid]:
    places = [(x, y) for x in along for y in (-side, side)]
    return [Solid("frustum", (x, y, z), (radius, radius, 0.10), _DARK, roll=_SIDE) for x, y in places]


def _legs(x: float, y: float, z: float, radius: float, color: Color) -> list[Solid]:
    places = [(a, b) for a in (-x, x) for b in (-y, y)]
    return [Solid("frustum", (a, b, z), (radius, radius, 0.22), color) for a, b in places]


def _circle(count: int) -> list[tuple[float, float]]:
    return [(math.cos(6.2832 * k / count), math.sin(6.2832 * k / count)) for k in range(count)]


Kind = Callable[[Color, Color, Random], list[Solid]]
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
SYNONYMS = {
    **{"ball": "sphere", "orb": "sphere", "box": "cube", "block": "cube", "tube": "cylinder", "torus": "donut"},
    **{"doughnut": "donut", "ring": "donut", "cup": "mug", "desk": "table", "automobile": "car", "home": "house"},
    **{"couch": "sofa", "airplane": "plane", "aeroplane": "plane", "ship": "boat", "sailboat": "boat"},
    **{"locomotive": "train", "present": "gift", "hamburger": "burger", "kitten": "cat", "piglet": "pig"},
    **{"duckling": "duck", "kettle": "teapot", "grey": "gray", "turquoise": "cyan", "teal": "cyan", "violet": "purple"},
    **{"metallic": "metal", "steel": "metal", "wood": "wooden", "shiny": "glossy", "checked": "checkered"},
    **{"chequered": "checkered", "spotted": "dotted", "polka": "dotted", "stripy": "striped", "stripes": "striped"},
    **{"large": "big", "huge": "big", "little": "small", "tiny": "small", "atop": "on", "near": "beside"},
    **{"frosting": "icing", "pillar": "cylinder", "spaceship": "rocket"},
}
