"""A run from start to end: builds the parts, steps, saves, shows previews, exports. The only place that wires parts."""

import itertools
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from sds3d.atomic import write_json, writing
from sds3d.config import LIVE, RunConfig, option, read_json_object
from sds3d.errors import CheckpointError, ConfigError, ExportError, NumericsError
from sds3d.priors.base import Prior
from sds3d.prompts import check_words
from sds3d.run.artifacts import (
    OVERVIEW,
    SceneExport,
    checked_format,
    draw,
    particle_folder,
    write_artifact,
    write_preview,
)
from sds3d.run.checkpoint import load_newest, load_wanted, save_checkpoint, unpack_scene
from sds3d.run.event_log import EventLog
from sds3d.run.events import Changed, CheckpointSaved, Event, Exported, Finished, Measured, Preview, Started, Warned
from sds3d.run.folder import claim_folder, run_name
from sds3d.run.previews import Previews
from sds3d.run.report import build_report
from sds3d.scenes import Scene
from sds3d.scenes.particles import Particles, build_scene, scenes_of
from sds3d.training.memory import find_device, make_room
from sds3d.training.recovery import Recovery
from sds3d.training.trainer import Trainer

CONFIG, EVENTS, REPORT, CHECKPOINTS, PREVIEWS = "config.json", "events.jsonl", "report.json", "checkpoints", "previews"
PAUSE_POLL = 0.05  # seconds
TOTAL = "total"  # wall time of the whole run, among the seconds by part


