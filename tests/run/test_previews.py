"""Previews on the way: when they are made, and how many stay."""

import torch

from sds3d.run.events import Preview
from sds3d.training.session import Session


def test_previews_by_time_are_made_and_only_so_many_are_kept(small_config, tmp_path, monkeypatch):
    from sds3d.run import previews

    monkeypatch.setattr(previews, "KEPT", 5)
    monkeypatch.setattr(previews, "write_preview", lambda scenes, path: path.write_bytes(b"reference_image"))
    session = Session(small_config(steps=20), tmp_path / "run")
    session.preview_seconds = 1e-6
    events = list(session.run())
    made = [event for event in events if isinstance(event, Preview)]
    assert len(made) == 20
    kept = sorted(path.name for path in (tmp_path / "run" / "previews").iterdir())
    assert kept == [f"step-{step:06d}.png" for step in range(16, 21)]
    rare = Session(small_config(steps=20), tmp_path / "rare")
    rare.preview_seconds = 3600
    assert sum(isinstance(event, Preview) for event in rare.run()) == 1
    assert torch.is_grad_enabled()
