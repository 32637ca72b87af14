"""The queue's database is damaged, locked, removed or foreign: nothing that was finished is lost."""

import random
import secrets
import shutil
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sds3d import load_config
from sds3d.errors import ConfigError, OutputError
from sds3d.jobs import Queue, Selection
from sds3d.jobs import database as module
from sds3d.jobs.processes import WorkerId
from sds3d.run.events import FinishEarly, Pause
from sds3d.run.folder import RunFolder
from tests.reliability.children import context, ended, started
from tests.sizes import FULL


def config(**options):
    return load_config(overrides={"prompt": "a red ball", "prior": "analytic", **options})


def finished(folder: RunFolder, config) -> None:
    """As a worker leaves a run behind that it has done."""
    from sds3d.run.events import Finished

    report = {"steps": config.steps}
    RunFolder.create(folder.path, config)
    folder.write_report(report)
    folder.append(Finished(report))


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    """Six jobs: done, failed, stopped, done without anybody having noted it, queued, queued."""
    queue = Queue(tmp_path / "queue", attempts=1)
    jobs = queue.add_many([config(seed=seed) for seed in range(6)])
    for job, state in zip(jobs, ("done", "failed", "stopped"), strict=False):
        claimed = queue.claim(WorkerId.here())
        if state == "done":
            finished(job.run, job.config)
        queue.finish(claimed, state, "" if state == "done" else f"it {state}")
    finished(jobs[3].run, jobs[3].config)
    return queue


REMADE = ["done", "failed", "stopped", "done", "queued", "queued"]


def states(queue: Queue) -> list[str]:
    return [job.state for job in queue.jobs()]


def database(queue: Queue) -> Path:
    return (queue.folder / "database" / "queue.db").resolve()


def test_it_is_made_again_from_the_folders(queue: Queue) -> None:
    before = queue.jobs()
    shutil.rmtree(queue.folder / "database")
    after = queue.jobs()
    assert [job.state for job in after] == REMADE
    assert [(job.name, job.added, job.prompt, job.seed) for job in after] == [
        (job.name, job.added, job.prompt, job.seed) for job in before
    ]
    assert [job.reason for job in after[1:3]] == ["it failed", "it stopped"]
    assert queue.add(config(seed=9)).name == queue.jobs()[-1].name


@pytest.mark.parametrize("name", ["queue.db", "its file", "both logs"])
def test_any_of_its_files_can_be_removed_while_it_is_in_use(queue: Queue, name: str) -> None:
    other = Queue(queue.folder)
    other.jobs()
    for path in {
        "queue.db": [queue.folder / "database" / "queue.db"],
        "its file": [database(queue)],
        "both logs": [Path(f"{database(queue)}-wal"), Path(f"{database(queue)}-shm")],
    }[name]:
        path.unlink()
    job = queue.claim(WorkerId.here())
    assert job is not None
    assert other.job(job.name).state == "running"
    assert Queue(queue.folder).job(job.name).state == "running"
    assert states(queue)[:3] == REMADE[:3]


def test_threads_that_look_while_it_is_removed_find_it_again(queue: Queue, tmp_path: Path) -> None:
    """As a batch's own thread does, and the one that keeps its workers."""
    threads, times = 4, 5
    together = threading.Barrier(threads, lambda: folder.rename(tmp_path / secrets.token_hex(4)), timeout=30)
    folder = queue.folder / "database"

    def look() -> None:
        try:
            for _ in range(times):
                together.wait()
                assert [len(states(queue)) for _ in range(20)] == 20 * [len(REMADE)]
        except BaseException:
            together.abort()
            raise

    with ThreadPoolExecutor(threads) as pool:
        problems = [future.exception() for future in [pool.submit(look) for _ in range(threads)]]
    assert problems == [None] * threads


@pytest.mark.parametrize("all_of_it", [True, False], ids=["with what it writes", "but for what it writes"])
def test_who_makes_it_again_while_it_is_removed_replaces_no_other(queue: Queue, all_of_it: bool, monkeypatch) -> None:
    """Its lock went with the folder: another process has made a database meanwhile, and a command is in there."""
    job, slow = queue.jobs("queued")[-1], Queue(queue.folder)
    is_building, may_go_on = threading.Event(), threading.Event()
    fill, folder = slow._database._fill, queue.folder / "database"

    def fill_slowly(connection: sqlite3.Connection) -> None:
        is_building.set()
        assert may_go_on.wait(60)
        fill(connection)

    monkeypatch.setattr(slow._database, "_fill", fill_slowly)
    shutil.rmtree(folder)
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(slow.job(job.name).state))
    thread.start()
    assert is_building.wait(60)
    for path in folder.iterdir():
        if path.is_file() or path.is_symlink():
            path.unlink()
        elif all_of_it:
            shutil.rmtree(path)
    queue.command(job, Pause())
    may_go_on.set()
    thread.join(60)
    assert found == ["paused"]
    assert Queue(queue.folder).job(job.name).state == "paused"


@pytest.mark.parametrize("cut", ["the database", "its log"])
def test_whatever_is_cut_off_nothing_finished_is_lost(queue: Queue, cut: str) -> None:
    """The log holds what was written last: what is lost with it is found again in the folders."""
    rng, folder = random.Random(0), queue.folder
    for _ in range(60 if FULL else 12):
        queue = Queue(folder)
        queue.jobs()
        path = database(queue) if cut == "the database" else Path(f"{database(queue)}-wal")
        size = path.stat().st_size
        with path.open("r+b") as file:
            file.truncate(rng.randrange(size) if size else 0)
        done = set()
        while (job := queue.claim(WorkerId.here())) is not None:
            done.add(job.seed)
            queue.release(job) if job.seed in (4, 5) else queue.finish(job, "done")
            if job.seed in (4, 5):
                break
        assert done <= {3, 4, 5} or cut == "its log"
        assert states(queue)[0] == "done"
        assert len(queue.jobs()) == 6


