"""What runs in a Ray actor: one job after the other, with a prior that is kept from job to job."""

import io
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sds3d.atomic import temporary_folder, writing
from sds3d.config import RunConfig
from sds3d.errors import ConfigError, RunBusy
from sds3d.jobs.worker import Outcome, Runner
from sds3d.run.events import command_from_dict
from sds3d.run.folder import RunFolder

from .process import die


class RayWorker:
    """One device's worth of work. Calls come from the driver, several at once: `send` while `run` is under way."""

    def __init__(self) -> None:
        import torch

        torch.set_num_threads(1)
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
        import torch

        config, told = RunConfig.restore(said, resolved), [command_from_dict(command) for command in commands]
        with temporary_folder(Path(tempfile.gettempdir()) / "sds3d-ray") as scratch:
            folder, outcome = RunFolder(run if isinstance(run, str) else scratch / "run"), Outcome("interrupted")
            if isinstance(run, bytes):
                unpacked(run, folder.path)
            with suppress(RunBusy):  # somebody goes on with it by hand
                try:
                    for _ in self._runner.run(config, folder, told):
                        pass
                except torch.AcceleratorError as error:
                    die(error)
                outcome = self._runner.outcome
            return {**asdict(outcome), "run": None if isinstance(run, str) else packed(folder.path)}

    def send(self, commands: Sequence[Mapping[str, Any]]) -> bool:
        """Tell the job that is under way; False if it has not begun yet."""
        return all(self._runner.send(command_from_dict(command)) for command in commands)

    def stop(self) -> None:
        """Save what is under way, and begin nothing else."""
        self._runner.stop()


def packed(folder: Path) -> bytes:
    """All files of a folder; empty if there is none."""
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w") as archive:
        if folder.is_dir():
            archive.add(folder, arcname=".")
    return memory.getvalue()


def unpacked(data: bytes, folder: Path) -> None:
    """`folder` as it was packed, in place of what is there; ConfigError, and no change, for names that lead out."""
    with writing(folder), temporary_folder(folder) as scratch:
        new = scratch / "new"
        new.mkdir()
        try:
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                archive.extractall(new, filter="data")  # no absolute names, no way up, no links out, no devices
        except tarfile.TarError as error:
            raise ConfigError(f"what came back for {folder} cannot be unpacked: {error}") from error
        if folder.exists():
            folder.rename(scratch / "old")  # a kill in between loses neither
        new.rename(folder)
