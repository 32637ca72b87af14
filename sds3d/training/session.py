"""A run from start to end: builds the parts, steps, saves, shows previews, exports. The only place that wires parts."""

import itertools
import math
import signal
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from sds3d.config import RunConfig, in_all_stages
from sds3d.errors import CheckpointError, ConfigError, ExportError, NumericsError, OutputError, RunBusy, Sds3dError
from sds3d.export.video import write_orbit
from sds3d.priors.base import Prior
from sds3d.prompts import check_words
from sds3d.run import events
from sds3d.run.artifacts import (
    ARTIFACTS,
    OVERVIEW,
    SceneExport,
    checked_format,
    format_for,
    write_artifact,
    write_preview,
    write_result,
)  # fmt: skip
from sds3d.run.checkpoint import unpack_scene
from sds3d.run.folder import RunFolder, run_name
from sds3d.run.live import LiveView
from sds3d.run.previews import make_preview
from sds3d.run.report import build_report, stage_seconds
from sds3d.scenes import Scene
from sds3d.scenes.particles import Particles, build_scene, scenes_of
from sds3d.training.memory import find_device, make_room, unused_gpu_warnings
from sds3d.training.recovery import Recovery
from sds3d.training.take_over import check_take_overs, take_over
from sds3d.training.trainer import Trainer

PAUSE_POLL = 0.05  # seconds between looks at the mailbox during a pause
TOTAL = "total"  # wall time of the whole run, among the seconds by part


