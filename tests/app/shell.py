"""`sds3d` as a process of its own that has everything loaded: torch takes seconds in each that begins with nothing."""

import os
import resource
import signal
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path

from sds3d_app.cli import invoke
from tests.reliability.children import ended, started


class Command:
    """One that was begun; what it says is in the files `out` and `err`."""

    def __init__(self, folder: Path, *arguments: str, most_bytes: int | None = None) -> None:
        """`most_bytes` of a file can be written, as on a full disk."""
        self.out, self.err = folder / "stdout.txt", folder / "stderr.txt"
        self.process: BaseProcess = started(_run, self.out, self.err, arguments, most_bytes)
        self.pid = self.process.pid or 0

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Its exit code."""
        return ended(self.process)


def _run(out: Path, err: Path, arguments: tuple[str, ...], most_bytes: int | None) -> None:
    for path, number in ((out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    if most_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
    sys.exit(invoke(list(arguments)))
