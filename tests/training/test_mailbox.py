"""Commands to a running session: changes apply from the next step on, in order, checked, and survive interruptions."""

import json
import signal
import threading
from pathlib import Path

import pytest

from sds3d.errors import ConfigError
from sds3d.run.events import Change, Changed, Finished, StepDone, Stop, Warned
from sds3d.run.folder import RunFolder
from sds3d.training.session import Session


def splats(folder: Path) -> bytes:
    return (folder / "splats.ply").read_bytes().split(b"end_header")[1]


def run_with(session: Session, at: int, *commands):
    """All events of a run; the commands are sent after step `at`."""
    events = []
    for event in session.run():
        events.append(event)
        if isinstance(event, StepDone) and event.step == at:
            for command in commands:
                session.send(command)
    return events


@pytest.mark.slow
@pytest.mark.exports
def test_a_change_holds_from_the_next_step_and_is_an_event(small_config, tmp_path: Path) -> None:
    config = small_config(steps=12)
    change = Change({"prompt": "a blue ball", "guidance.guidance_scale": 2.0})
    events = run_with(Session(config, tmp_path / "run"), 6, change)
    assert [event for event in events if isinstance(event, Changed)] == [Changed(6, change.changes)]
    folder = RunFolder(tmp_path / "run")
    assert folder.config().prompt == "a blue ball"
    assert folder.config().said["guidance"]["guidance_scale"] == 2.0
    list(Session(config, tmp_path / "plain").run())
    assert splats(tmp_path / "run") != splats(tmp_path / "plain")
    assert json.loads((tmp_path / "run" / "report.json").read_text())["prompt"] == "a blue ball"


def test_two_changes_at_once_both_hold(small_config, tmp_path: Path) -> None:
    session = Session(small_config(steps=12), tmp_path / "run")
    first, second = Change({"prompt": "a blue ball"}), Change({"guidance.guidance_scale": 2.0})
    events = run_with(session, 6, first, second)
    assert [event.changes for event in events if isinstance(event, Changed)] == [first.changes, second.changes]
    config = RunFolder(tmp_path / "run").config()
    assert (config.prompt, config.guidance.guidance_scale) == ("a blue ball", 2.0)  # type: ignore[attr-defined]


def test_a_change_that_arrives_while_another_is_applied_undoes_nothing(small_config, tmp_path: Path) -> None:
    """B1: it took the options that were there before the first for those that the first had left."""
    session, sent = Session(small_config(steps=12), tmp_path / "run"), False
    save = session.folder.__class__.save_checkpoint

    def save_and_send(folder, *arguments, **options):  # the first change saves before it is applied
        nonlocal sent
        if not sent:
            sent = True
            session.send(Change({"guidance.guidance_scale": 2.0}))
        return save(folder, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "save_checkpoint", save_and_send)
        run_with(session, 3, Change({"prompt": "a blue ball"}))
    config = RunFolder(tmp_path / "run").config()
    assert (config.prompt, config.guidance.guidance_scale) == ("a blue ball", 2.0)  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.exports
def test_a_changed_run_that_is_cut_off_ends_the_same(small_config, tmp_path: Path) -> None:
    config, change = small_config(steps=12), Change({"guidance.guidance_scale": 1.5})
    run_with(Session(config, tmp_path / "whole"), 5, change)
    cut = Session(config, tmp_path / "cut")
    events = cut.run()
    for event in events:
        if isinstance(event, StepDone) and event.step == 5:
            cut.send(change)
        if isinstance(event, Changed):
            break  # as a kill right after it: the newest checkpoint is the one made for the change
    events.close()
    list(Session.resume(tmp_path / "cut").run())
    assert splats(tmp_path / "cut") == splats(tmp_path / "whole")


def test_what_cannot_be_changed_is_refused_at_once(small_config, tmp_path: Path) -> None:
    session = Session(small_config(), tmp_path / "run")
    for changes, message in (
        ({"scene.count": 3}, "scene.count cannot be changed"),
        ({"prompt": ""}, "prompt"),
        ({"guidance.guidance_scale": -1e9}, "guidance.guidance_scale"),
    ):
        with pytest.raises(ConfigError, match=message):
            session.send(Change(changes))


def test_words_that_the_prior_does_not_know_are_looked_at_in_a_change_too(small_config, tmp_path: Path) -> None:
    """B10: all of them unknown is refused and the run goes on as it was; some of them is a warning."""
    session = Session(small_config(steps=12), tmp_path / "run")
    events = run_with(session, 3, Change({"prompt": "xyzzy"}), Change({"prompt": "a shiny blue ball"}))
    refused, warned = [event.message for event in events if isinstance(event, Warned)][:2]
    assert "refused" in refused
    assert "xyzzy" in refused
    assert "shiny" in warned
    assert [event.changes for event in events if isinstance(event, Changed)] == [{"prompt": "a shiny blue ball"}]


def test_a_strict_run_refuses_a_change_with_any_unknown_word(small_config, tmp_path: Path) -> None:
    session = Session(small_config(steps=6), tmp_path / "run", strict=True)
    events = run_with(session, 3, Change({"prompt": "a shiny blue ball"}))
    assert not [event for event in events if isinstance(event, Changed)]
    assert RunFolder(tmp_path / "run").config().prompt == "a red ball"


def test_a_change_to_what_is_there_already_is_no_event(small_config, tmp_path: Path) -> None:
    events = run_with(Session(small_config(steps=6), tmp_path / "run"), 3, Change({"prompt": "a red ball"}))
    assert not [event for event in events if isinstance(event, Changed)]


@pytest.mark.slow
def test_a_signal_handler_may_send_while_the_run_reads_its_mailbox(small_config, tmp_path: Path) -> None:
    """B20: nothing that the handler does takes a lock that the interrupted code may hold."""
    session, handled = Session(small_config(steps=400), tmp_path / "run"), 0

    def handler(number: int, frame: object) -> None:
        nonlocal handled
        handled += 1
        session.send(Change({"guidance.guidance_scale": 1.0 + handled % 50}))
        if not over:
            signal.setitimer(signal.ITIMER_REAL, 0.01)  # again once this one is done: handlers never pile up

    before, over = signal.signal(signal.SIGALRM, handler), False
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    threading.Timer(2.0, lambda: session.send(Stop())).start()
    try:
        last = list(session.run())[-1]
    finally:
        over = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert isinstance(last, Finished)
    assert handled > 10