class Session:
    """One run and its folder (sds3d.run.folder has the files).

    Nothing is written before `run` has built all parts. A new run never goes into a folder that exists: it takes the
    next free name (`-2`, `-3`, ...); only `Session.resume` goes on in an old one.
    """

    preview_seconds = math.inf  # since the last preview, after which another is due; less where somebody watches

    def __init__(
        self,
        config: RunConfig,
        out_dir: Path | str | None = None,
        strict: bool = False,
        prior: Prior | None = None,
    ) -> None:
        """A run that has not begun. `strict` refuses words that the prior does not know instead of warning of them.

        `prior` is one that is loaded already, built from `config.prior`: several runs can share it.
        """
        self.config, self.strict = config, strict
        self.folder = RunFolder(out_dir if out_dir is not None else Path("outputs") / run_name(config))
        self._resumed = False
        self._mailbox: deque[events.Command] = deque()
        self._ending: type[events.Stop] | type[events.FinishEarly] | None = None
        self._prior = prior
        self._scenes: list[Scene] | None = None
        self._running: Callable[[], Generator[events.Event, None, None] | None] = lambda: None
        self._recovery: Recovery | None = None
        self._in_step = False
        self._step: int | None = None
        self._stage = 0  # of the scenes

    @classmethod
    def resume(cls, out_dir: Path | str, prior: Prior | None = None, step: int | None = None) -> "Session":
        """The run in an existing folder, to go on with it or to export from it (from the checkpoint of `step`)."""
        session = cls(RunFolder(out_dir).config(), out_dir, prior=prior)
        session._resumed, session._step = True, step
        return session

    @property
    def out_dir(self) -> Path:
        """The run folder's path; a new run may take another name than it was given, see RunFolder.claim."""
        return self.folder.path

    def run(self) -> Generator[events.Event, None, None]:
        """The whole run, in the caller's thread; ends with Finished or raises. Every event is in the log as well.

        Whoever leaves before the end, by an exception, Ctrl-C, or closing or dropping the iterator, finds the run saved
        where it was left; `run` again goes on, to the same end bit for bit on the CPU. RunBusy where another process
        (or thread) runs it.
        """
        if (left := self._running()) is not None:  # by an exception in the loop over it, which somebody keeps
            try:
                left.close()
            except ValueError as error:
                raise RunBusy(f"{self.out_dir} is being run by another thread of this process") from error
        running = self._run()
        self._running = weakref.ref(running)  # it has the session: a strong one would keep both, and the run's lock
        return running

    def _run(self) -> Generator[events.Event, None, None]:
        begun = time.perf_counter()
        self._recovery, self._ending, self._in_step = None, None, False
        with ExitStack() as held:
            if self._resumed:
                held.enter_context(self.folder.lock())
            trainer, warnings = self._prepare()
            if not self._resumed:
                self.folder = held.enter_context(RunFolder.claim(self.folder.path))
                self.config = self.folder.write_config(self.config)
                self._resumed = True  # from now on this is the run's folder
            self._begun, config = begun - trainer.seconds.get(TOTAL, 0.0), self.config
            started = events.Started(config.prompt, self.out_dir, str(trainer.device), trainer.step, config.steps)
            first: list[events.Event] = [started, *(events.Warned(message) for message in warnings)]
            event: events.Event = started
            try:
                for event in itertools.chain(first, self._all_stages(trainer)):
                    self.folder.append(event)
                    yield event
            except Exception as error:
                kind = type(error).__name__
                reason = error.args[0] if isinstance(error, Sds3dError) else f"unexpected {kind}: {error}"
                with suppress(OutputError):  # the disk may be what failed
                    self.folder.append(events.Failed(" ".join(str(reason).split())[:500], kind))
                raise
            except BaseException:  # KeyboardInterrupt, and GeneratorExit where the iterator is closed or dropped
                if not isinstance(event, events.Finished):  # after which there is nothing to save
                    self._leave()
                raise

    def _leave(self) -> None:
        """Save a run that is left, unless in the middle of a step; there is nobody to be told where that fails."""
        recovery = self._recovery
        with suppress(OutputError, NumericsError):  # the checkpoint before is there
            if recovery is not None and not self._in_step and recovery.saved_step != recovery.trainer.step:
                self.folder.append(self._save_last(recovery))
            self.folder.append(events.Finished(interrupted=True))

    def send(self, command: events.Command) -> None:
        """Tell the run something: it reacts between two steps. Safe in any thread and in signal handlers.

        ConfigError for a Change of options that cannot be changed during a run, or to values that are not allowed.
        """
        if isinstance(command, events.Change):
            self.config.with_changes(command.changes)
        self._mailbox.append(command)

    def check(self) -> list[str]:
        """What could stop the run before its first step, without writing anything; returns the warnings."""
        return self._prepare()[1]

    def prior(self) -> Prior:
        """The prior, loaded once."""
        if self._prior is None:
            self._prior = self.config.prior.build(self.device())
        return self._prior

    def scene(self, particle: int = 1) -> Scene:
        """One scene of the run: the only one, or that of a particle. ConfigError for a particle that does not exist."""
        scenes = self.scenes()
        if not 1 <= particle <= len(scenes):
            raise ConfigError(f"particle {particle} does not exist", hint=f"the run has 1 to {len(scenes)}")
        return scenes[particle - 1]

    def scenes(self) -> list[Scene]:
        """All scenes as the run left them, or as the newest checkpoint of a resumed session has them.

        An older checkpoint would be another object than the report describes, so a damaged newest one is an error here.
        """
        if self._scenes is None:
            checkpoint, problems = self.folder.load_checkpoint(self._step) if self._resumed else (None, [])
            if problems:
                raise CheckpointError(problems[0], hint="resume the run: it goes on from the checkpoint before")
            if checkpoint is None:
                raise CheckpointError(f"the run of {self.out_dir} has no checkpoint yet", hint="run or resume it first")
            self.config.check_stage(checkpoint.stage, checkpoint.step)
            config = self.config.in_stage(checkpoint.stage)
            scene = self._build_scene(config, torch.Generator().manual_seed(self.config.seed))
            unpack_scene(checkpoint.tensors, cast(nn.Module, scene))
            self._scenes, self._step, self._stage = scenes_of(scene), checkpoint.step, checkpoint.stage
        return self._scenes

    def made(self, particle: int = 1, config: RunConfig | None = None) -> SceneExport:
        """One scene, with all that its results are made from; `config` has other export options than the run's."""
        scene = self.scene(particle)  # it may have to be read, and with it the step
        return SceneExport(scene, config or self.config, self._step or 0, self._stage)

    def _build_scene(self, config: RunConfig, generator: torch.Generator) -> Scene | Particles:
        scene = build_scene(config.scene, config.particles, generator)
        return scene.to(self.device())  # type: ignore[union-attr, no-any-return]

    def device(self) -> torch.device:
        """The device that the config means on this machine."""
        return find_device(self.config.device)

    def export(self, file_format: str, particle: int = 1) -> Path:
        """Write one result again, such as glb or ply. ExportError where the scene gives nothing fit to export."""
        made = self.made(particle)
        name = checked_format(file_format, made.parts.scene)
        return write_artifact(name, made, self.folder.results_folder(particle))[0]

    def hand_over(
        self, path: Path, particle: int = 1, config: RunConfig | None = None, force: bool = False
    ) -> events.Exported:
        """A result as a file of any name, whose ending says which; see `format_for`. `config` as in `made`."""
        made = self.made(particle, config)
        file_format = format_for(path, made.parts.scene, force)
        kept = self.folder.artifact(file_format, particle) if config is None else None
        return events.Exported(path, write_result(file_format, made, path, kept))

    def draw(self, views: int = 8, size: int = 256) -> list[Path]:
        """Draw the pictures again: `views` views on the sheet, `size` pixels a side."""
        made = self.made().parts.scene.results
        names = [ARTIFACTS[name] for name in made if name in ("image", "sheet", "orbit")]
        written = []
        for number, scene in enumerate(self.scenes(), start=1):
            paths = [self.folder.results_folder(number) / name for name in names]
            write_preview([scene], paths[0], views, size)
            if len(paths) > 1:
                write_orbit(scene, paths[1], size=size)
            written += paths
        if self.config.particles > 1:
            write_preview(self.scenes(), self.out_dir / OVERVIEW, views, size)
            written.append(self.out_dir / OVERVIEW)
        return written

    def _prepare(self) -> tuple[Trainer, list[str]]:
        """All parts, at the newest checkpoint where there is one, and what the user should know about them."""
        device, config = self.device(), self.config
        check_take_overs(config)
        for number in range(len(config.stages) + 1):
            config.in_stage(number).scene.check(device)
        prior = self.prior()
        try:
            warnings = self._check_words(config)
        except ConfigError as error:
            if not self._resumed:
                raise
            warnings = [error.args[0]]  # it was begun with these words
        warnings += self.folder.changed_inputs() if self._resumed else []
        warnings += unused_gpu_warnings(config.device, device)
        warnings += make_room(config, prior, device)
        checkpoint, problems = self.folder.load_checkpoint() if self._resumed else (None, [])
        warnings += [f"{problem}; going on from an older checkpoint" for problem in problems]
        generator = torch.Generator().manual_seed(config.seed)
        if checkpoint is not None:
            config.check_stage(checkpoint.stage, checkpoint.step)
        trainer = self._trainer(checkpoint.stage if checkpoint else 0, generator)
        if checkpoint is not None:
            trainer.restore(checkpoint)
        self._go_on_with(trainer)
        return trainer, warnings

    def _go_on_with(self, trainer: Trainer) -> None:
        self._scenes, self._step, self._stage = scenes_of(trainer.scene), trainer.step, trainer.stage

    def _trainer(self, stage: int, generator: torch.Generator) -> Trainer:
        """A stage before its first step."""
        config = self.config.in_stage(stage)
        scene = self._build_scene(config, generator)
        return Trainer(config, scene, self.prior(), generator, self.device(), stage, self.config.stage_begins[stage])

    def _check_words(self, config: RunConfig) -> list[str]:
        return check_words(self.prior(), config.prior, config.prompt, config.negative_prompt, self.strict)

    def _all_stages(self, trainer: Trainer) -> Iterator[events.Event]:
        trainer = yield from self._train(trainer)
        yield from self._finish(trainer)

    def _train(self, trainer: Trainer) -> Generator[events.Event, None, Trainer]:
        """All steps; returns the trainer of the last stage that was begun."""
        drawn = -math.inf  # when the last preview was, by a clock that may have begun a moment ago
        recovery, live = Recovery(trainer, self.folder), LiveView(self.folder)
        self._recovery = recovery
        while trainer.step < self.config.steps:
            live.show(self.scenes(), trainer.step)
            yield from self._read_mailbox(trainer, recovery)
            if self._ending is not None:
                break
            if trainer.step == trainer.end:  # its scene is saved, so that a take-over that fails loses nothing
                trainer = self._next_stage(trainer)
                recovery = self._recovery = Recovery(trainer, self.folder)
                number, scene = trainer.stage + 1, trainer.config.scene.name
                yield events.StageBegun(trainer.step, number, len(self.config.stage_begins), scene)
                yield self._save(recovery)
            is_save_due = yield from self._attempt(trainer, recovery)
            if _is_each(self.config.preview_every, trainer.step) or time.monotonic() - drawn > self.preview_seconds:
                yield events.Preview(trainer.step, make_preview(self.folder, self.scenes(), trainer.step))
                drawn = time.monotonic()
            if _is_each(self.config.milestone_every, trainer.step) and (metrics := trainer.janus()):
                yield events.Measured(trainer.step, metrics)
            if is_save_due:
                yield self._save(recovery)
            self._step = trainer.step
        is_last = trainer.step == self.config.steps or self._ending is events.FinishEarly
        if is_last:
            yield events.Exporting(trainer.step)
        if trainer.step < self.config.steps and recovery.saved_step != trainer.step:
            yield self._save_last(recovery)
        if is_last and recovery.saved_step == trainer.step and (problems := trainer.finish()) is not None:
            yield from (events.Warned(problem) for problem in problems)
            yield self._save(recovery)
        live.show(self.scenes(), trainer.step)
        self._end_stage(trainer)
        return trainer

    def _end_stage(self, trainer: Trainer) -> None:
        """Note the wall time of a stage: all of the run's that no stage before has had."""
        earlier = [trainer.seconds.get(stage_seconds(number)) for number in range(trainer.stage)]
        if None not in earlier:  # as in checkpoints of older versions
            spent = time.perf_counter() - self._begun - sum(filter(None, earlier))
            trainer.seconds[stage_seconds(trainer.stage)] = spent

    def _attempt(self, trainer: Trainer, recovery: Recovery) -> Generator[events.Event, None, bool]:
        """One step, or what is done about one that fails; whether a checkpoint is due. No ruined scene is saved."""
        done, went_back = None, False
        try:
            with _held_back_interrupt():
                self._in_step = True
                done = trainer.advance()
                self._in_step = False
        except Exception as error:
            self._in_step = False
            message, went_back = recovery.recover(error)
            yield events.Warned(message)
        if self._is_save_due(trainer) and not went_back:  # also where the step was skipped: look at what came before it
            try:
                recovery.check()
            except Exception as error:
                message, went_back = recovery.recover(error)
                yield events.Warned(message)
        if done is not None and not went_back:
            recovery.succeeded()
            yield done
        # after going back: saved with the learning rates it goes on with, so that a resumed run is the same
        return went_back or self._is_save_due(trainer)

    def _save_last(self, recovery: Recovery) -> events.Event:
        """A checkpoint of a run that is stopped between two; of a ruined scene none, if there is one to go on from."""
        try:
            recovery.check()
        except NumericsError as unfit:
            step = recovery.saved_step
            if step is None:
                raise
            return events.Warned(f"{unfit.args[0]}: it is not saved, and resuming goes on from step {step}")
        return self._save(recovery)

    def _next_stage(self, trainer: Trainer) -> Trainer:
        """The stage that begins now, with a scene that has taken over the one before."""
        self._end_stage(trainer)
        following = self._trainer(trainer.stage + 1, trainer.generator)
        try:
            for old, new in zip(scenes_of(trainer.scene), scenes_of(following.scene), strict=True):
                take_over(old, new)
        except ExportError as error:
            problem = f"stage {following.stage + 1} cannot begin from the scene at step {trainer.step}: {error.args[0]}"
            raise ExportError(problem, hint=f"{error.hint}; that scene is saved, and can be exported") from error
        following.go_on_from(trainer)
        self._go_on_with(following)
        return following

    def _is_save_due(self, trainer: Trainer) -> bool:
        return trainer.step % self.config.checkpoint_every == 0 or trainer.step == trainer.end

    def _read_mailbox(self, trainer: Trainer, recovery: Recovery) -> Iterator[events.Event]:
        """Obey the commands since the last step, in order; a pause lasts until Resume, Stop or FinishEarly."""
        paused = False
        while self._ending is None and (paused or self._mailbox):
            if not self._mailbox:
                time.sleep(PAUSE_POLL)
                continue
            command = self._mailbox.popleft()
            if isinstance(command, events.Stop | events.FinishEarly):
                self._ending = type(command)
            elif isinstance(command, events.Change):
                yield from self._change(trainer, recovery, command)
            elif isinstance(command, events.Pause) and not paused:
                paused = True
                yield events.Paused(trainer.step)
            elif isinstance(command, events.Resume) and paused:
                paused = False
                yield events.Resumed(trainer.step)

    def _change(self, trainer: Trainer, recovery: Recovery, command: events.Change) -> Iterator[events.Event]:
        """Apply a change; a checkpoint is made first, so that a resumed run is the same as one that went on."""
        config = self.config.with_changes(command.changes)
        changes = {
            key: values[0]
            for key in command.changes
            if (values := in_all_stages(config, key)) != in_all_stages(self.config, key)
        }
        if not changes:
            return
        try:
            warnings = self._check_words(config)
        except ConfigError as error:
            yield events.Warned(f"the change was refused: {error}")
            return
        if recovery.saved_step != trainer.step:
            yield self._save(recovery)
        self.config = config
        trainer.change(config.in_stage(trainer.stage))
        self.folder.write_config(config)
        yield events.Changed(trainer.step, changes)
        yield from (events.Warned(warning) for warning in warnings)

    def _finish(self, trainer: Trainer) -> Iterator[events.Event]:
        if trainer.step < self.config.steps and self._ending is not events.FinishEarly:
            yield events.Finished(interrupted=True)
            return
        scenes, seconds, refusals = self.scenes(), 0.0, list[ExportError]()
        exports = [self.made(number + 1) for number in range(len(scenes))]
        meshes = [dict[str, Any]() for _ in scenes]
        if len(scenes) > 1:
            write_preview(scenes, self.out_dir / OVERVIEW, size=192)
            yield events.Exported(self.out_dir / OVERVIEW)
        for index, file_format in itertools.product(range(len(scenes)), trainer.config.scene.results):
            if self._ending is events.Stop or any(isinstance(command, events.Stop) for command in self._mailbox):
                yield events.Finished(interrupted=True)  # the last step is saved: resuming goes on here
                return
            if "refused" in meshes[index]:
                continue
            begun = time.perf_counter()
            try:
                path, stats = write_artifact(file_format, exports[index], self.folder.results_folder(index + 1))
            except ExportError as error:  # the other particles may be fit
                meshes[index] = {"refused": str(error)}
                which = f"particle {index + 1}: " if len(scenes) > 1 else ""
                refusals.append(ExportError(f"{which}{error.args[0]}", hint=error.hint))
                continue
            seconds += time.perf_counter() - begun
            yield events.Exported(path, stats)
            yield from (events.Warned(f"{path.name}: {text}") for text in stats.get("warnings", []))
            meshes[index] = stats if file_format == "glb" else meshes[index]
        spent = {**trainer.seconds, "export": seconds, TOTAL: time.perf_counter() - self._begun}
        facts = (trainer.device, spent, trainer.step, trainer.stage, trainer.forwards(), meshes, self.prior())
        report = build_report(self.config, scenes, *facts)
        self.folder.write_report(report)
        self.folder.end_live()
        if refusals:
            raise refusals[0]
        yield events.Finished(report)

    def _save(self, recovery: Recovery) -> events.CheckpointSaved:
        recovery.trainer.seconds[TOTAL] = time.perf_counter() - self._begun
        return recovery.save()


