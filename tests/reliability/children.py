"""Runs and workers to be killed: processes copied from one that has everything loaded and nothing else at work.

Not from pytest's own process: what its threads hold at that moment would stay locked in the copy for ever.
"""

import multiprocessing
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from unittest import mock

from sds3d import RunConfig, Session
from sds3d.jobs import Queue, Worker
from sds3d.run.folder import RunFolder
from sds3d.training import trainer
from sds3d_app.commands.generate import run

PATIENCE = 120.0  # seconds, for what takes a few
POISON = 1000  # the seed of a job that always fails

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["tests.reliability.loaded"])


def started(target: Callable[..., Any], *args: Any) -> BaseProcess:
    child = context.Process(target=target, args=args, daemon=True)
    child.start()
    return child


def ended(child: BaseProcess) -> int:
    """Its exit code; a child that does not end is killed, and fails the test."""
    child.join(PATIENCE)
    if child.exitcode is None:
        child.kill()
        raise AssertionError(f"process {child.pid} did not end within {PATIENCE:.0f} s")
    return child.exitcode


def begun(config: RunConfig, folder: Path) -> Session:
    return Session.resume(folder) if RunFolder(folder).exists() else Session(config, folder)


def go_on(config: RunConfig, folder: Path) -> None:
    with mock.patch.object(trainer, "LOG_EVERY", 1):  # so that the log says how far it was
        list(begun(config, folder).run())


def go_on_as_told(config: RunConfig, folder: Path) -> None:
    """As the command line does, with its handlers of signals and its exit code."""
    with mock.patch.object(trainer, "LOG_EVERY", 1):
        sys.exit(run(begun(config, folder), quiet=True, as_json=False))


def work(queue: Path) -> None:
    whole = Session.run

    def poisoned(self: Session) -> Any:
        if self.config.seed == POISON:
            raise ValueError("poison")
        return whole(self)

    with mock.patch.object(Session, "run", poisoned):
        list(Worker(Queue(queue)).run())
