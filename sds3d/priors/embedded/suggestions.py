"""Suggestions for words that the embedded prior does not know: of similar spelling, else things of the same group."""

import difflib

from sds3d.priors.embedded.object_kinds import COLORS, KINDS, MATERIALS, PARTS, PATTERNS, SYNONYMS

# (known things of a group, unknown words of the same group)
GROUPS: tuple[tuple[str, str], ...] = (
    (
        "cat pig duck penguin fish",
        "animal bear bird bunny chicken cow deer dinosaur dog dolphin dragon elephant fox frog giraffe goat hamster "
        "hen horse lion monkey mouse owl panda parrot puppy rabbit shark sheep squirrel swan tiger turtle "
        "unicorn whale wolf",
    ),
    (
        "robot snowman penguin",
        "alien astronaut baby boy doll dwarf elf girl hero king knight man ninja person pirate queen statue teddy "
        "toy wizard woman zombie",
    ),
    (
        "car bus train boat plane",
        "bicycle bike helicopter jeep lorry motorcycle scooter spacecraft submarine tank taxi tractor truck van "
        "vehicle",
    ),
    (
        "apple burger cake carrot donut",
        "banana bread cheese cherry cookie egg food fruit grape lemon melon muffin orange peach pear pie "
        "pineapple pizza potato pumpkin sandwich strawberry sushi tomato vegetable watermelon",
    ),
    (
        "chair table bed sofa lamp",
        "armchair bench bookshelf cabinet cupboard drawer furniture shelf stool throne wardrobe",
    ),
    ("mug teapot bottle candle lamp", "basket bowl bucket can glass jar jug lantern pan pot tin vase watch"),
    (
        "house castle windmill",
        "barn bridge building church cottage fort hut lighthouse palace skyscraper temple tent tower",
    ),
    ("tree cactus flower mushroom", "bonsai bush grass leaf oak palm pine plant rose sunflower tulip"),
    ("cube sphere cylinder cone pyramid", "ball-shaped brick crystal diamond disc hemisphere prism shape star wedge"),
    ("letter_l letter_t letter_h", "alphabet character letter number"),
    ("metal glossy wooden", "chrome copper golden gold iron marble plastic porcelain silver stone"),
    ("striped dotted checkered", "camouflage patterned plaid tartan zigzag"),
)


def nearest_words(word: str, count: int = 3) -> list[str]:
    """Up to `count` known words for an unknown one, best first; empty if none is near."""
    names = [name for name in (*COLORS, *KINDS, *PATTERNS, *MATERIALS) if not name.startswith("letter_")]
    names += list(PARTS.values())
    close = difflib.get_close_matches(word.lower(), [*names, *SYNONYMS], n=count, cutoff=0.75)
    nearest = [SYNONYMS.get(name, name) for name in close]
    for known, others in GROUPS:
        if not nearest and {word.lower(), word.lower().removesuffix("s")} & set(others.split()):
            nearest = known.split()[:count]
    return [name.replace("_", " ") for name in dict.fromkeys(nearest)]
