"""Times the mesh ops, interleaved in one run on the same mesh from the same four views.

    python benchmarks/mesh_ops.py [--seconds 4] [--threads 1] [--json FILE]

Contestants: the kernels on the CPU with AVX2, their best, and without; the kernels on a CUDA device; the pure-torch
references, of which those of the outlines try every edge at every row (5,120 triangles at 64 pixels only); PyTorch3D's
rasterizer on the CPU, where it is installed.

The mesh is a ball that fills 70% of the image's side; four channels are interpolated. "rasterize bwd" is the gradient
of random numbers at the barycentrics to the points; "backward" that of the blended image to vertices and colours, all
ops together; "all" is it and the forward ops. "same" is the part of the pixels that see the face that our kernels see.
Times are the least of many rounds, in each of which every contestant has its turn (who takes over a second has one); on
one thread they are the process's own time, since another job that takes the core away would count against slow
contestants alone. The last columns are a contestant's time over that of the best kernels: compare ratios of one run,
never milliseconds of two.
"""

import argparse
import importlib.util
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh
from torch import Tensor

from sds3d.cameras import orbit, project
from sds3d.ops.extension import INSTRUCTION_SETS, backend_info
from sds3d.ops.outlines import (
    blend_outlines,
    blend_outlines_reference,
    mesh_edges,
    outline_crossings,
    outline_crossings_reference,
)
from sds3d.ops.rasterize_triangles import (
    TriangleImage,
    interpolate,
    interpolate_reference,
    rasterize_triangles,
    rasterize_triangles_reference,
)
from sds3d.types import Cameras

SUBDIVISIONS, SIZES, VIEWS = (4, 5), (64, 128, 256), 4  # of an icosahedron: 5,120 and 20,480 triangles
SLOW = 1.0  # seconds
QUICK_SECONDS, QUICK_PASSES = 0.05, 5  # who is that quick has so many passes a turn: the first finds cold caches
FORWARD = ("project", "rasterize", "interpolate", "outlines")
STAGES = (*FORWARD, "backward", "rasterize bwd")
RATIOS = {"rasterize": ("rasterize",), "fwd+bwd": ("rasterize", "rasterize bwd"), "all": (*FORWARD, "backward")}
Times = dict[str, float]  # milliseconds, by stage


@dataclass(frozen=True)
class Case:
    """What is drawn."""

    vertices: Tensor
    faces: Tensor
    edges: Tensor
    colors: Tensor
    cameras: Cameras
    upstream: Tensor

    @property
    def size(self) -> int:
        """Pixels along a side."""
        return self.cameras.height

    def to(self, device: str) -> "Case":
        """The same on another device."""
        return Case(*(t.to(device) for t in vars(self).values()))


@dataclass(frozen=True)
class Contestant:
    """The ops that it has; `level` limits the instruction set of CPU kernels."""

    rasterize: Callable[[Tensor, Tensor, int, int], TriangleImage]
    others: tuple[Callable, Callable, Callable] | None = None  # interpolate, crossings, blend
    device: str = "cpu"
    level: int = len(INSTRUCTION_SETS)


@dataclass
class Row:
    """One contestant on one case."""

    triangles: int
    size: int
    contestant: str
    rounds: int
    same: float
    milliseconds: Times


def make_case(subdivisions: int, size: int) -> Case:
    """A ball from four sides, with random colours and a random upstream gradient."""
    ball = trimesh.creation.icosphere(subdivisions, 0.75)
    generator = torch.Generator().manual_seed(0)
    faces = torch.tensor(np.asarray(ball.faces), dtype=torch.int32)
    return Case(
        torch.tensor(ball.vertices, dtype=torch.float32),
        faces,
        mesh_edges(faces),
        torch.rand(len(ball.vertices), 4, generator=generator),
        orbit(VIEWS, size=size),
        torch.randn(VIEWS, size, size, 4, generator=generator),
    )


def by_pytorch3d(points: Tensor, faces: Tensor, height: int, width: int) -> TriangleImage:
    """PyTorch3D's, in its coordinates: from -1 to 1, x to the left and y up; faces numbered through all views."""
    from pytorch3d.renderer.mesh.rasterize_meshes import rasterize_meshes
    from pytorch3d.structures import Meshes

    flip = points.new_tensor([-2 / width, -2 / height, 1.0])
    meshes = Meshes(list(points * flip + points.new_tensor([1.0, 1.0, 0.0])), [faces.long()] * len(points))
    face, depth, barycentric, _ = rasterize_meshes(meshes, (height, width), faces_per_pixel=1, perspective_correct=True)
    face = torch.where(face < 0, -1, face % len(faces))
    return TriangleImage(face[..., 0], barycentric[..., 0, :], depth[..., 0])


def contestants(case: Case) -> dict[str, Contestant]:
    """Those that can run here; the best kernels on the CPU first."""
    kernels = (interpolate, outline_crossings, blend_outlines)
    best = min(INSTRUCTION_SETS.index(backend_info().cpu), INSTRUCTION_SETS.index("avx2"))  # these ops use no wider
    found = {
        INSTRUCTION_SETS[level]: Contestant(rasterize_triangles, kernels, level=level) for level in range(best, -1, -1)
    }
    if torch.cuda.is_available():
        found["cuda"] = Contestant(rasterize_triangles, kernels, "cuda")
    if case.size == SIZES[0] and len(case.faces) < 10_000:
        others = (interpolate_reference, outline_crossings_reference, blend_outlines_reference)
        found["torch"] = Contestant(rasterize_triangles_reference, others)
    if importlib.util.find_spec("pytorch3d") is not None:
        found["pytorch3d"] = Contestant(by_pytorch3d)
    return found


