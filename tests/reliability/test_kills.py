"""R1 and R15: processes that are killed at random moments lose no more than they may."""

import random
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch

from sds3d import RunConfig, Session
from sds3d.jobs import Queue
from sds3d.run.events import Event, Finished
from sds3d.run.folder import RunFolder
from tests.reliability.children import POISON, ended, go_on, started, work

pytestmark = pytest.mark.xdist_group("children")

INTERVAL = 5  # steps between checkpoints
STEPS = 120  # so that a run takes longer than the time after which it is killed, on a quick machine too


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
        seen = RunFolder(run).status().step
        checkpoint, problems = RunFolder(run).load_checkpoint()
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
        config = small_config(seed=seed, steps=STEPS, checkpoint_every=INTERVAL, preview_every=0)
        kills += killed_and_resumed(config, tmp_path / f"run-{seed}", rng, min(5, wanted - kills))
        *_, last = read_events(tmp_path / f"run-{seed}")
        assert isinstance(last, Finished)
        if seed == 0:
            list(Session(config, tmp_path / "whole").run())
            whole = Session.resume(tmp_path / "whole").scene().state_dict()
            for name, value in Session.resume(tmp_path / "run-0").scene().state_dict().items():
                assert torch.equal(value, whole[name]), name
        seed += 1
        assert seed < 4 * wanted, "the runs end before they can be killed"


def read_events(run: Path) -> list[Event]:
    return [event for _, event in RunFolder(run).reader().read()]


def test_every_job_is_done_once_whoever_is_killed(small_config, tmp_path: Path, full: bool) -> None:
    """R15. Workers are killed and replaced until all jobs are done; one job always crashes and is set aside."""
    rng, queue = random.Random(1), Queue(tmp_path / "queue")
    seeds = [*range(40 if full else 4), POISON]
    queue.add_many([small_config(seed=seed, steps=10, checkpoint_every=INTERVAL) for seed in seeds])
    workers, kills = 3 if full else 2, 0
    pool, begun = [started(work, queue.folder) for _ in range(workers)], time.monotonic()
    limit = begun + (1500.0 if full else 180.0)
    while not queue.jobs("done"):  # how long a job takes here: on a busy machine kills come later
        assert time.monotonic() < limit
        time.sleep(0.05)
    took = time.monotonic() - begun
    while pool and time.monotonic() < limit:
        pool = [child for child in pool if child.exitcode is None]
        if pool and kills < (30 if full else 2):
            victim = rng.choice(pool)
            victim.kill()
            ended(victim)
            kills += 1
            pool = [child for child in pool if child is not victim] + [started(work, queue.folder)]
        time.sleep(max(5.0, took) if full else rng.uniform(0.3, 0.9) * took)
    assert not pool
    assert kills > 0
    *good, poison = queue.jobs()
    assert [(job.state, job.reason) for job in good if job.state != "done"] == []
    print(
        f"{len(good)} jobs, the first in {took:.1f} s, {kills} kills, "
        f"at most {max(job.attempts for job in good)} attempts"
    )
    assert "poison" in poison.reason
    assert poison.state == "failed"
    for job in good:
        ends = [event for event in read_events(job.run.path) if isinstance(event, Finished)]
        assert [event.interrupted for event in ends] == [False]
