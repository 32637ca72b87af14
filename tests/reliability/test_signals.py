"""R10: a run that is told to stop, at whatever moment, saves, ends soon, leaves no rubbish, and can go on."""

import os
import random
import signal
import time
from pathlib import Path

import torch

from sds3d import RunConfig, Session
from sds3d.session import CONFIG
from sds3d_app.failures import DONE, INTERRUPTED
from sds3d_app.runs import run

SOON = 2.0  # seconds, and a step
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


def go_on_in_a_child(config: RunConfig, folder: Path) -> int:
    """The command line's run in a copy of this process; its number."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            session = Session.resume(folder) if (folder / CONFIG).is_file() else Session(config, folder)
            code = run(session, quiet=True, as_json=False)
        finally:
            os._exit(code)
    return child


def rubbish(folder: Path) -> list[str]:
    return [str(path) for path in folder.rglob("*") if path.name.endswith((".tmp", ".saving")) or ".tmp" in path.parts]


def test_a_run_ends_soon_whenever_it_is_told_to(small_config, tmp_path: Path, full: bool, capfd) -> None:
    rng, told, slowest = random.Random(2), 0, 0.0
    small = {"resolution": 32, "faces": 500, "texture_size": 64}
    config = small_config(steps=2000 if full else 400, checkpoint_every=50, export=small, loss_weights={})
    list(Session(config, tmp_path / "whole").run())  # in this process, so that its children have nothing left to load
    folder = tmp_path / "run"
    for number in range(20 if full else 4):
        child = go_on_in_a_child(config, folder)
        while not (folder / "events.jsonl").is_file():  # the handlers are there before the first event
            time.sleep(0.01)
        time.sleep(rng.uniform(0.2, 1.0))
        os.kill(child, SIGNALS[number % len(SIGNALS)])  # a child that has ended is still there to be waited for
        begun = time.monotonic()
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        slowest = max(slowest, time.monotonic() - begun)
        assert code in (INTERRUPTED, DONE), (number, code, capfd.readouterr().err)
        assert rubbish(folder) == []
        told += code == INTERRUPTED
        if code == DONE:
            break
    assert told >= 3
    assert slowest < SOON + 1.0
    list(Session.resume(folder).run())
    got, want = (Session.resume(tmp_path / name).scene().state_dict() for name in ("run", "whole"))
    assert all(torch.equal(value, want[name]) for name, value in got.items())
