"""Several runs, one after the other, each in its own folder: what comparing and benchmarking have in common."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from sds3d.config import RunConfig, read_json_object
from sds3d.errors import ConfigError, ExportError
from sds3d.events import Event
from sds3d.priors.base import Prior
from sds3d.session import CONFIG, REPORT, Session


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
        """Every event of every run with the run's folder. A run whose export is refused does not stop the others."""
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

    def stop(self) -> None:
        """Save the run that is under way and begin no other."""
        self._stopped = True
        if self._session is not None:
            self._session.stop()

    def finished(self) -> bool:
        """Whether every run has its report."""
        return all((path / REPORT).is_file() for path in self.runs)


def cell(value: float | None) -> str:
    """A number for people; a dash where there is none."""
    return "-" if value is None else f"{value:.3g}"
