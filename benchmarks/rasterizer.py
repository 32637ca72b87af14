"""Times the compiled splat rasterizer against the torch reference, interleaved in one run on the same projected splats.

    python benchmarks/rasterizer.py [--threads 1] [--rounds 7] [--quick] [--json FILE]

A pair is one pixel of a 16-wide row segment that the splat's box meets inside a tile; "ns/pair" divides by all of them,
so it includes binning, sorting and the gradient sums. Times are medians over the rounds. Compare ratios, never
milliseconds of different runs: other jobs on the machine change the latter.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from sds3d.ops import ProjectedGaussians, backend_info, project_gaussians, rasterize_gaussians
from sds3d.ops.extension import INSTRUCTION_SETS
from sds3d.ops.rasterize_gaussians import rasterize_gaussians_reference
from sds3d.types import Cameras

CASES = [(64, 2_000, 1), (64, 2_000, 4), (128, 2_000, 1), (128, 10_000, 1), (128, 10_000, 4), (256, 50_000, 1)]
QUICK_CASES = [(64, 2_000, 1), (128, 2_000, 1), (128, 10_000, 1)]
SLOW_SPLATS = 10_000  # the reference is left out above this many splats times views


@dataclass
class Row:
    """One contestant on one case."""

    size: int
    splats: int
    views: int
    contestant: str
    forward_ms: float
    backward_ms: float
    forward_ns_per_pair: float
    backward_ns_per_pair: float
    ratio: float  # reference time / this time, forward plus backward; nan without the reference


def ring_of_cameras(views: int, size: int) -> Cameras:
    """Cameras around the object at 20 degrees elevation, 40 degrees field of view."""
    azimuth = torch.arange(views) * 2 * math.pi / views + 0.3
    elevation = torch.full((views,), math.radians(20))
    distance = torch.full((views,), 3.2)
    outward = torch.stack([azimuth.cos() * elevation.cos(), azimuth.sin() * elevation.cos(), elevation.sin()], dim=-1)
    right = torch.stack([-azimuth.sin(), azimuth.cos(), torch.zeros(views)], dim=-1)
    down = torch.linalg.cross(-outward, right)
    pose = torch.eye(4).repeat(views, 1, 1)
    pose[:, :3, :3] = torch.stack([right, down, -outward], dim=-1)
    pose[:, :3, 3] = distance[:, None] * outward
    focal = size / 2 / math.tan(math.radians(20))
    intrinsics = torch.tensor([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]]).repeat(views, 1, 1)
    return Cameras(pose, intrinsics, azimuth, elevation, distance, size, size)


def make_case(size: int, splats: int, views: int) -> tuple[ProjectedGaussians, Tensor, Tensor, Tensor]:
    """A ball of splats about as large as their spacing, half transparent, as in the middle of an optimization."""
    generator = torch.Generator().manual_seed(size + splats)
    means = torch.randn(splats, 3, generator=generator)
    means *= 0.8 * torch.rand(splats, 1, generator=generator) ** (1 / 3) / means.norm(dim=1, keepdim=True)
    quats = torch.randn(splats, 4, generator=generator)
    scales = 0.6 * splats ** (-1 / 3) * torch.exp(0.4 * torch.randn(splats, 3, generator=generator))
    opacities = torch.rand(splats, generator=generator) * 0.6 + 0.02
    projected = project_gaussians(means, quats, scales, opacities, ring_of_cameras(views, size))
    features = torch.rand(views, splats, 3, generator=generator)
    return projected, opacities, features, torch.rand(views, 3, generator=generator)


def count_pairs(projected: ProjectedGaussians, size: int) -> int:
    """Pixels of the 16-wide row segments that the boxes meet."""
    low = (projected.means2d - projected.extents - 0.5).ceil().clamp(0, size)
    high = ((projected.means2d + projected.extents - 0.5).floor() + 1).clamp(0, size)
    shown = (projected.extents > 0).all(-1)
    segments = (high[..., 0] / 16).ceil() - (low[..., 0] / 16).floor()
    rows = high[..., 1] - low[..., 1]
    return int((segments * rows).clamp(min=0)[shown].sum()) * 16


def time_once(rasterize: Callable, case: tuple, size: int) -> tuple[float, float]:
    """Seconds of one forward and one backward pass."""
    projected, opacities, features, background = case
    inputs = [t.detach().clone().requires_grad_() for t in (projected.means2d, projected.conics, opacities, features)]
    upstream = torch.linspace(-1, 1, features.shape[0] * size * size * 3).view(-1, size, size, 3)
    start = time.perf_counter()
    image, opacity = rasterize(*inputs, projected.extents, projected.depths, background, size, size)
    middle = time.perf_counter()
    torch.autograd.backward([image, opacity], [upstream, torch.ones_like(opacity)])
    return middle - start, time.perf_counter() - middle


def contestants(with_reference: bool) -> dict[str, Callable]:
    """Name to rasterizer; one per instruction set that this processor has."""

    def limited(level: int) -> Callable:
        def rasterize(*args):
            torch.ops.sds3d.limit_instruction_set(level)
            return rasterize_gaussians(*args)

        return rasterize

    best = INSTRUCTION_SETS.index(backend_info().cpu)
    found = {INSTRUCTION_SETS[level]: limited(level) for level in range(best, -1, -1)}
    return {"torch": rasterize_gaussians_reference, **found} if with_reference else found


def run_case(size: int, splats: int, views: int, rounds: int) -> list[Row]:
    """All contestants on one case, one after the other in every round."""
    case = make_case(size, splats, views)
    pairs = count_pairs(case[0], size)
    times: dict[str, list[tuple[float, float]]] = {}
    entries = contestants(splats * views <= SLOW_SPLATS)
    for turn in range(rounds + 1):
        for name, rasterize in entries.items():
            # The reference is slow and its share of noise small; the kernels get ten passes a round.
            passes = [time_once(rasterize, case, size) for _ in range(1 if name == "torch" else 10)]
            if turn > 0:
                times.setdefault(name, []).extend(passes)
    median = {name: [statistics.median(t) for t in zip(*values, strict=True)] for name, values in times.items()}
    slowest = sum(median["torch"]) if "torch" in median else math.nan
    return [
        Row(size, splats, views, name, f * 1e3, b * 1e3, f * 1e9 / pairs, b * 1e9 / pairs, slowest / (f + b))
        for name, (f, b) in median.items()
    ]


def main() -> None:
    """Print the table, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="three small cases only")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    args = parser.parse_args()
    if backend_info().cpu == "reference":
        parser.exit(1, f"nothing to compare: {backend_info().reason}\n")
    torch.set_num_threads(args.threads)

    print(f"torch {torch.__version__}, {args.threads} thread(s), medians of {args.rounds} rounds")
    print(f"{'px':>4} {'splats':>7} {'views':>5} {'contestant':>10} {'fwd ms':>9} {'bwd ms':>9} ", end="")
    print(f"{'fwd ns/pair':>11} {'bwd ns/pair':>11} {'ratio':>7}")
    rows = []
    for case in QUICK_CASES if args.quick else CASES:
        for row in run_case(*case, args.rounds):
            rows.append(row)
            print(f"{row.size:4} {row.splats:7} {row.views:5} {row.contestant:>10} ", end="")
            print(f"{row.forward_ms:9.3f} {row.backward_ms:9.3f} ", end="")
            print(f"{row.forward_ns_per_pair:11.3f} {row.backward_ns_per_pair:11.3f} {row.ratio:7.1f}", flush=True)
    if args.json:
        report = {"torch": torch.__version__, "threads": args.threads, "rows": [asdict(row) for row in rows]}
        args.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
