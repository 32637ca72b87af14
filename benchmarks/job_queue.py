"""How the queue's costs grow with its jobs: `python benchmarks/job_queue.py [--sizes 1000,3000,10000,30000,100000]`.

For each size: seconds to add all jobs in one call, milliseconds of a claim while all of them wait, of the page's poll
and of an idle worker's look once all have finished, and seconds to make the database again from the folders. Medians.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sds3d import load_config
from sds3d.jobs import Queue
from sds3d.jobs.processes import WorkerId

CLAIMS, LOOKS, WORKERS = 100, 50, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="1000,3000,10000,30000,100000")
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} CPU cores, load before: {os.getloadavg()[0]:.2f}")
    print("| jobs | add, s | claim, ms | poll, ms | new page, ms | idle look, ms | made again, s |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for size in map(int, arguments.sizes.split(",")):
        with tempfile.TemporaryDirectory(prefix="sds3d-queue-bench-") as folder:
            cells = measured(Path(folder), size)
        print(f"| {size:,} | " + " | ".join(cells) + " |", flush=True)


def measured(folder: Path, size: int) -> list[str]:
    """The row's cells."""
    configs = [
        load_config(overrides={"prompt": "a red mug", "prior": "analytic", "seed": seed}) for seed in range(size)
    ]
    queue = Queue(folder)
    adding = seconds(lambda: queue.add_many(configs))
    del configs
    claims = []
    for number in range(CLAIMS):
        worker = WorkerId.here(str(number % WORKERS))
        claims.append(seconds(lambda worker=worker: queue.claim(worker)))
        queue.finish(next(job for job in queue.jobs("running") if job.worker == worker), "done")
    queue._database.write(lambda connection: connection.execute("UPDATE job SET state = 'done', worker = ''"))
    token = queue.changes_since().token
    polls = [seconds(lambda: queue.changes_since(token)) for _ in range(LOOKS)]
    pages = [seconds(lambda: (queue.counts(), queue.jobs(newest_first=True, limit=50))) for _ in range(LOOKS)]
    idle = [seconds(lambda: queue.claim(WorkerId.here()) or queue.unfinished()) for _ in range(LOOKS)]
    for path in (folder / "database").iterdir():
        path.unlink()
    again = seconds(queue.counts)
    return [
        f"{adding:.1f}",
        *(f"{1000 * statistics.median(each):.2f}" for each in (claims, polls, pages, idle)),
        f"{again:.1f}",
    ]


def seconds(action: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
