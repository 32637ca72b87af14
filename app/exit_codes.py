"""The outermost line of every command: what a person reads, and what the shell gets, when something goes wrong."""

import os
import shlex
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

DONE, FAILED, USER_ERROR, INTERRUPTED = 0, 1, 2, 75  # 75: stopped early with a checkpoint, `sds3d resume` goes on

CRASH_FILE: dict[str, Any] = {"prefix": "sds3d-crash-", "suffix": ".txt", "delete": False}
CRASH_FILE |= {"encoding": "utf-8", "errors": "backslashreplace"}


def guarded(command: Callable[[], int | None]) -> int:
    """Run `command`; turn whatever it raises into one line on stderr and an exit code."""
    try:
        return command() or DONE
    except KeyboardInterrupt:
        return say_error("interrupted", 130)
    except Exception as error:
        if hasattr(error, "format_message"):  # what Typer raises for a wrong option; its class moved between versions
            message = error.format_message()  # empty after the help that a bare `sds3d` shows
            return say_error(f"{message} (see: sds3d --help)", USER_ERROR) if message else USER_ERROR
        from sds3d.errors import Sds3dError  # only now: with the library comes torch, and --help need not wait for it

        return say_error(str(error), error.exit_code) if isinstance(error, Sds3dError) else say_crash(error)


def say_error(message: str, code: int) -> int:
    """One line, whatever the message holds."""
    print("error: " + " ".join(message.split()), file=sys.stderr)
    return code


def say_note(message: str) -> None:
    """A line that is no error, out of the way of what stdout carries."""
    print(message, file=sys.stderr)


def say_interrupted(folder: Path) -> int:
    """Several runs that a signal has stopped, all of them saved; the exit code."""
    say_note(f"interrupted and saved in {shlex.quote(str(folder))}; the same command goes on")
    return INTERRUPTED


def say_crash(error: Exception) -> int:
    """One line for a mistake of ours; the traceback goes to a file, or to stderr with --debug."""
    line = f"unexpected {type(error).__name__}: {error}"[:300]
    if os.environ.get("SDS3D_DEBUG"):
        traceback.print_exception(error)
        return say_error(line, FAILED)
    try:
        with tempfile.NamedTemporaryFile("w", **CRASH_FILE) as file:
            traceback.print_exception(error, file=file)
    except OSError:
        return say_error(f"{line} (say sds3d --debug ... to see where)", FAILED)
    return say_error(f"{line} (this is a bug; the details are in {file.name})", FAILED)
