"""Times marching and volume compositing, interleaved in one run on the same rays and samples; on CUDA against nerfacc.

    python benchmarks/volume.py [--seconds 4] [--json FILE]

The scene is a ball in an occupancy grid of 64^3 cells, seen from outside by square images of rays. Contestants: the op,
which is pure torch so far, on the CPU and on a CUDA device, and nerfacc there, which has no CPU kernels. The times are
the least of many rounds, as in rasterizer.py; nerfacc's samples may begin elsewhere within a cell.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from sds3d.cameras import orbit
from sds3d.ops.composite import composite
from sds3d.ops.march_rays import march_rays

CASES = [(64, 1), (128, 1), (64, 4)]  # pixels, views
CELLS, STEP, MAX_SAMPLES = 64, 0.02, 128
CHANNELS = 3


@dataclass
class Row:
    """One contestant on one case."""

    size: int
    views: int
    samples: int
    contestant: str
    rounds: int
    march_ms: float
    forward_ms: float
    backward_ms: float


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


def make_rays(size: int, views: int) -> Rays:
    """All pixels of some orbit views; the ball has radius 0.6 in a box from -1 to 1."""
    cameras = orbit(views, size=size)
    v, u = torch.meshgrid(torch.arange(size) + 0.5, torch.arange(size) + 0.5, indexing="ij")
    pixels = torch.stack([u, v, torch.ones_like(u)], dim=-1).view(-1, 3)
    rays = pixels @ torch.inverse(cameras.intrinsics).mT @ cameras.camera_to_world[:, :3, :3].mT
    directions = torch.nn.functional.normalize(rays, dim=-1).view(-1, 3)
    origins = cameras.camera_to_world[:, None, :3, 3].expand(-1, size * size, 3).reshape(-1, 3).contiguous()
    middle = (torch.arange(CELLS) + 0.5) / CELLS * 2 - 1
    x, y, z = torch.meshgrid(middle, middle, middle, indexing="ij")
    distance = origins.norm(dim=-1)
    aabb = torch.tensor([-1.0, -1, -1, 1, 1, 1])
    return Rays(origins, directions, distance - 1.2, distance + 1.2, x * x + y * y + z * z < 0.36, aabb)


def by_ops(march: Callable, blend: Callable) -> Callable:
    """Marching and compositing by functions with our ops' signatures."""

    def marched(rays: Rays) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        found = march(*vars(rays).values(), STEP, MAX_SAMPLES, None)
        return found.t_starts, found.t_ends, found.offsets, found.ray_indices

    def blended(samples: tuple, densities: Tensor, features: Tensor, count: int) -> tuple[Tensor, Tensor]:
        colors, opacity, _, _ = blend(densities, features, *samples[:3])
        return colors, opacity

    return lambda: (marched, blended)


def by_nerfacc() -> tuple[Callable, Callable]:
    """The same by nerfacc's packed functions."""
    import nerfacc

    def marched(rays: Rays) -> tuple[Tensor, Tensor, Tensor, Tensor]:
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

    return marched, blended


def contestants() -> dict[str, tuple[str, Callable]]:
    """Name to device and functions; those that can run here."""
    ours = by_ops(march_rays, composite)
    found = {"cpu": ("cpu", ours)}
    if torch.cuda.is_available():
        found |= {"cuda": ("cuda", ours), "nerfacc": ("cuda", by_nerfacc)}
    return found


def timed(function: Callable, device: str) -> tuple[float, tuple]:
    """Milliseconds, the device's work included."""
    if device == "cuda":
        torch.cuda.synchronize()
    begun = time.perf_counter()
    result = function()
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - begun) * 1e3, result


def time_once(marched: Callable, blended: Callable, rays: Rays, device: str) -> tuple[int, list[float]]:
    """Number of samples; milliseconds of marching, of compositing and of its backward pass."""
    march, samples = timed(lambda: marched(rays), device)
    count, number = len(rays.near), len(samples[0])
    generator = torch.Generator().manual_seed(0)
    densities = (10 * torch.rand(number, generator=generator)).to(device).requires_grad_()
    features = torch.rand(number, CHANNELS, generator=generator).to(device).requires_grad_()
    forward, images = timed(lambda: blended(samples, densities, features, count), device)
    upstream = [torch.ones_like(image) for image in images]
    backward, _ = timed(lambda: torch.autograd.grad(images, [densities, features], upstream), device)
    return number, [march, forward, backward]


def run_case(size: int, views: int, budget: float) -> list[Row]:
    """All contestants in turn, at least three rounds, until the seconds are spent."""
    rays, entries = make_rays(size, views), {}
    for name, (device, build) in contestants().items():
        entries[name] = (*build(), rays.to(device), device)
    least = {name: time_once(*entry) for name, entry in entries.items()}
    begun, rounds = time.perf_counter(), 1
    while rounds < 4 or time.perf_counter() - begun < budget:
        for name, entry in entries.items():
            number, times = time_once(*entry)
            least[name] = (number, [min(a, b) for a, b in zip(least[name][1], times, strict=True)])
        rounds += 1
    return [Row(size, views, number, name, rounds, *times) for name, (number, times) in least.items()]


def main() -> None:
    """Print the table, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=4.0, help="spent on each case")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"{'px':>4} {'views':>5} {'samples':>8} {'contestant':>10} {'march ms':>9} {'fwd ms':>8} {'bwd ms':>8}")
    rows = []
    for size, views in CASES:
        for row in run_case(size, views, args.seconds):
            rows.append(row)
            print(f"{row.size:4} {row.views:5} {row.samples:8} {row.contestant:>10} ", end="")
            print(f"{row.march_ms:9.3f} {row.forward_ms:8.3f} {row.backward_ms:8.3f}", flush=True)
    if args.json:
        report = {"torch": torch.__version__, "threads": args.threads, "rows": [asdict(row) for row in rows]}
        args.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
