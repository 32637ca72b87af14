"""One SQLite database for the processes of one machine, made again from other files whenever it is missing or damaged.

    FOLDER/queue.db -> queue-1f3c5a7b.db    the database in use; a database that is made again gets another name
    FOLDER/machine                          which machine uses it; its processes hold a shared lock on this file
    FOLDER/rebuild                          locked by the process that makes the database again

Why a link: SQLite deletes the write-ahead log by its path when the last connection to a database closes. A process that
still has a removed database open would delete the log of its successor if both had the same path.
"""

import fcntl
import os
import random
import secrets
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

from sds3d.atomic import writing
from sds3d.errors import ConfigError, OutputError
from sds3d.jobs.processes import machine

BUSY_TIMEOUT = 60.0  # seconds to wait for another process's transaction
ENTRY_TIMEOUT = 2.0  # seconds until a folder that another machine uses is refused

INHERITED: list[sqlite3.Connection] = []  # of the process that this one was forked from: they must not be closed here

Result = TypeVar("Result")


class Part(NamedTuple):
    """One of a database's files as it is now."""

    identity: tuple[int, int]  # whatever its name
    size: int


class Files(NamedTuple):
    """The database in use."""

    name: str
    database: Part
    log: Part | None
    log_index: Part | None

    def is_same(self, other: "Files | None") -> bool:
        """Whether it is the same database, whatever has become of its files."""
        return other is not None and (self.name, self.database.identity) == (other.name, other.database.identity)

    def is_whole(self, earlier: "Files") -> bool:
        """Whether these are the files from `earlier`, and nothing was cut off from them: SQLite never does."""
        pairs = zip(self[1:], earlier[1:], strict=True)
        return self.name == earlier.name and all(
            now is not None and then is not None and now.identity == then.identity and now.size >= then.size
            for now, then in pairs
        )


