"""Ctrl-C and the other signals that ask a command to stop: noted, so that the step can be finished and saved."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

WAIT_POLL = 0.05  # seconds
# What Slurm sends before it ends a job is SIGUSR1; SIGHUP says that the terminal or the connection is gone.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


class Interruption:
    """Whether a signal asked to stop: a plain flag. `threading.Event` would not do, because its `set` takes a lock that
    the interrupted code may hold already, and then neither ever goes on."""

    requested = False

    def wait(self, seconds: float) -> bool:
        """Sleep for `seconds`, or until a signal asks to stop; whether one has."""
        end = time.monotonic() + seconds
        while not self.requested and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, WAIT_POLL))
        return self.requested


@contextmanager
def stopped_by_signals(stop: Callable[[], None] | None = None, second_ends: bool = True) -> Iterator[Interruption]:
    """The first Ctrl-C, SIGTERM, SIGUSR1 or SIGHUP inside is only noted, so that the step can be finished and saved; a
    second one ends the process at once, unless `second_ends` is False: a worker gets them from its pool and from the
    system. A SIGHUP that is ignored stays so: that is what nohup does.

    `stop` is called as well. It runs in the signal handler, between any two instructions of the program, so it may only
    assign: no lock, no print, no logging.
    """
    interruption = Interruption()

    def first(number: int, frame: object) -> None:
        if second_ends:
            restore()
            with suppress(OSError):  # the terminal may be gone; and print() may not be entered twice
                os.write(2, b"stopping after this step; once more to stop at once\n")
        interruption.requested = True
        if stop is not None:
            stop()

    def restore() -> None:
        for name, handler in before.items():
            signal.signal(name, handler)

    ignored = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else set()
    before = {name: signal.signal(name, first) for name in SIGNALS if name not in ignored}
    try:
        yield interruption
    finally:
        restore()
