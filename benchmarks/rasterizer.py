"""Times the splat rasterizers against each other, interleaved in one run on the same projected splats.

    python benchmarks/rasterizer.py [--cases quick|all] [--seconds 4] [--threads 1,2] [--json FILE]

Contestants: the torch compositor (one thread), each instruction set of the CPU kernels, the best of them with more
threads, and on a CUDA device gsplat and the CUDA kernels: as they are, without waiting for the device ("async"), and
with colours in half precision besides. A pair is one pixel of a 16-wide row segment that a splat's box meets inside a
tile; "ns/pair" divides by all of them, so it includes binning, sorting and the gradient sums. Times are the least of
many rounds, in each of which every contestant has its turn; on one thread they are that thread's own time, since
another job that takes the core away would count against slow contestants alone. Compare ratios of one run, never
milliseconds of two.
"""

import argparse
import json
import math
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from sds3d.ops.extension import INSTRUCTION_SETS, Rasterizer, backend_info
from sds3d.ops.project_gaussians import ProjectedGaussians, project_gaussians
from sds3d.ops.rasterize_gaussians import rasterize_gaussians
from sds3d.types import Cameras

QUICK = [(64, 2_000, 1), (128, 2_000, 1), (128, 10_000, 1)]
ALL = [
    *QUICK,
    *[(64, 2_000, 4), (64, 2_000, 8), (128, 10_000, 4), (128, 10_000, 8)],
    *[(256, 10_000, 1), (256, 50_000, 1), (256, 50_000, 4), (512, 50_000, 1), (512, 200_000, 1)],
]
SLOW_SPLATS = 10_000  # the torch compositor is left out above this many splats times views, and above SLOW_SIZE pixels
SLOW_SIZE = 128
QUICK_SECONDS, QUICK_PASSES = 0.02, 5  # who is that quick has so many passes a turn: the first finds cold caches
CHANNELS = 3


@dataclass(frozen=True)
class Contestant:
    """One way to render; `level` limits the instruction set of CPU kernels."""

    name: str
    rasterizer: Rasterizer
    device: str = "cpu"
    level: int = len(INSTRUCTION_SETS)
    threads: int = 1
    waits: bool = True  # for the number of tile hits
    half: bool = False  # colours


@dataclass
class Row:
    """One contestant on one case."""

    size: int
    splats: int
    views: int
    contestant: str
    rounds: int
    forward_ms: float
    backward_ms: float
    forward_ns_per_pair: float
    backward_ns_per_pair: float
    over_torch: float | None  # torch's time / this time, forward plus backward; none where torch was left out
    over_one_thread: float | None  # for contestants with more threads
    over_gsplat: float | None  # on CUDA


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


class Case:
    """A ball of splats about as large as their spacing, half transparent, as in the middle of an optimization."""

    def __init__(self, size: int, splats: int, views: int) -> None:
        generator = torch.Generator().manual_seed(size + splats)
        means = torch.randn(splats, 3, generator=generator)
        means *= 0.8 * torch.rand(splats, 1, generator=generator) ** (1 / 3) / means.norm(dim=1, keepdim=True)
        quats = torch.randn(splats, 4, generator=generator)
        scales = 0.6 * splats ** (-1 / 3) * torch.exp(0.4 * torch.randn(splats, 3, generator=generator))
        opacities = torch.rand(splats, generator=generator) * 0.6 + 0.02
        projected = project_gaussians(means, quats, scales, opacities, ring_of_cameras(views, size))
        features = torch.rand(views, splats, CHANNELS, generator=generator)
        background = torch.rand(views, CHANNELS, generator=generator)
        upstream = torch.linspace(-1, 1, views * size * size * CHANNELS).view(views, size, size, CHANNELS)
        self.size, self.splats, self.views = size, splats, views
        self.pairs = count_pairs(projected, size)
        self.on_cpu = [projected.means2d, projected.conics, opacities, features]
        self.rest_on_cpu = [projected.radii, projected.depths, background]
        self.upstream_on_cpu = [upstream, torch.ones(views, size, size, 1)]
        self.kept: dict[str, tuple[list[Tensor], ...]] = {}

    def on(self, device: str) -> tuple[list[Tensor], ...]:
        """Differentiable inputs, other inputs, upstream gradients."""
        if device not in self.kept:
            parts = (self.on_cpu, self.rest_on_cpu, self.upstream_on_cpu)
            inputs, rest, upstream = ([t.to(device) for t in part] for part in parts)
            self.kept[device] = ([t.detach().requires_grad_() for t in inputs], rest, upstream)
        return self.kept[device]


def count_pairs(projected: ProjectedGaussians, size: int) -> int:
    """Pixels of the 16-wide row segments that the boxes meet."""
    low = (projected.means2d - projected.radii - 0.5).ceil().clamp(0, size)
    high = ((projected.means2d + projected.radii - 0.5).floor() + 1).clamp(0, size)
    shown = (projected.radii > 0).all(-1)
    segments = (high[..., 0] / 16).ceil() - (low[..., 0] / 16).floor()
    rows = high[..., 1] - low[..., 1]
    return int((segments * rows).clamp(min=0)[shown].sum()) * 16


