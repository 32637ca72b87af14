"""What the outermost line says and returns."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sds3d.errors import ConfigError, OutputError
from sds3d_app.exit_codes import guarded
from sds3d_app.signals import stopped_by_signals


def fail(error: BaseException) -> int:
    def command() -> int:
        raise error

    return guarded(command)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ConfigError("steps = 0 is not allowed", "at least 1"), 2, "error: steps = 0 is not allowed (at least 1)\n"),
        (OutputError("/full is full"), 1, "error: /full is full\n"),
        (ConfigError("two\nlines\x0bhere"), 2, "error: two lines here\n"),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
    ],
)
def test_one_line_and_the_code(error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert fail(error) == code
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", said)


def test_success_is_zero_whatever_none_means() -> None:
    assert guarded(lambda: None) == 0
    assert guarded(lambda: 75) == 75


def test_a_crash_keeps_its_traceback_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SDS3D_DEBUG", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert fail(ZeroDivisionError("by zero")) == 1
    line = capsys.readouterr().err
    [file] = tmp_path.iterdir()
    assert line.count("\n") == 1
    assert "unexpected ZeroDivisionError: by zero" in line
    assert str(file) in line
    assert "Traceback" in file.read_text()


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("SDS3D_DEBUG", "1")
    assert fail(ZeroDivisionError("by zero")) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_stops_gently_and_the_second_at_once(number: signal.Signals) -> None:
    stops = []
    before = signal.getsignal(number)
    with stopped_by_signals(lambda: stops.append(True)):
        os.kill(os.getpid(), number)
        assert stops == [True]
        assert signal.getsignal(number) is before
    assert signal.getsignal(number) is before


def test_nohup_is_obeyed() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopped_by_signals() as interruption:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not interruption.requested
            os.kill(os.getpid(), signal.SIGUSR1)
            assert interruption.requested
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


# Waits again and again; each time the signal comes one traced line later than the time before, until no line is left.
SIGNAL_AT_EVERY_LINE = """
import faulthandler, itertools, os, signal, sys, threading
from sds3d_app.signals import stopped_by_signals

faulthandler.dump_traceback_later({seconds}, exit=True)

def waits_through_signal_at(number):
    lines = itertools.count()
    def trace(frame, event, argument):
        if event == "line" and next(lines) == number:
            sys.settrace(None)
            os.kill(os.getpid(), signal.SIGTERM)
        return trace
    event = threading.Event()
    with stopped_by_signals({stop}) as interruption:
        sys.settrace(trace)
        heard = {wait}
        sys.settrace(None)
    return heard

heard = list(itertools.takewhile(bool, map(waits_through_signal_at, itertools.count())))
print(len(heard))
"""


def wait_through_signals(stop: str, wait: str, seconds: float) -> subprocess.CompletedProcess[str]:
    program = SIGNAL_AT_EVERY_LINE.format(stop=stop, wait=wait, seconds=seconds)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)


def test_a_signal_at_any_moment_of_a_wait_is_heard() -> None:
    done = wait_through_signals("", "interruption.wait(0.01)", seconds=60)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 4


def test_an_event_that_is_set_by_the_handler_would_hang() -> None:
    """What the test above is about: `Event.set` waits for the lock that the interrupted `Event.wait` holds."""
    done = wait_through_signals("event.set", "event.wait(0.01)", seconds=1)
    assert done.returncode == 1
    assert "in set" in done.stderr


def test_a_second_signal_does_not_end_a_worker_that_saves() -> None:
    """A system that ends a service tells its processes all at once, and the pool then tells its workers again."""
    stops: list[bool] = []
    with stopped_by_signals(lambda: stops.append(True), second_ends=False) as interruption:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
    assert interruption.requested
    assert len(stops) == 3
