"""Pictures of a run on the way: when one is due, and how many are kept."""

import math
import time
from collections.abc import Sequence
from pathlib import Path

from sds3d.config.run_config import RunConfig
from sds3d.run.artifacts import write_preview
from sds3d.scenes import Scene

KEPT = 200


class Previews:
    """The previews of one run, `FOLDER/step-NNNNNN.png`."""

    def __init__(self, folder: Path, config: RunConfig) -> None:
        self.folder, self._every, self._seconds = folder, config.preview_every, config.preview_seconds
        self._shown = -math.inf  # of a clock that may have begun a moment ago

    def due(self, step: int) -> bool:
        """After every so many steps, and whenever so much time has passed."""
        waited = self._seconds > 0 and time.monotonic() - self._shown >= self._seconds
        return waited or (self._every > 0 and step % self._every == 0)

    def make(self, scenes: Sequence[Scene], step: int) -> Path:
        """Draws one, and drops the oldest of too many."""
        path = self.folder / f"step-{step:06d}.png"
        write_preview(list(scenes), path)
        self._shown = time.monotonic()
        for old in sorted(self.folder.glob("step-*.png"))[:-KEPT]:
            old.unlink(missing_ok=True)
        return path
