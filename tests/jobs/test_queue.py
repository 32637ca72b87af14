"""The queue: what is queued, running, ended and set aside, and who may change it."""

import itertools
import json
import os
import re
from pathlib import Path

import pytest

from sds3d import RunConfig, load_config
from sds3d.errors import ConfigError, RunBusy
from sds3d.jobs import Job, Queue, Selection
from sds3d.jobs.processes import WorkerId
from sds3d.jobs.queue import job_name
from sds3d.run.events import Change, Command, FinishEarly, Pause, Resume, Stop
from tests.reliability.children import context, ended, started

ME = WorkerId.here()
numbers = itertools.count()


def config(prompt: str = "a red ball", **options) -> RunConfig:
    return load_config(overrides={"prompt": prompt, "prior": "analytic", **options})


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    return Queue(tmp_path / "queue")


def gone() -> WorkerId:
    """A process that had this one's number, and has ended."""
    return WorkerId(ME.machine, ME.pid, f"earlier {next(numbers)}")


def claimed(queue: Queue, worker: WorkerId = ME) -> Job:
    job = queue.claim(worker)
    assert job is not None
    return job


def save(job: Job, step: int) -> None:
    (job.run.path / "checkpoints" / f"step-{step:06d}").mkdir(parents=True)


def test_the_same_config_is_the_same_job_and_another_is_another(queue: Queue) -> None:
    jobs = [queue.add(config()), queue.add(config(seed=1)), queue.add(config())]
    assert jobs[0] == jobs[2]
    assert [job.name for job in queue.jobs()] == [jobs[0].name, jobs[1].name]
    assert queue.jobs()[0].config == config()
    assert queue.counts() == {"queued": 2}


def test_many_are_added_at_once_in_their_order(queue: Queue) -> None:
    configs = [config(seed=seed) for seed in (5, 3, 5, 4)]
    added = queue.add_many(configs)
    assert [job.seed for job in added] == [5, 3, 4]
    assert [job.seed for job in queue.jobs()] == [5, 3, 4]
    assert [job.seed for job in queue.jobs(newest_first=True, limit=1, offset=1)] == [3]
    assert [claimed(queue, WorkerId.here(str(n))).seed for n in range(3)] == [5, 3, 4]
    assert [job.config.seed for job in added] == [5, 3, 4]
    about = json.loads((added[1].folder / "job.json").read_text())
    assert about["resolved"] == configs[1].to_dict()
    assert about["config"] == configs[1].said


def test_a_job_of_several_stages_is_shown_with_the_parts_of_the_last(queue: Queue) -> None:
    stages = [{"begin_at": 0.5, "options": {"scene": "mesh", "guidance": "csd"}}]
    job = queue.add(config(stages=stages))
    assert (job.scene, job.guidance) == ("mesh", "csd")
    (queue.folder / "database").rename(queue.folder.parent / "lost")
    assert Queue(queue.folder).job(job.name).scene == "mesh"  # made again from the folders


def test_names_are_safe_whatever_the_prompt() -> None:
    for prompt in ("../../etc/passwd", "a/b\\\\c", "; rm -rf /", "x" * 400, "日本"):
        assert re.fullmatch(r"[a-z0-9-]+", job_name(config(prompt)))


def test_a_job_is_claimed_once_and_ends_once(queue: Queue) -> None:
    queue.add(config())
    job = claimed(queue)
    assert (job.state, job.worker, job.attempts) == ("running", ME, 1)
    assert queue.claim(WorkerId.here("other")) is None
    assert queue.unfinished()
    assert queue.finish(job, "done")
    assert queue.job(job.name).state == "done"
    assert not queue.unfinished()
    assert not queue.finish(job, "failed", "a second time")
    assert queue.claim(ME) is None
    assert json.loads((job.folder / "result.json").read_text())["state"] == "done"


def claim_all(folder: Path, label: str) -> list[str]:
    queue, names = Queue(folder), []
    while (job := queue.claim(WorkerId.here(label))) is not None:
        names.append(job.name)
        queue.finish(job, "done")
    return names


def claim_and_die(folder: Path, *commands: Command) -> None:
    queue = Queue(folder)
    job = claimed(queue, WorkerId.here())
    for command in commands:
        queue.command(job, command)


@pytest.mark.xdist_group("children")
def test_of_many_processes_each_gets_jobs_of_its_own(queue: Queue) -> None:
    jobs = queue.add_many([config(seed=seed) for seed in range(40)])
    with context.Pool(3) as pool:
        shares = pool.starmap(claim_all, [(queue.folder, str(number)) for number in range(3)])
    assert sorted(name for share in shares for name in share) == sorted(job.name for job in jobs)
    assert queue.counts() == {"done": 40}


