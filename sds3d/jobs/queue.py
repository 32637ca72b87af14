"""The queue: jobs in the order in which they were added, their states, and who works on them.

    QUEUE/database/               SQLite: order, states, claims, commands; see sds3d.jobs.database
    QUEUE/<job>/job.json          what to do: when it was added, what a person asked for, and all options; never changes
    QUEUE/inputs/                 the pictures and other files that jobs begin with (sds3d.run.inputs), each once
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
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from sds3d.atomic import remove_tree, write_atomic, write_json, writing
from sds3d.config import LIVE, RunConfig, read_json_object
from sds3d.errors import CheckpointError, ConfigError, Sds3dError
from sds3d.jobs.database import Database
from sds3d.jobs.processes import WorkerId
from sds3d.prompts import unknown_word_warnings
from sds3d.run import inputs
from sds3d.run.events import Change, Command, FinishEarly, Pause, Resume, Stop, command_from_dict
from sds3d.run.folder import RunFolder, run_name

ATTEMPTS = 3  # that may fail, or end with their process and no progress, before a job is set aside

State = Literal["queued", "running", "paused", "stopped", "failed", "done"]
UNFINISHED: tuple[State, ...] = ("queued", "running", "paused")
ENDED: tuple[State, ...] = ("stopped", "failed", "done")

FORKABLE = (*LIVE, "steps")  # options that a checkpoint holds no state of

VERSION = 1  # of schema.sql; a database of another one is made again
JOBS = (
    "SELECT name, worker, added, prompt, seed, guidance, scene, state, reason, intent, attempts, "
    "(SELECT COALESCE(MAX(number), 0) FROM command WHERE job = job.number) FROM job "
)
INSERT = (
    "INSERT OR IGNORE INTO job (name, added, prompt, seed, guidance, scene, state, reason, worker, revision) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


@dataclass(frozen=True)
class Job:
    """One run to make, as it was when the queue was asked; `Queue.job(name)` asks again."""

    name: str
    folder: Path
    worker: WorkerId | None  # who works on it
    added: float  # seconds since 1970; jobs are taken in this order
    prompt: str
    seed: int
    guidance: str
    scene: str
    state: State
    reason: str  # why it failed, or why its last attempt did
    intent: Literal["", "pause", "stop"]  # what a running job becomes as soon as it is saved
    attempts: int  # how often it was begun
    heard: int  # number of its newest command

    @property
    def run(self) -> RunFolder:
        """The run folder, there or not."""
        return RunFolder(self.folder / "run")

    @cached_property
    def config(self) -> RunConfig:
        """What it was added with; ConfigError if job.json is damaged. `run.config()` has later changes as well."""
        about = read_json_object(self.folder / "job.json")
        try:
            data = (inputs.from_file(about[key], self.folder.parent) for key in ("config", "resolved"))
            return RunConfig.restore(*data)
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
        schema = Path(__file__).with_name("schema.sql").read_text()
        self._database = Database(self.folder / "database", schema, VERSION, self._fill)

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
        lost = [job for job in known.values() if job.state == "done" and not job.run.exists()]

        def change(connection: sqlite3.Connection) -> None:
            revision = _next_revision(connection)
            connection.executemany(INSERT, [(*row, "queued", "", "", revision) for row in rows])
            for job in lost:
                self._update(connection, job, state="queued", attempts=0, failures=0)

        if rows or lost:
            self._database.write(change)
        found = {job.name: job for job in self.named(by_name)}
        return [found[name] for name in by_name]

    def job(self, name: object) -> Job:
        """The job of that name as it is now; ConfigError if there is none."""
        return self._only(self.named([name]) if isinstance(name, str) else [], name)

    def named(self, names: Iterable[str]) -> list[Job]:
        """The jobs of these names, as far as there are any, in no order."""
        return self._jobs(self._ask(JOBS + "WHERE name IN (SELECT value FROM json_each(?))", json.dumps([*names])))

    def jobs(self, *states: State, newest_first: bool = False, limit: int | None = None, offset: int = 0) -> list[Job]:
        """Jobs in these states, or all, in the order in which they were added or in the reverse of it."""
        where = f"WHERE state IN ({', '.join('?' * len(states))})" if states else ""
        order = f"ORDER BY number {'DESC' if newest_first else 'ASC'} LIMIT ? OFFSET ?"
        return self._jobs(self._ask(f"{JOBS} {where} {order}", *states, -1 if limit is None else limit, offset))

    def counts(self) -> dict[State, int]:
        """How many jobs are in each state that any job is in."""
        return dict(self._ask("SELECT state, COUNT(*) FROM job GROUP BY state"))

    def ahead_of(self, job: Job) -> int:
        """How many queued jobs are taken before this one."""
        where = "WHERE state = 'queued' AND number < (SELECT number FROM job WHERE name = ?)"
        return sum(number for (number,) in self._ask(f"SELECT COUNT(*) FROM job {where}", job.name))

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
            jobs = self._jobs(connection.execute(JOBS + "WHERE revision > ? ORDER BY number", [then]))
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
            config = job.run.config() if job.run.exists() else job.config
            check_words(config.with_changes(changes_of([*(made for _, made in self.commands(job)), command])))

        def change(connection: sqlite3.Connection) -> None:
            self._reap(connection)
            now = self._one(connection, job.name)
            if now.state in ENDED:
                raise ConfigError(f"the job {job.name} has ended: it is {now.state}")
            connection.execute(
                "INSERT INTO command SELECT number, ?, ? FROM job WHERE name = ?",
                [now.heard + 1, json.dumps(command.to_dict()), job.name],
            )
            self._update(connection, now, **_effect(now, command))

        self._database.write(change)

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
            connection.execute(
                "DELETE FROM command WHERE job = (SELECT number FROM job WHERE name = ?) "
                "AND json_extract(command, '$.event') != ?",
                [job.name, Change.__name__],
            )
            self._update(connection, now, state="queued", reason="", intent="", attempts=0, failures=0)

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
            connection.execute("INSERT INTO deleted VALUES (?, ?)", [_next_revision(connection), job.name])
            connection.execute("DELETE FROM job WHERE name = ?", [job.name])

        self._database.write(change)  # no worker can claim it meanwhile

    # What workers ask

    def claim(self, worker: WorkerId, only: Selection | None = None) -> Job | None:
        """The next queued job, now running with this worker; None if nothing can be taken.

        Jobs of workers that are gone are queued again first, or set aside if they have failed too often: see `release`.
        """

        def may_claim(connection: sqlite3.Connection) -> bool:
            return bool(_dead(connection, worker)) or _first(connection, "queued", only) is not None

        def change(connection: sqlite3.Connection) -> Job | None:
            self._reap(connection, worker)
            found = _first(connection, "queued", only)
            if found is None:
                return None
            connection.execute("UPDATE about SET claims = claims + 1")
            job = self._one(connection, found)
            attempt = {"attempts": job.attempts + 1, "began": max(job.run.checkpoint_steps(), default=0)}
            self._update(connection, job, state="running", worker=str(worker), intent="", **attempt)
            return self._one(connection, found)

        return self._database.write(change) if self._database.read(may_claim) else None

    def unfinished(self, only: Selection | None = None) -> bool:
        """Whether any of these jobs is queued, running or paused."""
        return self._database.read(
            lambda connection: any(_first(connection, state, only) is not None for state in UNFINISHED)
        )

    def commands(self, job: Job, after: int = 0) -> list[tuple[int, Command]]:
        """Commands to a job with their numbers, from `after` on."""
        where = "WHERE job = (SELECT number FROM job WHERE name = ?) AND number > ? ORDER BY number"
        rows = self._ask(f"SELECT number, command FROM command {where}", job.name, after)
        return [(number, command_from_dict(json.loads(text))) for number, text in rows]

    def finish(self, job: Job, state: State, reason: str = "") -> bool:
        """End a job that its worker has claimed; False, and no change, if it is not this worker's any more."""
        end = {"state": state, "reason": reason, "worker": "", "intent": ""}
        return self._as_owner(job, lambda connection: self._update(connection, job, **end))

    def release(self, job: Job, failure: str = "", died: bool = False) -> bool:
        """Give back a claimed job: queued again or, if it was told so meanwhile, paused or stopped.

        With a `failure` the attempt counts; so many of them set the job aside as failed. One that `died`, ended without
        a word, counts only if the run was not saved at a later step than it began at: a machine that is taken away
        again and again is not the job's fault as long as the job gets on.
        """
        return self._as_owner(job, lambda connection: self._give_back(connection, job.name, failure, died))

    def leave_to(self, job: Job, holder: WorkerId) -> None:
        """A process that is no worker has the run folder: the job is its until it ends."""
        self._as_owner(job, lambda connection: self._update(connection, job, worker=str(holder)))

    def reap(self) -> None:
        """Give back the jobs of workers that are gone, as each claim does."""
        if self.folder.is_dir() and self._database.read(_dead):
            self._database.write(self._reap)

    def leave_thread(self) -> None:
        """Close this thread's connection to the database: for threads that end before their process does."""
        self._database.leave_thread()

    def claims(self) -> int:
        """How many claims there have been."""
        return sum(number for (number,) in self._ask("SELECT claims FROM about"))

    # Inside transactions

    def _reap(self, connection: sqlite3.Connection, asking: WorkerId | None = None) -> None:
        """Give back what dead workers had, and what `asking` had: a worker that asks for a job has none."""
        for name, worker in _dead(connection, asking):
            self._give_back(connection, name, "", died=worker != str(asking))

    def _give_back(self, connection: sqlite3.Connection, name: str, failure: str, died: bool) -> None:
        job = self._one(connection, name)
        began, failures = connection.execute("SELECT began, failures FROM job WHERE name = ?", [name]).fetchone()
        counts = max(job.run.checkpoint_steps(), default=0) <= began if died else bool(failure)
        if died and not failure:
            failure = "the process that worked on it ended without a word"
        failures += counts
        reason = failure if counts else job.reason
        state = {"": "queued", "pause": "paused", "stop": "stopped"}[job.intent]
        if failures >= self.attempts:
            state, reason = "failed", f"set aside after {failures} attempts; the last: {reason}"
        self._update(connection, job, state=state, reason=reason, failures=failures, worker="", intent="")

    def _as_owner(self, job: Job, change: Callable[[sqlite3.Connection], None]) -> bool:
        """`change`, as one transaction, of a claimed job; False, and no change, if it is not its worker's any more."""

        def transact(connection: sqlite3.Connection) -> bool:
            sql = "SELECT 1 FROM job WHERE name = ? AND state = 'running' AND worker = ?"
            is_owner = connection.execute(sql, [job.name, str(job.worker)]).fetchone() is not None
            if is_owner:
                change(connection)
            return is_owner

        return self._database.write(transact)

    def _update(self, connection: sqlite3.Connection, job: Job, **columns: Any) -> None:
        """Set columns of a job, so that those who follow the queue learn of it, and write down how it ended."""
        if columns.get("state") in ENDED:
            result = {"state": columns["state"], "reason": columns["reason"], "ended": time.time()}
            write_json(job.folder / "result.json", result)
        columns["revision"] = _next_revision(connection)
        assignments = ", ".join(f"{column} = ?" for column in columns)
        connection.execute(f"UPDATE job SET {assignments} WHERE name = ?", [*columns.values(), job.name])

    def _one(self, connection: sqlite3.Connection, name: str) -> Job:
        return self._only(self._jobs(connection.execute(JOBS + "WHERE name = ?", [name])), name)

    def _only(self, found: list[Job], name: object) -> Job:
        if not found:
            raise ConfigError(f"no job {str(name)[:80]!r} in {self.folder}")
        return found[0]

    def _jobs(self, rows: Iterable[Sequence[Any]]) -> list[Job]:
        """The jobs of rows that JOBS selects; those of a worker that is gone as the next claim will have them."""
        jobs = []
        for name, worker, *facts in rows:
            job = Job(name, self.folder / name, WorkerId.at_work(worker) if worker else None, *facts)
            if job.state == "running" and job.worker is None:
                job = replace(job, state="paused" if job.intent == "pause" else "queued")
            jobs.append(job)
        return jobs

    def _ask(self, sql: str, *values: object) -> list[Any]:
        """The rows that a query finds; looking makes no folder."""
        if not self.folder.is_dir():
            return []
        return self._database.read(lambda connection: connection.execute(sql, values).fetchall())

    # Files

    def _write_job(self, name: str, config: RunConfig, added: float, sync: bool) -> tuple[Any, ...]:
        """Write job.json, whole or not at all; the job's row."""
        config, path = inputs.keep(config, self.folder), self.folder / name / "job.json"
        told, resolved = (inputs.to_file(data, self.folder) for data in (config.said, config.to_dict()))
        said = json.dumps(told, indent=2, ensure_ascii=False).replace("\n", "\n  ")
        # all options on one line: json's fast encoder knows no indentation
        data = f'{{\n  "added": {added!r},\n  "config": {said},\n  "resolved": {json.dumps(resolved)}\n}}\n'.encode()
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            if sync:
                write_atomic(path, data)
            else:
                temporary = path.with_name(".job.json")
                try:
                    temporary.write_bytes(data)
                    os.replace(temporary, path)
                except OSError:
                    temporary.unlink(missing_ok=True)
                    raise
        return _row(name, {"added": added, "resolved": resolved})

    def _fill(self, connection: sqlite3.Connection) -> None:
        """Everything that the folders say, into an empty database."""
        connection.execute("INSERT INTO about VALUES (?, 1, 0)", [os.urandom(8).hex()])
        rows = sorted(map(self._recall, self.folder.glob("*/job.json")), key=lambda row: (row[1], row[0]))
        connection.executemany(INSERT, [(*row, 1) for row in rows])

    def _recall(self, path: Path) -> tuple[Any, ...]:
        """The row of the job whose job.json this is, with its state, reason and worker."""
        folder, run = path.parent, RunFolder(path.parent / "run")
        try:
            row = _row(folder.name, read_json_object(path))
        except (Sds3dError, KeyError, TypeError, ValueError, AttributeError):
            return folder.name, 0.0, "", 0, "", "", "failed", "job.json is damaged: delete the job, add it again", ""
        if (holder := run.holder()) is not None:
            return *row, "running", "", str(WorkerId.of(holder.pid))
        with suppress(Sds3dError, KeyError):  # there is none, or it is damaged
            result = read_json_object(folder / "result.json")
            if result["state"] in ("stopped", "failed"):  # of one that is done the run itself tells
                return *row, result["state"], str(result["reason"]), ""
        return *row, how_it_ended(run) or "queued", "", ""


