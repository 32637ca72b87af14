"""From prompts to embeddings: checks the text, adds words for the viewing direction, selects a row for each view."""

import unicodedata
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sds3d.errors import ConfigError
from sds3d.options import Options
from sds3d.priors.base import VIEW_WORDS, HasLimit, Prior, PriorConfig, split_words
from sds3d.types import Cameras, Conditioning

MAX_LENGTH = 500
BREAKS = str.maketrans("\u2028\u2029\x85", "   ")
# Words that are neither things nor colours.
SMALL_WORDS = {"a", "an", "the", "on", "of", "with", "and", "in", "at", "to", "under", "over"}


def check_text(text: str) -> str:
    """The text without surrounding space; ValueError if it is too long or has control characters.

    The line breaks that only Unicode has, which come with text copied from pages, become spaces.
    """
    text = text.translate(BREAKS).strip()
    if len(text) > MAX_LENGTH:
        raise ValueError(f"{len(text)} characters are too many, at most {MAX_LENGTH} are allowed")
    for place, char in enumerate(text):
        if unicodedata.category(char) in {"Cc", "Cs"}:
            raise ValueError(f"character {place + 1} is a control character ({char!a})")
    return text


def check_prompt(text: str) -> str:
    """As `check_text`; ValueError if it is empty too."""
    text = check_text(text)
    if not text:
        raise ValueError("the prompt is empty")
    return text


def check_words(prior: Prior, config: PriorConfig, prompt: str, negative_prompt: str, strict: bool) -> list[str]:
    """Warnings about words that the prior would ignore, and about its known weaknesses.

    ConfigError if it would ignore every word of the prompt that says something (the result would have nothing to do
    with the prompt), or every word for one of its things (it would have no shape); with `strict`, if any.
    """
    unknown = prior.unknown_words(f"{prompt} {negative_prompt}")
    cautions = [f"the {config.name} prior: {caution}" for caution in prior.cautions(prompt)]
    if isinstance(prior, HasLimit):
        rest = {"prompt": prior.unread(prompt), "negative prompt": prior.unread(negative_prompt)}
        cautions += [f"the end of the {name} is too long to be read: {end!r}" for name, end in rest.items() if end]
    return [*unknown_word_warnings(unknown, config, prompt, strict), *cautions]


def unknown_word_warnings(unknown: Sequence[str], config: PriorConfig, prompt: str, strict: bool = False) -> list[str]:
    """A warning about words that the prior does not know, if there are any; ConfigError as in `check_words`."""
    named = ", ".join(_with_nearest(word, config) for word in unknown)
    message = f"the {config.name} prior does not know: {named}"
    if unknown and set(split_words(prompt)) - SMALL_WORDS <= set(unknown):
        raise ConfigError(message, f"it knows {config.knows()}", "prompt")
    near = config.drawable(prompt)
    if near is not None:
        what = f"{message}; without it there is no thing" if unknown else f"the {config.name} prior finds no thing"
        hint = f"did you mean {', '.join(map(repr, near))}" if near else f"it knows {config.knows()}"
        raise ConfigError(f"{what} in {prompt!r}", f"{hint}; prior.anything=true takes it as it is", "prompt")
    if not unknown:
        return []
    if strict:
        raise ConfigError(message, "use other words, or leave out --strict", "prompt")
    return [f"{message}; it uses the other words"]


def _with_nearest(word: str, config: PriorConfig) -> str:
    nearest = config.nearest(word)
    return f"{word} (nearest: {', '.join(nearest)})" if nearest else word


class ViewPrompting(Options):
    """How the text says where a view is taken from, for priors that read such words; others get the prompt as it is.

    words: the nearest of "front view", "side view", "back view", "overhead view". interpolated: embeddings mixed from
    front, side and back by the azimuth, as in DreamFusion. perp_neg: interpolated, and the other sides' directions are
    subtracted (Armandpour et al. 2023, Perp-Neg), at twice the cost. none: the prompt as it is.
    """

    mode: Literal["words", "interpolated", "perp_neg", "none"] = "words"


# Degrees, as in threestudio. |azimuth| below FRONT_DEG is a front, above BACK_DEG a back; elevation above OVERHEAD_DEG
# is overhead whatever the azimuth.
FRONT_DEG, BACK_DEG, OVERHEAD_DEG = 45.0, 135.0, 60.0


