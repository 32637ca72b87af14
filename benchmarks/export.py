"""Where an export spends its time: the stages of a finished run's sheet, orbit, mesh and check, in this process.

    python benchmarks/export.py RUN [RUN ...] [--threads 1]

Seconds are the process's own (user and system, all of its threads), since others who share the cores would count
against whatever they interrupt; ffmpeg's, which encodes the orbit, are not among them. "share" is a stage's part of
the run's total: compare shares and ratios of one run, never seconds of two. Stages that call one another are counted
once, in the inner one.
"""

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from pkgutil import resolve_name
from typing import Any
from unittest.mock import patch

import torch

from sds3d import Session
from sds3d.run.artifacts import SceneExport, write_artifact

STAGES = {  # functions, where their callers look them up
    "renders of the scene": ("export.extract.views_all_around", "export.formats.render_views"),
    "density": ("export.extract.sample_density",),
    "carving, depth fusion": ("export.extract.candidates",),
    "level sets": ("export.surface_search.Candidates.surface",),
    "comparison of levels": ("export.surface_search.fit_to", "export.extract.fit_to"),
    "smoothing, decimation": ("export.extract.smooth", "export.extract.decimate", "export.extract.separated"),
    "vertex colours": ("export.extract.best_inset", "export.extract.with_colors"),
    "atlas": ("export.texture.unwrap",),
    "texture": ("export.extract.with_texture",),
    "writing and checking": ("run.artifacts.write_verified",),
}
ARTIFACTS = ("sheet", "orbit", "glb")


class Clock:
    """Process time by stage, each without the stages inside of it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._inner = [0.0]

    def around(self, stage: str, function: Callable) -> Callable:
        """The function, timed."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            begun = time.process_time()
            self._inner.append(0.0)
            try:
                return function(*args, **kwargs)
            finally:
                whole = time.process_time() - begun
                self.seconds[stage] += whole - self._inner.pop()
                self._inner[-1] += whole

        return timed


def run(folder: str) -> Clock:
    """Make all artifacts once."""
    session, clock = Session.resume(folder), Clock()
    made = SceneExport(session.scene(), session.config, session.exported_step())
    with ExitStack() as stack, tempfile.TemporaryDirectory() as out:
        for stage, places in STAGES.items():
            for place in places:
                owner, _, name = place.rpartition(".")
                module = resolve_name(f"sds3d.{owner}")
                stack.enter_context(patch.object(module, name, clock.around(stage, getattr(module, name))))
        for name in ARTIFACTS:
            clock.around(name, write_artifact)(name, made, Path(out))
    return clock


def main() -> None:
    """Print a table for each run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders of finished runs")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for folder in args.runs:
        seconds = run(folder).seconds
        total = sum(seconds.values())
        print(f"{folder}: {total:.1f} s, {args.threads} thread(s)")
        for stage, spent in sorted(seconds.items(), key=lambda entry: -entry[1]):
            print(f"  {stage:24}{spent:8.2f} s{100 * spent / total:6.1f}%", flush=True)


if __name__ == "__main__":
    main()
