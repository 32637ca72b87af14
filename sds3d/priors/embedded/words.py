"""The words that the embedded prior knows: reading them in a sentence, as ids, and those near to an unknown one."""

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from importlib import resources

import torch
from jaxtyping import Int
from torch import Tensor

from sds3d.priors.base import split_words
from sds3d.priors.embedded.object_kinds import COLORS, KINDS, MATERIALS, PARTS, PATTERNS, SIZES

_FILE = json.loads(resources.files("sds3d.priors.embedded").joinpath("words.json").read_text(encoding="utf-8"))
SYNONYMS: dict[str, str] = {word: known for known, words in _FILE["synonyms"].items() for word in words.split()}
GROUPS: dict[str, str] = _FILE["suggestions"]  # known things of a group: unknown words of the same group
USUAL_COLORS: dict[str, str] = {kind: color for color, kinds in _FILE["colors"].items() for kind in kinds.split()}
ANY_COLOR = "blue"  # of kinds that have no usual one
ARTICLES = {"a", "an", "the"}
# Two words that make one: "ice cream", the hyphenated "two-tone", and letters ("a letter L" is a kind).
PHRASES = {("ice", "cream"): "icecream", ("two", "tone"): "two-tone", ("next", "to"): "beside", ("on", "top"): "on"}
PHRASES |= {("letter", kind[-1]): kind for kind in KINDS if kind.startswith("letter_")}
WORDS = [*COLORS, *KINDS, "on", "with", *sorted(set(PARTS.values()) - set(KINDS))]
WORDS += [*PATTERNS, *MATERIALS, *SIZES, "and", "beside", "two"]
MAX_WORDS = 12  # of a sentence, for the network


def words_of(text: str) -> list[str]:
    """Normalised words of a prompt: no articles, synonyms and plurals replaced by the known words, phrases joined."""
    joined: list[str] = []
    for word in split_words(text):
        pair = (joined[-1] if joined else "", word.removesuffix("s"))
        if pair in PHRASES:
            joined[-1] = PHRASES[pair]
        else:
            joined.append(word)
    words: list[str] = []
    for before, word in zip(["", *joined], joined, strict=False):
        known = _known_form(word)
        if word not in ARTICLES and not (words[-1:] == [known] and word != before):  # "navy blue" is blue once
            words += known.split()
    return words


def _known_form(word: str) -> str:
    """The known word for this one (singular, or a synonym, which may be two); the word itself if there is none."""
    for form in (word, word.removesuffix("s"), word.removesuffix("es")):
        known = SYNONYMS.get(form, form)
        if all(part in WORDS for part in known.split()):
            return known
    return word


def nearest_words(word: str, count: int = 3) -> list[str]:
    """Up to `count` known words for an unknown one, best first: of similar spelling, else things of the same group."""
    names = [name for name in (*COLORS, *KINDS, *PATTERNS, *MATERIALS) if not name.startswith("letter_")]
    names += list(PARTS.values())
    letters = sorted(word.lower())
    close = [name for name in (*names, *SYNONYMS) if sorted(name) == letters]  # two letters in the wrong order
    close += difflib.get_close_matches(word.lower(), [*names, *SYNONYMS], n=count, cutoff=0.75)
    nearest = [SYNONYMS.get(name, name) for name in close]
    for known, others in GROUPS.items():
        if not nearest and {word.lower(), word.lower().removesuffix("s")} & set(others.split()):
            nearest = known.split()[:count]
    return [name.replace("_", " ") for name in dict.fromkeys(nearest)][:count]


def drawable(text: str, count: int = 3) -> list[str] | None:
    """None where every thing of a prompt is one that the prior draws; else up to `count` prompts near to it that are.

    >>> drawable("a shiny blue dog on a cube")
    ['a shiny blue cat on a cube', 'a shiny blue pig on a cube', 'a shiny blue duck on a cube']
    """
    lacking = [words for words in things_of(words_of(text)) if not set(words) & set(KINDS)]
    if not lacking:
        return None
    for word in reversed([word for words in lacking for word in words if word not in WORDS]):
        kinds = [name for name in nearest_words(word, count) if name.replace(" ", "_") in KINDS]
        if kinds and (place := re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE)):
            before, after = text[: place.start()], text[place.end() :]
            return [_with_article(before, kind) + after for kind in kinds]
    return []


def _with_article(before: str, word: str) -> str:
    """A word after a text, whose last article suits it: an owl, a cat."""
    article = "an" if word[0] in "aeiou" else "a"
    return re.sub(r"\ban?\s+$", f"{article} ", before, flags=re.IGNORECASE) + word


def things_of(words: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """The words of the first and the second thing, in the order of `build_things`; both are the same for a single thing
    and for "two ...".

    >>> things_of(["red", "cone", "on", "blue", "cube"])
    (['blue', 'cube'], ['red', 'cone'])
    """
    if words[:1] == ["two"]:
        return words[1:], words[1:]
    for number, word in enumerate(words):
        before, after = words[:number], words[number + 1 :]
        if word in ("on", "beside") and before and after:
            return (after, before) if word == "on" else (before, after)
    return words, words


def with_colors(words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """(the words with a colour for each thing that has none, the colours that were added by kind).

    Training says a colour of every thing, and a sentence without one reads as another thing.

    >>> with_colors(["mug", "on", "small", "wooden", "table"])
    (['red', 'mug', 'on', 'small', 'brown', 'wooden', 'table'], {'mug': 'red', 'table': 'brown'})
    """
    colored, added, has_color = list[str](), dict[str, str](), False
    for word in words:
        if word in ("on", "beside", "with"):
            has_color = word == "with"  # what follows is a part, whatever it is called
        has_color |= word in COLORS
        if word in KINDS and not has_color:
            added[word] = USUAL_COLORS.get(word, ANY_COLOR)
            place = len(colored)
            while place and colored[place - 1] in MATERIALS:
                place -= 1
            colored.insert(place, added[word])
            has_color = True
        colored.append(word)
    return colored, added


def material_of(text: str) -> str | None:
    """The material of all that a prompt names; None where its things differ, or one is said to be of two.

    What is said to be of none is matte.
    """
    named = [[word for word in words if word in MATERIALS] or ["matte"] for words in things_of(words_of(text))]
    found = {material for materials in named for material in materials}
    return found.pop() if len(found) == 1 else None


def token_batch(texts: Sequence[str], ids: Mapping[str, int]) -> Int[Tensor, "T 3 L"]:
    """Ids of the known words of each sentence, of its first and of its second thing, padded with zeros; a thing without
    a colour has its usual one."""
    sentences = [[word for word in with_colors(words_of(text))[0] if word in ids][:MAX_WORDS] for text in texts]
    rows = [[ids[word] for word in part] for words in sentences for part in (words, *things_of(words))]
    padded = [row + [0] * (MAX_WORDS - len(row)) for row in rows]
    return torch.tensor(padded).unflatten(0, (-1, 3))
