"""`python -m sds3d_app.workers.process QUEUE`: takes jobs from a queue until none is left; --forever waits for more.

SIGTERM, SIGINT, SIGHUP and SIGUSR1 (Slurm's warning) save the job that is under way, give it back, and end with 75.
"""

import argparse
import importlib
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from ..exit_codes import DONE, INTERRUPTED, guarded
from ..signals import stopped_by_signals
from ..terminal import use_steady_streams

ORPHAN_POLL = 0.5  # seconds
PREVIEW_SECONDS = 1.1  # with the time until the page's stream looks: a new picture within two seconds
NETWORK = "sds3d.priors.embedded.prior"  # of the prior that ships: seconds that a first run would wait


class Stopper:
    """Stops the worker of this process; safe in any thread or signal handler."""

    def __init__(self) -> None:
        self.worker: Any = None
        self.called = False

    def __call__(self) -> None:
        if self.worker is None:  # torch is still being loaded: there is nothing to save
            os._exit(INTERRUPTED)
        self.called = True
        self.worker.stop()

    def watch(self, parent: int) -> None:
        """Call this in time after the process that started this one has ended, however it ended."""
        while os.getppid() == parent:
            time.sleep(ORPHAN_POLL)
        self()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("queue", type=Path)
    parser.add_argument("--forever", action="store_true", help="wait for jobs that are yet to come")
    parser.add_argument("--only", type=Path, help="a file with the names of the jobs to take, one a line")
    parser.add_argument("--attempts", type=int, default=3, help="that may fail before a job is set aside")
    parser.add_argument("--threads", type=int, help="of torch")
    parser.add_argument("--parent", type=int, help="save and end when this process, which started this one, has ended")
    parser.add_argument("--json", action="store_true", help="one JSON object a line on stdout for each event")
    arguments = parser.parse_args()
    use_steady_streams()
    stop = Stopper()
    if arguments.parent is not None:  # now, before torch is loaded: it may end meanwhile, or has ended already
        threading.Thread(target=stop.watch, args=(arguments.parent,), daemon=True).start()
    with stopped_by_signals(stop, second_ends=False):
        sys.exit(guarded(lambda: work(arguments, stop)))


def die(error: Exception) -> None:
    """End as a process that was killed: its pool then starts another one, which has the GPU again."""
    print(f"this process has lost its GPU: {error}", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def work(arguments: argparse.Namespace, stop: Stopper) -> int:
    """All that can be taken; the exit code."""
    import torch

    from sds3d.jobs import Queue, Selection, Worker
    from sds3d.training.session import Session

    queue = Queue(arguments.queue, arguments.attempts)
    if arguments.forever:  # for a page
        Session.preview_seconds = PREVIEW_SECONDS
        if not queue.counts().get("queued"):  # nobody waits yet
            importlib.import_module(NETWORK)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    only = None if arguments.only is None else Selection(arguments.only.read_text("utf-8").split())
    worker = stop.worker = Worker(queue, only)
    try:
        for job, event in worker.run(arguments.forever):
            if arguments.json:
                print(json.dumps({"job": job.name, **event.to_dict()}), flush=True)
    except torch.AcceleratorError as error:
        die(error)
    return INTERRUPTED if stop.called else DONE


if __name__ == "__main__":
    main()
