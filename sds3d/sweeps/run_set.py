"""Several runs, one after the other, each in its own folder: what comparing and benchmarking have in common."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from sds3d.atomic import write_atomic
from sds3d.config.run_config import RunConfig, read_json_object
from sds3d.errors import ConfigError, ExportError, NumericsError
from sds3d.priors.base import Prior
from sds3d.run.events import Event
from sds3d.training.session import CONFIG, REPORT, Session

FAILURE = "failure.json"  # in the folder of a run that diverged: why it ended before its last step


class ManyRuns:
    """Runs with one prior in common. A run that is there already, with the same config, is not done again, and one that
    was interrupted goes on: the same command finishes what is left."""

    def __init__(self, runs: Mapping[Path, RunConfig]) -> None:
        """ConfigError where a folder holds a run with another config; nothing is written yet."""
        self.runs, self._stopped = dict(runs), False
        self.prior: Prior | None = None
        self._session: Session | None = None
        for path, config in self.runs.items():
            if (path / CONFIG).is_file() and RunConfig.from_dict(read_json_object(path / CONFIG)) != config:
                raise ConfigError(f"{path} holds a run with other options", hint="say another --out, or remove it")

    def run(self) -> Iterator[tuple[Path, Event]]:
        """Every event of every run with the run's folder.

        A run whose export is refused does not stop the others. Nor does one that diverges: it hands over what it was
        before, and FAILURE says why.
        """
        for path, config in self.runs.items():
            if self._stopped:
                return
            if (path / REPORT).is_file():
                continue
            begun = (path / CONFIG).is_file()
            self._session = session = (
                Session.resume(path, self.prior) if begun else Session(config, path, prior=self.prior)
            )
            self.prior = session.prior()
            try:
                for event in session.run():
                    yield path, event
            except ExportError:
                continue  # the report says why, and so does the table
            except NumericsError as error:
                write_atomic(path / FAILURE, json.dumps({"reason": str(error)}).encode())
                yield from self._hand_over(path)

    def _hand_over(self, path: Path) -> Iterator[tuple[Path, Event]]:
        """The results of a run as its newest checkpoint has it."""
        session = Session.resume(path, self.prior)
        session.finish_early()
        try:
            for event in session.run():
                yield path, event
        except ExportError:
            return

    def stop(self) -> None:
        """Save the run that is under way and begin no other."""
        self._stopped = True
        if self._session is not None:
            self._session.stop()

    def finished(self) -> bool:
        """Whether every run has its report."""
        return all((path / REPORT).is_file() for path in self.runs)


def failure(run: Path) -> str | None:
    """Why a run ended before its last step; None where it did not."""
    return str(read_json_object(run / FAILURE).get("reason")) if (run / FAILURE).is_file() else None
