"""From words to embeddings: checks the prompt, adds words for the viewing direction, picks a row for each view."""

import math
import re
import unicodedata

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sds3d.errors import ConfigError
from sds3d.priors.base import Prior, PriorConfig
from sds3d.types import Cameras, Conditioning

MAX_LENGTH = 500
SMALL_WORDS = {"a", "an", "the", "on", "of", "with", "and", "in", "at", "to", "under", "over"}  # no thing, no colour
VIEW_WORDS = ("front view", "side view", "back view", "overhead view")
FRONT_DEG, BACK_DEG, OVERHEAD_DEG = 45.0, 135.0, 60.0  # threestudio's limits


def check_text(text: str) -> str:
    """The text without space around it; ValueError where it is too long or holds characters that cannot be shown."""
    text = text.strip()
    if len(text) > MAX_LENGTH:
        raise ValueError(f"{len(text)} characters are too many, at most {MAX_LENGTH} are allowed")
    for place, char in enumerate(text):
        if unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"}:
            raise ValueError(f"character {place + 1} is a control character ({char!a})")
    return text


def check_prompt(text: str) -> str:
    """As check_text, and not empty."""
    text = check_text(text)
    if not text:
        raise ValueError("the prompt is empty")
    return text


def check_words(prior: Prior, config: PriorConfig, prompt: str, negative_prompt: str, strict: bool) -> list[str]:
    """Warnings about words that the prior would ignore, and about what it does badly.

    ConfigError where that is all of the prompt but the small words, for then the result would have nothing to do with
    it; with `strict`, where it is any.
    """
    unknown = prior.unknown_words(f"{prompt} {negative_prompt}")
    warnings = [f"the {config.name} prior: {caution}" for caution in prior.cautions(prompt)]
    if not unknown:
        return warnings
    message = f"the {config.name} prior does not know: {', '.join(unknown)}"
    telling = [word for word in re.findall(r"[^\W_]+", prompt.lower()) if word not in SMALL_WORDS]
    if all(prior.unknown_words(word) for word in telling):
        raise ConfigError(message, hint=f"it knows {config.knows()}")
    if strict:
        raise ConfigError(message, hint="say it in other words, or do without strict")
    return [f"{message}; it goes by the other words", *warnings]


def view_index(azimuth: Float[Tensor, "B"], elevation: Float[Tensor, "B"]) -> Int[Tensor, "B"]:
    """Which of VIEW_WORDS each view is: by azimuth from the front, except from high above. Angles in radians."""
    turned = torch.remainder(torch.rad2deg(azimuth) + 180, 360) - 180
    index = torch.ones_like(azimuth, dtype=torch.long)
    index[turned.abs() < FRONT_DEG] = 0
    index[turned.abs() > BACK_DEG] = 2
    index[elevation > math.radians(OVERHEAD_DEG)] = 3
    return index


class Prompts:
    """The embeddings of one run, made once.

    View words are added to the prompt only for priors that read them; one that names them as unknown words is told the
    camera in its own way.
    """

    def __init__(self, prior: Prior, prompt: str, negative_prompt: str = "") -> None:
        reads_views = not prior.unknown_words(" ".join(VIEW_WORDS))
        views = [f"{prompt}, {words}" for words in VIEW_WORDS] if reads_views else [prompt] * len(VIEW_WORDS)
        rows = prior.embed([*views, prompt, "", negative_prompt])
        self._views, self._plain, self._null = rows[:4], rows[4:5], rows[5:6]
        self._negative = rows[6:7] if negative_prompt else None

    def at(self, cameras: Cameras) -> Conditioning:
        """The conditions for a batch of views."""
        index = view_index(cameras.azimuth, cameras.elevation).to(self._views.device)
        same = torch.zeros_like(index)
        return Conditioning(
            positive=self._views[index],
            plain=self._plain[same],
            null=self._null[same],
            negative=None if self._negative is None else self._negative[same],
        )
