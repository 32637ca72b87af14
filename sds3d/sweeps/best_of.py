"""Best of N: several seeds run for a while, are scored, and only the best one runs to its end.

OUT/{seed-0/, seed-1/, ..., ranking.json}     run folders; all but the best are stopped on the way
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from sds3d.atomic import write_json
from sds3d.config import RunConfig, read_json_object
from sds3d.errors import ConfigError, NumericsError
from sds3d.run.events import Event, Finished, StepDone, Stop
from sds3d.run.folder import RunFolder
from sds3d.sweeps.run_set import RunSet, until_released
from sds3d.training.session import Session

RANKING = "ranking.json"
Scorer = Callable[[Session], dict[str, float]]  # higher is better; the first that differs decides


@dataclass(frozen=True)
class Ranked:
    """One seed at the step at which it was scored."""

    folder: str  # below OUT
    seed: int
    step: int
    scores: dict[str, float]


class BestOf:
    """N seeds of one config. The same folder again does what is left."""

    def __init__(
        self, config: RunConfig, count: int, until: int, folder: Path, scorer: Scorer, strict: bool = False
    ) -> None:
        """The seeds are scored at step `until`. ConfigError if that is no step before the last; nothing is written."""
        if not 1 <= until < config.steps:
            raise ConfigError(f"the ranking is at step {until}", hint=f"say --until 1 to {config.steps - 1}")
        self.until, self.folder, self.scorer = until, folder, scorer
        seeds = range(config.seed, config.seed + count)
        configs = {folder / f"seed-{seed}": config.with_changes({"seed": seed}, ("seed",)) for seed in seeds}
        self.runs = RunSet(configs, strict)

    def stages(self) -> Iterator[tuple[Path, Iterator[Event]]]:
        """(run folder, its events) of every seed up to the ranking, then of the best one from there to its end.

        Read the events of a stage before asking for the next one. Seeds that diverge are not ranked; NumericsError if
        all do.
        """
        for path in self.runs.configs:
            is_ranked = (self.folder / RANKING).is_file() or self._scored_step(path) is not None
            if not (is_ranked or self.runs.stopped):
                yield path, self._begin(path)
        if not self.runs.stopped and (best := self._best()).report() is None:
            yield best.path, self.runs.events(best.path)

    def finished(self) -> bool:
        """Whether the best seed has its results."""
        return (self.folder / RANKING).is_file() and self._best().report() is not None

    def _best(self) -> RunFolder:
        return RunFolder(self.folder / self.ranking()[0].folder)

    def ranking(self) -> list[Ranked]:
        """The seeds that did not diverge, best first; scored and written down the first time."""
        path = self.folder / RANKING
        if not path.is_file():
            rows = [self._rank(run, step) for run in self.runs.configs if (step := self._scored_step(run)) is not None]
            if not rows:
                raise NumericsError("every seed diverged before the ranking", hint="lower the learning rates")
            rows.sort(key=lambda row: tuple(row.scores.values()), reverse=True)
            write_json(path, {"until": self.until, "ranking": [asdict(row) for row in rows]})
        try:
            rows = [Ranked(**row) for row in read_json_object(path)["ranking"]]
            if not rows or any(self.folder / row.folder not in self.runs.configs for row in rows):
                raise ConfigError(f"{path} is of other seeds", hint="say another --out, or remove it")
            return rows
        except (KeyError, TypeError) as error:
            raise ConfigError(f"{path} is damaged: {error}", hint="remove it: the seeds are ranked again") from error

    def _begin(self, path: Path) -> Iterator[Event]:
        session = self.runs.session(path)
        try:
            for event in until_released(session):
                if isinstance(event, StepDone) and event.step >= self.until:
                    session.send(Stop())
                yield event
        except NumericsError:
            yield Finished(interrupted=True)

    def _scored_step(self, path: Path) -> int | None:
        """The first checkpoint from `until` on: a later one if just that step was skipped. None if there is none."""
        return min((step for step in RunFolder(path).checkpoint_steps() if step >= self.until), default=None)

    def _rank(self, path: Path, step: int) -> Ranked:
        session = self.runs.session(path, step)
        scores = {name: round(value, 4) for name, value in self.scorer(session).items()}
        return Ranked(path.name, session.config.seed, step, scores)
