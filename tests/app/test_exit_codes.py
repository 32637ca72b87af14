"""What the outermost line says and returns."""

import os
import signal
from pathlib import Path

import pytest

from sds3d.errors import ConfigError, OutputError
from sds3d_app.exit_codes import guarded, stopped_by_signals


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_stops_gently_and_the_second_at_once(number: signal.Signals) -> None:
    stops = []
    before = signal.getsignal(number)
    with stopped_by_signals(lambda: stops.append(True)):
        os.kill(os.getpid(), number)
        assert stops == [True]
        assert signal.getsignal(number) is before
    assert signal.getsignal(number) is before
