"""Times hash encoding, marching and compositing, interleaved in one run on the same rays, samples and points.

    python benchmarks/volume.py [--seconds 4] [--threads 1] [--json FILE]

The scene is a ball in an occupancy grid of 64^3 cells, seen from outside by square images of rays; what is encoded are
the samples, by the radiance field's default grid. Contestants: the kernels on the CPU and on a CUDA device, the
pure-torch references on both, and nerfacc on CUDA, which marches and composites but does not encode; its samples may
begin elsewhere within a cell. The times are the least of many rounds, as in rasterizer.py. The last columns are the
kernels' gain over the reference on the same device.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sds3d.cameras import camera_rays, orbit
from sds3d.ops.composite import composite, composite_reference
from sds3d.ops.extension import backend_info
from sds3d.ops.hash_encode import hash_encode, hash_encode_reference
from sds3d.ops.march_rays import OccupancyGrid, march_rays, march_rays_reference
from sds3d.scenes.nerf_field import FieldConfig

CASES = [(64, 1), (128, 1), (64, 4)]  # pixels, views
CELLS, STEP, MAX_SAMPLES = 64, 0.02, 128
CHANNELS = 3
STAGES = ("encode", "encode_backward", "march", "composite", "composite_backward")
Times = dict[str, float]  # milliseconds, by stage


@dataclass
class Row:
    """One contestant on one case."""

    size: int
    views: int
    samples: int
    contestant: str
    rounds: int
    milliseconds: Times


@dataclass(frozen=True)
class Rays:
    """What is marched through what, and values for the samples."""

    origins: Tensor
    directions: Tensor
    near: Tensor
    far: Tensor
    binaries: Tensor
    aabb: Tensor

    def to(self, device: str) -> "Rays":
        """The same on another device."""
        return Rays(*(t.to(device) for t in vars(self).values()))


@dataclass(frozen=True)
class Ops:
    """What a contestant does; `march` gives starts, ends, whatever `blend` needs of them, and the points."""

    march: Callable[[Rays], tuple]
    blend: Callable[[tuple, Tensor, Tensor, int], tuple[Tensor, Tensor]]
    encode: Callable | None


def make_rays(size: int, views: int) -> Rays:
    """All pixels of some orbit views; the ball has radius 0.6 in a box from -1 to 1."""
    rays = camera_rays(orbit(views, size=size))
    middle = (torch.arange(CELLS) + 0.5) / CELLS * 2 - 1
    x, y, z = torch.meshgrid(middle, middle, middle, indexing="ij")
    distance = rays.origins.norm(dim=-1)
    aabb = torch.tensor([-1.0, -1, -1, 1, 1, 1])
    return Rays(rays.origins, rays.directions, distance - 1.2, distance + 1.2, x * x + y * y + z * z < 0.36, aabb)


def ours(march: Callable, blend: Callable, encode: Callable) -> Ops:
    """Functions with our ops' signatures."""

    def marched(rays: Rays) -> tuple:
        grid = OccupancyGrid(rays.binaries, rays.aabb)
        found = march(rays.origins, rays.directions, rays.near, rays.far, grid, STEP, MAX_SAMPLES, None)
        return found.t_starts, found.t_ends, found.offsets, found.points

    def blended(samples: tuple, densities: Tensor, features: Tensor, count: int) -> tuple[Tensor, Tensor]:
        colors, opacity, _, _ = blend(densities, features, *samples[:3])
        return colors, opacity

    return Ops(marched, blended, encode)


def nerfacc_ops() -> Ops:
    """The same by nerfacc's packed functions."""
    import nerfacc

    def marched(rays: Rays) -> tuple:
        intervals, samples, _ = nerfacc.traverse_grids(
            rays.origins, rays.directions, rays.binaries[None], rays.aabb[None], rays.near, rays.far, STEP
        )
        starts, ends = intervals.vals[intervals.is_left], intervals.vals[intervals.is_right]
        return starts, ends, samples.packed_info, samples.ray_indices

    def blended(samples: tuple, densities: Tensor, features: Tensor, count: int) -> tuple[Tensor, Tensor]:
        starts, ends, packed_info, indices = samples
        weights, _, _ = nerfacc.render_weight_from_density(starts, ends, densities, packed_info=packed_info)
        colors = nerfacc.accumulate_along_rays(weights, features, indices, count)
        return colors, nerfacc.accumulate_along_rays(weights, None, indices, count)

    return Ops(marched, blended, None)


