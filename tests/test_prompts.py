import math
from dataclasses import replace

import pytest
import torch

from sds3d.cameras import orbit
from sds3d.config import load_config
from sds3d.errors import ConfigError
from sds3d.priors.analytic import AnalyticConfig, AnalyticPrior
from sds3d.prompts import (
    MAX_LENGTH,
    Prompts,
    ViewPrompting,
    against_sides,
    check_prompt,
    check_text,
    check_words,
    side_shares,
    view_index,
)
from sds3d.training.trainer import Trainer


def test_space_around_is_dropped_and_length_is_counted_after() -> None:
    assert check_prompt("  a red mug \n") == "a red mug"
    assert len(check_prompt(" " * 600 + "x" * MAX_LENGTH)) == MAX_LENGTH


@pytest.mark.parametrize("text", ["eine rote Tasse, größer", "赤いマグカップ", "a 👩‍🚀 astronaut"])
def test_any_script_is_welcome(text: str) -> None:
    assert check_prompt(text) == text


@pytest.mark.parametrize("text", ["a\x00b", "a\nb", "a\x1b[31mb", "a\x7fb", "a\ud800b", "x" * 501])
def test_control_characters_and_long_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"control character|characters are too many"):
        check_text(text)


@pytest.mark.parametrize("text", ["", "   ", "\n\t"])
def test_an_empty_prompt_is_refused_but_an_empty_negative_prompt_is_not(text: str) -> None:
    assert check_text(text) == ""
    with pytest.raises(ValueError, match="empty"):
        check_prompt(text)


@pytest.mark.parametrize(
    ("azimuth", "elevation", "index"),
    [
        *((0, 0, 0), (44, 0, 0), (-44, 10, 0), (316, 0, 0)),
        *((46, 0, 1), (-90, 0, 1), (134, 0, 1)),
        *((136, 0, 2), (180, 0, 2), (-170, 0, 2), (190, 0, 2)),
        *((0, 61, 3), (180, 80, 3)),
    ],
)
def test_view_words_follow_the_azimuth_and_overhead_wins(azimuth: float, elevation: float, index: int) -> None:
    angles = torch.tensor([math.radians(azimuth)]), torch.tensor([math.radians(elevation)])
    assert view_index(*angles).tolist() == [index]


class Reader(AnalyticPrior):
    """A text prior whose embedding is the text's length, and that reads every word or none."""

    def __init__(self, reads: bool) -> None:
        super().__init__(torch.zeros(1, 1, 1, 1), torch.ones(1), torch.ones(1))
        self.reads = reads

    def cautions(self, text: str) -> list[str]:
        return []

    def unknown_words(self, text: str) -> list[str]:
        return [] if self.reads else text.split()

    def embed(self, texts):
        return torch.tensor([float(len(text)) for text in texts])[:, None, None]


def test_view_words_are_added_only_for_priors_that_read_them() -> None:
    cameras = orbit(4, elevation_deg=0)
    cond = Prompts(Reader(reads=True), "mug", reads_views=True).at(cameras)
    words = ["mug, front view", "mug, side view", "mug, back view", "mug, side view"]
    assert cond.positive.flatten().tolist() == [len(text) for text in words]
    assert cond.plain.flatten().tolist() == [3] * 4
    assert Prompts(Reader(reads=True), "mug", reads_views=False).at(cameras).positive.flatten().tolist() == [3] * 4


@pytest.mark.parametrize(("prior", "differ"), [("diffusers", True), ("multiview", False)])
def test_a_run_tells_a_prior_view_words_only_if_its_config_says_that_it_reads_them(prior: str, differ: bool) -> None:
    """Both read any text; a multi-view model is told the cameras, and was trained without such words."""
    config = load_config(overrides={"prompt": "mug", "prior": {"name": prior, "model": "org/model"}, "scene": "image"})
    generator = torch.Generator().manual_seed(0)
    scene, reader = config.scene.build(generator), Reader(reads=True)
    trainer = Trainer(config, scene, reader, generator, torch.device("cpu"))
    for _ in range(2):
        rows = trainer.prompts.at(orbit(4, elevation_deg=0)).positive
        assert (len(rows.unique()) > 1) == differ
        trainer.change(config.with_changes({"prompt": "a mug"}))


