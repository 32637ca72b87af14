"""Best of N: who is ranked, who goes on, and that the same folder goes on where it was."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sds3d import RunConfig, Session
from sds3d.errors import ConfigError, NumericsError
from sds3d.evaluation.classifier import load_classifier
from sds3d.evaluation.scores import score_by_classifier, scorer_for
from sds3d.priors.analytic import AnalyticPrior
from sds3d.priors.embedded.captions import parse
from sds3d.run.events import Finished, StepDone
from sds3d.run.folder import RunFolder
from sds3d.sweeps.best_of import RANKING, BestOf
from sds3d.training.trainer import Trainer
from sds3d_app.commands.generate import summary

SCORES = {0: 0.2, 1: 0.9, 2: 0.5}  # by seed


def best_of(config: RunConfig, count: int, until: int, folder: Path) -> BestOf:
    return BestOf(config, count, until, folder, lambda session: {"attributes": SCORES[session.config.seed]})


def exhaust(best: BestOf) -> list[tuple[str, list[Any]]]:
    return [(path.name, list(events)) for path, events in best.stages()]


def test_all_begin_and_the_best_ends(small_config, tmp_path: Path) -> None:
    config = small_config(checkpoint_every=100)
    found = exhaust(best_of(config, 3, 10, tmp_path))
    assert [name for name, _ in found] == ["seed-0", "seed-1", "seed-2", "seed-1"]
    for _, events in found[:3]:
        assert max(event.step for event in events if isinstance(event, StepDone)) == 10
        assert events[-1] == Finished(interrupted=True)
    assert found[3][1][-1].report["steps"] == 24
    ranking = json.loads((tmp_path / RANKING).read_text())
    assert [row["seed"] for row in ranking["ranking"]] == [1, 2, 0]
    assert [(path / "sheet.png").is_file() for path in sorted(tmp_path.glob("seed-*"))] == [False, True, False]
    assert exhaust(best_of(config, 3, 10, tmp_path)) == []


def test_the_best_is_the_run_that_its_seed_makes_alone(small_config, tmp_path: Path) -> None:
    exhaust(best_of(small_config(), 3, 10, tmp_path / "best"))
    list(Session(small_config(seed=1), tmp_path / "alone").run())
    got, want = (Session.resume(tmp_path / name).scene().state_dict() for name in ("best/seed-1", "alone"))
    assert all(torch.equal(value, want[name]) for name, value in got.items())


def test_it_goes_on_where_it_was_stopped(small_config, tmp_path: Path) -> None:
    config, done = small_config(), []
    best = best_of(config, 3, 10, tmp_path)
    for path, events in best.stages():
        for event in events:
            if path.name == "seed-1" and isinstance(event, StepDone) and event.step == 5:
                best.runs.stop()
        done.append(path.name)
    assert done == ["seed-0", "seed-1"]
    assert not (tmp_path / RANKING).exists()
    again = exhaust(best_of(config, 3, 10, tmp_path))
    assert [name for name, _ in again] == ["seed-1", "seed-2", "seed-1"]
    assert next(event.step for event in again[0][1] if isinstance(event, StepDone)) == 6


def test_a_seed_that_diverges_is_not_chosen(small_config, tmp_path: Path, monkeypatch) -> None:
    advance = Trainer.advance

    def failing(self: Trainer) -> StepDone:
        if self.config.seed in broken and self.step >= 4:
            raise NumericsError("the loss is not finite")
        return advance(self)

    monkeypatch.setattr(Trainer, "advance", failing)
    monkeypatch.setattr("sds3d.training.recovery.ROLLBACKS", 0)
    broken, config = {1}, small_config()
    found = exhaust(best_of(config, 3, 10, tmp_path / "one"))
    assert found[-1][0] == "seed-2"
    broken = {0, 1, 2}
    with pytest.raises(NumericsError, match="every seed diverged"):
        exhaust(best_of(config, 3, 10, tmp_path / "all"))


def test_the_classifier_prefers_the_object_of_the_prompt() -> None:
    """Splats in the colour of the prompt, and in another one."""
    from sds3d.scenes import GaussiansConfig

    scores = []
    for color in ((0.8, 0.1, 0.1), (0.1, 0.2, 0.8)):
        scene = GaussiansConfig(count=3000, init_opacity=0.95).build(torch.Generator().manual_seed(0))
        with torch.no_grad():
            scene.raw_colors.copy_(torch.tensor(color).logit())
        scores.append(score_by_classifier(load_classifier(), scene, parse("a red ball")))
    assert scores[0]["attributes"] > scores[1]["attributes"]
    assert scores[0]["likelihood"] > scores[1]["likelihood"]


@pytest.mark.parametrize(
    ("options", "until", "said"),
    [
        ({}, 24, "say --until 1 to 23"),
        ({}, 0, "say --until 1 to 23"),
        ({"scene": {"name": "image"}, "loss_weights": {}}, 10, "flat"),
        ({"prompt": "a castle in the mist", "prior": "analytic"}, 10, "tells no sides apart"),
    ],
)
def test_what_cannot_be_ranked_is_refused_before_anything_runs(
    small_config, tmp_path: Path, options: dict[str, Any], until: int, said: str
) -> None:
    config = small_config(**options)
    with pytest.raises(ConfigError, match=said):
        BestOf(config, 3, until, tmp_path / "out", scorer_for(config))
    assert not (tmp_path / "out").exists()


def test_a_damaged_ranking_is_named(small_config, tmp_path: Path) -> None:
    exhaust(best_of(small_config(), 2, 10, tmp_path))
    (tmp_path / RANKING).write_text('{"ranking": [{"seed": 1}]}')
    with pytest.raises(ConfigError, match="is damaged"):
        best_of(small_config(), 2, 10, tmp_path).ranking()


@pytest.mark.parametrize("until", [9, 10, 23])
def test_a_seed_whose_ranking_step_was_skipped_is_ranked_by_the_next_one(
    small_config, tmp_path: Path, monkeypatch, until: int
) -> None:
    """B17: the checkpoint of exactly that step was demanded, each time the same command ran again."""
    advance = Trainer.advance

    def failing(self: Trainer) -> StepDone:
        if self.config.seed == 1 and self.step == until - 1 and not self._skipped:  # type: ignore[attr-defined]
            self._skipped = True  # type: ignore[attr-defined]
            raise NumericsError("the loss is not finite")
        return advance(self)

    monkeypatch.setattr(Trainer, "_skipped", False, raising=False)
    monkeypatch.setattr(Trainer, "advance", failing)
    stages = exhaust(best_of(small_config(checkpoint_every=100), 2, until, tmp_path))
    assert stages[-1][0] == "seed-1"
    assert stages[-1][1][-1].report["steps"] == 24
    rows = json.loads((tmp_path / RANKING).read_text())["ranking"]
    assert [(row["seed"], row["step"]) for row in rows] == [(1, until + 1), (0, until)]
    assert exhaust(best_of(small_config(checkpoint_every=100), 2, until, tmp_path)) == []


def test_a_stage_that_is_read_to_its_last_event_only_holds_no_folder(small_config, tmp_path: Path) -> None:
    """As displays read them: the best of one seed is the very folder of the stage before."""
    names, kept = [], []
    for path, events in best_of(small_config(), 1, 10, tmp_path).stages():
        for event in events:
            if isinstance(event, Finished):
                break
        names.append(path.name)
        kept.append(events)
    assert names == ["seed-0", "seed-0"]
    assert RunFolder(tmp_path / "seed-0").status().state == "done"


def test_strict_refuses_words_that_the_prior_does_not_know(small_config, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(AnalyticPrior, "unknown_words", lambda self, text: ["spaceship"])
    best = BestOf(small_config(), 2, 10, tmp_path, lambda session: {"attributes": 0.0}, strict=True)
    with pytest.raises(ConfigError, match="spaceship"):
        exhaust(best)
    assert not any(tmp_path.iterdir())


def test_the_best_that_diverges_later_hands_over_what_it_was(small_config, tmp_path: Path, monkeypatch) -> None:
    advance = Trainer.advance

    def failing(self: Trainer) -> StepDone:
        if self.step >= 14:
            raise NumericsError("the loss is not finite")
        return advance(self)

    monkeypatch.setattr(Trainer, "advance", failing)
    monkeypatch.setattr("sds3d.training.recovery.ROLLBACKS", 0)
    stages = exhaust(best_of(small_config(), 2, 10, tmp_path))
    assert stages[-1][1][-1].report["steps"] >= 10
    assert (tmp_path / "seed-1" / "sheet.png").is_file()


def test_a_best_run_without_a_mesh_is_summed_up_when_the_command_is_repeated(tmp_path: Path) -> None:
    (tmp_path / "sheet.png").touch()
    folder = RunFolder(tmp_path)
    folder.write_report({"mesh": {"refused": "the mesh has holes"}, "seconds": {"total": 12.0}})
    assert "sheet.png" in summary(folder)
