"""`sds3d batch` as a person meets it: exit codes, going on, workers that are killed, a database that is lost."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sds3d.jobs import Queue
from sds3d.run.events import Finished
from sds3d_app.cli import invoke

COMMAND = [sys.executable, "-m", "sds3d_app", "batch"]


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


def test_exit_codes_tell_all_from_some_from_none(small_file: Path, tmp_path: Path, capsys) -> None:
    out, good = tmp_path / "out", tmp_path / "list.jsonl"
    good.write_text('"a red ball"\n"xyzzy"\n')  # the prior knows no word of the second
    common = ["batch", str(good), "--config", str(small_file), "--out", str(out)]
    assert invoke(common) == 3
    assert state_counts(out) == {"done": 1, "failed": 1}
    printed = capsys.readouterr().out
    assert "1 done, 1 failed" in printed
    assert "failed: xyzzy" in printed
    before = [path.stat().st_mtime_ns for path in sorted(out.glob("*/run/mesh.glb"))]
    good.write_text('"xyzzy"')
    assert invoke([*common, "--json"]) == 1
    assert [path.stat().st_mtime_ns for path in sorted(out.glob("*/run/mesh.glb"))] == before
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["counts"] == {"failed": 1}


def start(prompts: Path, small_file: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    arguments = [str(prompts), "--config", str(small_file), "--out", str(out), *more]
    return subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def running(queue: Queue) -> dict[str, int]:
    """Names of running jobs and the processes at work on them."""
    return {job.name: job.worker.pid for job in queue.jobs("running") if job.worker is not None}


def wait_for(condition: Any, seconds: float = 60.0) -> Any:
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


def test_a_signal_saves_and_the_same_command_goes_on(prompts: Path, small_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(prompts, small_file, out, "--set", "steps=4000")
    queue = Queue(out)
    wait_for(lambda: saved(queue))
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 75, said
    assert "the same command goes on" in said
    assert queue.counts() == {"queued": 2}
    assert any(job.run.checkpoint_steps() for job in queue.jobs())


MORE = ["--vary", "seed=0,1", "--set", "steps=60", "--set", "checkpoint_every=10", "--jobs", "2"]


def test_workers_that_are_killed_lose_no_job_and_do_none_twice(prompts: Path, small_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(prompts, small_file, out, *MORE)
    queue = Queue(out)
    os.kill(next(iter(wait_for(lambda: running(queue)).values())), signal.SIGKILL)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 0, said
    assert state_counts(out) == {"done": 4}
    assert finished(queue) == [1] * 4
    assert sum(job.attempts for job in queue.jobs()) == 5


@pytest.mark.parametrize("harm", ["deleted", "cut off", "locked"])
def test_a_batch_whose_database_is_lost_or_locked_ends_well(
    harm: str, prompts: Path, small_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = start(prompts, small_file, out, *MORE)
    queue = Queue(out)
    wait_for(lambda: saved(queue))
    path = (out / "database" / "queue.db").resolve()
    if harm == "deleted":
        shutil.rmtree(out / "database")
    elif harm == "cut off":
        os.truncate(path, path.stat().st_size // 2)
    else:
        with sqlite3.connect(path, isolation_level=None) as lock:
            lock.execute("BEGIN EXCLUSIVE")
            time.sleep(3.0)
            lock.execute("COMMIT")
        lock.close()
    said = process.communicate(timeout=180)[1]
    assert process.returncode == 0, said
    assert state_counts(out) == {"done": 4}
    assert finished(queue) == [1] * 4


def test_the_driver_is_killed_and_its_workers_end(prompts: Path, small_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(prompts, small_file, out, "--set", "steps=100000")
    queue = Queue(out)
    (pid,) = wait_for(lambda: running(queue)).values()
    process.kill()
    process.communicate()
    wait_for(lambda: not Path(f"/proc/{pid}").exists())
    assert queue.counts() == {"queued": 2}


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
