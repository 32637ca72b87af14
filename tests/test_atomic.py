import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sds3d.atomic import atomic_folder, write_atomic, write_json, writing
from sds3d.errors import ConfigError, OutputError


def test_a_file_is_written_and_nothing_else(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a", b"one")
    write_atomic(tmp_path / "a", b"two")
    assert (tmp_path / "a").read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_when_the_disk_is_full_the_old_file_stays_and_no_other_appears(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    write_atomic(path, b"old")

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OutputError, match=f"cannot write {path}: No space left"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_other_errors_pass_through() -> None:
    with pytest.raises(ZeroDivisionError), writing(Path("x")):
        _ = 1 / 0


def test_threads_that_write_one_file_do_not_meet_in_its_draft(tmp_path: Path) -> None:
    """Names made of the process's number are the same in all threads: one would rename the other's draft."""
    failed: list[BaseException] = []

    def write(letter: bytes) -> None:
        try:
            for _ in range(50):
                write_atomic(tmp_path / "a", letter * 5000)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in (b"x", b"y", b"z")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert len(set((tmp_path / "a").read_bytes())) == 1
    assert os.listdir(tmp_path) == ["a"]


KILLED = """
import os, signal, sys
from pathlib import Path
import sds3d.atomic as atomic

path = Path(sys.argv[1])
if sys.argv[2] == "file":
    atomic.sync_folder = atomic.os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    atomic.write_atomic(path, b"half")
else:
    with atomic.atomic_folder(path) as draft:
        draft.write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(("kind", "name"), [("file", "[a] b*.json"), ("folder", "mesh.glb")])
def test_what_a_killed_process_left_is_removed_by_the_next_write(tmp_path: Path, kind: str, name: str) -> None:
    path = tmp_path / name
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path), kind], check=False)
    assert killed.returncode == -9
    assert len(os.listdir(tmp_path)) == 1
    assert not path.exists()
    write_json(path, {"whole": True})
    assert os.listdir(tmp_path) == [name]


def test_the_draft_of_a_writer_that_lives_is_left_alone(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "a") as draft:
        draft.write_bytes(b"slow")
        write_atomic(tmp_path / "a", b"quick")
    assert (tmp_path / "a").read_bytes() == b"slow"
    assert os.listdir(tmp_path) == ["a"]


def test_a_folder_is_moved_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "mesh.obj").write_bytes(b"old")

    def refuse() -> None:
        with atomic_folder(tmp_path / "mesh.obj") as draft:
            (draft.parent / "mesh.mtl").write_bytes(b"new")
            draft.write_bytes(b"new")
            raise ConfigError(f"no good: {draft}", hint="try again", field="export.faces")

    with pytest.raises(ConfigError, match=f"no good: {tmp_path}/mesh.obj") as caught:
        refuse()
    assert (caught.value.hint, caught.value.field) == ("try again", "export.faces")
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"mesh.obj": b"old"}


def test_files_that_belong_together_are_old_or_new_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last of three cannot be moved: the first is back, and the second, which is new, is gone again."""
    for name in ("mesh.mtl", "mesh.obj"):
        (tmp_path / name).write_bytes(b"old")
    replace = os.replace

    def refuse(source: Path, target: Path) -> None:
        if Path(source).read_bytes() == b"new" and target.name == "mesh.obj":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    def write() -> None:
        with atomic_folder(tmp_path / "mesh.obj") as draft:
            for name in ("mesh.mtl", "mesh_color.png", "mesh.obj"):
                (draft.parent / name).write_bytes(b"new")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OutputError, match="No space left"):
        write()
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"mesh.mtl": b"old", "mesh.obj": b"old"}


def test_files_are_readable_by_whom_the_umask_allows(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_atomic(tmp_path / "a", b"data")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640
