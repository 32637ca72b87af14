"""R16: many jobs in one process leave memory, open files and temporary files as they were."""

import gc
import multiprocessing
import os
import tempfile
from pathlib import Path

from sds3d.jobs import Queue, Worker


def held() -> tuple[int, int, int]:
    """Resident KiB, open files, and files of ours in the temporary folder."""
    gc.collect()
    status = Path("/proc/self/status").read_text()
    resident = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    ours = [name for name in os.listdir(tempfile.gettempdir()) if name.startswith("sds3d-")]
    return resident, len(os.listdir("/proc/self/fd")), len(ours)


def work(folder: Path, warm: int) -> tuple[int, tuple[int, int, int], tuple[int, int, int]]:
    """(jobs done, what was held after `warm` of them, what at the end), in a process that does nothing else."""
    tempfile.tempdir = str(folder)
    done, before = set(), held()
    for job, _ in Worker(Queue(folder / "queue")).run():
        if job.name not in done and len(done) == warm:
            before = held()
        done.add(job.name)
    return len(done), before, held()


def test_jobs_leave_nothing_behind(small_config, tmp_path: Path, full: bool) -> None:
    jobs, warm = (500, 50) if full else (12, 6)
    queue = Queue(tmp_path / "queue")
    for seed in range(jobs):
        queue.add(small_config(scene={"name": "image"}, loss_weights={}, seed=seed, steps=2, preview_every=0))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        done, before, after = pool.apply(work, (tmp_path, warm))
    print(f"{jobs} jobs; resident KiB, open files, temporary files: {before} after {warm}, {after} at the end")
    assert done == jobs
    assert after[1] <= before[1] + 2
    assert after[2] <= before[2]
    assert after[0] - before[0] < (60_000 if full else 40_000)  # 0.13 MiB a job, full