@contextmanager
def _held_back_interrupt() -> Iterator[None]:
    """Ctrl-C inside, where it would be a KeyboardInterrupt, becomes one at the end: no step is left half done."""
    is_ours = threading.current_thread() is threading.main_thread()
    if not is_ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    interrupts: list[int] = []

    def note(number: int, frame: object) -> None:
        interrupts.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # the second one ends the step

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if interrupts:
        raise KeyboardInterrupt


def export_run(
    run: Path | str,
    formats: Sequence[str],
    particle: int = 1,
    step: int | None = None,
    options: Mapping[str, Any] | None = None,
    force: bool = False,
    file: Path | None = None,
) -> Iterator[events.Exported]:
    """Write results of a run again, from its end or from the checkpoint of `step`, one after the other; with `file` one
    only, there, of the format that its ending says.

    `options` override the run's export options. Files go into the run folder, or into exports/step-N/ in it if a step
    is given or the run is not finished. ConfigError before anything is written if a format or option is wrong;
    ExportError if the scene gives nothing fit to export; OutputError if the disk refuses, or a file is in the way that
    sds3d did not write.
    """
    session = Session.resume(run, step=step)
    changes = {f"export.{name}": value for name, value in (options or {}).items()}
    config = session.config.with_changes(changes, allowed=tuple(changes))
    if file is not None:
        yield session.hand_over(file, particle, config, force)
        return
    made = session.made(particle, config)
    names = list(dict.fromkeys(checked_format(name, made.parts.scene) for name in formats))
    from_checkpoint = made.step if step is not None or session.folder.report() is None else None
    for name in names:
        folder = session.folder.results_folder(particle, from_checkpoint)
        path, stats = write_artifact(name, made, folder, force)
        session.folder.add_export(path, stats, from_checkpoint)
        yield events.Exported(path, stats)


def _is_each(every: int, step: int) -> bool:
    return every > 0 and step % every == 0  # 0: never
