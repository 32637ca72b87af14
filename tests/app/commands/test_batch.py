"""`sds3d batch` as a person meets it: exit codes, going on, workers that are killed, a database that is lost."""

import json
import os
import re
import shutil
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from sds3d.jobs import Queue
from sds3d.run.events import FinishEarly, Finished
from sds3d_app.cli import invoke
from sds3d_app.commands.batch import LOOK_EVERY
from sds3d_app.workers import local_pool
from tests.app.shell import Command


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "balls.txt"
    path.write_text("a red ball\na blue ball\n")
    return path


def state_counts(folder: Path) -> dict[str, int]:
    return json.loads((folder / "summary.json").read_text())["counts"]


def test_a_dry_run_says_what_it_would_do_and_makes_nothing(prompts: Path, tmp_path: Path, capsys) -> None:
    arguments = ["batch", str(prompts), "--out", str(tmp_path / "out"), "--dry-run", "--vary", "seed=0,1"]
    assert invoke([*arguments, "--shard", "2/3"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("new")
    assert line.endswith("a red ball")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--shard", "0/2"], "--shard '0/2'"),
        (["--shard", "x"], "--shard 'x'"),
        (["--vary", "seed"], "--vary 'seed'"),
        (["--set", "seed=-1"], "line 1: seed"),
        (["--jobs", "0"], "'--jobs'"),
    ],
)
def test_mistakes_are_named(arguments: list[str], said: str, prompts: Path, tmp_path: Path, capsys) -> None:
    assert invoke(["batch", str(prompts), "--out", str(tmp_path / "out"), *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    """Options of runs that make a small picture: workers are other processes, which would make all of a 3D object."""
    path = tmp_path / "pictures.json"
    path.write_text(
        json.dumps(
            {
                "prior": {"name": "analytic", "size": 16},
                "scene": {"name": "image", "size": 16},
                "cameras": {"views": 1, "size": 16},
                "steps": 20,
                "preview_every": 0,
                "checkpoint_every": 50,
            }
        )
    )
    return ["--config", str(path), "--out", str(tmp_path / "out")]


def test_exit_codes_tell_all_from_some_from_none(
    pictures: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    out, good = tmp_path / "out", tmp_path / "list.jsonl"
    bad = '{"prompt": "a blue ball", "reference_image.path": "gone.png"}'
    good.write_text(f'"a red ball"\n{bad}\n')
    common = ["batch", str(good), *pictures]
    assert invoke(common) == 3
    assert state_counts(out) == {"done": 1, "failed": 1}
    printed, err = capsys.readouterr()
    assert re.search(r"^done +a-red-ball", err, re.MULTILINE)
    assert "1 done, 1 failed" in printed
    assert "failed: a blue ball" in printed
    before = [path.stat().st_mtime_ns for path in sorted(out.glob("*/run/image.png"))]
    assert len(before) == 1
    good.write_text(bad)  # nothing is left to do
    monkeypatch.setattr(local_pool.subprocess, "Popen", lambda *args, **more: pytest.fail("a worker begins"))
    assert invoke([*common, "--json"]) == 1
    assert [path.stat().st_mtime_ns for path in sorted(out.glob("*/run/image.png"))] == before
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["counts"] == {"failed": 1}


def running(queue: Queue) -> dict[str, int]:
    """Names of running jobs and the processes at work on them."""
    return {job.name: job.worker.pid for job in queue.jobs("running") if job.worker is not None}


def wait_for(condition: Any, seconds: float = 120.0) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen")


def saved(queue: Queue) -> bool:
    """Whether any running job can be gone on with."""
    return any(job.run.checkpoint_steps() for job in queue.jobs("running"))


def finished(queue: Queue) -> list[int]:
    """How often each job's run came to its end."""
    events = [[event for _, event in job.run.reader().read()] for job in queue.jobs()]
    return [sum(isinstance(event, Finished) and not event.interrupted for event in each) for each in events]


@pytest.mark.xdist_group("children")
def test_a_signal_saves_and_the_same_command_goes_on(prompts: Path, pictures: list[str], tmp_path: Path) -> None:
    """Also where it goes on, is killed, and leaves its workers alone: they save and end."""
    command = ["batch", str(prompts), *pictures, "--set", "steps=1000000"]
    process, queue = Command(tmp_path, *command), Queue(tmp_path / "out")
    wait_for(lambda: saved(queue))
    process.send(signal.SIGTERM)
    assert process.wait() == 75, process.err.read_text()
    assert "the same command goes on" in process.err.read_text()
    assert queue.counts() == {"queued": 2}
    (before,) = (job for job in queue.jobs() if job.run.checkpoint_steps())
    process = Command(tmp_path, *command)
    ((name, pid),) = wait_for(lambda: running(queue)).items()
    assert name == before.name
    steps = before.run.checkpoint_steps()[-1]
    wait_for(lambda: before.run.checkpoint_steps()[-1] > steps)
    process.send(signal.SIGKILL)
    process.wait()
    wait_for(lambda: not Path(f"/proc/{pid}").exists())
    assert queue.counts() == {"queued": 2}


@pytest.mark.xdist_group("children")
def test_whoever_is_killed_and_whatever_is_lost_each_job_is_done_once(
    prompts: Path, pictures: list[str], tmp_path: Path
) -> None:
    """Two workers are at work on runs without end: one is killed, then the database is locked, cut off, and deleted."""
    out = tmp_path / "out"
    queue = Queue(out)
    more = ["--vary", "seed=0,1", "--set", "steps=1000000", "--jobs", "2"]
    batch = Command(tmp_path, "batch", str(prompts), *pictures, *more)

    def both() -> dict[str, int]:
        assert batch.process.is_alive(), batch.err.read_text()
        return running(queue) if len(running(queue)) == 2 and saved(queue) else {}

    name, pid = next(iter(wait_for(both).items()))
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: both().get(name, pid) != pid)
    assert sum(job.attempts for job in queue.jobs()) == 3
    path = (out / "database" / "queue.db").resolve()
    with sqlite3.connect(path, isolation_level=None) as lock:
        lock.execute("BEGIN EXCLUSIVE")
        time.sleep(2 * LOOK_EVERY)
        lock.execute("COMMIT")
    lock.close()
    os.truncate(path, path.stat().st_size // 2)
    wait_for(both)
    shutil.rmtree(out / "database")
    wait_for(both)
    told: set[str] = set()
    while len(queue.jobs("stopped")) < 4:
        assert batch.process.is_alive() or len(queue.jobs("stopped")) == 4, batch.err.read_text()
        for job in queue.jobs("running"):
            if job.run.checkpoint_steps() and job.name not in told:
                queue.command(job, FinishEarly())
                told.add(job.name)
        time.sleep(0.05)
    assert batch.wait() == 0, batch.err.read_text()
    assert state_counts(out) == {"stopped": 4}
    assert finished(queue) == [1] * 4


def test_looking_costs_what_has_changed(tmp_path: Path, small_config) -> None:
    from sds3d_app.commands.batch import BatchView

    queue = Queue(tmp_path)
    jobs = queue.add_many([small_config(seed=seed) for seed in range(3)])
    queue.add(small_config(seed=9))
    view = BatchView(queue, jobs)
    assert [job.name for job in view.look()] == [job.name for job in jobs]
    view.look()
    assert view.changed == []
    queue.delete(jobs[1])
    assert [job.seed for job in view.look()] == [0, 2]


@pytest.mark.parametrize(("text", "seeds", "suffix"), [(None, [0, 1, 2, 3], ""), ("2/3", [1], "-2-of-3")])
def test_shards_have_folders_of_their_own(text: str | None, seeds: list[int], suffix: str, small_config) -> None:
    from sds3d_app.commands.batch import shard_of

    configs, ending = shard_of([small_config(seed=seed) for seed in range(4)], text)
    assert ([config.seed for config in configs], ending) == (seeds, suffix)