def fork(queue: Queue, run: RunFolder, changes: Mapping[str, Any], step: int | None = None) -> Job:
    """A new job that goes on from the run's checkpoint at `step`, or its newest, with `changes`.

    ConfigError if nothing is changed, or something that cannot be; CheckpointError if it has no such checkpoint. If the
    disk is full, there is no job, and the same fork can be made later.
    """
    config = run.config().with_changes(changes, FORKABLE)
    check_words(config)
    checkpoint, problems = run.load_checkpoint(step)
    if checkpoint is None or problems:
        raise CheckpointError(
            problems[0] if problems else f"{run.path} has no checkpoint yet", hint="wait for its first checkpoint"
        )
    if checkpoint.step >= config.steps:
        raise ConfigError(
            f"steps = {config.steps} is not more than the checkpoint's {checkpoint.step}", hint="give more steps"
        )
    try:
        config.check_stage(checkpoint.stage, checkpoint.step)
    except CheckpointError as error:
        problem = f"steps = {config.steps} moves the run's stages past the checkpoint: {error.args[0]}"
        raise ConfigError(problem, error.hint, "steps") from None
    target = RunFolder(queue.folder / job_name(config) / "run")
    if queue.named([job_name(config)]):
        raise ConfigError("a run with exactly these options exists already", hint="change something")
    if target.path.is_dir():
        target.delete()  # of a fork that was cut off before its job was added
    RunFolder.create(target.path, config, checkpoint)
    return queue.add(config)  # last: from now on a worker may take it


