"""`sds3d batch --ray` on a real cluster of several nodes, all on this machine: actors and nodes that are killed."""

import importlib.util
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from sds3d.jobs import Job, Queue, Selection
from sds3d.run.events import Change, Changed, Finished, Pause, Resume
from sds3d_app.cli import invoke
from sds3d_app.workers.ray_actor import packed, unpacked
from tests.sizes import FULL, at_full_size

pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.slow]
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
PATIENCE = 900.0 if FULL else 300.0  # seconds, for what takes one minute, or half of one, on a quiet machine


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """Three nodes with room for one actor each; a small test is content with one node for two."""
    from ray.cluster_utils import Cluster

    from sds3d_app.workers.ray_pool import QUIET

    with pytest.MonkeyPatch.context() as patch:
        for name, value in QUIET.items():
            patch.setenv(name, value)
        # a worker that is there before it is asked for has not our environment, and is never used
        head = {"include_dashboard": False, "_system_config": {"prestart_worker_first_driver": False}}
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1 if FULL else 2, **head})
        for _ in range(2 if FULL else 0):
            made.add_node(num_cpus=1)
        made.wait_for_nodes()
        yield made
        made.shutdown()


@pytest.fixture
def cluster(nodes: Any) -> Iterator[Any]:
    """The nodes, connected to; a pool that ends lets go of them."""
    import ray

    ray.init(address=nodes.address, log_to_driver=False, logging_level="ERROR")
    yield nodes
    ray.shutdown()


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    return Queue(tmp_path / "queue")


def pool_on(queue: Queue, number: int, shared: bool = True) -> Any:
    from sds3d_app.workers.ray_pool import RayWorkerPool

    pool = RayWorkerPool(queue, number, Selection(job.name for job in queue.jobs()), gpus=0.0)
    pool.start()
    if not shared:
        pool.probe.unlink()
    return pool


def until_done(pool: Any, meanwhile: Callable[[], object] = lambda: None) -> None:
    end = time.monotonic() + PATIENCE
    try:
        while pool.at_work():
            assert time.monotonic() < end, pool.queue.jobs()
            meanwhile()
            time.sleep(0.2)
    finally:
        pool.end()


def kill_holder(job: Job) -> bool:
    """Kill the actor that works on a job in place; whether there was one."""
    holder = job.run.holder()
    if holder is None or not holder.pid:
        return False
    with suppress(ProcessLookupError):
        os.kill(holder.pid, signal.SIGKILL)
    return True


def finished(job: Job) -> int:
    return sum(isinstance(event, Finished) and not event.interrupted for _, event in job.run.reader().read())


@needs_ray
@at_full_size
def test_where_no_folder_is_shared_the_results_are_brought_back(cluster: Any, queue: Queue, small_config: Any) -> None:
    configs = [small_config(seed=seed, steps=60 if FULL else 24) for seed in range(3 if FULL else 2)]
    *jobs, unknown = queue.add_many([*configs, small_config(prompt="xyzzy")])
    pool, killed = pool_on(queue, 2, shared=False), []

    def harm() -> None:
        import ray

        busy = [handle for handle in pool.handles if handle.job is not None]
        if busy and not killed:
            killed.append(1)
            ray.kill(busy[0].actor, no_restart=False)

    until_done(pool, harm)
    assert killed
    *jobs, unknown = queue.jobs()
    assert [job.state for job in jobs] == ["done"] * len(configs)
    assert [finished(job) for job in jobs] == [1] * len(configs)
    assert all((job.run.path / "sheet.png").is_file() for job in jobs)
    assert unknown.state == "failed"
    assert "xyzzy" in unknown.reason
    assert sum(job.attempts for job in jobs) == len(configs) + 1
    assert not list(queue.folder.glob("*/.run.unpacking"))


@needs_ray
@at_full_size
@pytest.mark.parametrize("shared", [True, False])
def test_ending_early_saves_and_gives_the_jobs_back(
    cluster: Any, queue: Queue, small_config: Any, shared: bool
) -> None:
    queue.add_many([small_config(seed=seed, steps=5000, checkpoint_every=10) for seed in range(2)])
    pool, end = pool_on(queue, 2, shared), time.monotonic() + PATIENCE
    begun = 0.0
    while not all(job.run.checkpoint_steps() for job in queue.jobs()):
        assert pool.at_work()
        assert time.monotonic() < end
        if not shared and all(handle.job is not None for handle in pool.handles):
            begun = begun or time.monotonic()
            if time.monotonic() - begun > 20.0:
                break
        time.sleep(0.2)
    pool.end()
    assert [(job.state, job.reason) for job in queue.jobs()] == [("queued", "")] * 2
    assert all(job.run.checkpoint_steps() for job in queue.jobs())


