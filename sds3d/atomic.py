"""Writing files so that a reader finds the old one or the new one, and never half of either."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
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
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path):
        try:
            write_synced(temporary, data)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def write_json(path: Path, value: object) -> None:
    """`write_atomic` of a JSON value, for people too."""
    write_atomic(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A path of the same name in a folder of its own beside `path`.

    What lies in that folder at the end is moved out of it, `path` last. If anything goes wrong inside, nothing is.
    """
    folder = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path):
        try:
            folder.mkdir()
            yield folder / path.name
            for file in sorted(folder.iterdir(), key=lambda file: (file.name == path.name, file.name)):
                os.replace(file, path.parent / file.name)
            sync_folder(path.parent)
        except Sds3dError as error:  # it names the path that it was given
            told = str(error.args[0]).replace(str(folder), str(path.parent))
            raise type(error)(told, hint=error.hint) from error
        finally:
            remove_tree(folder)


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
