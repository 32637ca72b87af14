"""Times the pictures that the embedded prior is trained on: `python benchmarks/procedural_world.py [--seconds 5]`.

Contestants: the compiled renderer with AVX2 and without, and its reference in torch, on the same random objects in the
same run, each from one random side with 3 x 3 rays a pixel; and what the objects themselves take, which are made in
Python. One thread, the process's own time (on a busy machine the clock would measure the others). The last column is
the time over that of the best kernels. "all" is `make_batch`: objects and pictures as a training step draws them.
"""

import argparse
import time
from collections.abc import Callable
from random import Random

import torch

from sds3d.ops.extension import INSTRUCTION_SETS, backend_info
from sds3d.priors.embedded.captions import build, random_description
from sds3d.priors.embedded.data import SAMPLES, angle_cameras, make_batch
from sds3d.priors.embedded.render import draw, draw_reference

OBJECTS, SLOW_OBJECTS = 48, 4  # a batch; of the reference fewer


def per_image(work: Callable[[int], object], images: int, seconds: float) -> float:
    """Milliseconds an image, the least of several rounds of a different batch each."""
    begun, best, turn = time.monotonic(), float("inf"), 0
    while time.monotonic() - begun < seconds or turn < 2:
        mark = time.process_time()
        work(turn)
        best, turn = min(best, time.process_time() - mark), turn + 1
    return 1e3 * best / images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="for each contestant")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    objects = [build(random_description(Random(seed)), Random(seed)) for seed in range(OBJECTS)]
    angles = torch.rand(OBJECTS, 3, generator=torch.Generator().manual_seed(0))
    angles = torch.stack([6.28 * angles[:, 0], angles[:, 1], 2.8 + 0.4 * angles[:, 2]], dim=1)
    print(f"{sum(map(len, objects)) / OBJECTS:.1f} solids an object; kernels: {backend_info().cpu}")
    print("| pixels | contestant | ms an image | images/s a core | ratio |\n| --- | --- | --- | --- | --- |")
    for size in (64, 128):
        rows = {}
        for level in range(len(INSTRUCTION_SETS)):
            if torch.ops.sds3d.limit_instruction_set(level) == level and INSTRUCTION_SETS[level] != "avx512":
                cameras = angle_cameras(angles, size)
                name = f"kernel, {INSTRUCTION_SETS[level]}"
                rows[name] = per_image(lambda _: draw(objects, cameras, SAMPLES), OBJECTS, arguments.seconds)  # noqa: B023
        torch.ops.sds3d.limit_instruction_set(len(INSTRUCTION_SETS))
        best = min(rows.values())
        few, seen = objects[:SLOW_OBJECTS], angle_cameras(angles[:SLOW_OBJECTS], size)
        rows["torch"] = per_image(lambda _: draw_reference(few, seen, SAMPLES), SLOW_OBJECTS, arguments.seconds)  # noqa: B023
        rows["all"] = per_image(
            lambda turn: make_batch(0, turn * OBJECTS, OBJECTS, size=size),  # noqa: B023
            OBJECTS,
            arguments.seconds,
        )
        for name, took in rows.items():
            print(f"| {size} | {name} | {took:.3f} | {1e3 / took:.0f} | {took / best:.2f} |")


if __name__ == "__main__":
    main()
