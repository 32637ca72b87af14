"""Sentences as numbers, and what is offered in place of a word the embedded prior does not know."""

import doctest

import pytest

from sds3d.evaluation.suite import SUITES
from sds3d.priors.embedded import words
from sds3d.priors.embedded.config import EmbeddedConfig
from sds3d.priors.embedded.network import VOCABULARY
from sds3d.priors.embedded.object_kinds import COLORS, KINDS
from sds3d.priors.embedded.shading import LOOKS
from sds3d.priors.embedded.words import (
    GROUPS,
    MAX_WORDS,
    SYNONYMS,
    WORDS,
    drawable,
    material_of,
    nearest_words,
    things_of,
    token_batch,
    words_of,
)  # fmt: skip
from sds3d.types import Material


def test_the_docstring_holds():
    assert doctest.testmod(words).failed == 0


def test_every_usual_colour_is_one_of_a_kind():
    assert set(words.USUAL_COLORS) <= set(KINDS)
    assert {*words.USUAL_COLORS.values(), words.ANY_COLOR} <= set(COLORS)


@pytest.mark.parametrize(
    ("text", "first", "second"),
    [
        ("a small red sphere beside a big blue cube", "small red sphere", "big blue cube"),
        ("a red cone on a blue cube", "blue cube", "red cone"),  # what carries comes before what stands
        ("two green apples", "green apple", "green apple"),
        ("a white house with a red roof", "white house with red roof", "white house with red roof"),
        ("on a cube", "on blue cube", "on blue cube"),  # nothing stands on it
        ("a mug", "red mug", "red mug"),  # its usual colour
        ("a house with a red roof", "white house with red roof", "white house with red roof"),
        ("a small metal cat beside a green cactus", "small orange metal cat", "green cactus"),
        ("two striped mugs", "striped red mug", "striped red mug"),
        ("", "", ""),
    ],
)
def test_each_thing_has_its_own_words(text, first, second):
    (rows,) = token_batch([text], VOCABULARY).tolist()
    known = {number: word for word, number in VOCABULARY.items()}
    whole, *things = (" ".join(known[number] for number in row if number) for row in rows)
    assert things == [first, second]
    assert set(first.split() + second.split()) <= set(whole.split())


@pytest.mark.parametrize(
    ("text", "material"),
    [
        ("a red mug", "matte"),  # the captions of training do not say matte
        ("a red metallic mug", "metal"),
        ("two shiny blue cubes", "glossy"),
        ("a wooden chair", "wooden"),  # no caption: it has no colour
        ("a red metal cone on a blue metal cube", "metal"),
        ("a red metal cone on a blue wooden cube", None),
        ("a red metal cone on a blue cube", None),
        ("a glossy wooden chair", None),
        ("", "matte"),
    ],
)
def test_the_material_is_that_of_all_things(text, material):
    assert material_of(text) == material
    assert EmbeddedConfig().material(text) == (Material() if material is None else LOOKS[material])


def test_unknown_words_are_left_out_and_all_rows_are_as_long():
    rows = token_batch(["a shiny dragon on a red cube", "red " * 40], VOCABULARY)
    assert rows.shape == (2, 3, MAX_WORDS)
    assert rows[0, 0, :4].tolist() == [VOCABULARY[word] for word in ("glossy", "on", "red", "cube")]
    assert (rows[1] == VOCABULARY["red"]).all()


def test_a_sentence_without_relation_is_one_thing():
    assert things_of(["red", "mug"]) == (["red", "mug"], ["red", "mug"])


@pytest.mark.parametrize(
    ("word", "first"),
    [
        ("dragon", "cat"),
        ("dogs", "cat"),
        ("mushrom", "mushroom"),
        ("purpel", "purple"),
        ("mgu", "mug"),
        ("duk", "duck"),
        ("marble", "metal"),
    ],
)
def test_the_nearest_word_comes_first(word, first):
    assert nearest_words(word)[0] == first


def test_nothing_is_offered_for_what_is_like_nothing():
    assert nearest_words("wibble") == []
    assert nearest_words("7") == []


def test_groups_name_things_that_exist_and_no_word_is_in_two():
    things = [name for known in GROUPS for name in known.split()]
    assert set(KINDS) >= {
        name for name in things if name not in ("metal", "glossy", "wooden", "striped", "dotted", "checkered")
    }
    others = [word for words in GROUPS.values() for word in words.split()]
    assert len(others) == len(set(others))
    assert not set(others) & set(KINDS)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a crimson cup", "red mug"),
        ("Two Scarlet MUGS", "two red mug"),
        ("a golden teapot", "yellow metal teapot"),
        ("a silver car", "gray metal car"),
        ("a tall bottle", "big bottle"),
        ("a navy blue car", "blue car"),
        ("a tiny timber chair", "small wooden chair"),
        ("cacti", "cactus"),
        ("ice-creams", "icecream"),
        ("a two\u2013tone red and blue car", "two-tone red and blue car"),
        ("a r\u00e9d \uff4d\uff55\uff47", "red mug"),  # an accent, and letters as wide as Chinese ones
        ("the robot\u2019s red house", "robot red house"),
        ("a red cone next to a blue cube", "red cone beside blue cube"),
        ("a red, red mug", "red red mug"),
        ("\ud55c\uad6d", "\ud55c\uad6d"),
    ],
)
def test_common_spellings_and_synonyms_are_read(text, words):
    assert " ".join(words_of(text)) == words


def test_the_suites_are_read_as_they_are_written():
    """Their embeddings, and with them all figures, do not change with further synonyms."""
    for prompt in {prompt for prompts in SUITES.values() for prompt in prompts}:
        plain = [word for word in prompt.split() if word not in ("a", "an", "the")]
        assert [word.removesuffix("s") for word in words_of(prompt)] == [word.removesuffix("s") for word in plain]
        assert drawable(prompt) is None


def test_synonyms_stand_for_known_words_and_are_none_themselves():
    assert {part for known in SYNONYMS.values() for part in known.split()} <= set(WORDS)
    assert not set(SYNONYMS) & set(WORDS)
    assert not set(SYNONYMS) & {word for words in GROUPS.values() for word in words.split()}


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("a blue dog", ["a blue cat", "a blue pig", "a blue duck"]),
        ("a red mgu", ["a red mug"]),
        ("An OWL", ["a cat", "a pig", "a duck"]),
        ("a striped apricot", []),
        ("a pumpkin on a red cube", ["an apple on a red cube", "a burger on a red cube", "a cake on a red cube"]),
        ("a red mug beside a red dog", [f"a red mug beside a red {kind}" for kind in ("cat", "pig", "duck")]),
        ("a red roof", []),  # a part of a house, and no thing
        ("a fluffy blue cat with a hat", None),
        ("a dog's house", None),
        ("a mug, red", None),
    ],
)
def test_what_has_no_shape_comes_with_what_has(text, near):
    assert drawable(text) == near
    assert EmbeddedConfig().drawable(text) == near
    assert EmbeddedConfig(anything=True).drawable(text) is None
    assert EmbeddedConfig(weights="elsewhere").drawable(text) is None