def contestants() -> dict[str, tuple[str, Ops]]:
    """Name to device and functions; those that can run here."""
    kernels = ours(march_rays, composite, hash_encode)
    reference = ours(march_rays_reference, composite_reference, hash_encode_reference)
    found = {f"cpu {backend_info().cpu}": ("cpu", kernels), "cpu torch": ("cpu", reference)}
    if torch.cuda.is_available():
        found |= {"cuda": ("cuda", kernels), "cuda torch": ("cuda", reference), "nerfacc": ("cuda", nerfacc_ops())}
    return found


def timed(function: Callable, device: str) -> tuple[float, Any]:
    """Milliseconds, the device's work included."""
    if device == "cuda":
        torch.cuda.synchronize()
    begun = time.perf_counter()
    result = function()
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - begun) * 1e3, result


def time_once(ops: Ops, rays: Rays, device: str) -> tuple[int, Times]:
    """Number of samples, and the time of each stage that the contestant has."""
    times: Times = {}
    times["march"], samples = timed(lambda: ops.march(rays), device)
    count, number = len(rays.near), len(samples[0])
    generator = torch.Generator().manual_seed(0)
    densities = (10 * torch.rand(number, generator=generator)).to(device).requires_grad_()
    features = torch.rand(number, CHANNELS, generator=generator).to(device).requires_grad_()
    times["composite"], images = timed(lambda: ops.blend(samples, densities, features, count), device)
    upstream = [torch.ones_like(image) for image in images]
    times["composite_backward"], _ = timed(lambda: torch.autograd.grad(images, [densities, features], upstream), device)
    if ops.encode is not None:
        grid = FieldConfig().grid()
        table = torch.randn(grid.entries, grid.features, generator=generator).to(device).requires_grad_()
        points = (samples[3] + 1) / 2
        times["encode"], values = timed(lambda: ops.encode(points, table, grid), device)
        above = torch.randn(values.shape, generator=generator).to(device)
        times["encode_backward"], _ = timed(lambda: torch.autograd.grad(values, table, above), device)
    return number, times


def run_case(size: int, views: int, budget: float) -> list[Row]:
    """All contestants in turn, at least three rounds, until the seconds are spent."""
    rays = make_rays(size, views)
    entries = {name: (ops, rays.to(device), device) for name, (device, ops) in contestants().items()}
    least = {name: time_once(*entry) for name, entry in entries.items()}
    begun, rounds = time.perf_counter(), 1
    while rounds < 4 or time.perf_counter() - begun < budget:
        for name, entry in entries.items():
            number, times = time_once(*entry)
            least[name] = (number, {stage: min(least[name][1][stage], each) for stage, each in times.items()})
        rounds += 1
    return [Row(size, views, number, name, rounds, times) for name, (number, times) in least.items()]


def gain(row: Row, rows: list[Row], stage: str) -> str:
    """Reference's time of a stage, forward and backward, over that of this row's; empty for the reference itself."""
    device = "cpu" if row.contestant.startswith("cpu") else "cuda"
    reference = next(r for r in rows if r.contestant == f"{device} torch")
    names = [name for name in STAGES if name.startswith(stage)]
    if reference is row or any(name not in row.milliseconds for name in names):
        return ""
    return f"{sum(reference.milliseconds[n] for n in names) / sum(row.milliseconds[n] for n in names):.1f}x"


def run(seconds: float) -> list[Row]:
    """Print the table."""
    columns = "".join(f"{stage.replace('_backward', ' bwd') + ' ms':>18}" for stage in STAGES)
    print(
        f"{'px':>4} {'views':>5} {'samples':>8} {'contestant':>12}{columns}{'encode':>8}{'march':>8}{'composite':>10}"
    )
    found = []
    for size, views in CASES:
        rows = run_case(size, views, seconds)
        for row in rows:
            times = "".join(f"{row.milliseconds.get(stage, float('nan')):18.3f}" for stage in STAGES)
            gains = [gain(row, rows, stage) for stage in ("encode", "march", "composite")]
            print(f"{row.size:4} {row.views:5} {row.samples:8} {row.contestant:>12}{times}", end="")
            print(f"{gains[0]:>8}{gains[1]:>8}{gains[2]:>10}", flush=True)
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
    rows = run(args.seconds)
    if args.json:
        flat = [{**asdict(row), **{f"{stage}_ms": t for stage, t in row.milliseconds.items()}} for row in rows]
        for row in flat:
            del row["milliseconds"]
        report = {"torch": torch.__version__, "threads": args.threads, "rows": flat}
        args.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
