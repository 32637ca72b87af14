"""The command as the shell meets it: signals, full disks, closed pipes."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

COMMAND = [sys.executable, "-m", "sds3d_app"]


def start(arguments: list[str], **kwargs: Any) -> subprocess.Popen[str]:
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*COMMAND, *arguments], **{**pipes, **kwargs})


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.startswith(".") or path.suffix in {".tmp", ".saving"}]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_says_how_to_go_on(number: signal.Signals, small_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "a run"
    arguments = ["generate", "a red ball", "--config", str(small_file), "--steps", "100000"]
    process = start([*arguments, "--set", "checkpoint_every=100000", "--out", str(out), "--json"])
    assert process.stdout is not None
    lines = iter(process.stdout.readline, "")
    seen = next(event for event in map(json.loads, lines) if event["event"] == "StepDone")
    process.send_signal(number)
    rest = [json.loads(line) for line in lines]
    assert process.wait(timeout=60) == 75
    assert process.stderr is not None
    assert process.stderr.read().splitlines()[-1] == f"interrupted and saved; to go on: sds3d resume '{out}'"
    saved = rest[-2]
    assert saved["event"] == "CheckpointSaved"
    assert saved["step"] >= seen["step"]
    assert rest[-1] == {"event": "Finished", "report": {}, "interrupted": True}
    assert Path(saved["path"]).is_dir()
    assert leftovers(out) == []
    assert not (out / "mesh.glb").exists()
    if number == signal.SIGTERM:
        finish(out, saved["step"])


def finish(out: Path, step: int) -> None:
    """Resuming takes up the run at `step`; two steps later it is complete."""
    for name in ("config.json", "resolved.json"):
        config = json.loads((out / name).read_text())
        (out / name).write_text(json.dumps({**config, "steps": step + 2}))
    process = start(["resume", str(out), "--json"])
    events = [json.loads(line) for line in process.communicate(timeout=120)[0].splitlines()]
    assert process.returncode == 0
    assert events[0]["step"] == step
    assert (out / "mesh.glb").is_file()


def test_a_full_disk_is_one_line_and_1_and_leaves_no_halves(small_file: Path, tmp_path: Path) -> None:
    """The limit is above the config and below a checkpoint."""
    out = tmp_path / "run"

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (16_000, 16_000))

    process = start(
        ["generate", "a red ball", "--config", str(small_file), "--out", str(out), "--quiet"], preexec_fn=limit
    )
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 1
    assert stdout == ""
    assert stderr.startswith(f"error: cannot write {out}")
    assert stderr.count("\n") == 1
    assert leftovers(out) == []
    assert not list((out / "checkpoints").iterdir())


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/sys/kernel").is_dir(), reason="root may write everywhere here")
def test_a_read_only_folder_is_one_line_and_1(small_file: Path, tmp_path: Path) -> None:
    """Root is stopped by no mode, but on Linux by /sys, where nobody makes folders."""
    tmp_path.chmod(0o500)
    out = (Path("/sys") if os.geteuid() == 0 else tmp_path) / "run"
    process = start(["generate", "a red ball", "--config", str(small_file), "--out", str(out)])
    stderr = process.communicate(timeout=120)[1]
    assert process.returncode == 1
    assert stderr.startswith(f"error: cannot write {out}")
    assert stderr.count("\n") == 1
    assert not out.exists()


def test_a_reader_that_goes_away_is_no_crash() -> None:
    process = start(["generate", "a red ball", "--prior", "analytic", "--print-config"])
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.wait(timeout=60) == 1
    assert process.stderr.read() == ""
