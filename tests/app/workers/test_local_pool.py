"""Worker processes: replaced when they die, each on its GPU, and gone with whoever started them."""

import argparse
import itertools
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch

from sds3d.errors import ConfigError
from sds3d.jobs import Queue, Selection, Worker
from sds3d.jobs.processes import process_start
from sds3d.training.session import Session
from sds3d_app.cli import invoke
from sds3d_app.exit_codes import DONE, INTERRUPTED
from sds3d_app.ui import server
from sds3d_app.ui.run_index import RunIndex
from sds3d_app.workers import local_pool, process
from sds3d_app.workers.local_pool import WorkerPool, environment_of, sharing_note
from tests.reliability.children import PATIENCE, context, ended, started


def wait_for(condition: Callable[[], Any]) -> Any:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen")


def is_gone(pid: int) -> bool:
    return process_start(pid) is None


@pytest.mark.parametrize(
    ("workers", "gpus", "visible", "expected"),
    [
        (1, 2, None, [None]),
        (2, 2, None, ["0", "1"]),
        (3, 2, None, ["0", "1", "0"]),
        (2, 1, None, ["0", "0"]),  # B12: not GPU 1, which is not there
        (2, 0, None, [None, None]),
        (2, 2, "5,7", ["5", "7"]),
        (4, 2, "GPU-a, MIG-b", ["GPU-a", "MIG-b", "GPU-a", "MIG-b"]),
        (2, 1, "3,9", ["3", "3"]),  # torch sees one of the two
        (1, 2, "5,7", ["5,7"]),
        (2, 0, "", ["", ""]),
    ],
)
def test_workers_get_gpus_in_turn(workers: int, gpus: int, visible: str | None, expected: list[str | None]) -> None:
    """B12."""
    environment = {"HOME": "/"} | ({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible})
    got = [environment_of(index, workers, gpus, environment) for index in range(workers)]
    assert [each.get("CUDA_VISIBLE_DEVICES") for each in got] == expected
    assert all(each["HOME"] == "/" for each in got)


def test_workers_that_share_a_gpu_are_told_so() -> None:
    assert "3 workers share 2 GPUs" in sharing_note(3, 2)
    assert "2 workers share 1 GPU:" in sharing_note(2, 1)
    assert sharing_note(2, 2) == sharing_note(2, 0) == ""


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    return Queue(tmp_path / "queue")


def pids(pool: WorkerPool) -> list[int]:
    """The workers that are there now."""
    processes = [place.process for place in pool._places]
    return [process.pid for process in processes if process is not None and process.poll() is None]


def test_a_worker_that_is_killed_is_replaced_and_all_end_with_the_pool(queue: Queue) -> None:
    pool = WorkerPool(queue, 2, forever=True)
    pool.start()
    try:
        first = wait_for(lambda: len(pids(pool)) == 2 and pids(pool))
        os.kill(first[0], signal.SIGKILL)
        second = wait_for(lambda: set(pids(pool)) - set(first) and pids(pool))
        assert len(second) == 2
        assert first[1] in second
        assert pool.at_work()
    finally:
        pool.end()
    assert all(is_gone(pid) for pid in (*first, *second))


class FakeProcess:
    """One that dies of a signal as soon as it is asked for."""

    def __init__(self, code: int) -> None:
        self.returncode, self.pid = code, 1

    def poll(self) -> int:
        return self.returncode

    def terminate(self) -> None: ...

    def wait(self) -> None: ...


