"""A run from start to end: builds the parts, steps, saves, shows previews, exports. The only place that wires parts."""

import hashlib
import itertools
import json
import re
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from sds3d.checkpoint import load_newest, save_checkpoint, unpack_scene
from sds3d.config import RunConfig, read_json_object
from sds3d.errors import CheckpointError, ConfigError, ExportError, NumericsError
from sds3d.events import CheckpointSaved, Event, Exported, Finished, Preview, Started, StepDone, Warned
from sds3d.files import write_atomic, writing
from sds3d.priors.base import Prior
from sds3d.prompts import check_words
from sds3d.report import build_report
from sds3d.results import RESULTS, draw, write_preview, write_result
from sds3d.scenes import Scene
from sds3d.trainer import Trainer

CONFIG, EVENTS, REPORT, CHECKPOINTS, PREVIEWS = "config.json", "events.jsonl", "report.json", "checkpoints", "previews"
SLUG_LENGTH = 48
PAUSE_POLL = 0.05  # seconds
TOTAL = "total"  # wall time of the whole run, among the seconds by part


class Session:
    """One run and its folder.

        <out_dir>/{config.json, events.jsonl, checkpoints/, previews/, sheet.png, orbit.mp4, splats.ply, mesh.glb,
        report.json}

    Nothing is written before `run` has built all parts. A folder that holds anything is never written over: a new run
    takes the next free name (`-2`, `-3`, ...), and only `Session.resume` goes on in an old one.
    """

    def __init__(
        self,
        config: RunConfig,
        out_dir: Path | str | None = None,
        strict: bool = False,
        prior: Prior | None = None,
    ) -> None:
        """A run that has not begun. `strict` refuses words that the prior does not know instead of warning of them.

        `prior` is one that is loaded already, as the config describes it: several runs can share it.
        """
        self.config, self.strict = config, strict
        self.out_dir = Path(out_dir) if out_dir is not None else Path("outputs") / run_name(config)
        self._resumed = False
        self._paused = False
        self._stopped = False
        self._prior = prior
        self._scene: Scene | None = None

    @classmethod
    def resume(cls, out_dir: Path | str, prior: Prior | None = None) -> "Session":
        """The run in an existing folder, to go on with it or to export from it."""
        out_dir = Path(out_dir)
        if not (out_dir / CONFIG).is_file():
            raise CheckpointError(f"{out_dir} is not a run folder: it has no {CONFIG}")
        session = cls(RunConfig.from_dict(read_json_object(out_dir / CONFIG)), out_dir, prior=prior)
        session._resumed = True
        return session

    def run(self) -> Iterator[Event]:
        """Everything, in the caller's thread; ends with Finished or raises. Each event is in events.jsonl as well."""
        begun = time.perf_counter()
        trainer, warnings = self._prepare()
        self._begun = begun - trainer.seconds.get(TOTAL, 0.0)
        self._open_folder()
        log = EventLog(self.out_dir / EVENTS)
        started = Started(self.config.prompt, self.out_dir, str(trainer.device), trainer.step, self.config.steps)
        first: list[Event] = [started, *(Warned(message) for message in warnings)]
        for event in itertools.chain(first, self._train(trainer), self._finish(trainer)):
            log.append(event)
            yield event

    def pause(self) -> None:
        """Wait after the step that is under way. Safe from any thread or signal handler, like the next two."""
        self._paused = True

    def unpause(self) -> None:
        """Go on after a pause."""
        self._paused = False

    def stop(self) -> None:
        """Save a checkpoint after the step that is under way and end the run with Finished(interrupted=True)."""
        self._stopped = True

    def check(self) -> list[str]:
        """What could stop the run before its first step, without writing anything; returns the warnings."""
        return self._prepare()[1]

    def unknown_words(self) -> list[str]:
        """Words of the prompt and the negative prompt that the prior would ignore; loads the prior."""
        prior, config = self.prior(), self.config
        return prior.unknown_words(f"{config.prompt} {config.negative_prompt}")

    def prior(self) -> Prior:
        """The prior, loaded once."""
        if self._prior is None:
            self._prior = self.config.prior.build(self.device())
        return self._prior

    def scene(self) -> Scene:
        """The scene as the run left it, or as the newest checkpoint of a resumed session has it.

        An older checkpoint would be another object than the report describes, so a damaged newest one is an error here.
        """
        if self._scene is None:
            checkpoint, problems = load_newest(self.out_dir / CHECKPOINTS) if self._resumed else (None, [])
            if problems:
                raise CheckpointError(problems[0], hint="resume the run: it goes on from the checkpoint before")
            if checkpoint is None:
                raise CheckpointError(f"the run of {self.out_dir} has no checkpoint yet", hint="run or resume it first")
            scene = cast(nn.Module, self.config.scene.build(torch.Generator().manual_seed(self.config.seed)))
            unpack_scene(checkpoint.tensors, scene)
            self._scene = cast(Scene, scene.to(self.device()))
        return self._scene

    def device(self) -> torch.device:
        """The device that the config means on this machine."""
        name = self.config.device
        if name == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        device = torch.device(name)
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise ConfigError(f"device = {name!r} is not there: torch sees {torch.cuda.device_count()} CUDA devices")
        return device

    def export(self, file_format: str) -> Path:
        """Write one result again, such as glb or ply. ExportError where the scene gives nothing fit to export."""
        known = self.config.scene.results
        if file_format not in known:
            what = f"no format of the scene {self.config.scene.name}" if file_format in RESULTS else "unknown"
            raise ConfigError(f"format {file_format!r} is {what}", hint="known: " + ", ".join(known))
        return write_result(file_format, self.scene(), self.config, self.out_dir)[0]

    def draw(self, views: int = 8, size: int = 256) -> list[Path]:
        """Make the pictures again: `views` of them on the sheet, sides of `size` pixels."""
        return draw(self.scene(), self.config, self.out_dir, views, size)

    def _prepare(self) -> tuple[Trainer, list[str]]:
        """All parts, at the newest checkpoint where there is one, and what the user should know about them."""
        device, prior = self.device(), self.prior()
        config = self.config
        warnings = check_words(prior, config.prior, config.prompt, config.negative_prompt, self.strict)
        generator = torch.Generator().manual_seed(self.config.seed)
        scene = cast(nn.Module, self.config.scene.build(generator)).to(device)
        self._scene = cast(Scene, scene)
        trainer = Trainer(self.config, self._scene, prior, generator, device)
        if self._resumed:
            checkpoint, problems = load_newest(self.out_dir / CHECKPOINTS)
            warnings += [f"{problem}; going on from an older checkpoint" for problem in problems]
            if checkpoint is not None:
                trainer.restore(checkpoint)
        return trainer, warnings

    def _open_folder(self) -> None:
        if not self._resumed:
            self.out_dir = claim_folder(self.out_dir)
            write_atomic(self.out_dir / CONFIG, _json(self.config.to_dict()))
        for name in (CHECKPOINTS, PREVIEWS):
            with writing(self.out_dir / name):
                (self.out_dir / name).mkdir(exist_ok=True)

    def _train(self, trainer: Trainer) -> Iterator[Event]:
        config = self.config
        while trainer.step < config.steps and not self._stopped:
            try:
                yield trainer.advance()
            except NumericsError:
                yield self._save(trainer)
                raise
            if config.preview_every and trainer.step % config.preview_every == 0:
                yield self._preview(trainer.step)
            if trainer.step % config.checkpoint_every == 0 or trainer.step == config.steps:
                yield self._save(trainer)
            while self._paused and not self._stopped:
                time.sleep(PAUSE_POLL)
        if trainer.step < config.steps and trainer.step % config.checkpoint_every != 0:
            yield self._save(trainer)

    def _finish(self, trainer: Trainer) -> Iterator[Event]:
        if trainer.step < self.config.steps:
            yield Finished(interrupted=True)
            return
        seconds, mesh = 0.0, dict[str, Any]()
        for file_format in self.config.scene.results:
            if self._stopped:  # the last step is saved: resuming goes on here
                yield Finished(interrupted=True)
                return
            begun = time.perf_counter()
            try:
                path, stats = write_result(file_format, self.scene(), self.config, self.out_dir)
            except ExportError as error:
                self._report(trainer, seconds, {"refused": str(error)})
                raise
            seconds += time.perf_counter() - begun
            yield Exported(path, stats)
            mesh = stats if file_format == "glb" else mesh
        yield Finished(self._report(trainer, seconds, mesh))

    def _report(self, trainer: Trainer, export_seconds: float, mesh: dict[str, Any]) -> dict[str, Any]:
        seconds = {**trainer.seconds, "export": export_seconds, TOTAL: time.perf_counter() - self._begun}
        report = build_report(self.config, self.scene(), trainer.device, seconds, trainer.forwards_per_step(), mesh)
        write_atomic(self.out_dir / REPORT, _json(report))
        return report

    def _save(self, trainer: Trainer) -> CheckpointSaved:
        trainer.seconds[TOTAL] = time.perf_counter() - self._begun
        return CheckpointSaved(trainer.step, save_checkpoint(self.out_dir / CHECKPOINTS, trainer.checkpoint()))

    def _preview(self, step: int) -> Preview:
        path = self.out_dir / PREVIEWS / f"step-{step:06d}.png"
        write_preview(self.scene(), path)
        return Preview(step, path)


