"""`python -m sds3d_app.worker LEDGER`: takes jobs from a ledger until none is left; --forever waits for more.

SIGTERM, SIGINT and SIGUSR1 (Slurm's warning) save the job that is under way, give it back, and end with 75.
"""

import argparse
import json
import sys
from pathlib import Path

from .failures import DONE, INTERRUPTED, guarded, stopped_by_signals


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ledger", type=Path)
    parser.add_argument("--forever", action="store_true", help="wait for jobs that are yet to come")
    parser.add_argument("--only", type=Path, help="a file with the names of the jobs to take, one a line")
    parser.add_argument("--lease", type=float, default=60.0, help="seconds without a sign of life before a takeover")
    parser.add_argument("--attempts", type=int, default=3, help="that may fail before a job is set aside")
    parser.add_argument("--threads", type=int, help="of torch")
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

    with stopped_by_signals(stop):
        for job, event in worker.run(arguments.forever):
            if arguments.json:
                print(json.dumps({"job": job.name, **event.to_dict()}), flush=True)
    return INTERRUPTED if stopped else DONE


if __name__ == "__main__":
    main()
