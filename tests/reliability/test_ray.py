"""`sds3d batch --ray` on a real cluster of several nodes, all on this machine: actors and nodes that are killed."""

import importlib.util
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from sds3d.jobs import Job, Ledger
from sds3d_app.cli import invoke
from sds3d_app.workers.ray_actor import packed, unpacked
from tests.sizes import FULL

pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.slow]
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
at_length = pytest.mark.skipif(not FULL, reason="a minute: with make test-reliability")
PATIENCE = 300.0  # seconds, for what takes half a minute on a quiet machine


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """Three nodes with room for one actor each."""
    from ray.cluster_utils import Cluster

    from sds3d_app.workers.ray_pool import QUIET

    with pytest.MonkeyPatch.context() as patch:
        for name, value in QUIET.items():
            patch.setenv(name, value)
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        for _ in range(2):
            made.add_node(num_cpus=1)
        made.wait_for_nodes()
        yield made
        made.shutdown()


@pytest.fixture
def cluster(nodes: Any) -> Iterator[Any]:
    """The nodes, connected to; a crew that ends lets go of them."""
    import ray

    ray.init(address=nodes.address, log_to_driver=False, logging_level="ERROR")
    yield nodes
    ray.shutdown()


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "queue", lease=5.0)


def crew_on(ledger: Ledger, jobs: list[Job], number: int) -> Any:
    from sds3d_app.workers.ray_pool import RayCrew

    return RayCrew(ledger, jobs, number, gpus=0.0)


def until_done(crew: Any, meanwhile: Callable[[], object] = lambda: None) -> None:
    end = time.monotonic() + PATIENCE
    try:
        while crew.at_work():
            assert time.monotonic() < end, [crew.ledger.status(job) for job in crew.jobs]
            meanwhile()
            time.sleep(0.2)
    finally:
        crew.end()


def at_work_on(ledger: Ledger, job: Job) -> int | None:
    """The process at work on a job."""
    status = ledger.status(job)
    return int(status.worker.rpartition(":")[2]) if status.state == "running" else None


def kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def finished(job: Job) -> int:
    lines = (job.run / "events.jsonl").read_text().splitlines()
    return sum(json.loads(line)["event"] == "Finished" for line in lines)


@needs_ray
def test_where_no_folder_is_shared_the_results_are_brought_back(
    cluster: Any, ledger: Ledger, small_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sds3d_app.workers.ray_pool import RayCrew

    monkeypatch.setattr(RayCrew, "probe", lambda self: ("/nowhere", "x"))
    jobs = [ledger.add(small_config(seed=seed, steps=60)) for seed in range(3)]
    unknown = ledger.add(small_config(prompt="xyzzy"))
    crew, killed = crew_on(ledger, [*jobs, unknown], 2), []

    def harm() -> None:
        import ray

        busy = [seat for seat in crew.seats if seat._job is not None]
        if busy and not killed:
            killed.append(1)
            ray.kill(busy[0].actor, no_restart=False)

    until_done(crew, harm)
    assert killed
    assert [ledger.status(job).state for job in jobs] == ["done"] * 3
    assert [finished(job) for job in jobs] == [1, 1, 1]
    assert all((job.run / "mesh.glb").is_file() for job in jobs)
    assert ledger.status(unknown).state == "failed"
    assert "xyzzy" in ledger.status(unknown).reason
    assert sum(ledger.status(job).attempts for job in jobs) == 4
    assert not list(ledger.folder.glob("*/.run.unpacking"))


@needs_ray
@at_length
def test_ending_early_saves_and_gives_the_jobs_back(cluster: Any, ledger: Ledger, small_config: Any) -> None:
    jobs = [ledger.add(small_config(seed=seed, steps=5000, checkpoint_every=10)) for seed in range(2)]
    crew, end = crew_on(ledger, jobs, 2), time.monotonic() + PATIENCE
    while not all(any(job.run.glob("checkpoints/step-*")) for job in jobs):
        assert crew.at_work()
        assert time.monotonic() < end
        time.sleep(0.2)
    crew.end()
    assert [ledger.status(job).state for job in jobs] == ["queued", "queued"]
    assert [ledger.status(job).reason for job in jobs] == ["", ""]


@needs_ray
@at_length
def test_each_job_is_done_once_with_a_worker_and_a_node_killed_and_poison_is_set_aside(
    cluster: Any, ledger: Ledger, small_config: Any, full: bool
) -> None:
    jobs = [ledger.add(small_config(seed=seed, steps=60, checkpoint_every=5)) for seed in range(40 if full else 4)]
    poison = ledger.add(small_config(seed=1000, steps=900, checkpoint_every=900))
    crew, killed, nodes = crew_on(ledger, [*jobs, poison], 3), [], list(cluster.worker_nodes)

    def harm() -> None:
        bad = at_work_on(ledger, poison)
        if bad is not None:
            time.sleep(0.3)
            kill(bad)  # whoever takes it dies of it
        busy = [pid for job in jobs if (pid := at_work_on(ledger, job)) is not None]
        if busy and not killed:
            killed.append(busy[0])
            kill(busy[0])
        elif busy and nodes and len(killed) == 1:
            killed.append(0)
            cluster.remove_node(nodes.pop())

    until_done(crew, harm)
    assert len(killed) == 2
    assert [ledger.status(job).state for job in jobs] == ["done"] * len(jobs)
    assert [finished(job) for job in jobs] == [1] * len(jobs)
    assert ledger.status(poison).state == "failed"
    assert ledger.status(poison).reason.startswith("set aside after 3 attempts")
    assert not (ledger.folder / ".ray-probe").exists()


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