def job_name(config: RunConfig) -> str:
    """<slug>-<seed>-<hash of the config>: the same config has the same name, another has another. Of files that are
    named, the names count; of copies that runs keep, the contents."""
    text = json.dumps(inputs.names_by_content(config.to_dict()), sort_keys=True).encode()
    return f"{run_name(config)}-{hashlib.sha256(text).hexdigest()[:8]}"


def check_words(config: RunConfig) -> None:
    """ConfigError if the prior would ignore what the prompt is about; it need not be loaded for that."""
    unknown = config.prior.unknown_words(f"{config.prompt} {config.negative_prompt}")
    unknown_word_warnings(unknown, config.prior, config.prompt)


def changes_of(commands: Iterable[Command]) -> dict[str, Any]:
    """What they change together; the last one counts."""
    return {key: value for command in commands if isinstance(command, Change) for key, value in command.changes.items()}


def how_it_ended(run: RunFolder) -> Literal["done", "stopped"] | None:
    """How a run whose report is there and whole has ended; None of any other."""
    with suppress(ConfigError):
        if run.exists() and run.report() is not None:
            state = run.status().state
            return state if state in ("done", "stopped") else None
    return None


def _row(name: str, about: Mapping[str, Any]) -> tuple[Any, ...]:
    """The columns of a job that never change; its parts are those of the last stage, as in its report."""
    options = about["resolved"]
    if stages := options.get("stages"):
        options = {**options, **stages[-1]["options"]}
    parts = (options["guidance"]["name"], options["scene"]["name"])
    return name, float(about["added"]), str(options["prompt"]), int(options["seed"]), *map(str, parts)


