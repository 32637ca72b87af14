"""Several runs, one after the other, each in its own folder: the engine of comparisons, suites and best-of-N."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from sds3d.config import RunConfig
from sds3d.errors import ConfigError, ExportError, NumericsError
from sds3d.prompts import unknown_word_warnings
from sds3d.run.events import Event, Failed, FinishEarly, Finished, Started, StepDone, latest
from sds3d.run.folder import RunFolder
from sds3d.training.session import Session
from sds3d.training.sessions import Sessions


class RunSet(Sessions):
    """Runs by folder, with at most one prior in memory; `stop` saves the current one and begins no other.

    Finished runs are skipped and interrupted ones resumed: the same set again does what is left. RunBusy, naming the
    process, where another one is at a run.
    """

    def __init__(self, configs: Mapping[Path, RunConfig], strict: bool = False) -> None:
        """ConfigError if a folder holds a run with another config, or other files, or for words of a new one as in
        `check_words`; nothing is written yet."""
        super().__init__(strict)
        self.configs = dict(configs)
        for path, config in self.configs.items():
            self._check(path)
            if not RunFolder(path).exists():
                unknown = config.prior.unknown_words(f"{config.prompt} {config.negative_prompt}")
                unknown_word_warnings(unknown, config.prior, config.prompt, strict)

    def _check(self, path: Path) -> None:
        is_there, folder = path.exists(), RunFolder(path)
        if folder.exists():
            if not folder.holds(self.configs[path]):
                raise ConfigError(f"{path} holds a run with other options", hint="say another --out, or remove it")
        elif is_there and not folder.is_free():
            raise ConfigError(f"{path} holds files of something else", hint="say another --out, or remove it")

    def run(self) -> Iterator[tuple[Path, Event]]:
        """Every event of every run that is not finished, with its folder. A refused export does not stop the set."""
        for path in self.configs:
            if self.stopped:
                return
            if RunFolder(path).report() is None:
                with suppress(ExportError):  # the report has the reason
                    for event in self.events(path):
                        yield path, event

    def events(self, path: Path) -> Iterator[Event]:
        """Every event of one run. If it cannot go on, it hands over what its newest checkpoint has; see `failure`.

        That is where it diverges, or has no surface for its next stage to begin with. ExportError for a refused result,
        whose reason is in the report.
        """
        try:
            yield from until_released(self.session(path))
            return
        except (NumericsError, ExportError):
            if RunFolder(path).report() is not None:
                raise
        session = self.session(path)
        session.send(FinishEarly())
        yield from until_released(session)

    def session(self, path: Path, step: int | None = None) -> Session:
        """The session of one run, begun or resumed. `step` is a checkpoint."""
        self._check(path)  # another process may have begun it since
        return self.open(self.configs[path], RunFolder(path), step)

    def finished(self) -> bool:
        """Whether every run has its results."""
        return all(RunFolder(path).report() is not None for path in self.configs)


def until_released(session: Session) -> Iterator[Event]:
    """The session's events; the last one comes when the run's folder is unlocked again."""
    last: Event | None = None
    for event in session.run():
        if isinstance(event, Finished):
            last = event
        else:
            yield event
    if last is not None:
        yield last


def failure(run: Path) -> str | None:
    """Why a finished run has fewer steps than planned; None if it has all of them."""
    folder = RunFolder(run)
    report = folder.report()
    if report is None or report["steps"] >= folder.config().steps:
        return None
    is_last = True  # what failed in the session that wrote the report is one of its results
    for _, event in latest(folder.reader().path):
        if isinstance(event, Failed) and not is_last:
            return event.reason
        is_last = is_last and not isinstance(event, Started)
        if isinstance(event, StepDone):  # it went on after any failure before
            break
    return "a person ended it early"
