"""Which process works on a job, and whether it is still there."""

import os
import socket
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path


@dataclass(frozen=True)
class WorkerId:
    """One worker: a process of a machine and, where a process has several of them, a label."""

    machine: str
    pid: int
    started: str  # so that a process number that is used again is another worker
    label: str = ""

    @classmethod
    def here(cls, label: str = "") -> "WorkerId":
        """This process."""
        return cls.of(os.getpid(), label)

    @classmethod
    def of(cls, pid: int, label: str = "") -> "WorkerId":
        """A process of this machine that is there."""
        return cls(machine(), pid, process_start(pid) or "", label)

    @classmethod
    def at_work(cls, text: str) -> "WorkerId | None":
        """The worker that `str` was made of, if its process is still there; one of another machine counts as gone, see
        Database."""
        host, pid, started, label = text.split("|")
        return cls(host, int(pid), started, label) if host == machine() and process_start(int(pid)) == started else None

    def __str__(self) -> str:
        return f"{self.machine}|{self.pid}|{self.started}|{self.label}"


@lru_cache(1)
def machine() -> str:
    """Host, start of its kernel, and namespace of process numbers: within these three a number names one process."""
    boot = namespace = ""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]
    with suppress(OSError):
        namespace = os.readlink("/proc/self/ns/pid").strip("pid:[]")
    return "/".join((socket.gethostname(), boot, namespace))


def process_start(pid: int) -> str | None:
    """When a process of this machine began, in the system's words; None where it has ended (also as a zombie)."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        start = fields[18]
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
        ps = ["ps", "-o", "stat=,lstart=", "-p", str(pid)]  # for systems without /proc
        state, _, start = subprocess.run(ps, capture_output=True, text=True, check=False).stdout.strip().partition(" ")
    return None if not start or state[0] in "ZX" else start.strip()