def _is_whole(job: Job) -> bool:
    """Whether job.json is there: a power cut can leave the row without the file."""
    path = job.folder / "job.json"
    return path.is_file() and path.stat().st_size > 0


def _effect(job: Job, command: Command) -> dict[str, Any]:
    """The columns that a command changes at once."""
    is_running, is_saved = job.state == "running", bool(job.run.checkpoint_steps())
    match command:
        case Pause():
            return {"intent": "pause"} if is_running else {"state": "paused"}
        case Resume():
            return {"intent": ""} if is_running else {"state": "queued"}
        case Stop() if is_running:
            return {"intent": "stop"}
        case FinishEarly() if is_running or is_saved:
            return {"state": "queued"} if job.state == "paused" else {}  # a worker makes the results
        case Stop() | FinishEarly():
            return {"state": "stopped", "reason": "" if is_saved else "before it began"}
    return {}


def _next_revision(connection: sqlite3.Connection) -> int:
    connection.execute("UPDATE about SET revision = revision + 1")
    return int(connection.execute("SELECT revision FROM about").fetchone()[0])


def _dead(connection: sqlite3.Connection, asking: WorkerId | None = None) -> list[tuple[str, str]]:
    """(name, worker) of running jobs that nobody works on: those of processes that are gone, and of `asking`."""
    rows = connection.execute("SELECT name, worker FROM job WHERE state = 'running'")
    return [(name, worker) for name, worker in rows if worker == str(asking) or WorkerId.at_work(worker) is None]


def _first(connection: sqlite3.Connection, state: State, only: Selection | None) -> str | None:
    """The name of the first job in this state, of all or of those selected; these each connection puts in a table."""
    among = ""
    if only is not None:
        table = f"selected_{only.id}"
        among = f"AND name IN {table}"
        if not connection.execute("SELECT 1 FROM sqlite_temp_master WHERE name = ?", [table]).fetchone():
            connection.execute(f"CREATE TEMP TABLE {table} (name TEXT PRIMARY KEY) WITHOUT ROWID")
            connection.executemany(f"INSERT OR IGNORE INTO {table} VALUES (?)", [(name,) for name in only.names])
    sql = f"SELECT name FROM job INDEXED BY job_by_state WHERE state = ? {among} ORDER BY number LIMIT 1"
    return next((str(name) for (name,) in connection.execute(sql, [state])), None)
