"""Writing files so that a reader finds the old one or the new one, and never half of either.

Drafts lie beside their target as `.NAME.*.tmp`, locked by their writer. The next writer of the same name removes drafts
that nobody holds a lock on: those of processes that were killed.
"""

import fcntl
import glob
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

from sds3d.errors import OutputError, Sds3dError


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Inside, an operating system error becomes an OutputError that names `path`."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def write_atomic(path: Path, data: bytes) -> None:
    """Put `data` at `path` through a temporary file in the same folder; on failure the old file stays as it was."""
    with writing(path):
        with _draft(path, Path.touch) as draft:
            write_synced(draft, data)
            os.replace(draft, path)
        sync_folder(path.parent)


def write_json(path: Path, value: object) -> None:
    """`write_atomic` of a JSON value, indented for people. Bytes of file names that are no UTF-8 are escaped."""
    write_atomic(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode(errors="backslashreplace"))


def is_at(handle: int, path: Path) -> bool:
    """Whether an open file is still the one at a path: a lock on one that was removed holds nobody off."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except OSError:
        return False


def is_draft(path: Path) -> bool:
    """Whether a file of this name is one that is being written, or was when its writer ended."""
    return path.name.startswith(".") and path.name.endswith(".tmp")


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """An empty folder beside `path`, on the same disk, for this user alone, that is gone at the end."""
    with _draft(path, partial(Path.mkdir, mode=0o700)) as folder:
        yield folder


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A path of the same name in a temporary folder beside `path`.

    At the end all files of that folder are moved out of it, `path` last. If anything goes wrong inside, nothing is; if
    one of them cannot be moved, those before it are moved back, and what they replaced is there again.
    """
    with writing(path), temporary_folder(path) as folder, naming(path.parent, folder):
        yield folder / path.name
        new = sorted(folder.iterdir(), key=lambda file: (file.name == path.name, file.name))
        with temporary_folder(folder / "old") as old, ExitStack() as undo:
            for file in new[:-1]:
                target = path.parent / file.name
                if target.exists():
                    shutil.copyfile(target, old / file.name)
                    undo.callback(os.replace, old / file.name, target)
                else:
                    undo.callback(target.unlink, missing_ok=True)
            for file in new:
                os.replace(file, path.parent / file.name)
            undo.pop_all()
        sync_folder(path.parent)


@contextmanager
def naming(path: Path, draft: Path) -> Iterator[None]:
    """Inside, errors about files in `draft` speak of `path`, which people know."""
    try:
        yield
    except Sds3dError as error:
        error.args = (str(error.args[0]).replace(str(draft), str(path)),)
        raise


def write_synced(path: Path, data: bytes) -> None:
    """Write and wait until the disk has it; plain OSError."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Make renames inside the folder survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_tree(path: Path) -> None:
    """Delete a folder that may be gone already."""
    shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _draft(path: Path, create: Callable[[Path], None]) -> Iterator[Path]:
    """A new file or folder beside `path`, locked by its writer; removed at the end if it is still there."""
    _remove_abandoned(path)
    while True:
        draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        create(draft)
        with suppress(FileNotFoundError):  # another writer may take it for an abandoned one until it is locked
            handle = os.open(draft, os.O_RDONLY)
            if _lock(handle) and draft.exists():
                break
            os.close(handle)
    try:
        yield draft
    finally:
        _remove(draft)
        os.close(handle)


def _remove_abandoned(path: Path) -> None:
    for draft in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        with suppress(OSError):  # locked, or gone by now
            handle = os.open(draft, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(draft)
            finally:
                os.close(handle)


def _lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks: no draft is ever taken for an abandoned one there
        return True
    return True


def _remove(draft: Path) -> None:
    if draft.is_dir():
        remove_tree(draft)
    else:
        draft.unlink(missing_ok=True)
