"""R1 and R15: processes that are killed at random moments lose no more than they may."""

import json
import random
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch

from sds3d import RunConfig, Session
from sds3d.jobs import Ledger
from sds3d.run.checkpoint import load_newest
from sds3d.run.event_log import last_step
from tests.reliability.children import POISON, ended, go_on, started, work

pytestmark = pytest.mark.xdist_group("children")

INTERVAL = 5  # steps between checkpoints


def kill_after(child: BaseProcess, seconds: float) -> bool:
    """Whether the child was still there to be killed."""
    child.join(seconds)
    child.kill()
    code = ended(child)
    assert code in (0, -signal.SIGKILL)
    return code != 0


def killed_and_resumed(config: RunConfig, run: Path, rng: random.Random, most: int) -> int:
    """Kills the run up to `most` times, resuming it each time, and then lets it end; how often it was killed."""
    kills, reached = 0, 0
    while kills < most and kill_after(started(go_on, config, run), rng.uniform(0.05, 0.6)):
        kills += 1
        seen = last_step(run / "events.jsonl") or 0
        checkpoint, problems = load_newest(run / "checkpoints")
        saved = checkpoint.step if checkpoint else 0
        assert not problems
        assert seen - saved <= INTERVAL + 1  # of a step that was saved and not yet told
        assert saved >= reached
        reached = saved
    go_on(config, run)
    return kills


def test_a_kill_loses_one_checkpoint_interval_at_most(small_config, tmp_path: Path, full: bool) -> None:
    """R1. Killed again and again, resumed each time; in the end the result of a run that nobody disturbed."""
    rng, kills, wanted, seed = random.Random(0), 0, 50 if full else 4, 0
    while kills < wanted:
        config = small_config(seed=seed, checkpoint_every=INTERVAL, log_every=1, preview_every=0)
        kills += killed_and_resumed(config, tmp_path / f"run-{seed}", rng, min(5, wanted - kills))
        *_, last = read_events(tmp_path / f"run-{seed}")
        assert last["event"] == "Finished"
        if seed == 0:
            list(Session(config, tmp_path / "whole").run())
            whole = Session.resume(tmp_path / "whole").scene().state_dict()
            for name, value in Session.resume(tmp_path / "run-0").scene().state_dict().items():
                assert torch.equal(value, whole[name]), name
        seed += 1
        assert seed < 4 * wanted, "the runs end before they can be killed"


def read_events(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]


def test_every_job_is_done_once_whoever_is_killed(small_config, tmp_path: Path, full: bool) -> None:
    """R15. Workers are killed and replaced until all jobs are done; one job always crashes and is set aside."""
    rng, ledger = random.Random(1), Ledger(tmp_path / "queue")
    good = [
        ledger.add(small_config(seed=seed, steps=10, checkpoint_every=INTERVAL)) for seed in range(40 if full else 4)
    ]
    poison = ledger.add(small_config(seed=POISON, steps=10))
    workers, kills = 3 if full else 2, 0

    crew = [started(work, ledger.folder) for _ in range(workers)]
    limit = time.monotonic() + (1200.0 if full else 120.0)
    while crew and time.monotonic() < limit:
        time.sleep(5.0 if full else rng.uniform(0.5, 1.5))
        crew = [child for child in crew if child.exitcode is None]
        if crew and kills < (30 if full else 2):
            victim = rng.choice(crew)
            victim.kill()
            ended(victim)
            kills += 1
            crew = [child for child in crew if child is not victim] + [started(work, ledger.folder)]
    assert not crew
    assert {ledger.status(job).state for job in good} <= {"done", "failed"}
    lost = [job for job in good if ledger.status(job).state == "failed"]
    assert not lost, [ledger.status(job).reason for job in lost]
    print(f"{len(good)} jobs, {kills} kills, at most {max(ledger.status(job).attempts for job in good)} attempts")
    assert "poison" in ledger.status(poison).reason
    assert ledger.status(poison).state == "failed"
    for job in good:
        assert sum(event["event"] == "Finished" for event in read_events(job.run)) == 1
