"""What runs in a Ray actor: one job after the other, with a prior that is kept from job to job."""

import io
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sds3d.atomic import remove_tree, writing
from sds3d.config import RunConfig
from sds3d.errors import ConfigError, RunBusy
from sds3d.jobs.worker import Outcome, Runner
from sds3d.run.events import command_from_dict
from sds3d.run.folder import RunFolder


class RayWorker:
    """One device's worth of work. Calls come from the driver, several at once: `send` while `run` is under way."""

    def __init__(self, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self._runner = Runner()

    def shares(self, probe: str, token: str) -> bool:
        """Whether this process sees the queue's folder."""
        try:
            return Path(probe).read_text() == token
        except OSError:
            return False

    def run(
        self,
        said: dict[str, Any],
        resolved: dict[str, Any],
        commands: Sequence[Mapping[str, Any]],
        run: str | bytes | None,
    ) -> dict[str, Any]:
        """One job: {"state", "reason", "run"}, see Outcome.

        `run` is the run folder's path if this process shares it. If not, it is the run so far as `packed`, or None, and
        the run folder comes back packed.
        """
        config, told = RunConfig.restore(said, resolved), [command_from_dict(command) for command in commands]
        if isinstance(run, str):
            outcome = self._outcome(config, RunFolder(run), told)
            return {"state": outcome.state, "reason": outcome.reason, "run": None}
        with tempfile.TemporaryDirectory(prefix="sds3d-ray-") as scratch:
            folder = RunFolder(Path(scratch) / "run")
            if run is not None:
                unpacked(run, folder.path)
            outcome = self._outcome(config, folder, told)
            return {"state": outcome.state, "reason": outcome.reason, "run": packed(folder.path)}

    def is_running(self) -> bool:
        """Whether the job that was sent has begun, so that it can be told something."""
        return self._runner.is_running

    def send(self, command: Mapping[str, Any]) -> None:
        """Tell the job that is under way."""
        self._runner.send(command_from_dict(command))

    def stop(self) -> None:
        """Save what is under way, and begin nothing else."""
        self._runner.stop()

    def _outcome(self, config: RunConfig, folder: RunFolder, commands: list[Any]) -> Outcome:
        try:
            for _ in self._runner.run(config, folder, commands):
                pass
        except RunBusy as error:
            return Outcome("interrupted", str(error))
        return self._runner.outcome


def packed(folder: Path) -> bytes:
    """All files of a folder; empty if there is none."""
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w") as archive:
        if folder.is_dir():
            archive.add(folder, arcname=".")
    return memory.getvalue()


def unpacked(data: bytes, folder: Path) -> None:
    """`folder` as it was packed, in place of what is there; ConfigError, and no change, for names that lead out."""
    scratch = folder.with_name(f".{folder.name}.unpacking")
    with writing(folder):
        remove_tree(scratch)
        scratch.mkdir(parents=True)
        try:
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                archive.extractall(scratch, filter="data")  # no absolute names, no way up, no links out, no devices
        except tarfile.TarError as error:
            remove_tree(scratch)
            raise ConfigError(f"what came back for {folder} cannot be unpacked: {error}") from error
        old = folder.with_name(f".{folder.name}.old")  # a kill in between loses neither
        remove_tree(old)
        if folder.exists():
            folder.rename(old)
        scratch.rename(folder)
        remove_tree(old)
