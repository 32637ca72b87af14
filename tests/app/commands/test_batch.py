"""`sds3d batch` as a person meets it: exit codes, going on, workers that are killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sds3d.jobs import Ledger
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


def running(ledger: Ledger) -> dict[str, int]:
    """Names of running jobs and the processes at work on them."""
    found = {job.name: ledger.status(job) for job in (ledger.jobs() if ledger.folder.is_dir() else [])}
    return {name: int(s.worker.rpartition(":")[2]) for name, s in found.items() if s.state == "running"}


def wait_for(condition: Any, seconds: float = 60.0) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen")


def test_a_signal_saves_and_the_same_command_goes_on(prompts: Path, small_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(prompts, small_file, out, "--set", "steps=4000")
    ledger = Ledger(out)
    wait_for(lambda: any(job.run.joinpath("checkpoints").glob("step-*") for job in ledger.jobs()) and running(ledger))
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 75, said
    assert "the same command goes on" in said
    assert {ledger.status(job).state for job in ledger.jobs()} == {"queued"}
    assert any(job.run.joinpath("checkpoints").glob("step-*") for job in ledger.jobs())


def test_workers_that_are_killed_lose_no_job_and_do_none_twice(prompts: Path, small_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    more = ["--vary", "seed=0,1", "--set", "steps=60", "--set", "checkpoint_every=10", "--jobs", "2"]
    process = start(prompts, small_file, out, *more)
    ledger = Ledger(out)
    os.kill(next(iter(wait_for(lambda: running(ledger)).values())), signal.SIGKILL)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 0, said
    assert state_counts(out) == {"done": 4}
    for job in ledger.jobs():
        events = [json.loads(line)["event"] for line in (job.run / "events.jsonl").read_text().splitlines()]
        assert events.count("Finished") == 1
    assert sum(ledger.status(job).attempts for job in ledger.jobs()) == 5
