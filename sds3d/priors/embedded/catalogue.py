"""What the embedded prior's world contains: kinds of objects, their parts and their colours. Front is +x, up is +z.

A kind is a function (main colour, second colour, random draws) -> solids. Sizes are free: every object is later fitted
into the unit ball. `PARTS` names the part that takes the second colour when the caption says "with a blue roof";
otherwise it has the colour in `USUAL`, or the main one.
"""

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
}
PARTS = {"house": "roof", "mushroom": "stem", "rocket": "fins", "tree": "trunk", "lamp": "base", "table": "legs"}
USUAL: dict[str, Color] = {
    "house": (0.45, 0.25, 0.18),
    "mushroom": (0.93, 0.90, 0.82),
    "rocket": (0.75, 0.76, 0.80),
    "tree": COLORS["brown"],
    "lamp": (0.30, 0.30, 0.33),
}
_DARK: Color = (0.16, 0.16, 0.18)


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
    """Handle on the left (+y) when seen from the front."""
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


Kind = Callable[[Color, Color, Random], list[Solid]]
_ALL: tuple[Kind, ...] = (
    *(sphere, cube, cylinder, cone, pyramid, donut, mug, chair, table, car),
    *(house, snowman, mushroom, rocket, tree, lamp, dumbbell, bottle),
)
KINDS: dict[str, Kind] = {kind.__name__: kind for kind in _ALL}
TOPS = ("sphere", "cube", "cylinder", "cone", "pyramid", "donut")  # what may stand on something
BOTTOMS = ("cube", "cylinder")  # what something may stand on
