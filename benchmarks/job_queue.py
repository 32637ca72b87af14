"""How the queue's costs grow with its jobs: `python benchmarks/job_queue.py [--sizes 1000,3000,10000,30000,100000]`.

For each size: seconds to add all jobs in one call, milliseconds of a claim while all of them wait, of the page's poll
and of an idle worker's look once all have finished (medians), and seconds to make the database again from the folders.
Seconds are of the clock and, in brackets, of the processor: on a machine with other work they differ.
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
    config = load_config(overrides={"prompt": "a red mug", "prior": "analytic"})
    configs = [config.model_copy(update={"seed": seed}) for seed in range(size)]
    queue = Queue(folder)
    added = seconds(lambda: queue.add_many(configs))
    configs.clear()
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
    medians = [statistics.median(wall for wall, _ in each) for each in (claims, polls, pages, idle)]
    return [describe(added), *(f"{1000 * median:.2f}" for median in medians), describe(again)]


def seconds(action: Callable[[], Any]) -> tuple[float, float]:
    """(by the clock, of the processor)."""
    begun, used = time.perf_counter(), time.process_time()
    action()
    return time.perf_counter() - begun, time.process_time() - used


def describe(spent: tuple[float, float]) -> str:
    return f"{spent[0]:.1f} ({spent[1]:.1f})"


if __name__ == "__main__":
    main()
