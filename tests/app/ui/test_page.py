"""What the page's form and its events do, as a browser calls them: test_browser.py has a real one."""

import html
import re
from typing import Any

import pytest

from sds3d.config import option
from sds3d.priors import PRIORS
from sds3d_app.ui.actions import SEEDS
from sds3d_app.ui.controls import examples_of, scenes_of

from .test_server import tree


def test_a_control_changes_an_option_and_untouched_ones_none(page: Any) -> None:
    name = page.generate(prompt="a red ball", seed="41", options={"steps": "9", "guidance.guidance_scale": "3.5"})[0]
    config = page.index.find(name).config
    assert (config.steps, config.guidance.guidance_scale) == (9, 3.5)
    plain = page.index.find(page.generate(prompt="a red ball", seed="41")[0]).config
    assert set(plain.said) == {"prompt", "prior", "guidance", "scene", "seed", "steps", "preview_every"}


def test_what_the_form_shows_is_what_begins(page: Any) -> None:
    """Of the page as it is first shown: each control's value is that of the run that Generate begins."""
    (options,) = [part["props"]["value"] for part in page.components if part["props"].get("elem_id") == "options"]
    shown = dict(re.findall(r'data-option="([^"]+)" data-default="([^"]*)"', options))
    name = page.generate(prompt="a red ball", prior="embedded", scene="", preset="default", seed="17")[0]
    config = page.index.find(name).config
    for key, value in shown.items():
        actual = option(config, key)
        assert value == ("" if actual is None else str(actual).lower() if isinstance(actual, bool) else str(actual)), (
            key
        )


def test_another_prior_shows_its_examples_and_its_scenes(page: Any) -> None:
    outputs = {number: [page.names[part] for part in event["outputs"]] for number, event in page.events.items()}
    (number,) = (number for number, names in outputs.items() if names == ["chips", "scene", "quality"])
    tries, scene, quality = page.output(number, ["analytic"])
    assert re.findall(r'data-prompt="([^"]+)"', tries) == examples_of("analytic")
    assert [label for label, _ in quality["choices"]] == ["Draft", "Normal", "Fine"], "nobody has measured how long"
    assert scene["choices"] == [list(choice) for choice in scenes_of("analytic")]
    (form,) = [part["props"] for part in page.components if part["props"].get("elem_id") == "scene"]
    assert (form["value"], form["choices"]) == ("", [list(choice) for choice in scenes_of("embedded")])


def test_the_page_has_no_number_fields(page: Any) -> None:
    """One that is left empty arrives as 0: such fields are text boxes."""
    assert not [part for part in page.components if part["type"] == "number"]


def test_a_seed_is_drawn_for_each_run_unless_one_is_said(page: Any) -> None:
    drawn = [page.index.find(page.generate(seed=seed)[0]).config.seed for seed in ("", None, "")]
    assert len(set(drawn)) == 3
    assert all(0 <= seed < SEEDS for seed in drawn)
    kept = page.generate(seed=str(drawn[0]))[0]
    assert page.index.find(kept).config.seed == drawn[0]


def test_a_line_break_in_the_prompt_is_a_space(page: Any) -> None:
    assert page.index.find(page.generate(prompt="a red\nball", seed="61")[0]).config.prompt == "a red ball"


def test_words_that_are_not_known_come_with_three_that_are(page: Any) -> None:
    for prompt in ("a dragon", "a zzz qqq", "a red dragon"):
        said = page.generate(prompt=prompt, prior="embedded", scene="", seed="7")[1]
        assert "It does not know" in said
        tries = re.findall(r'data-prompt="([^"]+)"', said)
        assert len(set(tries)) == 3
        assert not any(PRIORS["embedded"]().unknown_words(one) for one in tries)
    assert "a red cat" in tries, "of the same kind, with the words that were known"


@pytest.mark.parametrize("prompt", ["???", "the", "a green frog riding a purple unicorn"])
def test_prompts_to_try_are_taken_whole(page: Any, prompt: str) -> None:
    said = page.generate(prompt=prompt, prior="embedded", scene="", seed="7")[1]
    assert "know: <" not in said.replace("</", "<"), "it names the words, or says that there is nothing in them"
    assert re.findall(r'data-prompt="([^"]+)"', said) == list(PRIORS["embedded"].examples[:3])


def test_no_part_of_the_page_is_a_hidden_signal(page: Any) -> None:
    assert not [part for part in page.components if part["props"].get("visible") == "hidden"]


def test_a_run_is_queued_as_the_page_says(page: Any) -> None:
    name = page.generate(prompt="a blue ball", more="steps=7\noptim.guidance_lr=0.8")[0]
    config = page.index.find(name).config
    assert (config.prompt, config.steps, config.optim.guidance_lr, config.prior.name) == (
        "a blue ball",
        7,
        0.8,
        "analytic",
    )


