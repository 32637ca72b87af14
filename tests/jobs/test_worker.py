"""A worker: one prior for all, failures that do not spread, and commands that are obeyed."""

import gc
import threading
import time
import weakref
from pathlib import Path

import pytest
import torch

from sds3d import Session
from sds3d.errors import NumericsError, OutputError
from sds3d.jobs import Job, Queue, Worker
from sds3d.jobs import worker as module
from sds3d.jobs.processes import WorkerId
from sds3d.priors.analytic import AnalyticConfig
from sds3d.run.events import Change, Changed, FinishEarly, Finished, Pause, Resume, StepDone, Stop
from sds3d.run.folder import RunFolder


@pytest.fixture
def queue(tmp_path: Path, monkeypatch) -> Queue:
    monkeypatch.setattr(module, "POLL", 0.01)
    monkeypatch.setattr(module, "REST", 0.05)
    return Queue(tmp_path / "queue")


def states(queue: Queue) -> list[str]:
    return [job.state for job in queue.jobs()]


def reached(event: object, step: int) -> bool:
    return isinstance(event, StepDone) and event.step == step


def finished(job: Job) -> int:
    return sum(isinstance(event, Finished) and not event.interrupted for _, event in job.run.reader().read())


def test_it_does_all_jobs_with_one_prior(queue: Queue, small_config, monkeypatch) -> None:
    built, build = [], AnalyticConfig.build
    monkeypatch.setattr(AnalyticConfig, "build", lambda self, device: built.append(self) or build(self, device))
    for seed in range(3):
        queue.add(small_config(seed=seed, steps=4))
    done = [job.seed for job, event in Worker(queue).run() if isinstance(event, Finished)]
    assert done == [0, 1, 2]
    assert states(queue) == ["done"] * 3
    assert len(built) == 1
    assert all((job.run.path / "sheet.png").is_file() for job in queue.jobs())
    assert list(Worker(queue).run()) == []


def test_the_old_prior_is_gone_before_another_is_built(queue: Queue, small_config, monkeypatch) -> None:
    """B13: without waiting for the garbage collector."""
    priors, alive, build = [], [], AnalyticConfig.build

    def watched(self, device):
        alive.append(sum(prior() is not None for prior in priors))
        prior = build(self, device)
        priors.append(weakref.ref(prior))
        return prior

    monkeypatch.setattr(AnalyticConfig, "build", watched)
    for size in (24, 32, 40):
        queue.add(small_config(prior={"name": "analytic", "size": size}, steps=2))
    gc.collect()
    gc.disable()
    try:
        list(Worker(queue).run())
    finally:
        gc.enable()
    assert states(queue) == ["done"] * 3
    assert alive == [0, 0, 0]


def test_one_that_diverges_fails_with_the_reason_and_one_that_crashes_is_tried_again(
    queue: Queue, small_config, monkeypatch
) -> None:
    run = Session.run

    def failing(self):
        if self.config.seed == 0:
            raise NumericsError("the loss is not finite")
        if self.config.seed == 1:
            raise ValueError("a bug\nin two lines")
        return run(self)

    monkeypatch.setattr(Session, "run", failing)
    for seed in range(3):
        queue.add(small_config(seed=seed, steps=4))
    list(Worker(queue).run())
    assert states(queue) == ["failed", "failed", "done"]
    first, second, _ = queue.jobs()
    assert (first.reason, first.attempts) == ("the loss is not finite", 1)
    assert second.reason == "set aside after 3 attempts; the last: unexpected ValueError: a bug in two lines"
    assert second.attempts == 3


def test_a_lost_gpu_ends_the_worker_and_gives_the_job_back(queue: Queue, small_config, monkeypatch) -> None:
    """After an illegal access every later call of the process fails, and with it every later job."""

    def lost(self):
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(Session, "run", lost)
    for seed in range(2):
        queue.add(small_config(seed=seed, steps=4))
    with pytest.raises(torch.AcceleratorError):
        list(Worker(queue).run())
    first, second = queue.jobs()
    assert (first.state, first.attempts, second.attempts) == ("queued", 1, 0)
    assert "illegal memory access" in first.reason


def test_a_full_disk_ends_the_worker_and_not_the_jobs(queue: Queue, small_config, monkeypatch) -> None:
    def full(self):
        raise OutputError("cannot write: no space left")

    monkeypatch.setattr(Session, "run", full)
    for seed in range(2):
        queue.add(small_config(seed=seed, steps=4))
    with pytest.raises(OutputError):
        list(Worker(queue).run())
    assert states(queue) == ["queued", "queued"]


