"""The queue: jobs in the order in which they were added, their states, and who works on them.

    QUEUE/database/               SQLite: order, states, claims, commands; see sds3d.jobs.database
    QUEUE/<job>/job.json          what to do: when it was added, what a person asked for, and all options; never changes
    QUEUE/<job>/result.json       how it ended, if it has
    QUEUE/<job>/run/              the run folder

The folders are enough to make the database again: a job with a result or a finished run is never done twice. What only
the database knows is lost with it: pauses, commands that no worker has passed on yet, and how often a job was tried.
"""

import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from sds3d.atomic import remove_tree, write_atomic, write_json, writing
from sds3d.config import RunConfig, read_json_object
from sds3d.errors import ConfigError, Sds3dError
from sds3d.jobs.database import Database
from sds3d.jobs.processes import WorkerId
from sds3d.prompts import unknown_word_warnings
from sds3d.run.events import Change, Command, FinishEarly, Pause, Resume, Stop, command_from_dict
from sds3d.run.folder import RunFolder, run_name

ATTEMPTS = 3  # that may fail, or end with their process and no progress, before a job is set aside

State = Literal["queued", "running", "paused", "stopped", "failed", "done"]
UNFINISHED: tuple[State, ...] = ("queued", "running", "paused")
ENDED: tuple[State, ...] = ("stopped", "failed", "done")

VERSION = 1  # of the schema; a database of another one is made again
SCHEMA = """
CREATE TABLE about (id TEXT NOT NULL, revision INTEGER NOT NULL, claims INTEGER NOT NULL);
CREATE TABLE job (
    number INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    added REAL NOT NULL,
    prompt TEXT NOT NULL, seed INTEGER NOT NULL, guidance TEXT NOT NULL, scene TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'queued',
    reason TEXT NOT NULL DEFAULT '',
    intent TEXT NOT NULL DEFAULT '',
    attempts INTEGER NOT NULL DEFAULT 0,
    failures INTEGER NOT NULL DEFAULT 0,
    began INTEGER NOT NULL DEFAULT 0,
    worker TEXT NOT NULL DEFAULT '',
    revision INTEGER NOT NULL
);
CREATE INDEX job_by_state ON job (state, number);
CREATE INDEX job_by_revision ON job (revision);
CREATE TABLE command (
    job INTEGER NOT NULL REFERENCES job ON DELETE CASCADE, number INTEGER NOT NULL, command TEXT NOT NULL,
    PRIMARY KEY (job, number)
) WITHOUT ROWID;
CREATE TABLE selection (id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE selected (
    selection TEXT NOT NULL, state TEXT NOT NULL, job INTEGER NOT NULL REFERENCES job ON DELETE CASCADE,
    PRIMARY KEY (selection, state, job)
) WITHOUT ROWID;
CREATE INDEX selected_by_job ON selected (job);
CREATE TRIGGER selected_state AFTER UPDATE OF state ON job WHEN OLD.state != NEW.state
    BEGIN UPDATE selected SET state = NEW.state WHERE job = NEW.number; END;
CREATE TABLE deleted (revision INTEGER NOT NULL, name TEXT NOT NULL);
"""


