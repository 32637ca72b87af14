"""Forks: whole or absent, whatever the disk does, and checked like any prompt."""

import os
from pathlib import Path

import pytest

from sds3d import Session
from sds3d.errors import CheckpointError, ConfigError, OutputError, RunBusy
from sds3d.jobs import Queue, Worker
from sds3d.jobs.processes import WorkerId
from sds3d.jobs.queue import fork
from sds3d.jobs.worker import standing_commands
from sds3d.run.checkpoint import Checkpoint
from sds3d.run.events import Change, Started
from sds3d.run.folder import RunFolder


@pytest.fixture(scope="module")
def run(small_config, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("fork") / "run"
    list(Session(small_config(steps=8, checkpoint_every=4), folder).run())
    return RunFolder(folder)


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    return Queue(tmp_path / "queue")


def test_a_fork_goes_on_from_the_checkpoint_with_its_changes(queue: Queue, run: RunFolder) -> None:
    job = fork(queue, run, {"prompt": "a blue ball", "steps": 10}, step=4)
    events = [event for _, event in Worker(queue).run()]
    assert next(event for event in events if isinstance(event, Started)).step == 4
    assert (job.prompt, queue.job(job.name).state) == ("a blue ball", "done")
    assert job.run.config().prompt == "a blue ball"


def test_what_cannot_be_forked_is_named(queue: Queue, run: RunFolder, small_config, tmp_path: Path) -> None:
    fork(queue, run, {"prompt": "a blue ball", "steps": 9})
    for changes, said in (
        ({"prompt": "a blue ball", "steps": 9}, "exists already"),
        ({"seed": 3}, "seed cannot be changed"),
        ({"steps": 8}, "not more than the checkpoint's 8"),
        ({"prompt": "xyzzy", "steps": 9}, "does not know"),  # B10
    ):
        with pytest.raises(ConfigError, match=said):
            fork(queue, run, changes)
    with pytest.raises(CheckpointError):
        fork(queue, run, {"steps": 12}, step=5)
    empty = RunFolder.create(tmp_path / "empty", small_config())
    with pytest.raises(CheckpointError, match="no checkpoint yet"):
        fork(queue, empty, {"prompt": "a blue ball"})
    assert len(queue.jobs()) == 1
    assert sorted(path.name for path in queue.folder.iterdir()) == sorted(["database", queue.jobs()[0].name])


def failing_at(monkeypatch: pytest.MonkeyPatch, number: int) -> list[int]:
    """From the write of that number on the disk is full: files, folders and renames; how many writes there were."""
    count = [0]

    def guard(function):
        def guarded(*args, **kwargs):
            count[0] += 1
            if count[0] > number:
                raise OSError(28, "No space left on device")
            return function(*args, **kwargs)

        return guarded

    for name in ("mkdir", "rename", "replace", "fsync"):
        monkeypatch.setattr(os, name, guard(getattr(os, name)))
    opened = os.open
    writes = guard(opened)
    monkeypatch.setattr(
        os,
        "open",
        lambda path, flags, *rest, **more: (writes if flags & os.O_CREAT else opened)(path, flags, *rest, **more),
    )
    return count


def test_a_fork_that_a_full_disk_cuts_off_can_be_made_later(queue: Queue, run: RunFolder, monkeypatch) -> None:
    """B18: at each write."""
    queue.add(RunFolder(run.path).config())  # the queue is there
    number, changes = 0, {"prompt": "a green ball", "steps": 12}
    while True:
        with monkeypatch.context() as patch:
            failing_at(patch, number)
            try:
                fork(queue, run, changes)
                break
            except OutputError:
                assert len(queue.jobs()) == 1
        number += 1
        assert number < 100
    assert number > 5
    assert [job.prompt for job in queue.jobs()] == ["a red ball", "a green ball"]
    assert queue.jobs()[1].run.checkpoint_steps() == [8]
    job = queue.jobs()[1]
    assert {path.name for path in job.folder.iterdir()} == {"job.json", "run"}


def test_the_rest_of_a_fork_is_not_replaced_under_somebody_who_works_in_it(
    queue: Queue, run: RunFolder, monkeypatch
) -> None:
    changes = {"prompt": "a yellow ball", "steps": 12}
    with monkeypatch.context() as patch:
        patch.setattr(Queue, "add", lambda self, config: (_ for _ in ()).throw(OutputError("full")))
        with pytest.raises(OutputError):
            fork(queue, run, changes)
    (left,) = queue.folder.glob("*/run")
    with RunFolder(left).lock(), pytest.raises(RunBusy):
        fork(queue, run, changes)
    assert fork(queue, run, changes).state == "queued"


def test_a_fork_moves_no_stage_past_its_checkpoint(queue: Queue, small_config, tmp_path: Path) -> None:
    config = small_config(steps=24, stages=[{"begin_at": 0.5, "options": {"guidance.guidance_scale": 3}}])
    early, late = (Checkpoint(step, {}, stage=stage) for step, stage in ((8, 0), (14, 1)))
    for name, checkpoint, steps, begins, fits in (("early", early, 14, 7, 26), ("late", late, 48, 24, 25)):
        run = RunFolder.create(tmp_path / name, config, checkpoint)
        with pytest.raises(ConfigError, match=f"steps = {steps} moves the run's stages.*stage 2 from step {begins}"):
            fork(queue, run, {"steps": steps})
        assert fork(queue, run, {"steps": fits}).run.load_checkpoint()[0] is not None


def test_a_command_to_change_what_a_later_stage_says_is_not_lost(queue: Queue, small_config) -> None:
    stage = {"begin_at": 0.5, "options": {"guidance.guidance_scale": 9}}
    job = queue.add(small_config(stages=[stage]))
    queue.command(job, Change({"guidance.guidance_scale": job.config.guidance.guidance_scale}))
    claimed = queue.claim(WorkerId.here())
    assert claimed is not None
    assert standing_commands(queue, claimed) == [Change({"guidance.guidance_scale": 4.0})]
