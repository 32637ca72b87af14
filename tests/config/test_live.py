"""Scheduled a run on the way: from the next step on, told in the events, and the same after an interruption."""

import json

import pytest
import torch

from sds3d.config import option
from sds3d.errors import ConfigError
from sds3d.run.events import Changed, Preview, StepDone
from sds3d.training.session import Session


def splats(folder):
    return (folder / "splats.ply").read_bytes().split(b"end_header")[1]


def followed(session, at, act):
    """All events of a run; `act` is called after step `at`."""
    events = []
    for event in session.run():
        events.append(event)
        if isinstance(event, StepDone) and event.step == at:
            act()
    return events


def test_only_some_options_can_be_changed_and_the_new_ones_are_checked(small_config):
    config = small_config()
    assert option(config.with_changes({"guidance.guidance_scale": "7.5"}), "guidance.guidance_scale") == 7.5
    assert config.with_changes({"prompt": "a blue ball"}).prompt == "a blue ball"
    for changes, said in (
        ({"scene.count": 3}, "scene.count cannot be changed"),
        ({"prompt": ""}, "prompt"),
        ({"guidance.guidance_scale": "many"}, "guidance.guidance_scale"),
        ({"guidance.guidance_scale": -1e9}, "guidance.guidance_scale"),
    ):
        with pytest.raises(ConfigError, match=said):
            config.with_changes(changes)


def test_a_change_holds_from_the_next_step_and_is_told(small_config, tmp_path):
    config = small_config(steps=12)
    session = Session(config, tmp_path / "run")
    events = followed(session, 6, lambda: session.change({"prompt": "a blue ball", "guidance.guidance_scale": 2.0}))
    (told,) = (event for event in events if isinstance(event, Changed))
    assert told == Changed(6, {"prompt": "a blue ball", "guidance.guidance_scale": 2.0})
    saved = json.loads((tmp_path / "run" / "config.json").read_text())
    assert saved["prompt"] == "a blue ball"
    assert saved["guidance"]["guidance_scale"] == 2.0
    list(Session(config, tmp_path / "plain").run())
    assert splats(tmp_path / "run") != splats(tmp_path / "plain")
    assert json.loads((tmp_path / "run" / "report.json").read_text())["prompt"] == "a blue ball"


def test_a_changed_run_that_is_cut_off_ends_the_same(small_config, tmp_path):
    config, change = small_config(steps=12), {"guidance.guidance_scale": 1.5}
    whole = Session(config, tmp_path / "whole")
    followed(whole, 5, lambda: whole.change(change))
    cut = Session(config, tmp_path / "cut")

    def act():
        cut.change(change)

    events = cut.run()
    for event in events:
        if isinstance(event, StepDone) and event.step == 5:
            act()
        if isinstance(event, Changed):
            break  # as a kill right after it: the newest checkpoint is the one made for the change
    events.close()
    list(Session.resume(tmp_path / "cut").run())
    assert splats(tmp_path / "cut") == splats(tmp_path / "whole")


def test_previews_by_time_are_made_and_only_so_many_are_kept(small_config, tmp_path, monkeypatch):
    from sds3d.run import previews

    monkeypatch.setattr(previews, "KEPT", 5)
    monkeypatch.setattr(previews, "write_preview", lambda scenes, path: path.write_bytes(b"reference_image"))
    config = small_config(steps=20, preview_seconds=1e-6)
    events = list(Session(config, tmp_path / "run").run())
    made = [event for event in events if isinstance(event, Preview)]
    assert len(made) == 20
    kept = sorted(path.name for path in (tmp_path / "run" / "previews").iterdir())
    assert kept == [f"step-{step:06d}.png" for step in range(16, 21)]
    rare = small_config(steps=20, preview_seconds=3600)
    assert sum(isinstance(event, Preview) for event in Session(rare, tmp_path / "rare").run()) == 1
    assert torch.is_grad_enabled()
