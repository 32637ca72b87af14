"""A worker: one prior for all, failures that do not spread, and obedience."""

import time
from pathlib import Path

import pytest

from sds3d import Session
from sds3d.errors import NumericsError, OutputError
from sds3d.jobs import Ledger, Worker
from sds3d.jobs import lease as claims
from sds3d.jobs.lease import take
from sds3d.priors.analytic import AnalyticConfig
from sds3d.run.events import StepDone


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "queue", lease=2.5)


def states(ledger: Ledger) -> list[str]:
    return [ledger.status(job).state for job in ledger.jobs()]


def test_it_does_all_jobs_with_one_prior(ledger: Ledger, small_config, monkeypatch) -> None:
    built, build = [], AnalyticConfig.build
    monkeypatch.setattr(AnalyticConfig, "build", lambda self, device: built.append(self) or build(self, device))
    for seed in range(3):
        ledger.add(small_config(seed=seed, steps=4))
    done = {job.name for job, _ in Worker(ledger).run()}
    assert len(done) == 3
    assert states(ledger) == ["done"] * 3
    assert len(built) == 1
    assert all((job.run / "sheet.png").is_file() for job in ledger.jobs())
    assert list(Worker(ledger).run()) == []


def test_one_that_diverges_fails_with_the_reason_and_one_that_crashes_is_tried_again(
    ledger: Ledger, small_config, monkeypatch
) -> None:
    run = Session.run

    def failing(self):
        if self.config.seed == 0:
            raise NumericsError("the loss is not finite")
        if self.config.seed == 1:
            raise ValueError("a bug\nin two lines")
        return run(self)

    monkeypatch.setattr(Session, "run", failing)
    jobs = [ledger.add(small_config(seed=seed, steps=4)) for seed in range(3)]
    list(Worker(ledger).run())
    assert states(ledger) == ["failed", "failed", "done"]
    assert ledger.status(jobs[0]).reason == "the loss is not finite"
    assert ledger.status(jobs[0]).attempts == 1
    assert (
        ledger.status(jobs[1]).reason
        == "set aside after 3 attempts; the last: unexpected ValueError: a bug in two lines"
    )
    assert ledger.status(jobs[1]).attempts == 3


def test_a_full_disk_ends_the_worker_and_not_the_jobs(ledger: Ledger, small_config, monkeypatch) -> None:
    def full(self):
        raise OutputError("cannot write: no space left")

    monkeypatch.setattr(Session, "run", full)
    for seed in range(2):
        ledger.add(small_config(seed=seed, steps=4))
    with pytest.raises(OutputError):
        list(Worker(ledger).run())
    assert states(ledger) == ["queued", "queued"]


def test_stopped_it_gives_the_job_back_and_another_goes_on_from_there(ledger: Ledger, small_config) -> None:
    job = ledger.add(small_config(steps=20, checkpoint_every=5))
    worker = Worker(ledger)
    for _, event in worker.run():
        if isinstance(event, StepDone) and event.step == 7:
            worker.stop()
    assert states(ledger) == ["queued"]
    steps = [event.step for _, event in Worker(ledger).run() if isinstance(event, StepDone)]
    assert steps == list(range(8, 21))
    assert states(ledger) == ["done"]
    assert ledger.status(job).attempts == 2


def test_told_to_stop_it_hands_over_what_there_is(ledger: Ledger, small_config, monkeypatch) -> None:
    monkeypatch.setattr("sds3d.jobs.worker.POLL", 0.01)
    job = ledger.add(small_config(steps=100_000))
    for _, event in Worker(ledger).run():
        if isinstance(event, StepDone) and event.step == 5:
            ledger.tell(job, "stop")
    assert states(ledger) == ["stopped"]
    assert (job.run / "mesh.glb").is_file()
    steps = Session.resume(job.run).run()
    assert next(event for event in steps if isinstance(event, StepDone)).step > 5


