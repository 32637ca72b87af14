"""Many runs with one prior: finished ones are skipped, interrupted ones go on, failures do not stop the others."""

import gc
import os
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sds3d.config import resolve
from sds3d.errors import ConfigError, ExportError, NumericsError, RunBusy
from sds3d.priors.analytic import AnalyticConfig
from sds3d.run.events import Failed, FinishEarly, Finished, Started, StepDone
from sds3d.run.folder import RunFolder
from sds3d.scenes import GaussiansConfig
from sds3d.sweeps.run_set import RunSet, failure
from sds3d.training.session import Session
from sds3d.training.sessions import begin
from sds3d.training.trainer import Trainer


@pytest.fixture
def configs(small_config, tmp_path: Path):
    return {tmp_path / f"run-{seed}": small_config(seed=seed, steps=6) for seed in (0, 1)}


def break_seed(monkeypatch: pytest.MonkeyPatch, seed: int, step: int) -> None:
    advance = Trainer.advance

    def failing(self: Trainer) -> StepDone:
        if self.config.seed == seed and self.step >= step:
            raise NumericsError("the loss is not finite")
        return advance(self)

    monkeypatch.setattr(Trainer, "advance", failing)


def test_every_run_is_done_once(configs) -> None:
    runs = RunSet(configs)
    events = list(runs.run())
    assert [path.name for path, event in events if isinstance(event, Finished)] == ["run-0", "run-1"]
    assert runs.finished()
    again = RunSet(configs)
    assert list(again.run()) == []
    assert again.finished()
    assert [failure(path) for path in configs] == [None, None]


def test_a_stopped_set_goes_on_where_it_was(configs) -> None:
    runs = RunSet(configs)
    seen = set()
    for path, event in runs.run():
        seen.add(path.name)
        if isinstance(event, StepDone) and event.step == 2:
            runs.stop()
    assert seen == {"run-0"}
    assert not runs.finished()
    again = RunSet(configs)
    assert [event.step for _, event in again.run() if isinstance(event, Started)] == [2, 0]
    assert again.finished()


def test_a_stop_while_the_prior_loads_is_not_lost(configs, monkeypatch) -> None:
    runs, build = RunSet(configs), AnalyticConfig.build

    def stopped_meanwhile(self, device):
        runs.stop()
        return build(self, device)

    monkeypatch.setattr(AnalyticConfig, "build", stopped_meanwhile)
    events = [event for _, event in runs.run()]
    assert not [event for event in events if isinstance(event, StepDone)]
    assert events[-1] == Finished(interrupted=True)
    monkeypatch.setattr(AnalyticConfig, "build", build)
    again = RunSet(configs)
    list(again.run())
    assert again.finished()


@pytest.mark.parametrize("rollbacks", [0, 2])
@pytest.mark.parametrize("step", [0, 4])
def test_a_run_that_diverges_hands_over_what_it_was_and_the_others_go_on(
    small_config, tmp_path: Path, monkeypatch, rollbacks: int, step: int
) -> None:
    """Also before its first checkpoint, and where it does not go back at all."""
    configs = {tmp_path / f"run-{seed}": small_config(seed=seed, steps=14, checkpoint_every=3) for seed in (0, 1)}
    monkeypatch.setattr("sds3d.training.recovery.ROLLBACKS", rollbacks)
    break_seed(monkeypatch, 0, step)
    runs = RunSet(configs)
    list(runs.run())
    assert runs.finished()
    first, second = configs
    assert RunFolder(first).report()["steps"] < 14
    assert RunFolder(second).report()["steps"] == 14
    assert failure(first).startswith("the loss is not finite")
    assert failure(second) is None
    assert Session.resume(first).scene() is not None
    assert list(RunSet(configs).run()) == []
    monkeypatch.undo()
    list(Session.resume(first).run())  # by hand, with whatever made it diverge gone
    assert failure(first) is None


def test_a_run_that_a_person_ended_early_says_so(configs) -> None:
    first = next(iter(configs))
    session = Session(configs[first], first)
    for event in session.run():
        if isinstance(event, StepDone) and event.step == 3:
            session.send(FinishEarly())
    list(RunSet(configs).run())
    assert failure(first) == "a person ended it early"