def view_index(azimuth: Float[Tensor, " B"], elevation: Float[Tensor, " B"]) -> Int[Tensor, " B"]:
    """Which of VIEW_WORDS each view is, from angles in radians."""
    turned = degrees_from_front(azimuth)
    index = torch.ones_like(turned, dtype=torch.long)
    index[turned < FRONT_DEG] = 0
    index[turned > BACK_DEG] = 2
    index[torch.rad2deg(elevation) > OVERHEAD_DEG] = 3
    return index


def degrees_from_front(azimuth: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    """|azimuth| in [0, 180] degrees, from radians."""
    return (torch.remainder(torch.rad2deg(azimuth) + 180, 360) - 180).abs()


def side_shares(azimuth: Float[Tensor, " B"]) -> Float[Tensor, "B 3"]:
    """Weights of front, side and back: piecewise linear in the azimuth, with knots at 0, 90 and 180 degrees."""
    turned = degrees_from_front(azimuth) / 90
    return torch.stack([(1 - turned).clamp_min(0), 1 - (turned - 1).abs(), (turned - 1).clamp_min(0)], dim=-1)


def against_sides(azimuth: Float[Tensor, " B"]) -> Float[Tensor, "B 2"]:
    """Perp-Neg's weights of "front view" and "side view": each is -(a exp(-b r) + c), with threestudio's numbers.

    In the front half r is the share of the front (for the side's weight: of the side); in the back half, of the side.
    """
    front, side, back = side_shares(azimuth).unbind(-1)

    def decay(a: float, b: float, c: float, r: Tensor) -> Tensor:
        return -(a * torch.exp(-b * r) + c)

    is_front = back == 0
    front_weight = torch.where(is_front, decay(4.0, 0.5, -2.426, front), decay(1.0, 0.5, 0.967, side))
    side_weight = torch.where(is_front, decay(4.0, 0.5, -2.426, side), decay(1.0, 0.5, -0.606, side))
    return torch.stack([front_weight, side_weight], dim=-1)


class Prompts:
    """The text embeddings of one run, computed once."""

    def __init__(
        self,
        prior: Prior,
        prompt: str,
        negative_prompt: str = "",
        view_prompting: ViewPrompting | None = None,
        reads_views: bool = False,
    ) -> None:
        """View words are added only with `reads_views`: the prior's config says so (`PriorConfig.reads_views`).

        ConfigError for Perp-Neg without them.
        """
        self.view_prompting = view_prompting or ViewPrompting()
        if self.view_prompting.mode == "perp_neg" and not reads_views:
            raise ConfigError("view_prompting.mode = 'perp_neg' needs a prior that reads words such as 'front view'")
        adds_words = reads_views and self.view_prompting.mode != "none"
        views = [f"{prompt}, {words}" for words in VIEW_WORDS] if adds_words else [prompt] * len(VIEW_WORDS)
        rows = prior.embed([*views, prompt, "", negative_prompt])
        self._views, self._plain, self._null = rows[:4], rows[4:5], rows[5:6]
        self._negative = rows[6:7] if negative_prompt else None

    def at(self, cameras: Cameras) -> Conditioning:
        """The conditions for a batch of views."""
        index = view_index(cameras.azimuth, cameras.elevation).to(self._views.device)
        same = torch.zeros_like(index)
        positive = self._views[index]
        against: tuple[tuple[Tensor, Tensor], ...] = ()
        if self.view_prompting.mode in ("interpolated", "perp_neg"):
            overhead = (index == 3)[:, None, None]
            shares = side_shares(cameras.azimuth).to(self._views)
            positive = torch.where(overhead, positive, torch.einsum("bs,snd->bnd", shares, self._views[:3]))
        if self.view_prompting.mode == "perp_neg":
            weights = against_sides(cameras.azimuth).to(self._views.device) * (index != 3)[:, None]
            against = tuple((self._views[same + side], weights[:, side]) for side in (0, 1))
        negative = None if self._negative is None else self._negative[same]
        return Conditioning(positive, self._plain[same], self._null[same], negative, against)
