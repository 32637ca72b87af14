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
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import IO, TypeVar

from sds3d.atomic import is_at, temporary_folder, writing
from sds3d.errors import ConfigError, OutputError
from sds3d.jobs.processes import machine

BUSY_TIMEOUT = 60.0  # seconds to wait for another process's transaction
TRIES = 5  # to make the database again in a folder that somebody removes
ENTRY_TIMEOUT = 2.0  # seconds until a folder that another machine uses is refused

INHERITED: list[sqlite3.Connection] = []  # of the process that this one was forked from: they must not be closed here

Result = TypeVar("Result")


class _Thread(threading.local):
    """What a thread is connected to."""

    connection: sqlite3.Connection
    pid = 0  # of the process that connected; 0 for none
    name = ""  # of the database
    parts: Sequence[os.stat_result] = ()  # the database and its two logs as they were when this thread looked last


class Database:
    """Transactions on the database of a folder; one connection for each thread."""

    def __init__(self, folder: Path, schema: str, version: int, fill: Callable[[sqlite3.Connection], None]) -> None:
        """`fill` puts everything that other files say into an empty database of this `schema`."""
        self.folder, self._schema, self._version, self._fill = folder, schema, version, fill
        self._current = folder / "queue.db"
        self._threads = _Thread()
        self._entered: IO[bytes] | None = None  # the file `machine`, locked
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
                self._raise_if_refused(error)
                if self._is_current():
                    self._rebuild(self._files()[0])
                continue
            finally:
                with suppress(sqlite3.Error):
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
            if self._is_current():
                return result  # else the database was removed meanwhile, and what was written with it
        raise OutputError(f"{self._current} is damaged again and again", hint="check the disk")

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
        mine = self._threads
        if self._is_current():
            return mine.connection
        if mine.pid not in (0, os.getpid()):
            INHERITED.append(mine.connection)
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._enter()
        for _ in range(3):
            name, connection = self._files()[0], None
            try:
                if name and (name, os.getpid()) != (mine.name, mine.pid):  # else a part was cut off or removed
                    connection = sqlite3.connect(
                        self.folder / name, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
                    )
                    connection.execute("PRAGMA synchronous = NORMAL")
                    connection.execute("PRAGMA foreign_keys = ON")
                    connection.execute("PRAGMA temp_store = MEMORY")  # the tables of selections
                    if self._is_sound(connection):
                        mine.connection, mine.pid, mine.name = connection, os.getpid(), name
                        mine.parts = self._files()[1]
                        return connection
            except sqlite3.Error as error:
                self._raise_if_refused(error)
            if connection is not None:
                connection.close()
            self._rebuild(name)
        raise OutputError(f"{self._current} cannot be opened", hint="check the disk")

    def leave_thread(self) -> None:
        """Close this thread's connection, which would otherwise wait for the garbage collector."""
        if self._threads.pid == os.getpid():
            self._threads.connection.close()
            self._threads.__dict__.clear()

    def _is_current(self) -> bool:
        """Whether this thread of this process is connected to the database that the link names, and nothing was cut off
        from it or its logs: SQLite never does."""
        mine, (name, parts) = self._threads, self._files()
        if (name, os.getpid()) != (mine.name, mine.pid) or not len(parts) == len(mine.parts) == 3:
            return False
        for now, then in zip(parts, mine.parts, strict=True):
            if not os.path.samestat(now, then) or now.st_size < then.st_size:
                return False
        mine.parts = parts
        return True

    def _files(self) -> tuple[str, list[os.stat_result]]:
        """(name of the database in use, it and its two logs as far as they are there); "" if there is no database."""
        name, parts = "", list[os.stat_result]()
        with suppress(OSError):
            name = os.readlink(self._current)
            for suffix in ("", "-wal", "-shm"):
                parts.append(os.stat(self.folder / (name + suffix)))
        return (name if parts else ""), parts

    def _is_sound(self, connection: sqlite3.Connection) -> bool:
        """Whether it is of our version and, looked at once in a process, every page is whole: SQLite does not notice
        every page that is cut off in its middle."""
        if connection.execute("PRAGMA user_version").fetchone() != (self._version,):
            return False
        self._checked = self._checked or connection.execute("PRAGMA quick_check(1)").fetchone() == ("ok",)
        return self._checked

    def _rebuild(self, damaged: str) -> None:
        """Make the database again, unless another process has done so since the one of that name was in use."""
        path = self.folder / "rebuild"
        for _ in range(TRIES):
            with writing(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
                with path.open("ab") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX)  # until it is closed
                    if self._files()[0] not in ("", damaged):
                        return
                    try:
                        if self._replace(lambda: is_at(lock.fileno(), path)):
                            return
                    except (OSError, OutputError):
                        if is_at(lock.fileno(), path):
                            raise
        raise OutputError(f"{self.folder} is removed again and again", hint="leave it there")

    def _replace(self, is_ours: Callable[[], bool]) -> bool:
        """Put a new database in place of the one in use; False if `is_ours` no longer holds: the folder was removed
        meanwhile, and the lock with it, so another process may have made one, which has commands already."""
        name = f"queue-{secrets.token_hex(4)}.db"
        with temporary_folder(self._current) as scratch:
            self._build(scratch / name)
            if not is_ours():
                return False
            os.replace(scratch / name, self.folder / name)
            (scratch / "link").symlink_to(name)
            os.replace(scratch / "link", self._current)
        for old in self.folder.glob("queue-*"):
            if not old.name.startswith(name):
                old.unlink(missing_ok=True)
        return True

    def _build(self, path: Path) -> None:
        try:
            with closing(sqlite3.connect(path, isolation_level=None)) as connection:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = NORMAL")
                connection.executescript(f"BEGIN; {self._schema}")
                self._fill(connection)
                connection.execute(f"PRAGMA user_version = {self._version}")
                connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise OutputError(f"cannot write {self._current}: {error}") from error

    def _enter(self) -> None:
        """Hold the folder for this machine; ConfigError where another one has it in use.

        SQLite's log works between the processes of one machine only, and so does asking whether a process is there.
        """
        path, end = self.folder / "machine", time.monotonic() + ENTRY_TIMEOUT
        if (entered := self._entered) is not None:
            with suppress(OSError, ValueError):  # removed; or another thread has found that, and closed it
                if os.path.samestat(os.fstat(entered.fileno()), path.stat()):
                    return
            entered.close()
        file = path.open("a+b", buffering=0)
        weakref.finalize(self, file.close)
        while True:
            fcntl.flock(file, fcntl.LOCK_SH)
            file.seek(0)
            other = file.read(1000).decode(errors="replace")
            if other == machine():
                self._entered = file
                return
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                file.truncate(0)
                file.write(machine().encode())
            except BlockingIOError:  # in use, or another process of this machine is here at the same moment
                fcntl.flock(file, fcntl.LOCK_UN)
                if time.monotonic() > end:
                    file.close()
                    raise ConfigError(
                        f"the queue in {self.folder.parent} is in use on another machine ({other.partition('/')[0]})",
                        hint="for several machines: --ray ADDRESS, or --shard I/N with a folder each",
                    ) from None
                time.sleep(random.uniform(0.01, 0.05))