def test_stopped_it_gives_the_job_back_and_another_goes_on_from_there(queue: Queue, small_config) -> None:
    job = queue.add(small_config(steps=20, checkpoint_every=5))
    worker = Worker(queue)
    for _, event in worker.run():
        if reached(event, 7):
            worker.stop()
    assert states(queue) == ["queued"]
    steps = [event.step for _, event in Worker(queue).run() if isinstance(event, StepDone)]
    assert steps == list(range(8, 21))
    assert states(queue) == ["done"]
    assert queue.job(job.name).attempts == 2


def test_stopping_takes_no_lock(queue: Queue, small_config, monkeypatch) -> None:
    """B20: a signal handler may run while its own thread holds any lock."""
    queue.add(small_config(steps=100_000))
    worker = Worker(queue)
    for _, event in worker.run():
        if reached(event, 3):
            with monkeypatch.context() as patch:
                for name in ("set", "wait"):
                    patch.setattr(threading.Event, name, lambda self, *rest: pytest.fail("it would wait for ever"))
                for name in ("notify", "notify_all", "wait"):
                    patch.setattr(threading.Condition, name, lambda self, *rest: pytest.fail("it would wait for ever"))
                worker.stop()
    assert states(queue) == ["queued"]


def test_stopped_before_it_begins_it_takes_nothing(queue: Queue, small_config) -> None:
    queue.add(small_config(steps=4))
    worker = Worker(queue)
    worker.stop()
    assert list(worker.run(forever=True)) == []


@pytest.mark.parametrize(("command", "has_results"), [(FinishEarly(), True), (Stop(), False)])
def test_told_to_end_it_leaves_a_stopped_job_that_can_be_gone_on_with(
    queue: Queue, small_config, command, has_results: bool
) -> None:
    job = queue.add(small_config(steps=100_000))
    for _, event in Worker(queue).run():
        if reached(event, 5):
            queue.command(job, command)
    assert states(queue) == ["stopped"]
    assert (job.run.path / "sheet.png").is_file() == has_results
    queue.retry(job)
    worker = Worker(queue)
    for _, event in worker.run():
        if isinstance(event, StepDone):
            assert event.step > 5
            worker.stop()
    assert states(queue) == ["queued"]


def test_a_paused_job_leaves_the_worker_to_others_and_its_result_is_the_same(queue: Queue, small_config) -> None:
    """F5: one worker; A is paused, B is done meanwhile, A goes on."""
    options = {"steps": 20, "preview_every": 0}
    a, b = queue.add_many([small_config(seed=seed, **options) for seed in (0, 1)])
    ended = []
    worker = Worker(queue)
    for job, event in worker.run(forever=True):
        if job.name == a.name and reached(event, 5) and "A paused" not in ended:
            queue.command(a, Pause())
            ended.append("A paused")
        if isinstance(event, Finished) and not event.interrupted:
            ended.append(f"{'A' if job.name == a.name else 'B'} done")
            assert states(queue)[0] == ("paused" if job.name == b.name else "running")
            if job.name == a.name:
                worker.stop()
            else:
                queue.command(a, Resume())
    assert ended == ["A paused", "B done", "A done"]
    assert states(queue) == ["done", "done"]
    list(Session(small_config(seed=0, **options), queue.folder / "undisturbed").run())
    undisturbed = Session.resume(queue.folder / "undisturbed").scene().state_dict()
    for name, value in Session.resume(a.run.path).scene().state_dict().items():
        assert torch.equal(value, undisturbed[name]), name


def test_a_job_that_is_paused_before_it_began_waits_until_it_is_resumed(queue: Queue, small_config) -> None:
    a, b = queue.add_many([small_config(seed=seed, steps=3) for seed in (0, 1)])
    queue.command(a, Pause())
    worker, done = Worker(queue), []
    for job, event in worker.run():
        if isinstance(event, Finished):
            done.append(job.name)
            if job.name == b.name:
                queue.command(a, Resume())
    assert done == [b.name, a.name]


