"""Runs that are left in the middle, as in a notebook: saved, and `run` again goes on to the same end."""

import os
import signal
from pathlib import Path

import pytest
import torch

from sds3d import Session
from sds3d.run.events import Finished, StepDone
from sds3d.training.trainer import Trainer


def end_of(session: Session) -> dict[str, torch.Tensor]:
    *_, last = session.run()
    assert isinstance(last, Finished)
    assert not last.interrupted
    return session.scene().state_dict()


@pytest.mark.parametrize("how", ["interrupted in the loop", "interrupted in a step", "closed", "left open"])
def test_a_run_that_is_left_is_saved_and_goes_on(how: str, small_config, tmp_path: Path, monkeypatch) -> None:
    config = small_config(steps=6, checkpoint_every=100)
    session, advance = Session(config, tmp_path / "run"), Trainer.advance

    def interrupted(trainer: Trainer) -> StepDone:
        if trainer.step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return advance(trainer)

    if how == "interrupted in a step":
        monkeypatch.setattr(Trainer, "advance", interrupted)
        with pytest.raises(KeyboardInterrupt):
            list(session.run())
        monkeypatch.undo()
    else:
        events = session.run()
        assert any(isinstance(event, StepDone) and event.step == 3 for event in events)
        if how == "closed":
            events.close()  # type: ignore[attr-defined]
        elif how == "interrupted in the loop":
            with pytest.raises(KeyboardInterrupt):
                events.throw(KeyboardInterrupt)  # type: ignore[attr-defined]
    if how != "left open":
        assert session.folder.checkpoint_steps() == [3]
        assert session.folder.status().state == "interrupted"
    ended, whole = end_of(session), end_of(Session(config, tmp_path / "whole"))
    assert session.out_dir == tmp_path / "run"
    assert all(torch.equal(value, whole[name]) for name, value in ended.items())
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
