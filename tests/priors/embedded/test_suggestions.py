"""What is offered in place of a word the embedded prior does not know."""

import pytest

from sds3d.priors.embedded.object_kinds import KINDS
from sds3d.priors.embedded.suggestions import GROUPS, nearest_words


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
    things = [name for known, _ in GROUPS for name in known.split()]
    assert set(KINDS) >= {
        name for name in things if name not in ("metal", "glossy", "wooden", "striped", "dotted", "checkered")
    }
    others = [word for _, words in GROUPS for word in words.split()]
    assert len(others) == len(set(others))
    assert not set(others) & set(KINDS)