@pytest.mark.parametrize(("code", "forever", "problem"), [(-9, False, -9), (-9, True, -9), (1, True, 1)])
def test_those_that_die_at_once_are_replaced_less_and_less_often(
    queue: Queue, monkeypatch, code: int, forever: bool, problem: int
) -> None:
    clock, starts = [0.0], []
    monkeypatch.setattr(local_pool.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(
        local_pool.subprocess, "Popen", lambda *args, **more: starts.append(clock[0]) or FakeProcess(code)
    )
    queue.folder.mkdir()
    pool = WorkerPool(queue, 1, forever=forever)
    pool._start(pool._places[0])
    while clock[0] < 60.0:
        pool._look(pool._places[0])
        clock[0] += 0.5
    gaps = [after - before for before, after in itertools.pairwise(starts)]
    assert gaps[:5] == sorted(gaps[:5])
    assert max(gaps) >= 7.0
    assert len(starts) == (6 if not forever else len(starts)) < 15
    assert pool.at_work() == forever
    assert pool.problem() == problem
    pool._places[0].fast_deaths = 5000  # half a day later: 2 to the power of that is no number
    pool._plan_next(pool._places[0], code)
    pool._scratch.close()


@pytest.fixture
def visible_gpus(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """The GPUs of each worker that is started, on a machine with two; the workers end at once."""
    given: list[str | None] = []

    def start(*arguments: object, env: dict[str, str], **options: object) -> FakeProcess:
        given.append(env.get("CUDA_VISIBLE_DEVICES"))
        return FakeProcess(0)

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(local_pool.subprocess, "Popen", start)
    for module in (local_pool, server):
        monkeypatch.setattr(module, "gpu_count", lambda: 2)
    return given


@pytest.mark.parametrize(
    ("device", "expected"),
    [("auto", ["0", "1", "0"]), ("cuda", ["0", "1", "0"]), ("cuda:1", [None] * 3)],  # a GPU that a person named
)
def test_a_batch_gives_its_workers_gpus_in_turn(
    device: str, expected: list[str | None], visible_gpus: list[str | None], tmp_path: Path
) -> None:
    """B12: all of them were on GPU 0."""
    (tmp_path / "list.txt").write_text("a red ball\n")
    arguments = ["--set", f"device={device}", "--jobs", "3", "--out", str(tmp_path / "out")]
    invoke(["batch", str(tmp_path / "list.txt"), *arguments])
    assert visible_gpus == expected


@pytest.mark.parametrize(("workers", "expected"), [(None, ["0", "1"]), (3, ["0", "1", "0"])])
def test_the_page_gives_its_workers_gpus_in_turn(
    workers: int | None, expected: list[str], visible_gpus: list[str | None], tmp_path: Path, monkeypatch
) -> None:
    """B12: worker i got GPU i, whether it was there or not."""

    def no_app(index: RunIndex, pool: WorkerPool, *rest: object) -> None:
        pool.end()
        raise ConfigError("the workers have begun already")  # it would serve otherwise

    monkeypatch.setattr(server, "quiet_environment", lambda: None)
    monkeypatch.setattr(server, "make_app", no_app)
    monkeypatch.setattr(server, "is_taken", lambda *address: False)
    with pytest.raises(ConfigError, match="begun already"):
        server.serve(RunIndex(tmp_path, limit=3), "127.0.0.1", 7860, None, workers, [])
    assert visible_gpus == expected


def test_a_taken_port_is_said_before_any_worker_begins(
    visible_gpus: list[str | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "quiet_environment", lambda: None)
    monkeypatch.setattr(server, "is_taken", lambda *address: True)
    with pytest.raises(ConfigError, match="in use"):
        server.serve(RunIndex(tmp_path, limit=3), "127.0.0.1", 7860, None, None, [])
    assert visible_gpus == []


@pytest.mark.parametrize(
    ("forever", "waits", "loads"), [(True, False, True), (True, True, False), (False, False, False)]
)
def test_a_worker_of_a_page_that_has_nothing_to_do_loads_what_the_first_run_needs(
    forever: bool, waits: bool, loads: bool, queue: Queue, small_config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first run of a page waited eight seconds of CPU time for diffusers."""
    imported: list[str] = []
    monkeypatch.setattr(process.importlib, "import_module", imported.append)
    monkeypatch.setattr(Worker, "run", lambda self, forever: iter(()))
    monkeypatch.setattr(Session, "preview_seconds", Session.preview_seconds)  # put back at the end
    if waits:
        queue.add(small_config())
    options = argparse.Namespace(queue=queue.folder, attempts=3, forever=forever, threads=None, only=None, json=False)
    assert process.work(options, process.Stopper()) == DONE
    assert imported == ([process.NETWORK] if loads else [])
    assert find_spec(process.NETWORK) is not None


def test_a_process_that_lost_its_gpu_dies_so_that_another_takes_its_place(queue: Queue, monkeypatch) -> None:
    def lost(self, forever):
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
        yield

    killed: list[tuple[int, int]] = []
    monkeypatch.setattr(Worker, "run", lost)
    monkeypatch.setattr(process.os, "kill", lambda *arguments: killed.append(arguments))
    options = argparse.Namespace(queue=queue.folder, attempts=3, forever=False, threads=None, only=None, json=False)
    process.work(options, process.Stopper())
    assert killed == [(os.getpid(), signal.SIGKILL)]  # a pool replaces those that end so: see above


@pytest.mark.slow
def test_a_worker_that_ends_by_itself_has_nothing_left_to_do(queue: Queue, small_config) -> None:
    queue.add_many([small_config(seed=seed, steps=2) for seed in range(2)])
    pool = WorkerPool(queue, 1, Selection([queue.jobs()[1].name]))
    pool.start()
    try:
        wait_for(lambda: not pool.at_work())
    finally:
        pool.end()
    assert [job.state for job in queue.jobs()] == ["queued", "done"]
    assert pool.problem() == 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_crash_of_what_keeps_the_workers_is_not_waited_for(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_pool, "LOOK_EVERY", 0.01)
    monkeypatch.setattr(queue, "reap", lambda: 1 // 0)
    pool = WorkerPool(queue, 0)
    pool.start()
    with pytest.raises(ZeroDivisionError):
        wait_for(pool.at_work)
    pool.end()


def begin_and_stay(folder: Path, pids: Connection) -> None:
    pool = WorkerPool(Queue(folder), 1, forever=True)
    pool.start()
    process = pool._places[0].process
    assert process is not None
    pids.send(process.pid)
    time.sleep(600.0)


@pytest.mark.xdist_group("children")
@pytest.mark.parametrize("seconds", [0.0, 0.3, 1.0])
def test_a_worker_whose_parent_is_killed_while_torch_loads_ends(queue: Queue, seconds: float) -> None:
    """B22."""
    reader, writer = context.Pipe(duplex=False)
    parent = started(begin_and_stay, queue.folder, writer)
    assert reader.poll(PATIENCE)
    pid = reader.recv()
    time.sleep(seconds)
    parent.kill()
    ended(parent)
    end = time.monotonic() + PATIENCE
    while not is_gone(pid):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_worker_whose_parent_was_gone_before_it_began_ends(queue: Queue) -> None:
    command = [sys.executable, "-m", "sds3d_app.workers.process", str(queue.folder), "--forever", "--parent", "1"]
    assert os.getpid() != 1
    assert subprocess.run(command, timeout=PATIENCE, check=False).returncode == INTERRUPTED


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_worker_that_is_told_to_end_while_it_loads_ends_at_once(queue: Queue, number: signal.Signals) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "sds3d_app.workers.process", str(queue.folder), "--forever"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    next(line for line in process.stderr if "numpy" in line)  # torch is on its way
    process.send_signal(number)
    process.stderr.read()
    assert process.wait(PATIENCE) == INTERRUPTED


@pytest.mark.parametrize("forever", [False, True])
def test_runs_that_a_page_shows_have_a_picture_every_second(forever: bool, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(Session, "preview_seconds", math.inf)
    monkeypatch.setattr(Worker, "run", lambda self, forever: iter(()))
    given = {"queue": tmp_path, "attempts": 3, "forever": forever, "only": None, "threads": None, "json": False}
    process.work(argparse.Namespace(**given), process.Stopper())
    assert Session.preview_seconds == (process.PREVIEW_SECONDS if forever else math.inf)
