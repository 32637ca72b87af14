"""Sentences as numbers, and what is offered in place of a word the embedded prior does not know."""

import doctest

import pytest

from sds3d.priors.embedded import words
from sds3d.priors.embedded.config import EmbeddedConfig
from sds3d.priors.embedded.network import VOCABULARY
from sds3d.priors.embedded.object_kinds import KINDS
from sds3d.priors.embedded.shading import LOOKS
from sds3d.priors.embedded.words import GROUPS, MAX_WORDS, material_of, nearest_words, things_of, token_batch
from sds3d.types import Material


def test_the_docstring_holds():
    assert doctest.testmod(words).failed == 0


@pytest.mark.parametrize(
    ("text", "first", "second"),
    [
        ("a small red sphere beside a big blue cube", "small red sphere", "big blue cube"),
        ("a red cone on a blue cube", "blue cube", "red cone"),  # what carries comes before what stands
        ("two green apples", "green apple", "green apple"),
        ("a white house with a red roof", "white house with red roof", "white house with red roof"),
        ("on a cube", "on cube", "on cube"),  # nothing stands on it
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
    [("dragon", "cat"), ("dogs", "cat"), ("mushrom", "mushroom"), ("purpel", "purple"), ("golden", "metal")],
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
