"""A run whose numbers stop being finite: what is skipped, what ends it, and what is never saved."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sds3d import Session
from sds3d.errors import NumericsError
from sds3d.run.events import CheckpointSaved, Finished, StepDone, Warned


def steps(events: list[Any]) -> list[StepDone]:
    return [event for event in events if isinstance(event, StepDone)]


def broken_encode(session: Session, monkeypatch: pytest.MonkeyPatch, breaks: Callable[[int], bool]) -> None:
    """The prior's pictures are not finite in the calls, counted from 0, for which `breaks` says so."""
    prior, calls = session.prior(), itertools.count()
    encode = prior.encode
    monkeypatch.setattr(prior, "encode", lambda image: encode(image) * (float("nan") if breaks(next(calls)) else 1))


def test_numbers_that_explode_end_the_run_with_a_sound_checkpoint(
    small_config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, seen = Session(small_config(), tmp_path / "run"), []
    broken_encode(session, monkeypatch, lambda call: call >= 5)

    def consume() -> None:
        for event in session.run():
            seen.append(event)

    with pytest.raises(NumericsError, match=r"is not finite at step .* going back 3 times did not help"):
        consume()
    assert len(steps(seen)) == 5
    assert sum(isinstance(event, Warned) for event in seen) == 4 * 4 + 3  # four steps are skipped, then it goes back
    assert isinstance(seen[-5], CheckpointSaved)
    assert all(torch.isfinite(p).all() for p in Session.resume(tmp_path / "run").scene().parameters())
    assert not (tmp_path / "run" / "mesh.glb").exists()


@pytest.mark.parametrize("bad", [0, 11, 23])
def test_a_step_that_explodes_is_skipped(small_config, tmp_path: Path, monkeypatch, bad: int) -> None:
    session = Session(small_config(), tmp_path / "run")
    broken_encode(session, monkeypatch, lambda call: call == bad)
    events = list(session.run())
    said = [event.message for event in events if isinstance(event, Warned)]  # the mesh of so short a run too
    (warning,) = (message for message in said if "not finite" in message)
    assert f"is not finite at step {bad}" in warning
    assert "skipped (1 of at most 4 in a row)" in warning
    assert [event.step for event in steps(events)] == [step for step in range(1, 25) if step != bad + 1]
    assert isinstance(events[-1], Finished)
    assert all(torch.isfinite(p).all() for p in session.scene().parameters())


def test_a_scene_that_is_not_finite_is_not_saved(small_config, tmp_path: Path) -> None:
    session, last = Session(small_config(checkpoint_every=5), tmp_path / "run"), None

    def consume() -> None:
        nonlocal last
        for last in session.run():
            if isinstance(last, StepDone) and last.step == 7:
                with torch.no_grad():
                    session.scene().means[0] = float("nan")

    with pytest.raises(NumericsError):
        consume()
    assert not isinstance(last, CheckpointSaved)
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-000005"]