@needs_ray
@at_full_size
@pytest.mark.parametrize("shared", [True, False])
def test_commands_reach_actors(cluster: Any, queue: Queue, small_config: Any, shared: bool) -> None:
    """One actor: A is paused, B is done meanwhile, A goes on, changed."""
    a, b = queue.add_many([small_config(seed=0, steps=200), small_config(seed=1, steps=10)])
    pool, seen = pool_on(queue, 1, shared), []

    def command() -> None:
        now = queue.job(a.name)
        if now.state == "running" and not seen and pool.handles[0].job is not None:
            queue.command(a, Pause())
            seen.append("told")
        if now.state == "paused" and queue.job(b.name).state == "done":
            queue.command(a, Change({"prompt": "a blue ball"}))
            queue.command(a, Resume())
            seen.append("resumed")

    until_done(pool, command)
    assert seen == ["told", "resumed"]
    assert [job.state for job in queue.jobs()] == ["done", "done"]
    assert sum(isinstance(event, Changed) for _, event in a.run.reader().read()) == 1
    assert a.run.config().prompt == "a blue ball"


@needs_ray
@at_full_size
def test_each_job_is_done_once_with_a_worker_and_a_node_killed_and_poison_is_set_aside(
    cluster: Any, queue: Queue, small_config: Any, full: bool
) -> None:
    configs = [small_config(seed=seed, steps=60, checkpoint_every=5) for seed in range(40 if full else 4)]
    *jobs, poison = queue.add_many([*configs, small_config(seed=1000, steps=900, checkpoint_every=900)])
    pool, killed, nodes = pool_on(queue, 3), [], list(cluster.worker_nodes)

    def harm() -> None:
        if poison.run.holder() is not None:
            time.sleep(0.3)
            kill_holder(poison)  # whoever takes it dies of it
        busy = [job for job in jobs if job.run.holder() is not None]
        if busy and not killed:
            killed.append("a worker")
            kill_holder(busy[0])
        elif busy and nodes and len(killed) == 1:
            killed.append("a node")
            cluster.remove_node(nodes.pop())

    until_done(pool, harm)
    assert len(killed) == 2
    *jobs, poison = queue.jobs()
    assert [job.state for job in jobs] == ["done"] * len(jobs)
    assert [finished(job) for job in jobs] == [1] * len(jobs)
    assert poison.state == "failed"
    assert poison.reason.startswith("set aside after 3 attempts")
    assert not (queue.folder / ".ray-probe").exists()


@needs_ray
@pytest.mark.parametrize(
    ("address", "said"), [("127.0.0.1:1", "no Ray cluster answers there"), ("here", "'here' is no address")]
)
def test_an_address_without_a_cluster_is_named(address: str, said: str, tmp_path: Path, capsys) -> None:
    path = tmp_path / "list.txt"
    path.write_text("a red ball\n")
    assert invoke(["batch", str(path), "--out", str(tmp_path / "out"), "--ray", address]) == 2
    assert said in capsys.readouterr().err


def test_without_the_extra_the_hint_says_how_to_get_it(tmp_path: Path, capsys, monkeypatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "ray" else find(name, *rest))
    path = tmp_path / "list.txt"
    path.write_text("a red ball\n")
    assert invoke(["batch", str(path), "--out", str(tmp_path / "out"), "--ray", "local"]) == 2
    assert 'pip install "sds3d[ray]"' in capsys.readouterr().err


def test_what_comes_back_cannot_leave_its_folder(tmp_path: Path) -> None:
    import io
    import tarfile

    from sds3d.errors import ConfigError

    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "old").write_text("old")
    for name in ("../out", "a/../../out"):
        memory = io.BytesIO()
        with tarfile.open(fileobj=memory, mode="w") as archive:
            entry = tarfile.TarInfo(name)
            entry.size = 3
            archive.addfile(entry, io.BytesIO(b"bad"))
        with pytest.raises(ConfigError, match="cannot be unpacked"):
            unpacked(memory.getvalue(), tmp_path / "run")
        assert [path.name for path in tmp_path.iterdir()] == ["run"]
        assert (tmp_path / "run" / "old").read_text() == "old"
    with pytest.raises(ConfigError, match="cannot be unpacked"):
        unpacked(b"no archive", tmp_path / "run")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "a").write_text("new")
    unpacked(packed(tmp_path / "new"), tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["a"]