def test_a_pause_lasts_until_it_is_told_to_go_on(ledger: Ledger, small_config, monkeypatch) -> None:
    import threading

    monkeypatch.setattr("sds3d.jobs.worker.POLL", 0.01)
    job, seen = ledger.add(small_config(steps=60)), []
    worker = Worker(ledger)

    def follow() -> None:
        for _, event in worker.run():
            if isinstance(event, StepDone):
                seen.append(event.step)
                if event.step == 5:
                    ledger.tell(job, "pause")

    thread = threading.Thread(target=follow)
    thread.start()
    while ledger.status(job).state != "paused" or not seen:
        thread.join(0.01)
    thread.join(0.5)
    held = len(seen)
    thread.join(0.3)
    assert len(seen) == held < 60
    assert ledger.status(job).state == "paused"
    ledger.tell(job, "run")
    thread.join(60.0)
    assert states(ledger) == ["done"]


def test_a_job_that_another_took_over_is_left_alone(ledger: Ledger, small_config, monkeypatch) -> None:
    monkeypatch.setattr("sds3d.jobs.worker.POLL", 0.01)
    job = ledger.add(small_config(steps=100_000))
    worker = Worker(ledger)
    for _, event in worker.run():
        if isinstance(event, StepDone) and event.step == 3:
            assert take(job.folder, 2) is not None
            worker.stop()
    assert states(ledger) == ["running"]  # by the other, which is this process too
    assert not (job.folder / "result.json").exists()


def elsewhere(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> str:
    """The state of the one job as another machine sees it, which knows nothing of this one's processes."""
    with monkeypatch.context() as patch:
        patch.setattr(claims, "machine", lambda: "elsewhere")
        return states(ledger)[0]


def test_a_worker_is_alive_while_its_prior_loads(tmp_path: Path, small_config, monkeypatch) -> None:
    ledger, seen, build = Ledger(tmp_path, lease=0.8), [], AnalyticConfig.build
    monkeypatch.setattr("sds3d.jobs.worker.POLL", 0.02)

    def slowly(self, device):
        time.sleep(1.2)
        seen.append(elsewhere(ledger, monkeypatch))
        return build(self, device)

    monkeypatch.setattr(AnalyticConfig, "build", slowly)
    ledger.add(small_config(steps=2))
    list(Worker(ledger).run())
    assert seen == ["running"]
    assert states(ledger) == ["done"]


@pytest.mark.parametrize(("seconds", "attempts"), [(0.1, 1), (0.5, 2)])
def test_a_heartbeat_that_the_disk_refuses_for_a_while(
    tmp_path: Path, small_config, monkeypatch, seconds: float, attempts: int
) -> None:
    """For a moment it does no harm; when another may soon take over, the job is given back and begun again."""
    ledger, beat, first = Ledger(tmp_path, lease=0.6), claims.Claim.beat, list[float]()
    monkeypatch.setattr("sds3d.jobs.worker.POLL", 0.02)

    def refused(self) -> bool:
        first.append(time.monotonic())
        if first[-1] - first[0] < seconds:
            raise OutputError("cannot write: stale file handle")
        return beat(self)

    monkeypatch.setattr(claims.Claim, "beat", refused)
    job = ledger.add(
        small_config(steps=200, checkpoint_every=5, preview_every=0, scene={"name": "image"}, loss_weights={})
    )
    list(Worker(ledger).run())
    assert states(ledger) == ["done"]
    assert ledger.status(job).attempts == attempts


def test_a_run_that_had_ended_when_its_worker_was_killed_is_not_run_again(
    ledger: Ledger, small_config, monkeypatch
) -> None:
    """The worker dies after the last event and before the result."""
    job = ledger.add(small_config(steps=4))
    list(Session(job.config, job.run).run())
    monkeypatch.setattr(Session, "run", lambda self: pytest.fail("it is run again"))
    assert list(Worker(ledger).run()) == []
    assert ledger.status(job).state == "done"


def test_a_run_whose_report_is_gone_is_run_again(ledger: Ledger, small_config) -> None:
    job = ledger.add(small_config(steps=4))
    list(Session(job.config, job.run).run())
    (job.run / "report.json").unlink()
    assert list(Worker(ledger).run())
    assert (job.run / "report.json").is_file()