@pytest.mark.parametrize("junk", [b"", b"no database", b"SQLite format 3\x00" + b"\xff" * 5000])
def test_what_is_no_database_is_replaced(queue: Queue, junk: bytes) -> None:
    path = database(queue)
    queue._database._threads.connection.close()
    path.write_bytes(junk)
    assert states(queue) == REMADE


def test_one_of_another_version_is_replaced(queue: Queue) -> None:
    with sqlite3.connect(database(queue)) as connection:
        connection.execute("DROP TABLE about")
        connection.execute("PRAGMA user_version = 7")
    connection.close()
    assert states(Queue(queue.folder)) == REMADE
    assert states(queue) == REMADE
    assert len(list((queue.folder / "database").glob("queue-*.db"))) == 1


def test_a_damaged_job_is_kept_as_failed_and_holds_up_no_other(queue: Queue) -> None:
    (queue.jobs()[4].folder / "job.json").write_text('{"added": "yesterday"')
    for name, text in (("nested", "[" * 100_000), ("other", '{"added": 1, "resolved": {"prompt": "a ball"}}')):
        (queue.folder / name).mkdir()
        (queue.folder / name / "job.json").write_text(text)
    shutil.rmtree(queue.folder / "database")
    damaged = queue.jobs("failed")
    assert sum("damaged" in job.reason for job in damaged) == 3
    assert queue.counts() == {"done": 2, "failed": 4, "stopped": 1, "queued": 1}


def test_while_it_is_locked_readers_read_and_writers_wait(queue: Queue) -> None:
    lock = sqlite3.connect(database(queue), isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    assert states(queue)[:3] == REMADE[:3]
    claims = []
    thread = threading.Thread(target=lambda: claims.append(queue.claim(WorkerId.here())))
    thread.start()
    time.sleep(0.5)
    assert not claims
    lock.execute("COMMIT")
    thread.join(20.0)
    assert claims[0] is not None
    lock.close()


def test_a_lock_that_lasts_is_one_clear_error(queue: Queue, monkeypatch) -> None:
    monkeypatch.setattr(module, "BUSY_TIMEOUT", 0.2)
    queue, job = Queue(queue.folder), queue.claim(WorkerId.here())
    lock = sqlite3.connect(database(queue), isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    with pytest.raises(OutputError, match="locked by another process"):
        queue.finish(job, "done")
    lock.close()
    assert queue.finish(job, "done")


def test_a_selection_is_known_again_after_the_database_was_lost(queue: Queue) -> None:
    only = Selection([queue.jobs()[5].name])
    assert queue.unfinished(only)
    queue.release(queue.claim(WorkerId.here(), only))
    shutil.rmtree(queue.folder / "database")
    assert queue.unfinished(only)
    job = queue.claim(WorkerId.here(), only)
    assert job.seed == 5
    shutil.rmtree(queue.folder / "database")  # now with a worker that has not yet begun
    assert not queue.finish(job, "done")
    assert queue.job(job.name).state == "queued"


def test_who_holds_the_run_folder_keeps_the_job_when_the_database_is_lost(queue: Queue) -> None:
    queue.finish(queue.claim(WorkerId.here()), "done")
    job = queue.claim(WorkerId.here())
    RunFolder.create(job.run.path, job.config)
    with job.run.lock():
        shutil.rmtree(queue.folder / "database")
        assert queue.job(job.name).state == "running"
        assert queue.finish(job, "done")


def hold(folder: Path, begun, end) -> None:
    """Another machine's process, which has the queue open."""
    module.machine = lambda: "elsewhere/boot/0"
    queue = Queue(folder)
    queue.jobs()
    begun.set()
    end.wait(60.0)


@pytest.mark.xdist_group("children")
def test_another_machine_is_refused_while_the_first_works_and_takes_over_afterwards(queue: Queue, monkeypatch) -> None:
    folder = queue.folder.parent / "shared"
    folder.mkdir()
    begun, end = context.Event(), context.Event()
    other = started(hold, folder, begun, end)
    assert begun.wait(60.0)
    with pytest.raises(ConfigError, match=r"in use on another machine \(elsewhere\).*--ray.*--shard"):
        Queue(folder).add(config())
    end.set()
    assert ended(other) == 0
    assert Queue(folder).add(config()).state == "queued"


@pytest.mark.xdist_group("children")
def test_a_disk_that_refuses_is_one_clear_error_and_not_damage(queue: Queue, tmp_path: Path) -> None:
    """RLIMIT_FSIZE stands for a full disk: reading goes on, writing is refused, and the database stays."""
    with context.Pool(1) as pool:
        before, refusal, after = pool.apply(on_a_full_disk, (queue.folder,))
    assert before == after
    assert "cannot write" in refusal
    assert database(queue).name == before[0]


def on_a_full_disk(folder: Path):
    import resource
    import signal

    queue = Queue(folder)
    before = database(queue).name, states(queue)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    refusal = ""
    try:
        queue.command(queue.jobs("queued")[0], Pause())
    except OutputError as error:
        refusal = str(error)
    return before, refusal, (database(queue).name, states(queue))


def test_finishing_early_is_remembered_for_a_worker_that_dies(queue: Queue) -> None:
    job = queue.claim(WorkerId.here())
    queue.command(job, FinishEarly())
    queue.release(job)
    assert [command for _, command in queue.commands(job)] == [FinishEarly()]
