"""Best of N: several seeds are begun, judged on the way, and only the best of them is finished.

OUT/{seed-0/, seed-1/, ..., ranking.json}     run folders, all but the best of them stopped on the way
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from sds3d.atomic import write_json
from sds3d.config.run_config import RunConfig, read_json_object
from sds3d.errors import ConfigError, NumericsError
from sds3d.evaluation.classifier import Classifier, load_classifier
from sds3d.evaluation.classifier_scores import attribute_shares
from sds3d.evaluation.renders import GREY, scene_pictures, scored_cameras
from sds3d.metrics import view_classifier
from sds3d.priors.base import Prior
from sds3d.priors.embedded.captions import Description, parse
from sds3d.run.checkpoint import checkpoints_in, step_of
from sds3d.run.events import Event, Finished, StepDone
from sds3d.scenes import Scene
from sds3d.training.session import CHECKPOINTS, CONFIG, REPORT, Session

RANKING = "ranking.json"


@dataclass(frozen=True)
class Ranked:
    """One seed at the step of the ranking; higher scores are better, and the first that differs decides."""

    folder: str  # below the whole's
    seed: int
    step: int
    scores: dict[str, float]

    def key(self) -> tuple[float, ...]:
        return tuple(self.scores.values())


class BestOf:
    """N runs with one prior in common. The same folder again goes on where it was."""

    def __init__(self, config: RunConfig, count: int, until: int, folder: Path) -> None:
        """ConfigError where there is nothing to choose, or nothing to classifier by; nothing is written yet."""
        if not 1 <= until < config.steps:
            raise ConfigError(f"the ranking is at step {until}", hint=f"say --until 1 to {config.steps - 1}")
        if config.scene.is_flat:
            raise ConfigError(f"a scene of kind {config.scene.name} is flat: it has no sides to classifier it by")
        if parse(config.prompt) is None and not (config.prior.reads_views or config.prior.reads_cameras):
            raise ConfigError(f"the prior {config.prior.name} tells no sides apart: there is nothing to rank by")
        self.until, self.folder = until, folder
        self.configs = {
            folder / f"seed-{config.seed + index}": RunConfig.from_dict(
                {**config.to_dict(), "seed": config.seed + index}
            )
            for index in range(count)
        }
        self.stopped = False
        self._session: Session | None = None
        self._prior: Prior | None = None

    def stages(self) -> Iterator[tuple[Path, Iterator[Event]]]:
        """(run folder, its events) of every seed up to the ranking, then of the best from there to its end.

        The events have to be read before the next stage is asked for. A seed that diverges is not chosen; NumericsError
        where all do.
        """
        for path, config in self.configs.items():
            if not self.stopped and _saved(path) < self.until and not (self.folder / RANKING).is_file():
                yield path, self._begin(path, config)
        if self.stopped:
            return
        best = self.folder / self.ranking()[0].folder
        if not (best / REPORT).is_file():
            yield best, self._session_of(best, self.configs[best]).run()

    def ranking(self) -> list[Ranked]:
        """All seeds that got so far, best first; written down the first time."""
        path = self.folder / RANKING
        if not path.is_file():
            there = [self._rank(run, config) for run, config in self.configs.items() if _saved(run) >= self.until]
            if not there:
                raise NumericsError("every seed diverged before the ranking", hint="lower the learning rates")
            found = sorted(there, key=Ranked.key, reverse=True)
            write_json(path, {"until": self.until, "ranking": [asdict(one) for one in found]})
        try:
            rows = [Ranked(**row) for row in read_json_object(path)["ranking"]]
            if not rows or any(self.folder / row.folder not in self.configs for row in rows):
                raise ConfigError(f"{path} is of other seeds", hint="say another --out, or remove it")
            return rows
        except (KeyError, TypeError) as error:
            raise ConfigError(f"{path} is damaged: {error}", hint="remove it: the seeds are ranked again") from error

    def stop(self) -> None:
        """Save the run that is under way and begin no other. Safe from any thread or signal handler."""
        self.stopped = True
        if self._session is not None:
            self._session.stop()

    def _begin(self, path: Path, config: RunConfig) -> Iterator[Event]:
        session = self._session_of(path, config)
        with suppress(NumericsError):
            for event in session.run():
                if isinstance(event, StepDone) and event.step >= self.until:
                    session.stop()
                yield event
                if isinstance(event, Finished):
                    return
        yield Finished(interrupted=True)

    def _session_of(self, path: Path, config: RunConfig) -> Session:
        if (path / CONFIG).is_file():
            if RunConfig.from_dict(read_json_object(path / CONFIG)) != config:
                raise ConfigError(f"{path} holds a run with other options", hint="say another --out, or remove it")
            session = Session.resume(path, self._prior)
        else:
            session = Session(config, path, prior=self._prior)
        self._prior, self._session = session.prior(), session
        return session

    def _rank(self, path: Path, config: RunConfig) -> Ranked:
        session = Session.resume(path, self._prior, step=self.until)
        self._prior = session.prior()
        scores = rank_scores(session.scene(), config, self._prior, session.device())
        return Ranked(path.name, config.seed, self.until, {name: round(value, 4) for name, value in scores.items()})


def rank_scores(scene: Scene, config: RunConfig, prior: Prior, device: torch.device) -> dict[str, float]:
    """How good an unfinished object is, the most telling first.

    For a prompt of the embedded prior's world what the classifier reads in it (see sds3d.evaluation); for any other whether
    its sides look to the prior like the sides that they are (see sds3d.metrics.view_classifier).
    """
    meant = parse(config.prompt)
    if meant is not None:
        return judge_scores(load_classifier(), scene, meant)
    found = view_classifier.measure(prior, config, scene.render, device)
    assert found is not None, "refused when the runs were planned"
    return {"agreement": found.agreement, "margin": found.margin}


def judge_scores(classifier: Classifier, scene: Scene, meant: Description) -> dict[str, float]:
    """Share of right attributes over twelve views, then the caption's mean log-likelihood."""
    pictures = scene_pictures(scene, scored_cameras())
    prediction = classifier.read(pictures.over(GREY), pictures.cameras)
    shares = attribute_shares(classifier, pictures, meant)
    return {
        "attributes": sum(shares.values()) / len(shares),
        "likelihood": float(prediction.log_likelihood(meant).mean()),
    }


def _saved(path: Path) -> int:
    """The newest checkpoint's step; 0 where there is none."""
    newest = next(iter(checkpoints_in(path / CHECKPOINTS)), None)
    return 0 if newest is None else step_of(newest)