@dataclass(frozen=True)
class Job:
    """One run to make, as it was when the queue was asked; `Queue.job(name)` asks again."""

    name: str
    folder: Path
    added: float  # seconds since 1970; jobs are taken in this order
    prompt: str
    seed: int
    guidance: str
    scene: str
    state: State
    reason: str = ""  # why it failed, or why its last attempt did
    intent: Literal["", "pause", "stop"] = ""  # what a running job becomes as soon as it is saved
    attempts: int = 0  # how often it was begun
    worker: WorkerId | None = None  # who works on it
    heard: int = 0  # number of its newest command

    @property
    def run(self) -> RunFolder:
        """The run folder, there or not."""
        return RunFolder(self.folder / "run")

    @cached_property
    def config(self) -> RunConfig:
        """What it was added with; ConfigError if job.json is damaged. `run.config()` has later changes as well."""
        about = read_json_object(self.folder / "job.json")
        try:
            return RunConfig.restore(about["config"], about["resolved"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"{self.folder / 'job.json'} is damaged", hint="delete the job, add it again") from error


@dataclass(frozen=True)
class Changes:
    """What has changed in a queue since a token was handed out."""

    token: str  # for the next question
    jobs: list[Job]  # added or changed, in order
    deleted: list[str]  # names
    complete: bool = False  # the token was of no use, so `jobs` are all there are


class Selection:
    """Some jobs of a queue, by name, for workers that leave the others alone."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(names)
        self.id = hashlib.sha256("\n".join(self.names).encode()).hexdigest()[:16]


class Queue:
    """The jobs of one folder. Safe for any number of threads and processes of one machine.

    Names that come from outside never become paths: a job is looked up in the database. All methods raise OutputError
    if the disk refuses or another process holds the database for too long, and ConfigError if another machine uses it.
    """

    def __init__(self, folder: Path | str, attempts: int = ATTEMPTS) -> None:
        self.folder, self.attempts = Path(folder), attempts
        self._database = Database(self.folder / "database", SCHEMA, VERSION, self._fill)

    # What people and pages ask

    def add(self, config: RunConfig) -> Job:
        """Put a job at the end of the queue; one with the same config that is there already is the same job."""
        return self.add_many([config])[0]

    def add_many(self, configs: Sequence[RunConfig]) -> list[Job]:
        """Put jobs at the end of the queue in one transaction; one job for each config, also for those known already.

        A job whose run folder somebody has removed is queued again.
        """
        by_name = {job_name(config): config for config in configs}
        known = {job.name: job for job in self.named(by_name)}
        now = time.time()
        new = [name for name, job in by_name.items() if name not in known or not _is_whole(known[name])]
        rows = [
            self._write_job(name, by_name[name], now + 1e-6 * index, sync=len(new) == 1)
            for index, name in enumerate(new)
        ]
        if len(new) > 1:
            os.sync()  # once for all of them
        lost = [name for name, job in known.items() if job.state == "done" and not job.run.exists()]

        def insert(connection: sqlite3.Connection) -> None:
            revision = _next_revision(connection)
            connection.executemany(
                "INSERT OR IGNORE INTO job (name, added, prompt, seed, guidance, scene, revision) "
                f"VALUES (?, ?, ?, ?, ?, ?, {revision})",
                rows,
            )
            connection.executemany(
                f"UPDATE job SET state = 'queued', attempts = 0, failures = 0, revision = {revision} WHERE name = ?",
                [(name,) for name in lost],
            )

        if rows or lost:
            self._database.write(insert)
        found = {job.name: job for job in self.named(by_name)}
        return [found[name] for name in by_name]

    def job(self, name: object) -> Job:
        """The job of that name as it is now; ConfigError if there is none."""
        found = self.named([name]) if isinstance(name, str) else []
        if not found:
            raise ConfigError(f"no job {str(name)[:80]!r} in {self.folder}")
        return found[0]

    def named(self, names: Iterable[str]) -> list[Job]:
        """The jobs of these names, as far as there are any, in no order."""
        names, found = list(names), list[Job]()
        for start in range(0, len(names), 500):
            part = names[start : start + 500]
            found += self._select(f"WHERE name IN ({', '.join('?' * len(part))})", part)
        return found

    def has(self, name: str) -> bool:
        """Whether there is a job of that name."""
        return bool(self.named([name]))

    def jobs(self, *states: State, newest_first: bool = False, limit: int | None = None, offset: int = 0) -> list[Job]:
        """Jobs in these states, or all, in the order in which they were added or in the reverse of it."""
        where = f"WHERE state IN ({', '.join('?' * len(states))})" if states else ""
        order = f"ORDER BY number {'DESC' if newest_first else 'ASC'} LIMIT ? OFFSET ?"
        return self._select(f"{where} {order}", [*states, -1 if limit is None else limit, offset])

    def counts(self) -> dict[State, int]:
        """How many jobs are in each state that any job is in."""
        if not self.folder.is_dir():
            return {}
        return dict(
            self._database.read(
                lambda connection: connection.execute("SELECT state, COUNT(*) FROM job GROUP BY state").fetchall()
            )
        )

    def ahead_of(self, job: Job) -> int:
        """How many queued jobs are taken before this one."""
        query = "SELECT COUNT(*) FROM job WHERE state = 'queued' AND number < (SELECT number FROM job WHERE name = ?)"
        return int(self._database.read(lambda connection: connection.execute(query, [job.name]).fetchone()[0]))

    def changes_since(self, token: str = "") -> Changes:
        """What has changed since an earlier answer's token; everything for "" or the token of a lost database.

        Costs as much as there are changes, however many jobs there are.
        """
        if not self.folder.is_dir():
            return Changes("", [], [], complete=True)

        def look(connection: sqlite3.Connection) -> Changes:
            identity, now = connection.execute("SELECT id, revision FROM about").fetchone()
            mine, _, number = token.partition(":")
            complete = mine != identity or not number.isdecimal()
            then = 0 if complete else int(number)
            if then == now:
                return Changes(token, [], [])
            jobs = self._rows(connection, "WHERE revision > ? ORDER BY number", [then])
            query = "SELECT name FROM deleted WHERE revision > ? AND name NOT IN (SELECT name FROM job)"
            deleted = [] if complete else [name for (name,) in connection.execute(query, [then])]
            return Changes(f"{identity}:{now}", jobs, deleted, complete)

        return self._database.read(look)

    def command(self, job: Job, command: Command) -> None:
        """Tell a job that has not ended something; ConfigError for one that has, or a Change that is not allowed.

        Pause: a running job is saved and leaves its worker to others, and any is left alone until Resume, which puts it
        back at its old place. Stop: the same, but it ends as stopped (retry goes on with it). FinishEarly: it makes its
        results from what there is and ends as stopped. Change: see `sds3d.config.LIVE`; it holds from the next step
        of the run. Workers pass commands on within a quarter of a second and a step.
        """
        if isinstance(command, Change):
            self._check_change(job, command)

        def change(connection: sqlite3.Connection) -> None:
            self._reap(connection)
            now = self._one(connection, job.name)
            if now.state in ENDED:
                raise ConfigError(f"the job {job.name} has ended: it is {now.state}")
            connection.execute(
                "INSERT INTO command SELECT number, ?, ? FROM job WHERE name = ?",
                [now.heard + 1, json.dumps(command.to_dict()), job.name],
            )
            _update(connection, job.name, **self._effect(now, command))

        self._database.write(change)

    def _effect(self, job: Job, command: Command) -> dict[str, Any]:
        """The columns that a command changes at once."""
        if isinstance(command, Pause):
            return {"intent": "pause"} if job.state == "running" else {"state": "paused"}
        if isinstance(command, Resume):
            return {"intent": ""} if job.state == "running" else {"state": "queued"}
        if isinstance(command, Stop) or (isinstance(command, FinishEarly) and not job.run.checkpoint_steps()):
            if job.state == "running":
                return {"intent": "stop"} if isinstance(command, Stop) else {}
            self._write_result(job, "stopped", "" if job.run.checkpoint_steps() else "before it began")
            return {"state": "stopped", "reason": "" if job.run.checkpoint_steps() else "before it began"}
        if isinstance(command, FinishEarly) and job.state == "paused":
            return {"state": "queued"}  # a worker makes the results
        return {}

    def _check_change(self, job: Job, change: Change) -> None:
        config = job.run.config() if job.run.exists() else job.config
        earlier = [made for _, made in self.commands(job) if isinstance(made, Change)]
        merged: dict[str, Any] = {}
        for made in (*earlier, change):
            merged |= made.changes
        check_words(config.with_changes(merged))

    def retry(self, job: Job) -> None:
        """Queue a failed or stopped job again, at its old place; it goes on from its newest checkpoint."""

        def change(connection: sqlite3.Connection) -> None:
            now = self._one(connection, job.name)
            if now.state not in ("failed", "stopped"):
                raise ConfigError(
                    f"the job {job.name} is {now.state}", hint="only failed or stopped jobs can be retried"
                )
            with writing(job.folder):
                (job.folder / "result.json").unlink(missing_ok=True)
            for number, text in _commands(connection, job.name, 0):
                if not isinstance(command_from_dict(json.loads(text)), Change):
                    connection.execute(
                        "DELETE FROM command WHERE number = ? AND job = (SELECT number FROM job WHERE name = ?)",
                        [number, job.name],
                    )
            _update(connection, job.name, state="queued", reason="", intent="", attempts=0, failures=0)

        self._database.write(change)

    def delete(self, job: Job) -> None:
        """Remove a job and its folder; ConfigError if it is running, RunBusy if a process works in its run folder."""

        def change(connection: sqlite3.Connection) -> None:
            self._reap(connection)
            if self._one(connection, job.name).state == "running":
                raise ConfigError(f"the job {job.name} is running", hint="stop it first")
            if job.run.path.is_dir():
                job.run.delete()
            remove_tree(job.folder)
            revision = _next_revision(connection)
            connection.execute("INSERT INTO deleted VALUES (?, ?)", [revision, job.name])
            connection.execute("DELETE FROM job WHERE name = ?", [job.name])

        self._database.write(change)  # no worker can claim it meanwhile

    # What workers ask

    def claim(self, worker: WorkerId, only: Selection | None = None) -> Job | None:
        """The next queued job, now running with this worker; None if nothing can be taken.

        Jobs of workers that are gone are queued again first, or set aside if they have failed too often: see `release`.
        """
        if not self._database.read(lambda connection: self._may_claim(connection, worker, only)):
            return None

        def change(connection: sqlite3.Connection) -> Job | None:
            self._reap(connection, worker)
            self._register(connection, only)
            found = _next_queued(connection, only)
            if found is None:
                return None
            connection.execute("UPDATE about SET claims = claims + 1")
            job = self._one(connection, found)
            _update(
                connection,
                found,
                state="running", worker=str(worker), attempts=job.attempts + 1, began=saved_step(job.run), intent="",
            )  # fmt: skip
            return self._one(connection, found)

        return self._database.write(change)

    def unfinished(self, only: Selection | None = None) -> bool:
        """Whether any of these jobs is queued, running or paused."""

        def query(connection: sqlite3.Connection) -> bool:
            if only is None:
                sql, values = f"SELECT 1 FROM job WHERE state IN {UNFINISHED} LIMIT 1", []
            else:
                if not _is_registered(connection, only):
                    return True  # the database was made again; the next claim tells
                sql = f"SELECT 1 FROM selected WHERE selection = ? AND state IN {UNFINISHED} LIMIT 1"
                values = [only.id]
            return connection.execute(sql, values).fetchone() is not None

        return self._database.read(query)

    def commands(self, job: Job, after: int = 0) -> list[tuple[int, Command]]:
        """Commands to a job with their numbers, from `after` on."""
        rows = self._database.read(lambda connection: _commands(connection, job.name, after))
        return [(number, command_from_dict(json.loads(text))) for number, text in rows]

    def finish(self, job: Job, state: State, reason: str = "") -> bool:
        """End a job that its worker has claimed; False, and no change, if it is not this worker's any more."""

        def change(connection: sqlite3.Connection) -> bool:
            if not self._is_owner(connection, job):
                return False
            self._write_result(job, state, reason)
            _update(connection, job.name, state=state, reason=reason, worker="", intent="")
            return True

        return self._database.write(change)

    def release(self, job: Job, failure: str = "", died: bool = False) -> bool:
        """Give back a claimed job: queued again or, if it was told so meanwhile, paused or stopped.

        With a `failure` the attempt counts; so many of them set the job aside as failed. One that `died`, ended without
        a word, counts only if the run was not saved at a later step than it began at: a machine that is taken away
        again and again is not the job's fault as long as the job gets on.
        """

        def change(connection: sqlite3.Connection) -> bool:
            owner = self._is_owner(connection, job)
            if owner:
                self._give_back(connection, job.name, failure, died)
            return owner

        return self._database.write(change)

    def leave_to(self, job: Job, holder: WorkerId) -> None:
        """A process that is no worker has the run folder: the job is its until it ends."""

        def change(connection: sqlite3.Connection) -> None:
            if self._is_owner(connection, job):
                _update(connection, job.name, worker=str(holder))

        self._database.write(change)

    def reap(self) -> None:
        """Give back the jobs of workers that are gone, as each claim does."""
        if self.folder.is_dir() and self._database.read(lambda connection: _dead(connection, None)):
            self._database.write(self._reap)

    def leave_thread(self) -> None:
        """Close this thread's connection to the database: for threads that end before their process does."""
        self._database.leave_thread()

    def claims(self) -> int:
        """How many claims there have been."""
        return int(self._database.read(lambda connection: connection.execute("SELECT claims FROM about").fetchone()[0]))

    # Inside transactions

    def _may_claim(self, connection: sqlite3.Connection, worker: WorkerId, only: Selection | None) -> bool:
        if only is not None and not _is_registered(connection, only):
            return True
        return bool(_dead(connection, worker)) or _next_queued(connection, only) is not None

    def _register(self, connection: sqlite3.Connection, only: Selection | None) -> None:
        if only is None or _is_registered(connection, only):
            return
        connection.execute("INSERT INTO selection VALUES (?)", [only.id])
        connection.executemany(
            "INSERT OR IGNORE INTO selected SELECT ?, state, number FROM job WHERE name = ?",
            ((only.id, name) for name in only.names),
        )

    def _reap(self, connection: sqlite3.Connection, asking: WorkerId | None = None) -> None:
        """Give back what dead workers had, and what `asking` had: a worker that asks for a job has none."""
        for name, worker in _dead(connection, asking):
            self._give_back(connection, name, "", died=worker != str(asking))

    def _give_back(self, connection: sqlite3.Connection, name: str, failure: str, died: bool) -> None:
        job = self._one(connection, name)
        began, failures = connection.execute("SELECT began, failures FROM job WHERE name = ?", [name]).fetchone()
        counts = saved_step(job.run) <= began if died else bool(failure)
        if died and not failure:
            failure = "the process that worked on it ended without a word"
        failures += counts
        reason, state = (failure if counts else job.reason), "queued"
        if failures >= self.attempts:
            state, reason = "failed", f"set aside after {failures} attempts; the last: {reason}"
        elif job.intent:
            state = "paused" if job.intent == "pause" else "stopped"
        if state in ENDED:
            self._write_result(job, state, reason)
        _update(connection, name, state=state, reason=reason, failures=failures, worker="", intent="")

    def _is_owner(self, connection: sqlite3.Connection, job: Job) -> bool:
        sql = "SELECT 1 FROM job WHERE name = ? AND state = 'running' AND worker = ?"
        return connection.execute(sql, [job.name, str(job.worker)]).fetchone() is not None

    def _one(self, connection: sqlite3.Connection, name: str) -> Job:
        found = self._rows(connection, "WHERE name = ?", [name])
        if not found:
            raise ConfigError(f"no job {name[:80]!r} in {self.folder}")
        return found[0]

    def _rows(self, connection: sqlite3.Connection, where: str, values: Sequence[Any]) -> list[Job]:
        rows = connection.execute(
            "SELECT name, added, prompt, seed, guidance, scene, state, reason, intent, attempts, worker, "
            f"(SELECT COALESCE(MAX(number), 0) FROM command WHERE job = job.number) FROM job {where}",
            values,
        )
        return [self._job(*row) for row in rows]

    def _job(
        self, name: str, added: float, prompt: str, seed: int, guidance: str, scene: str, state: State, reason: str,
        intent: Literal["", "pause", "stop"], attempts: int, claimed_by: str, heard: int,
    ) -> Job:  # fmt: skip
        worker = WorkerId.parse(claimed_by)
        if state == "running" and (worker is None or not worker.is_alive()):  # the next claim gives it back
            state, worker = "paused" if intent == "pause" else "queued", None
        folder = self.folder / name
        return Job(name, folder, added, prompt, seed, guidance, scene, state, reason, intent, attempts, worker, heard)

    def _select(self, where: str, values: Sequence[Any]) -> list[Job]:
        if not self.folder.is_dir():
            return []
        return self._database.read(lambda connection: self._rows(connection, where, values))

    # Files

    def _write_job(self, name: str, config: RunConfig, added: float, sync: bool) -> tuple[Any, ...]:
        """Write job.json, whole or not at all; the job's row."""
        path, resolved = self.folder / name / "job.json", config.to_dict()
        said = json.dumps(config.said, indent=2, ensure_ascii=False).replace("\n", "\n  ")
        # all options on one line: json's fast encoder knows no indentation
        data = f'{{\n  "added": {added!r},\n  "config": {said},\n  "resolved": {json.dumps(resolved)}\n}}\n'.encode()
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            if sync:
                write_atomic(path, data)
            else:
                temporary = path.with_name(".job.json")
                temporary.write_bytes(data)
                os.replace(temporary, path)
        return _row(name, {"added": added, "resolved": resolved})

    def _write_result(self, job: Job, state: str, reason: str) -> None:
        write_json(job.folder / "result.json", {"state": state, "reason": reason, "ended": time.time()})

    def _fill(self, connection: sqlite3.Connection) -> None:
        """Everything that the folders say, into an empty database."""
        identity = os.urandom(8).hex()
        connection.execute("INSERT INTO about VALUES (?, 1, 0)", [identity])
        entries = [self._recall(path) for path in self.folder.glob("*/job.json")]
        for row, state, reason, worker in sorted(entries, key=lambda entry: (entry[0][1], entry[0][0])):
            connection.execute(
                "INSERT INTO job (name, added, prompt, seed, guidance, scene, state, reason, worker, revision) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 1)",
                [*row, state, reason, worker],
            )

    def _recall(self, path: Path) -> tuple[tuple[Any, ...], State, str, str]:
        """(row, state, reason, worker) of the job whose job.json this is."""
        folder, run = path.parent, RunFolder(path.parent / "run")
        try:
            row = _row(folder.name, read_json_object(path))
        except (Sds3dError, KeyError, TypeError, ValueError, AttributeError):
            return (folder.name, 0.0, "", 0, "", ""), "failed", "job.json is damaged: delete the job, add it again", ""
        holder = run.holder()
        if holder is not None:
            return row, "running", "", str(WorkerId.of(holder.pid))
        state, reason = _result(folder)
        if state is not None:
            return row, state, reason, ""
        ended = run.status().state if run.exists() and has_report(run) else "new"
        return row, "done" if ended == "done" else "stopped" if ended == "stopped" else "queued", "", ""


def job_name(config: RunConfig) -> str:
    """<slug>-<seed>-<hash of the config>: the same config has the same name, another has another."""
    text = json.dumps(config.to_dict(), sort_keys=True).encode()
    return f"{run_name(config)}-{hashlib.sha256(text).hexdigest()[:8]}"


def check_words(config: RunConfig) -> None:
    """ConfigError if the prior would ignore all words of the prompt; it need not be loaded for that."""
    unknown = config.prior.unknown_words(f"{config.prompt} {config.negative_prompt}")
    unknown_word_warnings(unknown, config.prior, config.prompt)


def saved_step(run: RunFolder) -> int:
    """How far a run is saved; 0 if it is not."""
    return next(iter(run.checkpoint_steps()), 0)


def has_report(run: RunFolder) -> bool:
    """Whether the run's report is there and whole."""
    try:
        return run.report() is not None
    except ConfigError:
        return False


def _row(name: str, about: Mapping[str, Any]) -> tuple[Any, ...]:
    """The columns of a job that never change."""
    options = about["resolved"]
    parts = (options["guidance"]["name"], options["scene"]["name"])
    return name, float(about["added"]), str(options["prompt"]), int(options["seed"]), *map(str, parts)


def _is_whole(job: Job) -> bool:
    """Whether job.json is there: a power cut can leave the row without the file."""
    try:
        return (job.folder / "job.json").stat().st_size > 0
    except OSError:
        return False


def _result(folder: Path) -> tuple[Literal["stopped", "failed"] | None, str]:
    """(state, reason) of result.json. None if there is none, it is damaged, or says done: the run itself tells that."""
    try:
        result = read_json_object(folder / "result.json")
        state, reason = result["state"], str(result["reason"])
    except (Sds3dError, KeyError):
        return None, ""
    return ("stopped" if state == "stopped" else "failed" if state == "failed" else None), reason


def _next_revision(connection: sqlite3.Connection) -> int:
    connection.execute("UPDATE about SET revision = revision + 1")
    return int(connection.execute("SELECT revision FROM about").fetchone()[0])


def _update(connection: sqlite3.Connection, name: str, **columns: Any) -> None:
    """Set columns of a job, so that those who follow the queue learn of it."""
    columns["revision"] = _next_revision(connection)
    assignments = ", ".join(f"{column} = ?" for column in columns)
    connection.execute(f"UPDATE job SET {assignments} WHERE name = ?", [*columns.values(), name])


def _dead(connection: sqlite3.Connection, asking: WorkerId | None) -> list[tuple[str, str]]:
    """(name, worker) of running jobs that nobody works on: those of processes that are gone, and of `asking`."""
    rows = connection.execute("SELECT name, worker FROM job WHERE state = 'running'").fetchall()
    alive: dict[tuple[str, int, str], bool] = {}  # one process may be several workers
    dead = []
    for name, text in rows:
        worker = WorkerId.parse(text)
        if worker is not None and worker.process not in alive:
            alive[worker.process] = worker.is_alive()
        if worker is None or worker == asking or not alive[worker.process]:
            dead.append((name, text))
    return dead


def _commands(connection: sqlite3.Connection, name: str, after: int) -> list[tuple[int, str]]:
    query = (
        "SELECT command.number, command FROM command JOIN job ON job = job.number "
        "WHERE name = ? AND command.number > ? ORDER BY command.number"
    )
    return connection.execute(query, [name, after]).fetchall()


def _is_registered(connection: sqlite3.Connection, only: Selection) -> bool:
    return connection.execute("SELECT 1 FROM selection WHERE id = ?", [only.id]).fetchone() is not None


def _next_queued(connection: sqlite3.Connection, only: Selection | None) -> str | None:
    if only is None:
        sql, values = "SELECT name FROM job WHERE state = 'queued' ORDER BY number LIMIT 1", []
    else:
        sql = (
            "SELECT name FROM job WHERE number = "
            "(SELECT MIN(job) FROM selected WHERE selection = ? AND state = 'queued')"
        )
        values = [only.id]
    found = connection.execute(sql, values).fetchone()
    return None if found is None else str(found[0])
