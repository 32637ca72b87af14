"""What a run does about a step that fails: it leaves the step out, goes back, or ends with the reason."""

import gc
from pathlib import Path

import torch

from sds3d.config.run_config import RunConfig
from sds3d.errors import NumericsError, OutOfMemory, Sds3dError
from sds3d.priors.base import Prior
from sds3d.run.checkpoint import Checkpoint, load_newest
from sds3d.training.memory import measure_step
from sds3d.training.trainer import Trainer

MAX_SKIPPED = 4  # steps in a row whose loss or gradient is not finite; after one more the run goes back
ROLLBACKS = 3  # times in a row that a run goes back to its last checkpoint before it ends
SLOWER = 0.5  # what the learning rates are multiplied with when it does


class Unwell(NumericsError):
    """The scene itself is ruined: steps that are left out do not mend it."""


class Recovery:
    """The failures of one run. A failure that comes again at the same place after ROLLBACKS times ends it."""

    def __init__(self, trainer: Trainer, folder: Path) -> None:
        """`folder` is where its checkpoints are; until one is saved, the run's beginning is kept in memory."""
        self.trainer, self.folder = trainer, folder
        self._beginning: Checkpoint | None = trainer.checkpoint()
        self._skipped = self._back = 0
        self._failed_at = -1

    def succeeded(self) -> None:
        """A step was done."""
        self._skipped = 0
        if self.trainer.step > self._failed_at:
            self._back = 0

    def look(self) -> None:
        """Unwell where the scene is not worth a checkpoint."""
        problem = self.trainer.diagnose() if self.trainer.is_finite() else "the scene is not finite"
        if problem is not None:
            raise Unwell(f"{problem} at step {self.trainer.step}", hint="lower the learning rates")

    def saved(self) -> None:
        """There is a checkpoint to go back to."""
        self._beginning = None

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
            self.trainer.skip_step()
            return f"{error.args[0]}: the step is left out ({self._skipped} of at most {MAX_SKIPPED} in a row)", False
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
        free(trainer)
        mode = trainer.reduce_memory()
        if mode is None:
            fits = what_fits(trainer.config, trainer.prior, trainer.device)
            hint = f"{fits} would fit" if fits else "no smaller number of views or pixels would fit either"
            raise OutOfMemory(f"out of memory at step {step} on {trainer.device}: {reason}", hint=hint)
        self._go_back()
        return f"out of memory at step {step}: {reason}: going on from step {trainer.step} with {mode}", True

    def _go_back(self) -> None:
        """To the newest good checkpoint, or to the beginning."""
        checkpoint = self._beginning or load_newest(self.folder)[0]
        if checkpoint is None:
            raise NumericsError("the run has no checkpoint to go back to")
        seconds = dict(self.trainer.seconds)  # what was in vain took its time, too
        self.trainer.restore(checkpoint)
        self.trainer.seconds |= seconds
        self._skipped = 0


def is_out_of_memory(error: Exception) -> bool:
    """Of the device, or of this process."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    said = str(error)
    return isinstance(error, RuntimeError) and ("you tried to allocate" in said or "bad_alloc" in said)


def free(trainer: Trainer) -> None:
    """Lets go of what the failed step has left behind."""
    trainer.optimizer.zero_grad(set_to_none=True)
    gc.collect()
    if trainer.device.type == "cuda":
        torch.cuda.empty_cache()


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
