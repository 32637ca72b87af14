"""R16: many jobs in one process leave memory, open files and temporary files as they were."""

import gc
import os
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from sds3d.jobs import Queue, Worker
from sds3d.priors.analytic import AnalyticPrior
from tests.reliability.children import context

pytestmark = pytest.mark.xdist_group("children")


class Held(NamedTuple):
    """What this process holds: KiB resident and in tensors, open files, and files of ours in the temporary folder."""

    resident: int
    tensors: int
    files: int
    temporary: int


def held() -> Held:
    status = Path("/proc/self/status").read_text()
    resident = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    ours = [name for name in os.listdir(tempfile.gettempdir()) if name.startswith("sds3d-")]
    return Held(resident, tensors(), len(os.listdir("/proc/self/fd")), len(ours))


def tensors() -> int:
    """KiB of the tensors that Python knows: unlike resident memory, it does not depend on what the allocator keeps."""
    known = (thing.untyped_storage() for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor))
    return sum({storage.data_ptr(): storage.nbytes() for storage in known}.values()) // 1024


def priors() -> int:
    """Priors in memory now."""
    return sum(type(thing) is AnalyticPrior for thing in gc.get_objects())


def work(folder: Path, warm: int, collects: bool) -> tuple[int, int, Held, Held]:
    """(jobs done, most priors at once, what was held after `warm` jobs, what at the end), in a process of its own.

    Without the garbage collector, what only it would free counts as held: a prior in a reference cycle, for one.
    """
    tempfile.tempdir = str(folder)
    if not collects:
        gc.disable()
    done, most, before = set(), 0, held()
    worker = Worker(Queue(folder / "queue"))  # by name: what it keeps is to be counted at the end
    for job, _ in worker.run():
        if job.name not in done:
            most = max(most, priors())
            before = held() if len(done) == warm else before
        done.add(job.name)
    return len(done), most, before, held()


def test_jobs_leave_nothing_behind(small_config, tmp_path: Path, full: bool) -> None:
    """Every job needs another prior than the one before it, of 8 MB. The long run collects when Python does."""
    jobs, warm = (500, 50) if full else (6, 3)
    queue = Queue(tmp_path / "queue")
    for seed in range(jobs):
        prior = {"name": "analytic", "size": 256 - seed % 2}
        run = small_config(prior=prior, scene={"name": "image"}, loss_weights={}, seed=seed, steps=2, preview_every=0)
        queue.add(run)
    with context.Pool(1) as pool:
        done, most, before, after = pool.apply(work, (tmp_path, warm, full))
    print(f"{jobs} jobs; {warm} of them done: {before}; all: {after}")
    assert done == jobs
    assert most == 1, "the prior of a finished job was still in memory"
    assert after.files <= before.files + 2
    assert after.temporary <= before.temporary
    assert after.tensors - before.tensors < 4_000  # half a prior
    if full:  # in a short run the allocator's own growth is as large as several priors
        assert after.resident - before.resident < 60_000
