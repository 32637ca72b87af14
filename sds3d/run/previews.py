"""Pictures of a run on the way: when one is due, and how many are kept."""

import math
import time
from collections.abc import Sequence
from pathlib import Path

from sds3d.atomic import writing
from sds3d.run.artifacts import write_preview
from sds3d.run.folder import RunFolder
from sds3d.scenes import Scene

KEPT = 200


class Previews:
    """The previews of one run, after each `every` steps (0: none) and when `seconds` have passed since the last one.

    The oldest of more than KEPT are dropped.
    """

    def __init__(self, folder: RunFolder, every: int, seconds: float = math.inf) -> None:
        self.folder, self._every, self._seconds = folder, every, seconds
        self._shown = -math.inf  # of a clock that may have begun a moment ago

    def due(self, step: int) -> bool:
        """Whether it is time for one after this step."""
        waited = time.monotonic() - self._shown > self._seconds
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
