"""Sentences as numbers."""

import doctest

import pytest

from sds3d.priors.embedded import tokens
from sds3d.priors.embedded.network import VOCABULARY
from sds3d.priors.embedded.tokens import MAX_WORDS, things_of, token_batch


def test_the_docstring_holds():
    assert doctest.testmod(tokens).failed == 0


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
    words = {number: word for word, number in VOCABULARY.items()}
    whole, *things = (" ".join(words[number] for number in row if number) for row in rows)
    assert things == [first, second]
    assert set(first.split() + second.split()) <= set(whole.split())


def test_unknown_words_are_left_out_and_all_rows_are_as_long():
    rows = token_batch(["a shiny dragon on a red cube", "red " * 40], VOCABULARY)
    assert rows.shape == (2, 3, MAX_WORDS)
    assert rows[0, 0, :4].tolist() == [VOCABULARY[word] for word in ("glossy", "on", "red", "cube")]
    assert (rows[1] == VOCABULARY["red"]).all()


def test_a_sentence_without_relation_is_one_thing():
    assert things_of(["red", "mug"]) == (["red", "mug"], ["red", "mug"])
