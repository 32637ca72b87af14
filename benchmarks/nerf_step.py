"""What a step of the radiance field costs on this machine: ops, time by part beside the prior, and memory by chunk.

    python benchmarks/nerf_step.py [--prompt "a red mug"] [--steps 800] [--threads N]

The first table is volume.py's: hash encoding, marching and compositing against their pure-torch references. The second
is a real run of the default preset: its parts' mean milliseconds and the share of a step that is not the prior's
network; a shorter run has more of it, because at first all space is fog. The third is the peak of one 128 x 128,
batch-4 step (render and backward pass, no prior) over what the process held before, each chunk in its own process.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import torch
import volume  # beside this file

from sds3d import load_config
from sds3d.cameras import orbit
from sds3d.ops.extension import backend_info
from sds3d.scenes.base import RenderContext
from sds3d.scenes.nerf import NerfConfig
from sds3d.training.trainer import Trainer

CHUNKS = (4096, 8192, 16_384, 32_768, 65_536)


def share(prompt: str, steps: int) -> None:
    """Print the time by part."""
    config = load_config(overrides={"prompt": prompt, "scene": "nerf", "steps": steps})
    generator = torch.Generator().manual_seed(0)
    scene, prior = config.scene.build(generator), config.prior.build("cpu")
    run = Trainer(config, scene, prior, generator, torch.device("cpu"))
    begun = time.perf_counter()
    for _ in run.run():
        pass
    total = time.perf_counter() - begun
    for part, seconds in {**run.seconds, "whole step": total}.items():
        print(f"{part:12}{1000 * seconds / steps:8.1f} ms")
    print(f"outside the prior's network: {100 * (1 - run.seconds['prior'] / total):.0f}% of a step")


def peak_of_one_step(chunk: int) -> int:
    """Bytes that one step of render and backward pass adds to this process, at the start of a run: the fullest grid."""
    scene = NerfConfig(chunk=chunk).build(torch.Generator().manual_seed(0))
    context = RenderContext(0.0, (), torch.Generator().manual_seed(0))

    def step(size: int) -> None:
        scene.render(orbit(4, size=size), torch.ones(4, 3), context).rgb.square().sum().backward()

    step(8)  # what is loaded once
    before = peak_kilobytes()
    step(128)
    return 1024 * (peak_kilobytes() - before)


def peak_kilobytes() -> int:
    """Of this program; getrusage's also counts what the process was before it became this program."""
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompt", default="a red mug")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--chunk", type=int, help=argparse.SUPPRESS)  # one row of the second table, in its own process
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.chunk:
        print(peak_of_one_step(arguments.chunk))
        return
    print(f"torch {torch.__version__}, {arguments.threads} thread(s), kernels: {backend_info().cpu}")
    volume.run(seconds=3.0)
    print()
    share(arguments.prompt, arguments.steps)
    print(f"\n{'chunk (rays)':>12}{'peak of a 128 x 128, batch-4 step':>36}")
    for chunk in CHUNKS:
        command = [sys.executable, __file__, "--threads", str(arguments.threads), "--chunk", str(chunk)]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        print(f"{chunk:12,}{int(printed) / 2**20:31.0f} MiB", flush=True)


if __name__ == "__main__":
    main()
