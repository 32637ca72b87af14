"""A new run that begins where another one was: its checkpoint, with other words or numbers from there on."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sds3d.atomic import write_atomic, writing
from sds3d.config import LIVE, RunConfig, read_json_object
from sds3d.errors import CheckpointError, ConfigError
from sds3d.jobs.queue import Job, Ledger, job_name
from sds3d.run.checkpoint import load_wanted
from sds3d.training.session import CHECKPOINTS, CONFIG

FORKABLE = (*LIVE, "steps")  # what a checkpoint holds no state of


def fork(ledger: Ledger, run: Path, changes: Mapping[str, Any], step: int | None = None) -> Job:
    """A job of the ledger that goes on from the run's checkpoint at `step`, or its newest, with `changes`.

    ConfigError where nothing is changed, or something that cannot be; CheckpointError where it has no such checkpoint.
    """
    config = RunConfig.from_dict(read_json_object(run / CONFIG)).with_changes(changes, FORKABLE)
    checkpoint, problems = load_wanted(run / CHECKPOINTS, step)
    if checkpoint is None or problems:
        raise CheckpointError(problems[0] if problems else f"{run} has no checkpoint yet", hint="wait for the first")
    if checkpoint.step >= config.steps:
        raise ConfigError(
            f"steps = {config.steps} is no more than the checkpoint's {checkpoint.step}", hint="say more steps"
        )
    name = job_name(config)
    if name in (job.name for job in ledger.jobs()):
        raise ConfigError("there is a run with these very options already", hint="change something")
    target = ledger.folder / name / "run"
    with writing(target):
        folder = f"step-{checkpoint.step:06d}"
        shutil.copytree(run / CHECKPOINTS / folder, target / CHECKPOINTS / folder)
    write_atomic(target / CONFIG, json.dumps(config.to_dict(), indent=2).encode())
    return ledger.add(config)  # last: from now on a worker may take it