def contestants(case: Case, threads: list[int]) -> list[Contestant]:
    """Those that can run here; the torch compositor only where it takes no more than a second or two."""
    best = INSTRUCTION_SETS.index(backend_info().cpu)
    found = [Contestant(INSTRUCTION_SETS[level], "native", level=level) for level in range(best, -1, -1)]
    name = INSTRUCTION_SETS[best]
    found += [Contestant(f"{name} x{count}", "native", level=best, threads=count) for count in threads if count > 1]
    if case.splats * case.views <= SLOW_SPLATS and case.size <= SLOW_SIZE:
        found.append(Contestant("torch", "torch"))
    if torch.cuda.is_available():
        if backend_info().cuda:
            found.append(Contestant("cuda", "native", "cuda"))
            found.append(Contestant("cuda async", "native", "cuda", waits=False))
            found.append(Contestant("cuda half", "native", "cuda", waits=False, half=True))
        found += [Contestant("gsplat", "gsplat", "cuda")]
    return found


def seconds(function: Callable[[], object], contestant: Contestant) -> tuple[float, object]:
    """How long a call takes, on the device's own clock, and its result."""
    if contestant.device == "cpu":
        clock = time.thread_time if contestant.threads == 1 else time.perf_counter
        begun = clock()
        result = function()
        return clock() - begun, result
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    begin.record()
    result = function()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1e3, result


def time_once(contestant: Contestant, case: Case) -> tuple[float, float]:
    """Seconds of one forward and one backward pass."""
    torch.set_num_threads(contestant.threads)
    torch.ops.sds3d.limit_instruction_set(contestant.level)
    inputs, rest, upstream = case.on(contestant.device)
    if contestant.half:
        inputs = [*inputs[:3], inputs[3].detach().half().requires_grad_()]
    room = 0 if contestant.waits else case.pairs // 16  # a hit is a row or more

    def forward() -> tuple[Tensor, Tensor]:
        return rasterize_gaussians(
            *inputs, *rest, case.size, case.size, rasterizer=contestant.rasterizer, max_intersections=room
        )

    ahead, images = seconds(forward, contestant)
    back, _ = seconds(lambda: torch.autograd.grad(images, inputs, upstream), contestant)
    return ahead, back


def run_case(case: Case, threads: list[int], budget: float) -> list[Row]:
    """Rounds until the seconds are spent, at least three; slow contestants sit rounds out, so that shares are alike."""
    entries = contestants(case, threads)
    least = {entry.name: list(time_once(entry, case)) for entry in entries}  # the first also warms up
    rounds, spent = dict.fromkeys(least, 1), dict.fromkeys(least, 0.0)
    begun, turn = time.perf_counter(), 0
    while turn < 3 or time.perf_counter() - begun < budget:
        for entry in entries:
            if turn >= 3 and spent[entry.name] > 2 * min(spent.values()):
                continue
            for _ in range(QUICK_PASSES if sum(least[entry.name]) < QUICK_SECONDS else 1):
                times = time_once(entry, case)
                least[entry.name] = [min(a, b) for a, b in zip(least[entry.name], times, strict=True)]
                spent[entry.name] += sum(times)
                rounds[entry.name] += 1
        turn += 1

    def ratio(to: str, name: str) -> float | None:
        return sum(least[to]) / sum(least[name]) if to in least else None

    return [
        Row(
            case.size, case.splats, case.views, name, rounds[name], ahead * 1e3, back * 1e3,
            ahead * 1e9 / case.pairs, back * 1e9 / case.pairs, ratio("torch", name),
            ratio(name.split(" x")[0], name) if " x" in name else None, ratio("gsplat", name),
        )
        for name, (ahead, back) in least.items()
    ]  # fmt: skip


def machine() -> dict[str, object]:
    """What the numbers depend on. The load average says whether the machine was quiet."""
    info = Path("/proc/cpuinfo")
    models = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "kernels": backend_info().cpu,
        "load": os.getloadavg()[0],
    }


def show(row: Row) -> str:
    """One line of the table."""
    ratios = [row.over_torch, row.over_one_thread, row.over_gsplat]
    return (
        f"{row.size:4} {row.splats:7} {row.views:5} {row.contestant:>10} {row.forward_ms:9.3f} {row.backward_ms:9.3f} "
        f"{row.forward_ns_per_pair:8.3f} {row.backward_ns_per_pair:8.3f} "
        + " ".join(f"{'' if r is None else f'{r:.2f}':>8}" for r in ratios)
    )


def main() -> None:
    """Print the table, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", choices=["quick", "all"], default="quick")
    parser.add_argument("--seconds", type=float, default=4.0, help="spent on each case")
    parser.add_argument("--threads", default="1,2", help="thread counts for the best CPU kernels")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    args = parser.parse_args()
    if backend_info().cpu == "reference":
        parser.exit(1, f"nothing to compare: {backend_info().reason}\n")
    threads = [int(count) for count in args.threads.split(",")]
    about = machine()
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    print(f"{'px':>4} {'splats':>7} {'views':>5} {'contestant':>10} {'fwd ms':>9} {'bwd ms':>9} ", end="")
    print(f"{'fwd':>8} {'bwd':>8} {'x torch':>8} {'x 1 thr':>8} {'x gsplat':>8}   (fwd, bwd: ns/pair)")
    rows = []
    for size, splats, views in QUICK if args.cases == "quick" else ALL:
        for row in run_case(Case(size, splats, views), threads, args.seconds):
            rows.append(row)
            print(show(row), flush=True)
    torch.ops.sds3d.limit_instruction_set(len(INSTRUCTION_SETS))
    if args.json:
        args.json.write_text(json.dumps({**about, "rows": [asdict(row) for row in rows]}, indent=2) + "\n")


if __name__ == "__main__":
    main()