def test_who_was_replaced_cannot_end_the_job(queue: Queue) -> None:
    queue.add(config())
    old = claimed(queue, gone())
    new = claimed(queue)
    assert not queue.finish(old, "failed", "by a ghost")
    assert not queue.release(old, "by a ghost")
    assert queue.job(new.name).worker == ME


def test_a_worker_that_asks_for_a_job_has_none(queue: Queue) -> None:
    """After a lost transaction the database can say otherwise."""
    queue.add_many([config(), config(seed=1)])
    first = claimed(queue)
    assert claimed(queue).name == first.name
    assert queue.counts() == {"queued": 1, "running": 1}


@pytest.mark.xdist_group("children")
def test_a_job_of_a_dead_process_is_shown_as_queued_and_reading_changes_nothing(queue: Queue) -> None:
    """B19: looking at a queue must not need room on the disk."""
    queue.add(config())
    assert ended(started(claim_and_die, queue.folder)) == 0
    before = {path: path.stat().st_mtime_ns for path in queue.folder.rglob("*")}
    (job,) = queue.jobs()
    assert (job.state, job.attempts, job.worker) == ("queued", 1, None)
    assert queue.changes_since().jobs == [job]
    assert queue.counts()
    assert queue.unfinished()
    after = {path: path.stat().st_mtime_ns for path in queue.folder.rglob("*")}
    assert {path for path in before | after if before.get(path) != after.get(path)} <= set(
        (queue.folder / "database").glob("*-shm")  # SQLite's index in memory: no data
    )
    assert claimed(queue).attempts == 2


def test_after_so_many_failures_it_is_set_aside_with_the_last_reason(queue: Queue) -> None:
    job = queue.add(config())
    for number in range(3):
        assert queue.release(claimed(queue), f"crash {number}")
    job = queue.job(job.name)
    assert (job.state, job.reason) == ("failed", "set aside after 3 attempts; the last: crash 2")
    assert json.loads((job.folder / "result.json").read_text())["reason"] == job.reason
    assert queue.claim(ME) is None
    queue.retry(job)
    job = queue.job(job.name)
    assert (job.state, job.attempts, job.reason) == ("queued", 0, "")
    assert not (job.folder / "result.json").exists()


def test_a_job_that_dies_and_gets_on_is_not_set_aside(queue: Queue) -> None:
    job = queue.add(config())
    for step in (100, 200, 300, 400, 500):
        claimed(queue, gone())
        save(job, step)
    for _ in range(3):
        assert queue.job(job.name).state == "queued"
        claimed(queue, gone())
    queue.reap()
    job = queue.job(job.name)
    assert job.state == "failed"
    assert "ended without a word" in job.reason


def test_giving_back_is_no_failure(queue: Queue) -> None:
    job = queue.add(config())
    for _ in range(5):
        assert queue.release(claimed(queue))
    assert queue.job(job.name).state == "queued"


def test_commands_to_a_job_that_waits(queue: Queue) -> None:
    first, second = queue.add_many([config(), config(seed=1)])
    queue.command(first, Pause())
    assert queue.job(first.name).state == "paused"
    assert claimed(queue).name == second.name
    queue.command(first, Resume())
    assert queue.ahead_of(second) == 1
    queue.release(queue.job(second.name))
    assert claimed(queue).name == first.name  # at its old place
    queue.command(second, Stop())
    assert (queue.job(second.name).state, queue.job(second.name).reason) == ("stopped", "before it began")
    with pytest.raises(ConfigError, match="it is stopped"):
        queue.command(second, Pause())


@pytest.mark.parametrize(("command", "state"), [(Pause(), "paused"), (Stop(), "stopped"), (FinishEarly(), "queued")])
def test_a_running_job_becomes_what_it_was_told_when_its_worker_gives_it_back(
    queue: Queue, command, state: str
) -> None:
    queue.add(config())
    job = claimed(queue)
    queue.command(job, command)
    assert queue.job(job.name).state == "running"
    assert [told for _, told in queue.commands(job)] == [command]
    assert queue.release(job)
    assert queue.job(job.name).state == state


@pytest.mark.xdist_group("children")
def test_a_job_that_was_told_to_pause_is_paused_when_its_worker_dies_of_it(queue: Queue) -> None:
    queue.add(config())
    assert ended(started(claim_and_die, queue.folder, Pause())) == 0
    assert queue.jobs()[0].state == "paused"
    assert queue.claim(ME) is None
    assert queue.counts() == {"paused": 1}


def test_a_pause_that_is_taken_back_leaves_the_job_in_the_queue(queue: Queue) -> None:
    queue.add(config())
    job = claimed(queue)
    queue.command(job, Pause())
    assert queue.job(job.name).intent == "pause"
    queue.command(job, Resume())
    queue.release(job)
    assert queue.job(job.name).state == "queued"


