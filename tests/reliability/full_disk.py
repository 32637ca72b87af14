"""Commands on a disk that is full at a write of the test's choice: `full_disk.c` under a process that has everything
loaded, of which each command is a copy.

`python -m tests.reliability.full_disk` is that process: it takes [arguments, stdout, stderr] a line, says exit codes.
"""

import json
import mmap
import os
import struct
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

SOURCE = Path(__file__).with_name("full_disk.c")
STATE = "lll1024s4096s"  # the struct in full_disk.c
PATIENCE = 120.0  # seconds


class Done(NamedTuple):
    """A command that has ended. `writes` below the folder; `failed` is the first that did, and its path."""

    code: int
    out: str
    err: str
    writes: int
    failed: str


class FullDisk:
    """A folder whose disk can be full."""

    def __init__(self, scratch: Path, folder: Path) -> None:
        """`scratch` is for the library and what commands say; calls below `folder` are counted."""
        self._scratch, self._folder, library = scratch, folder, scratch / "full_disk.so"
        subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"], check=True)
        state = scratch / "state"
        state.write_bytes(bytes(struct.calcsize(STATE)))
        with state.open("r+b") as file:
            self._state = mmap.mmap(file.fileno(), 0)
        self._server = subprocess.Popen(
            [sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "LD_PRELOAD": str(library), "FULL_DISK": str(state)},
        )  # fmt: skip

    def run(self, *arguments: str | Path, at: int = 0, stays: bool = True) -> Done:
        """`sds3d` with these arguments; the disk is full at the `at`-th write, counted from 1, and `stays` so."""
        said = [self._scratch / name for name in ("stdout", "stderr")]
        self._state[:] = struct.pack(STATE, 0, at, stays, os.fsencode(self._folder), b"")
        assert self._server.stdin
        assert self._server.stdout
        self._server.stdin.write(json.dumps([list(map(str, arguments)), *map(str, said)]) + "\n")
        self._server.stdin.flush()
        code = int(self._server.stdout.readline())
        count, _, _, _, failed = struct.unpack(STATE, self._state[:])
        return Done(code, *(path.read_text() for path in said), count, os.fsdecode(failed.rstrip(b"\0")))

    def end(self) -> None:
        """The process ends."""
        self._server.communicate(timeout=PATIENCE)


class CopiedWorker:
    """As subprocess.Popen of a worker, which would load torch for seconds: a copy of this process."""

    def __init__(self, command: list[str], env: dict[str, str], start_new_session: bool) -> None:
        self.returncode: int | None = None
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            from sds3d_app.workers import process

            sys.argv = command[2:]
            _end_with(process.main)

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def terminate(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, 15)

    def wait(self) -> int:
        while self.poll() is None:
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        assert self.returncode is not None
        return self.returncode


def _end_with(command: Any) -> None:
    code: object = 1
    try:
        code = command()
    except SystemExit as end:
        code = end.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 0)


def _serve() -> None:
    from sds3d.jobs import worker
    from sds3d.scenes import SCENES

    everything = {scene: scene.artifacts for scene in SCENES.values() if not scene.is_flat}
    import tests.reliability.loaded  # noqa: F401
    from sds3d_app.cli import invoke
    from sds3d_app.commands import batch
    from sds3d_app.workers import local_pool

    local_pool.subprocess = SimpleNamespace(Popen=CopiedWorker)  # type: ignore[assignment]
    batch.LOOK_EVERY = local_pool.LOOK_EVERY = worker.REST = 0.05
    for line in sys.stdin:
        arguments, *said = json.loads(line)
        child = os.fork()
        if child == 0:
            for path, number in zip(said, (1, 2), strict=True):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            for scene, artifacts in everything.items():
                scene.artifacts = artifacts if arguments[0] == "export" else ("sheet",)
            _end_with(partial(invoke, arguments))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    _serve()
