"""A new run that begins where another one was: its checkpoint, with other words or numbers from there on."""

from collections.abc import Mapping
from typing import Any

from sds3d.config import LIVE
from sds3d.errors import CheckpointError, ConfigError
from sds3d.jobs.queue import Job, Queue, check_words, job_name
from sds3d.run.folder import RunFolder

FORKABLE = (*LIVE, "steps")  # options that a checkpoint holds no state of


def fork(queue: Queue, run: RunFolder, changes: Mapping[str, Any], step: int | None = None) -> Job:
    """A job that goes on from the run's checkpoint at `step`, or its newest, with `changes`.

    ConfigError if nothing is changed, or something that cannot be; CheckpointError if it has no such checkpoint. If the
    disk is full, there is no job, and the same fork can be made later.
    """
    config = run.config().with_changes(changes, FORKABLE)
    check_words(config)
    checkpoint, problems = run.load_checkpoint(step)
    if checkpoint is None or problems:
        raise CheckpointError(
            problems[0] if problems else f"{run.path} has no checkpoint yet", hint="wait for its first checkpoint"
        )
    if checkpoint.step >= config.steps:
        raise ConfigError(
            f"steps = {config.steps} is not more than the checkpoint's {checkpoint.step}", hint="give more steps"
        )
    target = RunFolder(queue.folder / job_name(config) / "run")
    if queue.named([job_name(config)]):
        raise ConfigError("a run with exactly these options exists already", hint="change something")
    if target.path.is_dir():
        target.delete()  # of a fork that was cut off before its job was added
    RunFolder.create(target.path, config, checkpoint)
    return queue.add(config)  # last: from now on a worker may take it