def test_changes_are_checked_when_they_are_made(queue: Queue) -> None:
    """B10: also their words."""
    job = queue.add(config())
    queue.command(job, Change({"prompt": "a blue ball", "guidance.guidance_scale": 12}))
    for changes, said in (
        ({"seed": 3}, "seed"),
        ({"guidance.guidance_scale": "x"}, "guidance_scale"),
        ({"prompt": "xyzzy plugh"}, "does not know"),
    ):
        with pytest.raises(ConfigError, match=said):
            queue.command(job, Change(changes))
    assert [number for number, _ in queue.commands(job)] == [1]
    queue.command(job, Change({"prompt": "a green ball"}))
    assert queue.commands(job, after=1) == [(2, Change({"prompt": "a green ball"}))]
    assert queue.job(job.name).heard == 2


def test_a_retry_keeps_changes_and_forgets_to_finish_early(queue: Queue) -> None:
    queue.add(config())
    job = claimed(queue)
    queue.command(job, Change({"prompt": "a blue ball"}))
    queue.command(job, FinishEarly())
    queue.finish(job, "stopped")
    queue.retry(job)
    assert [command for _, command in queue.commands(job)] == [Change({"prompt": "a blue ball"})]
    with pytest.raises(ConfigError, match="is queued"):
        queue.retry(job)


def test_only_what_nobody_works_on_is_deleted(queue: Queue) -> None:
    """B3."""
    first, second = queue.add_many([config(), config(seed=1)])
    running = claimed(queue)
    with pytest.raises(ConfigError, match="is running"):
        queue.delete(running)
    second.run.path.mkdir()
    with second.run.lock(), pytest.raises(RunBusy, match=str(os.getpid())):
        queue.delete(second)  # a run of the command line in its folder
    assert queue.job(second.name).state == "queued"
    queue.delete(second)
    assert not second.folder.exists()
    assert [job.name for job in queue.jobs()] == [first.name]
    with pytest.raises(ConfigError, match="no job"):
        queue.delete(second)


def test_what_changed_is_told_once_and_a_lost_token_tells_all(queue: Queue) -> None:
    assert queue.changes_since("") == queue.changes_since("nonsense")
    first, second = queue.add_many([config(), config(seed=1)])
    changes = queue.changes_since()
    assert changes.complete
    assert changes.jobs == [first, second]
    assert queue.changes_since(changes.token) == type(changes)(changes.token, [], [])
    running = claimed(queue)
    queue.delete(second)
    later = queue.changes_since(changes.token)
    assert (later.jobs, later.deleted, later.complete) == ([running], [second.name], False)
    again = queue.add(config(seed=1))
    assert queue.changes_since(changes.token).deleted == []
    assert queue.changes_since(later.token).jobs == [again]
    assert queue.changes_since("other:1").complete


def test_a_selection_leaves_other_jobs_alone(queue: Queue) -> None:
    jobs = queue.add_many([config(seed=seed) for seed in range(4)])
    only = Selection([jobs[2].name, jobs[1].name])
    assert queue.unfinished(only)
    for expected in (jobs[1], jobs[2]):
        job = queue.claim(ME, only)
        assert job is not None
        assert job.name == expected.name
        queue.finish(job, "done")
    assert queue.claim(ME, only) is None
    assert not queue.unfinished(only)
    assert queue.unfinished()
    queue.delete(jobs[1])


def test_names_from_outside_never_become_paths(queue: Queue) -> None:
    job = queue.add(config())
    for name in ("../" + job.name, f"{job.name}/", "", None, 3, "' OR 1=1 --"):
        with pytest.raises(ConfigError, match="no job"):
            queue.job(name)


def test_an_empty_folder_is_an_empty_queue_and_looking_makes_nothing(tmp_path: Path) -> None:
    queue = Queue(tmp_path / "none")
    assert (queue.jobs(), queue.counts(), queue.changes_since().jobs) == ([], {}, [])
    assert not (tmp_path / "none").exists()


def test_a_job_whose_run_or_description_was_removed_by_hand_is_made_again_when_it_is_added(queue: Queue) -> None:
    job = queue.add(config())
    queue.finish(claimed(queue), "done")
    (job.folder / "job.json").write_text("")
    assert queue.add(config()).state == "queued"
    assert queue.job(job.name).config == config()


def test_a_damaged_description_is_named(queue: Queue) -> None:
    job = queue.add(config())
    for text in ("{", "[]", '{"added": 1}', '{"added": 1, "config": {}, "resolved": 3}'):
        (job.folder / "job.json").write_text(text)
        with pytest.raises(ConfigError):
            _ = queue.job(job.name).config
