"""The ledger: what is queued, at work, ended and set aside, told from files alone."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from sds3d import RunConfig, load_config
from sds3d.errors import ConfigError
from sds3d.jobs import Job, Ledger
from sds3d.jobs.lease import owner_of, take
from sds3d.jobs.queue import job_name


def config(prompt: str = "a red ball", **options) -> RunConfig:
    return load_config(overrides={"prompt": prompt, "prior": "analytic", **options})


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "queue")


def test_the_same_config_is_the_same_job_and_another_is_another(ledger: Ledger) -> None:
    jobs = [ledger.add(config()), ledger.add(config(seed=1)), ledger.add(config())]
    assert jobs[0] == jobs[2]
    assert [job.name for job in ledger.jobs()] == [jobs[0].name, jobs[1].name]
    assert ledger.jobs()[0].config == config()
    assert ledger.status(jobs[0]).state == "queued"


def test_names_are_safe_whatever_the_prompt() -> None:
    for prompt in ("../../etc/passwd", "a/b\\\\c", "; rm -rf /", "x" * 400, "日本"):
        assert re.fullmatch(r"[a-z0-9-]+", job_name(config(prompt)))


def test_a_job_is_claimed_once_and_ends_once(ledger: Ledger) -> None:
    job = ledger.add(config())
    claim = ledger.claim(job)
    assert claim is not None
    assert ledger.status(job).state == "running"
    assert ledger.status(job).worker
    assert ledger.claim(job) is None
    job.run.mkdir()
    (job.run / "report.json").write_text("{}")
    ledger.finish(job, claim, "done")
    assert ledger.status(job).state == "done"
    assert ledger.claim(job) is None
    (job.run / "report.json").unlink()  # done is believed with its report only
    assert ledger.status(job).state == "queued"


def test_who_was_replaced_cannot_end_the_job(ledger: Ledger) -> None:
    job = ledger.add(config())
    old = ledger.claim(job)
    assert old is not None
    assert take(job.folder, 2) is not None
    ledger.finish(job, old, "failed", "by a ghost")
    assert ledger.status(job).state == "running"


def test_after_so_many_failures_it_is_set_aside_with_the_last_reason(ledger: Ledger) -> None:
    job = ledger.add(config())
    for number in range(3):
        claim = ledger.claim(job)
        assert claim is not None
        claim.end(f"crash {number}")
    assert ledger.status(job).state == "failed"
    assert ledger.claim(job) is None
    assert (
        json.loads((job.folder / "result.json").read_text())["reason"]
        == "set aside after 3 attempts; the last: crash 2"
    )
    ledger.retry(job)
    assert ledger.status(job).state == "queued"
    assert ledger.status(job).attempts == 0


def die(ledger: Ledger, job: Job) -> None:
    """A worker takes the job and its process ends without a word."""
    claim = ledger.claim(job)
    assert claim is not None
    claim.path.write_text(json.dumps({**owner_of(claim), "begun": "another process"}))


def save(job: Job, step: int) -> None:
    (job.run / "checkpoints" / f"step-{step:06d}").mkdir(parents=True)


def test_a_job_that_dies_and_gets_on_is_not_set_aside(ledger: Ledger) -> None:
    job = ledger.add(config())
    for step in (100, 200, 300, 400, 500):
        die(ledger, job)
        save(job, step)
        assert ledger.status(job).state == "queued"
    for _ in range(2):
        die(ledger, job)
        assert ledger.status(job).state == "queued"
    die(ledger, job)
    assert ledger.status(job).state == "failed"
    assert "ended without a word" in ledger.status(job).reason


def test_giving_back_is_no_failure(ledger: Ledger) -> None:
    job = ledger.add(config())
    for _ in range(5):
        claim = ledger.claim(job)
        assert claim is not None
        claim.end()
    assert ledger.status(job).state == "queued"


def test_orders(ledger: Ledger) -> None:
    job, other = ledger.add(config()), ledger.add(config(seed=1))
    ledger.tell(other, "stop")
    assert ledger.status(other).state == "stopped"
    with pytest.raises(ConfigError, match="it is stopped"):
        ledger.tell(other, "pause")
    claim = ledger.claim(job)
    assert claim is not None
    assert ledger.order(job) == "run"
    ledger.tell(job, "pause")
    assert ledger.status(job).state == "paused"
    ledger.tell(job, "run")
    assert ledger.status(job).state == "running"
    (job.folder / "order.json").write_text('{"order": "explode"}')
    assert ledger.order(job) == "run"


def test_what_cannot_be_read_is_named(ledger: Ledger) -> None:
    job = ledger.add(config())
    with pytest.raises(ConfigError, match="no job"):
        ledger.job("../" + job.name)
    with pytest.raises(ConfigError, match="is queued"):
        ledger.retry(job)
    (job.folder / "result.json").write_text("{torn")
    assert ledger.status(job).state == "queued"
    (job.folder / "job.json").write_text('{"added": 1}')
    with pytest.raises(ConfigError, match=r"job\.json is damaged"):
        ledger.jobs()


def test_a_damaged_job_does_not_hold_up_the_others(ledger: Ledger, small_config) -> None:
    job = ledger.add(small_config())
    for name, text in (("torn", "{"), ("older", '{"added": 1, "config": {"prompt": "a ball", "gone": 1}}')):
        (ledger.folder / name).mkdir()
        (ledger.folder / name / "job.json").write_text(text)
    with pytest.raises(ConfigError):
        ledger.jobs()
    assert ledger.sound_jobs() == [job]


def test_a_job_that_is_taken_between_two_looks_of_another_is_left_to_its_owner(ledger: Ledger, monkeypatch) -> None:
    job, look, taken = ledger.add(config()), ledger.status, []

    def slow(job: Job) -> Any:
        found = look(job)
        taken.append(Ledger(ledger.folder).claim(job))
        return found

    monkeypatch.setattr(ledger, "status", slow)
    assert ledger.claim(job) is None
    assert taken[0].beat()