class EventLog:
    """events.jsonl: one line for each event, but for steps without losses. A line is whole or absent."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with writing(path):
            if path.exists() and not path.read_bytes().endswith(b"\n"):  # torn by a crash
                whole = path.read_bytes().rpartition(b"\n")
                write_atomic(path, whole[0] + whole[1])

    def append(self, event: Event) -> None:
        """Write the event with the time of day."""
        if isinstance(event, StepDone) and not event.losses:
            return
        line = json.dumps({**event.to_dict(), "time": round(time.time(), 3)}).encode() + b"\n"
        with writing(self.path), self.path.open("ab", buffering=0) as file:
            before = file.tell()
            try:
                written = file.write(line)
                if written != len(line):
                    raise OSError(28, "the disk is full")
            except OSError:
                file.truncate(before)
                raise


def run_name(config: RunConfig) -> str:
    """`<slug>-<seed>`: lower-case ASCII letters, digits and hyphens only, so never a path or an option."""
    plain = unicodedata.normalize("NFKD", config.prompt).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:SLUG_LENGTH].rstrip("-")
    slug = slug or "prompt-" + hashlib.sha256(config.prompt.encode()).hexdigest()[:8]
    return f"{slug}-{config.seed}"


def claim_folder(wanted: Path) -> Path:
    """Make the folder, or the first of wanted-2, wanted-3, ... that is not in use."""
    for number in itertools.count(1):
        path = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        with writing(path):
            try:
                path.mkdir(parents=True)
                return path
            except FileExistsError:
                if path.is_dir() and not any(path.iterdir()):
                    return path
    raise AssertionError("unreachable: the numbers do not end")


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
