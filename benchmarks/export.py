"""Where an export spends its time: the stages of a finished run's sheet, orbit, mesh and check, in this process.

And, where the run ends in splats or a field, those of the take-over by a mesh, as between the stages of preset mesh.

    python benchmarks/export.py RUN [RUN ...] [--threads 1]

Seconds are the process's own (user and system, all of its threads), since others who share the cores would count
against whatever they interrupt; ffmpeg's, which encodes the orbit, are not among them. "share" is a stage's part of
the run's total: compare shares and ratios of one run, never seconds of two. Stages that call one another are counted
once, in the inner one. Figures of the mesh that was written follow, to see what a change of the time has cost.
"""

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from pkgutil import resolve_name
from typing import Any
from unittest.mock import patch

import torch

from sds3d import Session
from sds3d.run.artifacts import write_artifact
from sds3d.scenes.base import HasSurface
from sds3d.scenes.mesh import MeshConfig
from sds3d.training.take_over import take_over

STAGES = {  # functions, where their callers look them up
    "renders of the scene": (
        *("export.extract.views_all_around", "export.formats.render_views"),
        *("export.contact_sheet.render_views", "export.video.render_views"),
    ),
    "density": ("export.extract.sample_density",),
    "carving, depth fusion": ("export.extract.candidates",),
    "level sets": ("export.surface_search.Candidates.surface",),
    "comparison of levels": ("export.surface_search.fit_to", "export.extract.fit_to"),
    "own surface": ("export.extract._own_surface",),
    "smoothing, decimation": ("export.extract.smooth", "export.extract.decimate", "export.extract.separated"),
    "vertex colours": ("export.extract.best_inset", "export.extract.with_colors"),
    "atlas": ("export.texture.unwrap",),
    "texture": ("export.extract.with_texture",),
    "reading back": ("export.glb.read_with_trimesh",),
    "writing and checking": ("run.artifacts.write_verified", "run.artifacts.crease_figures"),
    "finish": ("training.take_over.finish",),
}
ARTIFACTS = ("sheet", "orbit", "glb")
FIGURES = ("surface", "faces", "tunnels", "silhouette_iou", "roughness", "crease_length", "psnr", "texture_used")


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


@contextmanager
def stages_timed() -> Iterator[Clock]:
    """A clock around all STAGES."""
    clock = Clock()
    with ExitStack() as stack:
        for stage, places in STAGES.items():
            for place in places:
                owner, _, name = place.rpartition(".")
                module = resolve_name(f"sds3d.{owner}")
                stack.enter_context(patch.object(module, name, clock.around(stage, getattr(module, name))))
        yield clock


def print_stages(what: str, clock: Clock) -> None:
    """As a table, the longest first."""
    total = sum(clock.seconds.values())
    print(f"{what}: {total:.1f} s, {torch.get_num_threads()} thread(s)")
    for stage, spent in sorted(clock.seconds.items(), key=lambda entry: -entry[1]):
        print(f"  {stage:24}{spent:8.2f} s{100 * spent / total:6.1f}%", flush=True)


def run(folder: str) -> None:
    """Make all artifacts once, in a folder of their own, and print the stages and the figures."""
    session = Session.resume(folder)
    made = session.made()
    with stages_timed() as clock, tempfile.TemporaryDirectory() as out:
        facts = [clock.around(name, write_artifact)(name, made, Path(out))[1] for name in ARTIFACTS][-1]
    print_stages(folder, clock)
    figures = {name: facts[name] for name in FIGURES}
    print("  " + ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in figures.items()))
    if not isinstance(made.scene, HasSurface):
        mesh = MeshConfig().build(torch.Generator().manual_seed(0))
        with stages_timed() as clock:
            clock.around("colours taken over", take_over)(made.scene, mesh)
        print_stages(f"{folder}, taken over by a mesh", clock)


def main() -> None:
    """Print a table for each run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders of finished runs")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"imports: {time.process_time():.1f} s")
    for folder in args.runs:
        run(folder)


if __name__ == "__main__":
    main()
