"""Who is at work on a job: numbered files, each made by one process and taken over by making the next.

    claim-1, claim-2, ...        made exclusively: of several that want the same number one gets it
    claim-1.ended                made by its owner: the claim is over; says whether that was a failure

The highest number is the owner's. Nothing is renamed or deleted, so no two can both believe to have taken over, and the
number says how often the job was begun. The file's time is its owner's heartbeat, compared with the clock of the file
system, because machines that share it need not agree on the time.
"""

import json
import os
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sds3d.atomic import write_atomic, writing
from sds3d.run.checkpoint import checkpoints_in, step_of


@dataclass(frozen=True)
class Claim:
    """One process's hold on a job."""

    folder: Path
    number: int  # from 1

    @property
    def path(self) -> Path:
        return self.folder / f"claim-{self.number}"

    def beat(self) -> bool:
        """Say that the owner is alive; False where another has taken over, after which nothing may be written."""
        if (self.folder / f"claim-{self.number + 1}").exists():
            return False
        with writing(self.path):
            os.utime(self.path)
        return True

    def end(self, failure: str = "") -> None:
        """Give the job back: as it was, or with the reason why this attempt failed."""
        write_atomic(_ended(self.path), json.dumps({"failure": failure}).encode())


def take(folder: Path, number: int) -> Claim | None:
    """Claim `number` of a job; None where another was faster."""
    claim = Claim(folder, number)
    about = json.dumps(
        {"machine": machine(), "pid": os.getpid(), "begun": process_start(os.getpid()), "step": saved_step(folder)}
    ).encode()
    with writing(claim.path):
        try:
            handle = os.open(claim.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return None
        with os.fdopen(handle, "wb") as file:
            file.write(about)
    return claim


def claims(folder: Path) -> list[Claim]:
    """All claims there ever were on a job, first to last."""
    numbers = sorted(
        int(path.name.removeprefix("claim-"))
        for path in folder.glob("claim-*")
        if path.name.removeprefix("claim-").isdecimal()
    )
    return [Claim(folder, number) for number in numbers]


def saved_step(folder: Path) -> int:
    """How far a job is saved; 0 where it is not."""
    newest = next(iter(checkpoints_in(folder / "run" / "checkpoints")), None)
    return 0 if newest is None else step_of(newest)


def came_further(claim: Claim, then: int) -> bool:
    """Whether the job was saved at a later step than it began at, by the time that it was saved at `then`."""
    began = owner_of(claim).get("step", 0)
    return isinstance(began, int) and then > began


def failure_of(claim: Claim) -> str | None:
    """Why an ended claim failed, "" where it did not; None for one that its owner never ended."""
    try:
        return str(json.loads(_ended(claim.path).read_bytes())["failure"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def is_alive(claim: Claim, lease: float) -> bool:
    """Whether a claim that was never ended still has an owner: a process of this machine that is there, or a heartbeat
    less than `lease` seconds old."""
    about = owner_of(claim)
    if about.get("machine") == machine() and process_start(about.get("pid", 0)) != about.get("begun"):
        return False
    try:
        return file_system_time(claim.folder) - claim.path.stat().st_mtime < lease
    except OSError:
        return False


def owner_of(claim: Claim) -> dict[str, Any]:
    """Machine and process of a claim; empty where the file is not whole (yet)."""
    try:
        about = json.loads(claim.path.read_bytes())
    except (OSError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}


def machine() -> str:
    """This machine until it is started anew: process numbers mean something within that only."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = ""
    return f"{socket.gethostname()} {boot}".strip()


def process_start(pid: object) -> str | None:
    """When a process of this machine began, in the kernel's ticks, so that a number used again is another process; None
    where it is gone (a zombie is), or where the system does not say."""
    try:
        fields = Path(f"/proc/{int(str(pid))}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
    return None if fields[0] in "ZX" else fields[19]


def file_system_time(folder: Path) -> float:
    """The time that a file made in `folder` now gets."""
    with writing(folder), tempfile.NamedTemporaryFile(dir=folder, prefix=".clock-") as file:
        return os.fstat(file.fileno()).st_mtime


def _ended(path: Path) -> Path:
    return path.with_name(path.name + ".ended")
