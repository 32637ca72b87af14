"""Tokenizer: the known words of a sentence, and those of each of its two things alone, as ids."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from sds3d.priors.embedded.captions import words_of

MAX_WORDS = 12


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


def token_batch(texts: Sequence[str], ids: Mapping[str, int]) -> Int[Tensor, "T 3 L"]:
    """Ids of the known words of each sentence, of its first and of its second thing, padded with zeros."""
    sentences = [[word for word in words_of(text) if word in ids][:MAX_WORDS] for text in texts]
    rows = [[ids[word] for word in part] for words in sentences for part in (words, *things_of(words))]
    padded = [row + [0] * (MAX_WORDS - len(row)) for row in rows]
    return torch.tensor(padded).unflatten(0, (-1, 3))