class Session:
    """One run and its folder.

        <out_dir>/{config.json, events.jsonl, checkpoints/, previews/, sheet.png, orbit.mp4, splats.ply, mesh.glb,
        report.json}

    A run of several particles has particles.png as well, and the results of all but the first in particle-2/,
    particle-3/, and so on.

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
        self._finishes_early = False
        self._prior = prior
        self._changes: RunConfig | None = None
        self._scenes: list[Scene] | None = None
        self._step: int | None = None

    @classmethod
    def resume(cls, out_dir: Path | str, prior: Prior | None = None, step: int | None = None) -> "Session":
        """The run in an existing folder, to go on with it or to export from it; `step` is what to export from."""
        out_dir = Path(out_dir)
        if not (out_dir / CONFIG).is_file():
            raise CheckpointError(f"{out_dir} is not a run folder: it has no {CONFIG}")
        session = cls(RunConfig.from_dict(read_json_object(out_dir / CONFIG)), out_dir, prior=prior)
        session._resumed, session._step = True, step
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

    def finish_early(self) -> None:
        """Make the step that is under way the last: save it and hand over what there is, as after the last of all.

        The run can still be resumed, and then goes on to its last step. Also ends a pause.
        """
        self._finishes_early = True

    def change(self, changes: Mapping[str, Any]) -> None:
        """Change the prompt, the negative prompt or the guidance scale from the next step on; ConfigError for others.

        The run's config.json then says the new ones, an event tells of it, and a checkpoint is made first, so that a
        resumed run is the same as one that went on. Safe from any thread.
        """
        self._changes = (self._changes or self.config).with_changes(changes)

    def check(self) -> list[str]:
        """What could stop the run before its first step, without writing anything; returns the warnings."""
        return self._prepare()[1]

    def unknown_words(self) -> list[str]:
        """Words of the prompt and the negative prompt that the prior would ignore; loads the prior."""
        return self.prior().unknown_words(f"{self.config.prompt} {self.config.negative_prompt}")

    def prior(self) -> Prior:
        """The prior, loaded once."""
        if self._prior is None:
            self._prior = self.config.prior.build(self.device())
        return self._prior

    def scene(self, particle: int = 1) -> Scene:
        """One scene of the run, the only one or that of a particle; ConfigError where there is no such particle."""
        scenes = self.scenes()
        if not 1 <= particle <= len(scenes):
            raise ConfigError(f"particle {particle} is not there", hint=f"the run has 1 to {len(scenes)}")
        return scenes[particle - 1]

    def scenes(self) -> list[Scene]:
        """All scenes as the run left them, or as the newest checkpoint of a resumed session has them.

        An older checkpoint would be another object than the report describes, so a damaged newest one is an error here.
        """
        if self._scenes is None:
            checkpoint, problems = load_wanted(self.out_dir / CHECKPOINTS, self._step) if self._resumed else (None, [])
            if problems:
                raise CheckpointError(problems[0], hint="resume the run: it goes on from the checkpoint before")
            if checkpoint is None:
                raise CheckpointError(f"the run of {self.out_dir} has no checkpoint yet", hint="run or resume it first")
            scene = self._build_scene(torch.Generator().manual_seed(self.config.seed))
            unpack_scene(checkpoint.tensors, cast(nn.Module, scene))
            self._scenes, self._step = scenes_of(scene), checkpoint.step
        return self._scenes

    def exported_step(self) -> int:
        """The step of the checkpoint that `scenes` come from."""
        self.scenes()
        return self.config.steps if self._step is None else self._step

    def _build_scene(self, generator: torch.Generator) -> Scene | Particles:
        scene = cast(nn.Module, build_scene(self.config.scene, self.config.particles, generator))
        return cast(Scene | Particles, scene.to(self.device()))

    def device(self) -> torch.device:
        """The device that the config means on this machine."""
        return find_device(self.config.device)

    def export(self, file_format: str, particle: int = 1) -> Path:
        """Write one result again, such as glb or ply. ExportError where the scene gives nothing fit to export."""
        name, folder = checked_format(file_format, self.config), particle_folder(self.out_dir, particle)
        return write_artifact(name, SceneExport(self.scene(particle), self.config, self.exported_step()), folder)[0]

    def draw(self, views: int = 8, size: int = 256) -> list[Path]:
        """Make the pictures again: `views` of them on the sheet, sides of `size` pixels."""
        return draw(self.scenes(), self.config, self.out_dir, views, size)

    def _prepare(self) -> tuple[Trainer, list[str]]:
        """All parts, at the newest checkpoint where there is one, and what the user should know about them."""
        device, prior, config = self.device(), self.prior(), self.config
        warnings = check_words(prior, config.prior, config.prompt, config.negative_prompt, self.strict)
        warnings += make_room(config, prior, device)
        generator = torch.Generator().manual_seed(config.seed)
        scene = self._build_scene(generator)
        self._scenes = scenes_of(scene)
        trainer = Trainer(config, scene, prior, generator, device)
        if self._resumed:
            checkpoint, problems = load_newest(self.out_dir / CHECKPOINTS)
            warnings += [f"{problem}; going on from an older checkpoint" for problem in problems]
            if checkpoint is not None:
                trainer.restore(checkpoint)
        return trainer, warnings

    def _open_folder(self) -> None:
        if not self._resumed:
            self.out_dir = claim_folder(self.out_dir)
            write_json(self.out_dir / CONFIG, self.config.to_dict())
        for name in (CHECKPOINTS, PREVIEWS):
            with writing(self.out_dir / name):
                (self.out_dir / name).mkdir(exist_ok=True)

    def _train(self, trainer: Trainer) -> Iterator[Event]:
        config, previews = self.config, Previews(self.out_dir / PREVIEWS, self.config)
        recovery = Recovery(trainer, self.out_dir / CHECKPOINTS)
        while trainer.step < config.steps and not (self._stopped or self._finishes_early):
            if self._changes is not None:
                yield from self._apply(trainer)
            try:
                done = trainer.advance()
                if self._is_save_due(trainer):
                    recovery.look()
            except Exception as error:
                yield from self._recover(trainer, recovery, error)
            else:
                recovery.succeeded()
                yield done
            if previews.due(trainer.step):
                yield Preview(trainer.step, previews.make(self.scenes(), trainer.step))
            if config.janus_every and trainer.step % config.janus_every == 0 and (found := trainer.janus()) is not None:
                yield Measured(trainer.step, {"janus": found.to_dict()})
            if self._is_save_due(trainer):
                yield self._save(trainer)
                recovery.saved()
            while self._paused and not (self._stopped or self._finishes_early):
                time.sleep(PAUSE_POLL)
        if trainer.step < config.steps and trainer.step % config.checkpoint_every != 0:
            yield self._save(trainer)

    def _is_save_due(self, trainer: Trainer) -> bool:
        return trainer.step % self.config.checkpoint_every == 0 or trainer.step == self.config.steps

    def _recover(self, trainer: Trainer, recovery: Recovery, error: Exception) -> Iterator[Event]:
        said, went_back = recovery.recover(error)
        yield Warned(said)
        if went_back:  # with the rate that it goes on with, so that a resumed run is the same
            yield self._save(trainer)
            recovery.saved()

    def _apply(self, trainer: Trainer) -> Iterator[Event]:
        config, self._changes = self._changes, None
        assert config is not None
        said = {key: option(config, key) for key in LIVE if option(config, key) != option(self.config, key)}
        yield self._save(trainer)
        trainer.change(config)
        self.config = config
        write_json(self.out_dir / CONFIG, config.to_dict())
        yield Changed(trainer.step, said)

    def _finish(self, trainer: Trainer) -> Iterator[Event]:
        if trainer.step < self.config.steps and (self._stopped or not self._finishes_early):
            yield Finished(interrupted=True)
            return
        scenes, seconds, refusals = self.scenes(), 0.0, list[ExportError]()
        meshes, made = (
            [dict[str, Any]() for _ in scenes],
            [SceneExport(scene, self.config, trainer.step) for scene in scenes],
        )
        if len(scenes) > 1:
            write_preview(scenes, self.out_dir / OVERVIEW, size=192)
            yield Exported(self.out_dir / OVERVIEW)
        for index, file_format in itertools.product(range(len(scenes)), self.config.scene.artifacts):
            if self._stopped:  # the last step is saved: resuming goes on here
                yield Finished(interrupted=True)
                return
            if "refused" in meshes[index]:
                continue
            begun, folder = time.perf_counter(), particle_folder(self.out_dir, index + 1)
            try:
                path, stats = write_artifact(file_format, made[index], folder)
            except ExportError as error:  # the other particles may be fit
                meshes[index] = {"refused": str(error)}
                which = f"particle {index + 1}: " if len(scenes) > 1 else ""
                refusals.append(ExportError(f"{which}{error.args[0]}", hint=error.hint))
                continue
            seconds += time.perf_counter() - begun
            yield Exported(path, stats)
            yield from (Warned(f"{path.name}: {text}") for text in stats.get("warnings", []))
            meshes[index] = stats if file_format == "glb" else meshes[index]
        report = self._report(trainer, seconds, meshes)
        if refusals:
            raise refusals[0]
        yield Finished(report)

    def _report(self, trainer: Trainer, export_seconds: float, meshes: list[dict[str, Any]]) -> dict[str, Any]:
        seconds = {**trainer.seconds, "export": export_seconds, TOTAL: time.perf_counter() - self._begun}
        facts = (trainer.device, seconds, trainer.step, trainer.forwards_per_step(), meshes, self.prior())
        report = build_report(self.config, self.scenes(), *facts)
        write_json(self.out_dir / REPORT, report)
        return report

    def _save(self, trainer: Trainer) -> CheckpointSaved:
        """NumericsError, and nothing written, where the scene is not finite: the last good checkpoint stays."""
        if not trainer.is_finite():
            raise NumericsError(f"the scene is not finite at step {trainer.step}", hint="lower the learning rates")
        trainer.seconds[TOTAL] = time.perf_counter() - self._begun
        path = save_checkpoint(
            self.out_dir / CHECKPOINTS, trainer.checkpoint(), milestone_every=self.config.milestone_every
        )
        return CheckpointSaved(trainer.step, path)