def test_a_paused_job_that_is_to_finish_early_is_claimed_for_its_results(queue: Queue, small_config) -> None:
    job = queue.add(small_config(steps=100_000))
    worker = Worker(queue)
    for _, event in worker.run(forever=True):
        if reached(event, 5):
            queue.command(job, Pause())
            threading.Thread(target=lambda: (wait_for(queue, "paused"), queue.command(job, FinishEarly()))).start()
        if isinstance(event, Finished) and not event.interrupted:
            worker.stop()
    assert states(queue) == ["stopped"]
    assert (job.run.path / "sheet.png").is_file()


def wait_for(queue: Queue, state: str) -> None:
    end = time.monotonic() + 60.0
    while states(queue) != [state]:
        assert time.monotonic() < end
        time.sleep(0.02)


def test_changes_reach_a_running_job_and_one_that_has_not_begun(queue: Queue, small_config) -> None:
    waits, runs = queue.add_many([small_config(seed=seed, steps=12) for seed in (0, 1)])
    queue.command(waits, Change({"prompt": "a blue ball"}))
    queue.command(waits, Change({"guidance.guidance_scale": 12.0}))
    changed: dict[str, dict] = {}
    for job, event in Worker(queue).run():
        if isinstance(event, Changed):
            changed[job.name] = {"step": event.step, **event.changes}
        if job.name == runs.name and reached(event, 2):
            queue.command(runs, Change({"prompt": "a green ball"}))
            time.sleep(0.3)
    assert changed[waits.name] == {"step": 0, "prompt": "a blue ball", "guidance.guidance_scale": 12.0}
    assert changed[runs.name]["prompt"] == "a green ball"
    assert waits.run.config().prompt == "a blue ball"


def test_a_change_is_not_made_twice_when_the_job_goes_on_elsewhere(queue: Queue, small_config) -> None:
    job = queue.add(small_config(steps=12))
    queue.command(job, Change({"prompt": "a blue ball"}))
    worker = Worker(queue)
    for _, event in worker.run():
        if reached(event, 4):
            worker.stop()
    assert not [event for _, event in Worker(queue).run() if isinstance(event, Changed)]
    assert states(queue) == ["done"]


def test_a_run_that_had_ended_when_its_worker_was_killed_is_not_run_again(
    queue: Queue, small_config, monkeypatch
) -> None:
    """The worker dies after the last event and before the queue knows."""
    job = queue.add(small_config(steps=4))
    list(Session(job.config, job.run.path).run())
    monkeypatch.setattr(Session, "run", lambda self: pytest.fail("it is run again"))
    assert list(Worker(queue).run()) == []
    assert states(queue) == ["done"]


def test_a_run_whose_report_is_gone_is_run_again(queue: Queue, small_config) -> None:
    job = queue.add(small_config(steps=4))
    list(Session(job.config, job.run.path).run())
    (job.run.path / "report.json").unlink()
    assert list(Worker(queue).run())
    assert (job.run.path / "report.json").is_file()


def test_a_damaged_job_fails_and_holds_up_no_other(queue: Queue, small_config) -> None:
    damaged, _ = queue.add_many([small_config(seed=seed, steps=2) for seed in (0, 1)])
    (damaged.folder / "job.json").write_text("{")
    list(Worker(queue).run())
    assert states(queue) == ["failed", "done"]
    assert "job.json" in queue.job(damaged.name).reason


def test_a_run_that_somebody_goes_on_with_by_hand_is_left_to_them(queue: Queue, small_config) -> None:
    """Two processes never work in one run folder; here the other is a thread, for this process holds its lock."""
    job = queue.add(small_config(steps=4))
    RunFolder.create(job.run.path, job.config)
    with job.run.lock():
        worker = Worker(queue, label="second")
        thread = threading.Thread(target=lambda: list(worker.run()))
        thread.start()
        end = time.monotonic() + 60.0
        while queue.job(job.name).worker != WorkerId.here():
            assert time.monotonic() < end
            time.sleep(0.02)
        worker.stop()
        thread.join(60.0)
    assert queue.job(job.name).state == "running"
    list(Worker(queue).run())  # this process asks for a job, so it has none
    assert states(queue) == ["done"]


def test_the_rest_of_a_run_folder_that_was_removed_does_not_matter(queue: Queue, small_config) -> None:
    job = queue.add(small_config(steps=2))
    job.run.path.mkdir()
    (job.run.path / "previews").mkdir()
    list(Worker(queue).run())
    assert states(queue) == ["done"]
    assert not job.run.path.with_name("run-2").exists()
    assert finished(job) == 1