class Database:
    """Transactions on the database of a folder; one connection for each thread."""

    def __init__(self, folder: Path, schema: str, version: int, fill: Callable[[sqlite3.Connection], None]) -> None:
        """`fill` puts everything that other files say into an empty database of this `schema`."""
        self.folder, self._schema, self._version, self._fill = folder, schema, version, fill
        self._current = folder / "queue.db"
        self._threads = threading.local()
        self._entered: int | None = None  # the open file `machine`
        self._leave: Callable[[], object] | None = None  # closes it
        self._checked = False

    def read(self, query: Callable[[sqlite3.Connection], Result]) -> Result:
        """What `query` finds in one consistent state of the database; other processes are not held up."""
        return self._transact("BEGIN", query)

    def write(self, change: Callable[[sqlite3.Connection], Result]) -> Result:
        """`change` as one transaction: all of it or, if it raises, nothing. It can be called a second time, with the
        database that was made again. OutputError if another process holds the database for more than BUSY_TIMEOUT."""
        return self._transact("BEGIN IMMEDIATE", change)

    def _transact(self, begin: str, body: Callable[[sqlite3.Connection], Result]) -> Result:
        for _ in range(3):
            connection = self._connection()
            try:
                connection.execute(begin)
                result = body(connection)
                connection.execute("COMMIT")
            except sqlite3.Error as error:
                self._roll_back(connection)
                self._raise_if_refused(error)
                if self._is_current():
                    self._rebuild(self._files())
                continue
            except BaseException:
                self._roll_back(connection)
                raise
            if self._is_current():
                return result  # else the database was removed meanwhile, and what was written with it
        raise OutputError(f"{self._current} is damaged again and again", hint="check the disk")

    def _roll_back(self, connection: sqlite3.Connection) -> None:
        with suppress(sqlite3.Error):
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    def _raise_if_refused(self, error: sqlite3.Error) -> None:
        """OutputError if the database is busy, or the disk refuses; sqlite3 has no class for these. An "I/O error" can
        also be a log that was cut off: making the database again tells, because it fails where the disk refuses."""
        text = str(error)
        if "locked" in text:
            raise OutputError(
                f"{self._current} has been locked by another process for {BUSY_TIMEOUT:.0f} s",
                hint="end the program that holds it",
            ) from error
        if any(part in text for part in ("disk is full", "readonly", "unable to open")):
            raise OutputError(f"cannot write {self._current}: {text}") from error

    def _connection(self) -> sqlite3.Connection:
        """This thread's connection to the database in use."""
        if not self._is_current():
            if getattr(self._threads, "pid", None) not in (None, os.getpid()):
                INHERITED.append(self._threads.connection)
            self._threads.connection, self._threads.pid = self._connect(), os.getpid()
        return self._threads.connection

    def leave_thread(self) -> None:
        """Close this thread's connection, which would otherwise wait for the garbage collector."""
        connection = getattr(self._threads, "connection", None)
        if connection is not None and self._threads.pid == os.getpid():
            connection.close()
            self._threads.__dict__.clear()

    def _is_current(self) -> bool:
        """Whether this thread of this process is connected to the database that the link names, and to its logs."""
        files, mine = self._files(), getattr(self._threads, "files", None)
        if files is None or mine is None or self._threads.pid != os.getpid() or not files.is_whole(mine):
            return False
        self._threads.files = files
        return True

    def _files(self) -> Files | None:
        """The database in use and its two logs; None if there is no database."""
        try:
            name = os.readlink(self._current)
        except OSError:
            return None
        database, log, log_index = (_part(self.folder / (name + suffix)) for suffix in ("", "-wal", "-shm"))
        return None if database is None else Files(name, database, log, log_index)

    def _connect(self) -> sqlite3.Connection:
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._enter()
        for _ in range(3):
            files, mine = self._files(), getattr(self._threads, "files", None)
            if files is None or (files.is_same(mine) and self._threads.pid == os.getpid()):
                self._rebuild(files)  # there is none, or a part of it was cut off or removed
                continue
            connection = None
            try:
                connection = sqlite3.connect(
                    self.folder / files.name, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
                )
                connection.execute("PRAGMA synchronous = NORMAL")
                connection.execute("PRAGMA foreign_keys = ON")
                if connection.execute("PRAGMA user_version").fetchone() == (self._version,) and self._is_sound(
                    connection
                ):
                    self._threads.files = self._files()
                    return connection
            except sqlite3.Error as error:
                self._raise_if_refused(error)
            if connection is not None:
                connection.close()
            self._rebuild(files)
        raise OutputError(f"{self._current} cannot be opened", hint="check the disk")

    def _is_sound(self, connection: sqlite3.Connection) -> bool:
        """Looks at every page, once in a process: SQLite does not notice every page that is cut off in its middle."""
        if not self._checked:
            self._checked = connection.execute("PRAGMA quick_check(1)").fetchone() == ("ok",)
        return self._checked

    def _rebuild(self, damaged: Files | None) -> None:
        """Make the database again, unless another process has done so since `damaged` was the one in use."""
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            with locked(self.folder / "rebuild"):
                files = self._files()
                if files is not None and not files.is_same(damaged):
                    return
                path = self.folder / f"queue-{secrets.token_hex(4)}.db"
                try:
                    self._build(path)
                except BaseException:
                    path.unlink(missing_ok=True)
                    raise
                link = path.with_suffix(".link")
                link.symlink_to(path.name)
                os.replace(link, self._current)
                for old in self.folder.glob("queue-*"):
                    if not old.name.startswith(path.name):
                        old.unlink(missing_ok=True)

    def _build(self, path: Path) -> None:
        connection = None
        try:
            connection = sqlite3.connect(path, isolation_level=None)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.executescript(f"BEGIN; {self._schema}")
            self._fill(connection)
            connection.execute(f"PRAGMA user_version = {self._version}")
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise OutputError(f"cannot write {path}: {error}") from error
        finally:
            if connection is not None:
                connection.close()

    def _enter(self) -> None:
        """Hold the folder for this machine; ConfigError where another one has it in use.

        SQLite's log works between the processes of one machine only, and so does asking whether a process is there.
        """
        path, end = self.folder / "machine", time.monotonic() + ENTRY_TIMEOUT
        if self._entered is not None and self._leave is not None:
            mine, there = _part(self._entered), _part(path)
            if mine is not None and there is not None and mine.identity == there.identity:
                return
            self._leave()
        handle = self._entered = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        self._leave = weakref.finalize(self, os.close, handle)
        while True:
            fcntl.flock(handle, fcntl.LOCK_SH)
            other = os.pread(handle, 1000, 0).decode(errors="replace")
            if other == machine():
                return
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # in use, or another process of this machine is here at the same moment
                fcntl.flock(handle, fcntl.LOCK_UN)
                if time.monotonic() > end:
                    self._entered = None
                    self._leave()
                    raise ConfigError(
                        f"the queue in {self.folder.parent} is in use on another machine ({other.partition('/')[0]})",
                        hint="for several machines: --ray ADDRESS, or --shard I/N with a folder each",
                    ) from None
                time.sleep(random.uniform(0.01, 0.05))
                continue
            os.ftruncate(handle, 0)
            os.pwrite(handle, machine().encode(), 0)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Inside, this process alone has the lock of the file; the system takes it back when the process ends."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _part(file: Path | int) -> Part | None:
    """The file; None if there is none."""
    try:
        status = os.stat(file)
    except OSError:
        return None
    return Part((status.st_dev, status.st_ino), status.st_size)
