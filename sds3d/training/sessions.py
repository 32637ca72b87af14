"""Sessions one after the other in one process: a worker's jobs, or the runs of a comparison."""

from collections.abc import Sequence
from contextlib import suppress

from sds3d.config import RunConfig
from sds3d.errors import OutputError, Sds3dError
from sds3d.priors.base import Prior
from sds3d.prompts import check_words
from sds3d.run.events import Command, Stop
from sds3d.run.folder import RunFolder
from sds3d.training.memory import find_device
from sds3d.training.session import Session


class Sessions:
    """At most one prior is in memory; sessions of the same prior and device share it."""

    def __init__(self, strict: bool = False) -> None:
        """`strict` refuses words of new runs that the prior does not know, instead of warning of them."""
        self.strict, self.stopped = strict, False
        self._session: Session | None = None
        self._prior: tuple[object, Prior] | None = None

    def open(
        self, config: RunConfig, folder: RunFolder, step: int | None = None, commands: Sequence[Command] = ()
    ) -> Session:
        """The run of a folder, which is made if there is none. The session has `commands` before it can be stopped.

        `step` is a checkpoint, see Session.resume. ConfigError, and no folder, for words as in `check_words`.
        """
        if folder.exists():
            config = folder.config()  # with changes made during the run
        key = (config.prior, config.device)
        if self._prior is None or self._prior[0] != key:
            self._session = self._prior = None  # freed before the next one is loaded
            self._prior = key, config.prior.build(find_device(config.device))
        prior = self._prior[1]
        if not folder.exists():
            check_words(prior, config.prior, config.prompt, config.negative_prompt, self.strict)
            begin(config, folder)
        session = Session.resume(folder.path, prior, step)
        for command in commands:
            send(session, command)
        self._session = session
        if self.stopped:  # before the line above
            session.send(Stop())
        return session

    def stop(self) -> None:
        """Save the run that is under way, and each later one before its first step. Safe in any thread and in signal
        handlers."""
        self.stopped = True
        if (session := self._session) is not None:
            session.send(Stop())


def begin(config: RunConfig, folder: RunFolder) -> None:
    """Make the run folder, whole or not at all, if there is none. From then on a run is always resumed, which takes its
    lock first: of several processes that begin one run, one has it and the others get RunBusy."""
    if folder.path.is_dir() and not folder.exists():  # in this order: a folder that another process makes has a config
        if folder.checkpoint_steps():  # only its config was lost
            folder.write_config(config)
            return
        folder.delete()  # the rest of one that was removed
    if folder.exists():
        return
    try:
        RunFolder.create(folder.path, config)
    except OutputError:
        if not folder.exists():  # nor has another process just made it
            raise


def send(session: Session, command: Command) -> None:
    """Tell a session; a change that it cannot take any more was checked when it was made, and is passed over."""
    with suppress(Sds3dError):
        session.send(command)
