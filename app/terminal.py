"""Standard output and error as they may be: closed, full, a pipe without a reader, or without the letters of a name.

A run goes on whatever becomes of them. What they cannot show is escaped; what cannot be written is given up.
"""

import errno
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.box import Box

NARROW = 60  # columns, below which there is no room for tables and bars
WIDE = 150  # columns where nobody sees them, as in a file


class Stream:
    """A text stream whose first failed write silences it for good; `failure` is what failed."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.failure: OSError | None = None
        stream.reconfigure(errors="backslashreplace")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        self._try(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, action: Any, *arguments: str) -> None:
        try:
            action(*arguments)
        except OSError as error:
            self.failure = self.failure or error
            silent = os.open(os.devnull, os.O_WRONLY)  # for what is buffered as well, which Python writes at its end
            os.dup2(silent, self._stream.fileno())
            os.close(silent)


def use_steady_streams() -> None:
    """Make `sys.stdout` and `sys.stderr` such streams, and open those that are closed, before other files get their
    numbers: what is meant for people would be written into them."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
        if number and getattr(sys, name) is None:
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115
    sys.stdout, sys.stderr = Stream(sys.stdout), Stream(sys.stderr)  # type: ignore[assignment]


def lost_output() -> str | None:
    """Why results could not be written to stdout; None where they were, or where nobody was left to read them."""
    sys.stdout.flush()
    failure = getattr(sys.stdout, "failure", None)
    return None if failure is None or failure.errno in (errno.EPIPE, errno.EIO) else failure.strerror


def is_narrow() -> bool:
    """Whether the terminal has no room for tables and bars."""
    from rich.console import Console

    return Console(stderr=True).width < NARROW


def can_redraw() -> bool:
    """Whether stderr is a terminal on which lines can be replaced: neither a file nor a plain one (TERM=dumb)."""
    return sys.stderr.isatty() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown", "")


def show_table(heads: Sequence[str], rows: Sequence[Sequence[str]], box: "Box | None" = None) -> None:
    """A table on stdout; on a narrow terminal each row as lines of its own. Cells are plain text, brackets and all."""
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    console = Console()
    if console.is_terminal and console.width < NARROW:
        for first, *cells in rows:
            named = zip((" ".join(head.split()) for head in heads[1:]), cells, strict=True)
            print(first, *(f"  {head}: {cell}" for head, cell in named if cell), sep="\n")
        return
    table = Table(*(Column(Text(head)) for head in heads), box=box, show_edge=False, pad_edge=False)
    for row in rows:
        table.add_row(*map(Text, row))
    Console(width=None if console.is_terminal else WIDE).print(table)