def test_a_run_without_a_surface_for_its_next_stage_hands_over_what_it_was(small_config, tmp_path, monkeypatch) -> None:
    def refused(old: object, new: object) -> None:
        raise ExportError("there is no object to export")

    monkeypatch.setattr("sds3d.training.session.take_over", refused)
    options = {"steps": 6, "export": {}, "stages": [{"begin_at": 0.5, "options": {"scene": "mesh"}}]}
    path, other = tmp_path / "staged", tmp_path / "other"
    runs = RunSet({path: small_config(**options), other: small_config(steps=2)})
    list(runs.run())
    assert runs.finished()
    assert RunFolder(path).report()["parts"]["scene"] == "gaussians"
    assert failure(path) == "stage 2 cannot begin from the scene at step 3: there is no object to export"
    assert failure(other) is None


def test_a_refused_export_does_not_stop_the_others(small_config, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(GaussiansConfig, "artifacts", ("sheet", "glb"))
    options = {"steps": 6, "export.level": 1e6}
    configs = {tmp_path / f"run-{seed}": small_config(seed=seed, **options) for seed in (0, 1)}
    runs = RunSet(configs)
    list(runs.run())
    assert runs.finished()
    assert all("refused" in RunFolder(path).report()["mesh"] for path in configs)
    assert [failure(path) for path in configs] == [None, None]  # they have all their steps
    assert list(RunSet(configs).run()) == []


def test_never_two_priors_in_memory(small_config, tmp_path: Path, monkeypatch) -> None:
    build, alive = AnalyticConfig.build, weakref.WeakSet()
    counts = []

    def counted(self, device):
        gc.collect()
        counts.append(len(alive))
        prior = build(self, device)
        alive.add(prior)
        return prior

    monkeypatch.setattr(AnalyticConfig, "build", counted)
    sizes = (16, 16, 24)
    configs = {
        tmp_path / str(number): small_config(steps=2, **{"prior.size": size, "cameras.size": 16})
        for number, size in enumerate(sizes)
    }
    for _ in RunSet(configs).run():
        pass
    assert counts == [0, 0], "one for each kind, and none was there any more when the next one was loaded"


def test_folders_of_something_else_are_refused_before_anything_runs(configs, small_config, tmp_path: Path) -> None:
    list(RunSet(configs).run())
    with pytest.raises(ConfigError, match="other options"):
        RunSet({path: small_config(steps=7) for path in configs})
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match="something else"):
        RunSet({tmp_path / "new": small_config(), tmp_path / "notes": small_config()})
    assert not (tmp_path / "new").exists()


def test_words_of_every_run_are_looked_at_before_any_runs(small_config, tmp_path: Path) -> None:
    first, second = small_config(), resolve({"prompt": "a blue dog"})
    with pytest.raises(ConfigError, match="no thing in 'a blue dog'"):
        RunSet({tmp_path / "0": first, tmp_path / "1": second})
    begin(second, RunFolder(tmp_path / "1"))  # by an older version: it goes on
    RunSet({tmp_path / "0": first, tmp_path / "1": second})
    RunSet({tmp_path / "2": resolve({"prompt": "a blue dog", "prior.anything": True})})


def test_a_run_that_another_process_is_at_is_not_run_twice(configs) -> None:
    first = next(iter(configs))
    RunFolder.create(first, configs[first])
    with RunFolder(first).lock(), pytest.raises(RunBusy):
        list(RunSet(configs).run())
    assert not any(isinstance(event, Failed) for _, event in RunFolder(first).reader().read())


def test_of_sets_that_begin_one_run_at_the_same_moment_one_has_it_and_the_others_are_told(
    configs, small_config, tmp_path: Path
) -> None:
    """Two commands with one --out: the second computed its runs into run-0-2, where nobody looks for them."""
    path = next(iter(configs))
    others = RunSet({path: small_config(seed=0, steps=7)})  # nothing is there yet that it could be refused for
    first, second = (RunSet(configs).session(path) for _ in range(2))
    events = first.run()
    next(events)
    with pytest.raises(RunBusy, match=f"in use by process {os.getpid()} on "):
        list(second.run())
    with pytest.raises(ConfigError, match="other options"):
        others.session(path)
    assert isinstance(list(events)[-1], Finished)
    assert [folder.name for folder in tmp_path.iterdir()] == ["run-0"]


def test_a_folder_that_many_make_at_once_is_made_once_and_stays(small_config, tmp_path: Path) -> None:
    config, folders = small_config(), [RunFolder(tmp_path / f"run-{number}") for number in range(100)]
    ready = threading.Barrier(3)

    def make_all() -> None:
        for folder in folders:
            ready.wait()
            begin(config, folder)
            assert folder.config() == config

    with ThreadPoolExecutor() as pool:
        for made in [pool.submit(make_all) for _ in range(3)]:
            made.result()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(folder.path.name for folder in folders)