@pytest.mark.parametrize(
    ("fields", "field", "said"),
    [
        ({"prompt": ""}, "prompt", "is empty"),
        ({"prompt": "a ball\x00"}, "prompt", "control character"),
        ({"prompt": "a zzz qqq", "prior": "embedded"}, "prompt", "does not know: zzz, qqq"),
        ({"prompt": "a blue dog", "prior": "embedded"}, "prompt", "a blue cat"),
        ({"seed": "-1"}, "seed", "greater than or equal to 0"),
        ({"seed": "1" * 20}, "seed", "not allowed"),
        ({"seed": "0.5"}, "seed", "not allowed"),
        ({"seed": "soon"}, "seed", "valid integer"),
        ({"more": "steps=0"}, "steps", "greater than or equal to 1"),
        ({"more": "steps=many"}, "steps", "valid integer"),
        ({"more": "guidance.guidance_scale=1e9"}, "guidance.guidance_scale", "less than or equal to 200"),
        ({"more": "optim.guidance_lr=NaN"}, "optim.guidance_lr", "not allowed"),
        ({"more": "nothing=1"}, "nothing", "is not an option"),
        ({"more": "no equals sign"}, "more", "is not KEY=VALUE"),
        ({"prior": "nothing"}, "prior", "is unknown"),
        ({"prior": "diffusers"}, "prior.model", "is missing"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_wrong_is_refused_with_the_field(page: Any, fields: dict[str, Any], field: str, said: str) -> None:
    before = tree(page.index.outputs)
    problem = "".join(map(str, page.generate(**fields)[1:]))
    assert f'role="alert" data-field="{field}"' in problem
    assert said in problem
    assert tree(page.index.outputs) == before


def test_a_run_is_chosen_removed_and_brought_back_by_its_name_alone(page: Any, run: str) -> None:
    event = page.event("ended", "acted")
    assert 'data-act="undo"' in page.output(event, [{"act": "delete", "run": run}, ""])[2]
    assert page.index.find(run) is None
    assert page.client.get(f"/run/{run}/mesh.glb").status_code == 404
    assert page.output(event, [{"act": "undo", "run": run}, ""])[2] == ""
    assert page.client.get(f"/run/{run}/mesh.glb").status_code == 200
    assert page.output(event, [{"act": "choose", "run": run}, ""])[1] == page.index.find(run).prompt
    kept = page.output(event, [{"act": "choose", "run": run, "keep": True}, ""])
    assert [kept[place]["__type__"] for place in (1, 2)] == ["update"] * 2, "words of one's own, what can be undone"
    assert "value" not in str(kept[1:3])
    for order in ("delete", "undo", "choose", "make", "compare", "pause", "stop", "again", "nothing"):
        for name in ("../outputs", "/etc/passwd", None, 7, True):
            status, text = page.call(event, [{"act": order, "run": name, "format": name, "other": name}, ""])
            assert status == 200, (order, name)
            assert "root:" not in text
    assert (page.index.outputs / run / "mesh.glb").is_file()


def test_a_run_that_is_gone_is_said_to_be_and_its_name_is_text(page: Any) -> None:
    event, look = page.event("ended", "acted"), page.event("live", "state_changed")
    for name in ("foo-bar-1", "<script>"):
        page.output(event, [{"act": "choose", "run": name}, ""], session="gone")
        shown = page.output(look, [None, None, ""], session="gone")[1]
        assert "There is no run of that name any more" in shown
        assert f'data-missing="{html.escape(name)}"' in shown
    page.output(event, [{"act": "choose", "run": ""}, ""], session="gone")
    assert "no run of that name" not in page.output(look, [None, None, ""], session="gone")[1]


def test_the_search_goes_through_what_is_under_way_too(page: Any) -> None:
    page.generate(prompt="a cyan ball", seed="62")
    found = page.output(page.event("find", "change"), [None, None, "cyan"], session="found")
    assert "a cyan ball" in "".join(map(str, found))
    nothing = str(page.output(page.event("find", "change"), [None, None, "cyan zzz"], session="not-found"))
    assert "No run has these words." in nothing
    assert "a cyan ball" not in nothing


def test_a_comparison_opens_its_tab_wherever_that_is(page: Any, run: str) -> None:
    *_, pair, fold, tabs = page.output(page.event("ended", "acted"), [{"act": "compare", "run": run, "other": run}, ""])
    assert "The same options." in pair
    assert (fold["open"], tabs["selected"]) == (True, "compare")


def test_a_full_queue_says_so(page: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page.index, "limit", 0)
    before = tree(page.index.outputs)
    assert "the queue is full" in page.generate(prompt="a green ball")[1]
    assert tree(page.index.outputs) == before
