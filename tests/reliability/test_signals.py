"""R10: a run that is told to stop, at whatever moment, saves, ends soon, leaves no rubbish, and can go on."""

import os
import random
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch

from sds3d import Session
from sds3d.run.folder import RunFolder
from sds3d_app.exit_codes import DONE, INTERRUPTED
from tests.reliability.children import PATIENCE, ended, go_on, go_on_as_told, started

pytestmark = pytest.mark.xdist_group("children")

SOON = 2.0  # seconds, and a step
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


def rubbish(folder: Path) -> list[str]:
    return [str(path) for path in folder.rglob("*") if path.name.endswith((".tmp", ".saving")) or ".tmp" in path.parts]


def wait_for_step(step: int, folder: Path, child: BaseProcess) -> None:
    """Until the run's first event, or that of the step, is there, and so the handlers of signals; or until its end."""
    end = time.monotonic() + PATIENCE
    while child.exitcode is None and not (
        (folder / "events.jsonl").is_file() and RunFolder(folder).status().step >= step
    ):
        assert time.monotonic() < end, f"step {step} was not reached within {PATIENCE:.0f} s"
        time.sleep(0.01)


def test_a_run_ends_soon_whenever_it_is_told_to(small_config, tmp_path: Path, full: bool, capfd) -> None:
    rng, told, slowest = random.Random(2), 0, 0.0
    small = {"resolution": 32, "faces": 500, "texture_size": 64}
    steps = 2000 if full else 80
    config = small_config(steps=steps, checkpoint_every=50, export=small)
    folder = tmp_path / "run"
    for number in range(20 if full else 4):
        step = RunFolder(folder).status().step + rng.randint(1, steps // 20) if number else 0
        child = started(go_on_as_told, config, folder)
        wait_for_step(step, folder, child)
        time.sleep(rng.uniform(0.0, 0.02))  # somewhere within a step
        if child.exitcode is None:
            os.kill(child.pid, SIGNALS[number % len(SIGNALS)])
        begun = time.monotonic()
        code = ended(child)
        slowest = max(slowest, time.monotonic() - begun)
        assert code in (INTERRUPTED, DONE), (number, code, capfd.readouterr().err)
        assert rubbish(folder) == []
        told += code == INTERRUPTED
        if code == DONE:
            break
    print(f"told {told} times; the slowest end took {slowest:.2f} s")
    assert told >= 3
    assert not full or slowest < SOON + 1.0  # `ended` waits for minutes, on a busy machine
    for path in (folder, tmp_path / "whole"):
        assert ended(started(go_on, config, path)) == DONE
    got, want = (Session.resume(tmp_path / name).scene().state_dict() for name in ("run", "whole"))
    assert all(torch.equal(value, want[name]) for name, value in got.items())
