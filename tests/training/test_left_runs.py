"""Runs that are left in the middle, as in a notebook: saved, and `run` again goes on to the same end."""

import os
import signal
import threading
from pathlib import Path

import pytest

from sds3d import Session
from sds3d.errors import RunBusy
from sds3d.run.events import Event, Finished, StageBegun, StepDone
from sds3d.training.trainer import Trainer
from tests.runs import assert_equal, end_of

pytestmark = pytest.mark.usefixtures("no_collector")


def is_third(event: Event) -> bool:
    return isinstance(event, StepDone) and event.step == 3


def interrupted(session: Session) -> None:
    """As in a cell of a notebook: its frame, and what it has of the run, is gone with the exception."""
    for event in session.run():
        if is_third(event):
            raise KeyboardInterrupt


@pytest.mark.parametrize("how", ["interrupted in the loop", "interrupted in a step", "closed", "dropped", "left open"])
def test_a_run_that_is_left_is_saved_and_goes_on(how: str, small_config, tmp_path: Path, monkeypatch) -> None:
    config = small_config(steps=6, checkpoint_every=100)
    session, advance, events = Session(config, tmp_path / "run"), Trainer.advance, None

    def signalled(trainer: Trainer) -> StepDone:
        if trainer.step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return advance(trainer)

    if how == "interrupted in the loop":
        with pytest.raises(KeyboardInterrupt):
            interrupted(session)
    elif how == "interrupted in a step":
        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "advance", signalled)
            with pytest.raises(KeyboardInterrupt):
                list(session.run())
    else:
        events = session.run()
        assert any(map(is_third, events))
        if how == "closed":
            events.close()
        elif how == "dropped":
            events = None
    if how != "left open":
        assert session.folder.holder() is None
        assert session.folder.checkpoint_steps() == [3]
        assert session.folder.status().state == "interrupted"
    ended, whole = end_of(session), end_of(Session(config, tmp_path / "whole"))
    assert session.out_dir == tmp_path / "run"
    assert_equal(ended, whole)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert events is None or next(events, None) is None


def test_a_session_that_is_dropped_lets_go_of_its_run(small_config, tmp_path: Path) -> None:
    config = small_config(steps=6, checkpoint_every=100)
    session = Session(config, tmp_path / "run")
    events = session.run()
    assert any(map(is_third, events))
    with pytest.raises(RunBusy):
        list(Session.resume(tmp_path / "run").run())
    del session, events
    again = Session.resume(tmp_path / "run")
    assert again.folder.holder() is None
    assert again.folder.checkpoint_steps() == [3]
    assert_equal(end_of(again), end_of(Session(config, tmp_path / "whole")))


def test_a_step_that_is_cut_off_is_not_saved(small_config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second Ctrl-C does not wait for the end of the step; what it leaves half done is done again."""
    config = small_config(steps=6, checkpoint_every=2)
    session, advance = Session(config, tmp_path / "run"), Trainer.advance

    def cut(trainer: Trainer) -> StepDone:
        if trainer.step == 3:
            for parameter in trainer.optimizer.param_groups[0]["params"]:
                parameter.data.add_(1.0)
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)
        return advance(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "advance", cut)
        with pytest.raises(KeyboardInterrupt):
            list(session.run())
    assert session.folder.checkpoint_steps() == [2]
    assert_equal(end_of(session), end_of(Session(config, tmp_path / "whole")))


def test_what_ends_the_loop_between_two_stages_loses_nothing(small_config, tmp_path: Path) -> None:
    stages = [{"begin_at": 0.5, "options": {"cameras.views": 1}}]
    config = small_config(steps=6, checkpoint_every=100, stages=stages)
    session = Session(config, tmp_path / "run")
    for event in session.run():
        if isinstance(event, StageBegun):
            break
    assert session.folder.holder() is None
    assert_equal(end_of(session), end_of(Session(config, tmp_path / "whole")))


def test_a_run_in_another_thread_is_not_taken_from_it(small_config, tmp_path: Path) -> None:
    session, goes_on = Session(small_config(steps=4), tmp_path / "run"), threading.Event()
    at_work = threading.Event()

    def waiting(trainer: Trainer) -> StepDone:
        at_work.set()
        goes_on.wait(60)
        return advance(trainer)

    advance, events = Trainer.advance, list[Event]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "advance", waiting)
        thread = threading.Thread(target=lambda: events.extend(session.run()))
        thread.start()
        assert at_work.wait(60)
        with pytest.raises(RunBusy, match="another thread of this process"):
            session.run()
        goes_on.set()
        thread.join()
    assert isinstance(events[-1], Finished)