def test_null_is_the_empty_text_and_negative_only_exists_when_given() -> None:
    cameras = orbit(2)
    cond = Prompts(Reader(reads=True), "mug", reads_views=True).at(cameras)
    assert cond.negative is None
    cond = Prompts(Reader(reads=True), "mug", "blurry").at(cameras)
    assert cond.null.flatten().tolist() == [0, 0]
    assert cond.negative.flatten().tolist() == [6, 6]


ANALYTIC = AnalyticConfig(size=8)


def test_words_the_prior_knows_raise_no_warning() -> None:
    assert check_words(ANALYTIC.build("cpu"), ANALYTIC, "a red ball", "blue", strict=True) == []


def test_some_unknown_words_are_a_warning_or_with_strict_an_error() -> None:
    prior = ANALYTIC.build("cpu")
    [warning] = check_words(prior, ANALYTIC, "a red mug", "ugly", strict=False)
    assert "analytic" in warning
    assert "mug, ugly" in warning
    with pytest.raises(ConfigError, match="mug") as raised:
        check_words(prior, ANALYTIC, "a red mug", "", strict=True)
    assert raised.value.exit_code == 2


@pytest.mark.parametrize("prompt", ["wibble", "a wibble on the wobble", "7"])
def test_a_prompt_without_a_known_word_is_refused_with_what_is_known(prompt: str) -> None:
    with pytest.raises(ConfigError, match="it knows a ball in red, orange") as raised:
        check_words(ANALYTIC.build("cpu"), ANALYTIC, prompt, "", strict=False)
    assert prompt.rsplit(maxsplit=1)[-1] in str(raised.value)


def test_a_prior_that_reads_everything_is_never_asked_what_it_knows() -> None:
    assert check_words(Reader(reads=True), ANALYTIC, "wibble", "wobble", strict=True) == []


def view(azimuth: float, elevation: float = 0.0):
    angles = torch.tensor([math.radians(azimuth)]), torch.tensor([math.radians(elevation)])
    return replace(orbit(1), azimuth=angles[0], elevation=angles[1])


@pytest.mark.parametrize(
    ("azimuth", "shares"),
    [(0, [1, 0, 0]), (30, [2 / 3, 1 / 3, 0]), (-90, [0, 1, 0]), (135, [0, 0.5, 0.5]), (180, [0, 0, 1])],
)
def test_embeddings_are_mixed_by_azimuth(azimuth: float, shares: list[float]) -> None:
    torch.testing.assert_close(side_shares(view(azimuth).azimuth), torch.tensor([shares]).float(), atol=1e-5, rtol=0)
    prompts = Prompts(Reader(reads=True), "a mug", view_prompting=ViewPrompting(mode="interpolated"), reads_views=True)
    lengths = torch.tensor([len(f"a mug, {side} view") for side in ("front", "side", "back")]).float()
    expected = (torch.tensor(shares) * lengths).sum()
    assert prompts.at(view(azimuth)).positive.flatten()[0].item() == pytest.approx(expected.item(), abs=1e-3)
    assert prompts.at(view(azimuth, 70)).positive.flatten()[0] == len("a mug, overhead view")


def test_perp_neg_weighs_the_sides_that_a_view_is_not() -> None:
    """threestudio's numbers at the front, the side and the back, by hand."""
    azimuth = torch.tensor([0.0, 90.0, 180.0]).deg2rad()
    front_at_front, none = -(4 * math.exp(-0.5) - 2.426), -(4 - 2.426)
    expected = [
        [front_at_front, none],
        [none, front_at_front],
        [-(1 + 0.967), -(1 - 0.606)],
    ]
    torch.testing.assert_close(against_sides(azimuth), torch.tensor(expected), atol=1e-4, rtol=0)
    assert (against_sides(torch.linspace(-3.1, 3.1, 50)) <= 0.05).all()
    prompts = Prompts(Reader(reads=True), "a mug", view_prompting=ViewPrompting(mode="perp_neg"), reads_views=True)
    against = prompts.at(view(180)).against
    assert [row.flatten()[0].item() for row, _ in against] == [len("a mug, front view"), len("a mug, side view")]
    assert [share.item() for _, share in prompts.at(view(0, 80)).against] == [0, 0]
    with pytest.raises(ConfigError, match="front view"):
        Prompts(Reader(reads=False), "a mug", view_prompting=ViewPrompting(mode="perp_neg"))
