"""What a run does about a step that fails: skip it, go back to a checkpoint, or end with the reason."""

import gc

import torch

from sds3d.cameras import orbit
from sds3d.config import RunConfig
from sds3d.errors import NumericsError, OutOfMemory, Sds3dError, is_out_of_memory
from sds3d.export.views import render_views
from sds3d.priors.base import Prior
from sds3d.run.checkpoint import Checkpoint
from sds3d.run.events import CheckpointSaved
from sds3d.run.folder import RunFolder
from sds3d.scenes import Scene
from sds3d.scenes.image import ImageScene
from sds3d.scenes.particles import scenes_of
from sds3d.training.memory import measure_step
from sds3d.training.trainer import Trainer

MAX_SKIPPED = 4  # steps in a row whose loss or gradient is not finite; after one more the run goes back
ROLLBACKS = 3  # times in a row that a run goes back to its last checkpoint before it ends
SLOWER = 0.5  # factor on the learning rates when it does
SIDES, SIZE = 4, 48  # views around the scene, and their sides in pixels
GREY = (0.5, 0.5, 0.5)
SEEN = 0.05  # opacity that some pixel must have
FILLED = 0.9  # opacity of every pixel of a scene that fills its views
FLAT = 2.0 / 255.0  # standard deviation of colours below which nothing can be made out


class Unwell(NumericsError):
    """The scene itself is ruined: skipping steps does not help."""


class Recovery:
    """The checkpoints and the failures of one run. A failure that comes again at the same place after ROLLBACKS times
    ends it."""

    def __init__(self, trainer: Trainer, folder: RunFolder) -> None:
        """Until a checkpoint is saved in `folder`, the beginning of the run is kept in memory."""
        self.trainer, self.folder = trainer, folder
        self.saved_step = trainer.step if folder.checkpoint_steps() else None
        self._beginning: Checkpoint | None = trainer.checkpoint()
        self._skipped = self._back = 0
        self._failed_at = -1

    def succeeded(self) -> None:
        """A step was done."""
        self._skipped = 0
        if self.trainer.step > self._failed_at:
            self._back = 0

    def check(self) -> None:
        """Unwell where the scene is not worth a checkpoint: no ruined scene may become one to go back to."""
        problem = "the scene is not finite"
        if self.trainer.is_finite():
            problem = next((found for scene in scenes_of(self.trainer.scene) if (found := diagnose(scene))), "")
        if problem:
            raise Unwell(f"{problem} at step {self.trainer.step}", hint="lower the learning rates")

    def save(self) -> CheckpointSaved:
        """A checkpoint to go back to. NumericsError, and nothing written, where the scene is not finite."""
        trainer = self.trainer
        if not trainer.is_finite():
            raise NumericsError(f"the scene is not finite at step {trainer.step}", hint="lower the learning rates")
        path = self.folder.save_checkpoint(trainer.checkpoint(), trainer.config.milestone_every)
        self.saved_step, self._beginning = trainer.step, None
        return CheckpointSaved(trainer.step, path)

    def recover(self, error: Exception) -> tuple[str, bool]:
        """(what was done about it, whether the run went back); raises where nothing helps, or for other errors."""
        if isinstance(error, NumericsError):
            return self._numbers(error)
        if is_out_of_memory(error):
            error.__traceback__ = None  # it would keep alive what the step had allocated
            return self._memory(" ".join(str(error).split())[:200])
        raise error

    def _numbers(self, error: NumericsError) -> tuple[str, bool]:
        if not isinstance(error, Unwell) and self._skipped < MAX_SKIPPED:
            self._skipped += 1
            self.trainer.step += 1  # as if it were done: the next one draws other cameras, times and noise
            return f"{error.args[0]}: the step is skipped ({self._skipped} of at most {MAX_SKIPPED} in a row)", False
        self._failed_at = max(self._failed_at, self.trainer.step)
        if self._back >= ROLLBACKS:
            raise NumericsError(f"{error.args[0]}, and going back {self._back} times did not help", hint=error.hint)
        self._back += 1
        self._go_back()
        self.trainer.rate *= SLOWER
        # else the same cameras, times and noise would come again
        torch.rand(self._back, generator=self.trainer.generator)
        return (
            f"{error.args[0]}: going back to step {self.trainer.step} with {self.trainer.rate:g} times the learning "
            f"rates ({self._back} of at most {ROLLBACKS} in a row)"
        ), True

    def _memory(self, reason: str) -> tuple[str, bool]:
        step, trainer = self.trainer.step, self.trainer
        trainer.optimizer.zero_grad(set_to_none=True)
        gc.collect()
        if trainer.device.type == "cuda":
            torch.cuda.empty_cache()
        mode = trainer.reduce_memory()
        if mode is None:
            fits = what_fits(trainer.config, trainer.prior, trainer.device)
            hint = f"{fits} would fit" if fits else "no smaller number of views or pixels would fit either"
            raise OutOfMemory(f"out of memory at step {step} on {trainer.device}: {reason}", hint=hint)
        self._go_back()
        return f"out of memory at step {step}: {reason}: going on from step {trainer.step} with {mode}", True

    def _go_back(self) -> None:
        """To the newest good checkpoint, or to the beginning."""
        checkpoint = self._beginning or self.folder.load_checkpoint()[0]
        if checkpoint is None or checkpoint.stage != self.trainer.stage:
            raise NumericsError(f"the run has no checkpoint of stage {self.trainer.stage + 1} to go back to")
        seconds = dict(self.trainer.seconds)  # what was in vain took its time, too
        self.trainer.restore(checkpoint)
        self.trainer.seconds |= seconds
        self._skipped = 0


def diagnose(scene: Scene) -> str | None:
    """Why the scene is not worth saving: nothing is visible from any side, or one colour fills every view. Else None.

    A dark object passes: it has an outline. An image scene may be anything. The scene has to be finite.
    """
    if isinstance(scene, ImageScene):
        return None
    views = render_views(scene, orbit(SIDES, size=SIZE), GREY)
    if views.opacity.max() < SEEN:
        return f"nothing can be seen of the scene from any side: its opacity is {views.opacity.max():.3f} at most"
    if views.opacity.min() > FILLED and views.rgb.std(axis=(0, 1, 2)).max() < FLAT:
        color = ", ".join(f"{value:.2f}" for value in views.rgb.mean(axis=(0, 1, 2)))
        return f"the scene fills all its views with one colour ({color})"
    return None


def what_fits(config: RunConfig, prior: Prior, device: torch.device) -> str | None:
    """The first smaller run of which a step does fit, as options; None where none does. Tries each by a real step."""
    cameras, particles = config.cameras, config.particles
    smaller = [("views", count) for count in range(cameras.views - 1, 0, -1) if count % particles == 0]
    smaller += [("size", cameras.size * share // 4) for share in (3, 2, 1)]
    for name, value in smaller:
        sizes = {"later_sizes": ()} if name == "size" else {}
        changed = cameras.model_copy(update={name: value, **sizes})
        try:
            measure_step(config.model_copy(update={"cameras": changed}), prior, device)
        except Sds3dError:
            continue
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            continue
        return f"cameras.{name}={value}"
    return None
