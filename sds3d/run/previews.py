"""Pictures of a run on the way; the session says when one is due."""

from collections.abc import Sequence
from pathlib import Path

from sds3d.atomic import writing
from sds3d.run.artifacts import write_preview
from sds3d.run.folder import RunFolder
from sds3d.scenes import Scene

KEPT = 200


def make_preview(folder: RunFolder, scenes: Sequence[Scene], step: int) -> Path:
    """Draw the preview of a step; the oldest of more than KEPT are dropped."""
    path = folder.preview_path(step)
    with writing(path):
        path.parent.mkdir(exist_ok=True)
    write_preview(list(scenes), path)
    for old in folder.previews()[:-KEPT]:
        old.unlink(missing_ok=True)
    return path
