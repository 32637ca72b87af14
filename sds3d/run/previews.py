"""Pictures of a run on the way: when one is due, and how many are kept."""

import math
import time
from collections.abc import Sequence
from pathlib import Path

from sds3d.atomic import writing
from sds3d.config import RunConfig
from sds3d.run.artifacts import write_preview
from sds3d.run.folder import RunFolder
from sds3d.scenes import Scene

KEPT = 200


class Previews:
    """The previews of one run; the oldest of more than KEPT are dropped."""

    def __init__(self, folder: RunFolder, config: RunConfig) -> None:
        self.folder, self._every, self._seconds = folder, config.preview_every, config.preview_seconds
        self._shown = -math.inf  # of a clock that may have begun a moment ago

    def due(self, step: int) -> bool:
        """After every so many steps, and whenever so much time has passed."""
        waited = self._seconds > 0 and time.monotonic() - self._shown >= self._seconds
        return waited or (self._every > 0 and step % self._every == 0)

    def make(self, scenes: Sequence[Scene], step: int) -> Path:
        """Draw one."""
        path = self.folder.preview_path(step)
        with writing(path):
            path.parent.mkdir(exist_ok=True)
        write_preview(list(scenes), path)
        self._shown = time.monotonic()
        for old in self.folder.previews()[:-KEPT]:
            old.unlink(missing_ok=True)
        return path