def timed(function: Callable, device: str) -> tuple[float, Any]:
    """Milliseconds, the device's work included."""
    clock = time.process_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    if device == "cuda":
        torch.cuda.synchronize()
    begun = clock()
    result = function()
    if device == "cuda":
        torch.cuda.synchronize()
    return (clock() - begun) * 1e3, result


def time_once(entry: Contestant, case: Case) -> tuple[TriangleImage, Times]:
    """The picture, and the time of each stage that the contestant has."""
    if entry.device == "cpu" and backend_info().cpu != "reference":
        torch.ops.sds3d.limit_instruction_set(entry.level)
    clock = partial(timed, device=entry.device)
    times: Times = {}
    vertices, colors = case.vertices.clone().requires_grad_(), case.colors.clone().requires_grad_()
    times["project"], points = clock(lambda: project(vertices, case.cameras))
    times["rasterize"], image = clock(lambda: entry.rasterize(points, case.faces, case.size, case.size))
    if entry.others is not None:
        interpolated, crossings, blend = entry.others
        times["interpolate"], plain = clock(lambda: interpolated(colors, case.faces, image))
        times["outlines"], blended = clock(
            lambda: blend(plain, points, crossings(points, case.faces, case.edges, image.depth))
        )
        upstream = case.upstream.to(blended)
        times["backward"], _ = clock(
            lambda: torch.autograd.grad(blended, [vertices, colors], upstream, retain_graph=True)
        )
    upstream = case.upstream[..., :3].contiguous()
    times["rasterize bwd"], _ = clock(lambda: torch.autograd.grad(image.barycentric, [points], upstream))
    return image, times


def run_case(subdivisions: int, size: int, budget: float) -> list[Row]:
    """All contestants in turn, at least 20 rounds, until the seconds are spent."""
    case = make_case(subdivisions, size)
    entries = contestants(case)
    on_device = {
        device: case if device == "cpu" else case.to(device) for device in {e.device for e in entries.values()}
    }
    rounds = dict.fromkeys(entries, 0)
    least: dict[str, Times] = {}
    faces: dict[str, Tensor] = {}
    begun = time.perf_counter()
    while max(rounds.values()) < 20 or time.perf_counter() - begun < budget:
        for name, entry in entries.items():
            known = sum(least[name].values()) / 1e3 if name in least else SLOW
            if known > SLOW:
                continue
            for _ in range(QUICK_PASSES if known < QUICK_SECONDS else 1):
                image, times = time_once(entry, on_device[entry.device])
                faces[name] = image.face.cpu()
                least[name] = {stage: min(least.get(name, times)[stage], each) for stage, each in times.items()}
            rounds[name] += 1
    ours = faces[next(iter(entries))]
    same = {name: float((found == ours).double().mean()) for name, found in faces.items()}
    return [Row(len(case.faces), size, name, rounds[name], same[name], least[name]) for name in entries]


def ratio(row: Row, best: Row, stages: tuple[str, ...]) -> str:
    """Time over that of the best kernels on the CPU."""
    if row is best or any(stage not in row.milliseconds for stage in stages):
        return ""
    return f"{sum(row.milliseconds[s] for s in stages) / sum(best.milliseconds[s] for s in stages):.1f}x"


def run(seconds: float) -> list[Row]:
    """Print the table."""
    columns = "".join(f"{stage + ' ms':>17}" for stage in STAGES) + f"{'all ms':>10}{'same':>8}"
    print(f"{'triangles':>9} {'px':>4} {'contestant':>10} {'rounds':>6}{columns}", end="")
    print("".join(f"{name:>11}" for name in RATIOS))
    found = []
    for subdivisions in SUBDIVISIONS:
        for size in SIZES:
            rows = run_case(subdivisions, size, seconds)
            for row in rows:
                times = "".join(f"{row.milliseconds.get(stage, float('nan')):17.3f}" for stage in STAGES)
                whole = sum(row.milliseconds.get(stage, float("nan")) for stage in RATIOS["all"])
                ratios = "".join(f"{ratio(row, rows[0], stages):>11}" for stages in RATIOS.values())
                print(f"{row.triangles:9} {row.size:4} {row.contestant:>10} {row.rounds:6}{times}", end="")
                print(f"{whole:10.3f}{row.same:8.4f}{ratios}", flush=True)
            found += rows
    return found


def main() -> None:
    """Print the table, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=4.0, help="spent on each case")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if backend_info().cpu == "reference":
        parser.error(f"the kernels are not there to be timed: {backend_info().reason}")
    if importlib.util.find_spec("pytorch3d") is None:
        print("PyTorch3D is not installed, so it is not among the contestants.")
    rows = run(args.seconds)
    if args.json:
        flat = [{**asdict(row), **{f"{stage}_ms": t for stage, t in row.milliseconds.items()}} for row in rows]
        for row in flat:
            del row["milliseconds"]
        report = {"torch": torch.__version__, "threads": args.threads, "rows": flat}
        args.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
