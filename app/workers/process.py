"""`python -m sds3d_app.workers.process LEDGER`: takes jobs from a ledger until none is left; --forever waits for more.

SIGTERM, SIGINT and SIGUSR1 (Slurm's warning) save the job that is under way, give it back, and end with 75.
"""

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from ..exit_codes import DONE, INTERRUPTED, guarded, stopped_by_signals

ORPHAN_POLL = 0.5  # seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ledger", type=Path)
    parser.add_argument("--forever", action="store_true", help="wait for jobs that are yet to come")
    parser.add_argument("--only", type=Path, help="a file with the names of the jobs to take, one a line")
    parser.add_argument("--lease", type=float, default=60.0, help="seconds without a sign of life before a takeover")
    parser.add_argument("--attempts", type=int, default=3, help="that may fail before a job is set aside")
    parser.add_argument("--threads", type=int, help="of torch")
    parser.add_argument("--with-parent", action="store_true", help="save and end when the process that began it ends")
    parser.add_argument("--json", action="store_true", help="one JSON object a line on stdout for each event")
    arguments = parser.parse_args()
    sys.exit(guarded(lambda: work(arguments)))


def work(arguments: argparse.Namespace) -> int:
    """All that can be taken; the exit code."""
    import torch

    from sds3d.jobs import Ledger, Worker

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    names = set(arguments.only.read_text().split()) if arguments.only else None
    ledger = Ledger(arguments.ledger, arguments.lease, arguments.attempts)
    worker = Worker(ledger, lambda job: names is None or job.name in names)
    stopped: list[bool] = []

    def stop() -> None:
        stopped.append(True)
        worker.stop()

    if arguments.with_parent:
        threading.Thread(target=call_when_orphaned, args=(os.getppid(), stop), daemon=True).start()
    with stopped_by_signals(stop):
        for job, event in worker.run(arguments.forever):
            if arguments.json:
                print(json.dumps({"job": job.name, **event.to_dict()}), flush=True)
    return INTERRUPTED if stopped else DONE


def call_when_orphaned(parent: int, act: Callable[[], None]) -> None:
    """Calls `act` once another process has become the parent of this one: the first has ended, however."""
    while os.getppid() == parent:
        time.sleep(ORPHAN_POLL)
    act()


if __name__ == "__main__":
    main()
