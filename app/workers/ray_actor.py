"""What runs in a Ray actor: a worker that keeps its prior from job to job."""

import io
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

from sds3d import RunConfig
from sds3d.atomic import remove_tree, writing
from sds3d.errors import ConfigError
from sds3d.jobs import Ledger, Worker

ALONE = "set aside after 1 attempts; the last: "  # how a ledger of one attempt speaks of a crash


class Slot:
    """One device's worth of work. Calls come from the driver, several at once: `stop` while another is under way."""

    def __init__(self, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self._worker: Worker | None = None
        self._stopped = False
        self._own: tuple[Ledger, Worker] | None = None

    def sees(self, probe: str, token: str) -> bool:
        """Whether this process shares the batch's folder."""
        try:
            return Path(probe).read_text() == token
        except OSError:
            return False

    def work(self, folder: str, names: list[str], lease: float, attempts: int) -> None:
        """Jobs of a shared ledger until none of these is left; see sds3d.jobs.Worker."""
        wanted = set(names)
        self._worker = Worker(Ledger(folder, lease, attempts), lambda job: job.name in wanted)
        if self._stopped:
            self._worker.stop()
        for _ in self._worker.run():
            pass

    def make(self, config: dict[str, Any], before: bytes | None) -> dict[str, Any]:
        """One job in a folder of its own, which the driver gets back: its state, the reason, and the run folder packed.

        `before` is the run so far, to go on from. The state is queued where the job was given back, or crashed.
        """
        if self._own is None:
            ledger = Ledger(tempfile.mkdtemp(prefix="sds3d-ray-"), attempts=1)
            self._own = ledger, Worker(ledger)
        ledger, self._worker = self._own
        job = ledger.add(RunConfig.from_dict(config))
        try:
            if before is not None:
                unpacked(before, job.run)
            if self._stopped:
                self._worker.stop()
            for _ in self._worker.run():
                pass
            status = ledger.status(job)
            crashed = status.reason.startswith(ALONE)
            state = "queued" if crashed or status.state == "running" else status.state
            return {"state": state, "reason": status.reason.removeprefix(ALONE), "run": packed(job.run)}
        finally:
            remove_tree(job.folder)

    def nothing(self) -> None:
        """There may be something to do later."""
        time.sleep(1.0)

    def stop(self) -> None:
        """Save what is under way and take nothing else."""
        self._stopped = True
        if self._worker is not None:
            self._worker.stop()


def packed(folder: Path) -> bytes:
    """All files of a folder; empty where there is none."""
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w") as archive:
        if folder.is_dir():
            archive.add(folder, arcname=".")
    return memory.getvalue()


def unpacked(data: bytes, folder: Path) -> None:
    """`folder` as it was packed, in place of what is there; ConfigError, and no change, for names that lead out."""
    made = folder.with_name(f".{folder.name}.unpacking")
    with writing(folder):
        remove_tree(made)
        made.mkdir(parents=True)
        try:
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                archive.extractall(made, filter="data")  # no absolute names, no way up, no links out, no devices
        except tarfile.TarError as error:
            remove_tree(made)
            raise ConfigError(f"what came back for {folder} cannot be unpacked: {error}") from error
        remove_tree(folder)
        made.rename(folder)
