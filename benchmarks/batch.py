"""What a batch saves: `python benchmarks/batch.py [--items 6] [--steps 60] [--ray]`.

The same prompts by one `sds3d generate` each (the prior is loaded every time), by `sds3d batch` with one worker (it is
loaded once), with two, and with --ray by two actors of a local Ray cluster; in turn, for some rounds. Prints seconds an
item and how many times as many items a minute come out as with one command each.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

COLORS = ("red", "blue", "green", "yellow", "pink", "orange", "white", "black")
EXPORT = ["scene=gaussians", "export.resolution=32", "export.faces=2000", "export.texture_size=128"]
SDS3D = [sys.executable, "-m", "sds3d_app"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=6)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--ray", action="store_true")
    arguments = parser.parse_args()
    prompts = [f"a {COLORS[index % len(COLORS)]} mug" for index in range(arguments.items)]
    options = [f"steps={arguments.steps}", *EXPORT]
    ways: dict[str, Callable[[Path], None]] = {
        "a command each": lambda folder: one_by_one(prompts, options, folder),
        "batch --jobs 1": lambda folder: batch(prompts, options, folder, "--jobs", "1"),
        "batch --jobs 2": lambda folder: batch(prompts, options, folder, "--jobs", "2"),
    }
    if arguments.ray:
        ways["batch --ray local --jobs 2"] = lambda folder: batch(
            prompts, options, folder, "--ray", "local", "--jobs", "2"
        )
    found: dict[str, list[float]] = {name: [] for name in ways}
    print(f"{os.cpu_count()} CPU cores, load before: {os.getloadavg()[0]:.2f}")
    with tempfile.TemporaryDirectory(prefix="sds3d-batch-bench-") as scratch:
        for turn in range(arguments.rounds):
            for number, (name, way) in enumerate(ways.items()):
                begun = time.perf_counter()
                way(Path(scratch) / f"{turn}-{number}")
                found[name].append((time.perf_counter() - begun) / arguments.items)
    base = statistics.median(found["a command each"])
    for name, seconds in found.items():
        each = " ".join(f"{one:.1f}" for one in seconds)
        middle = statistics.median(seconds)
        print(f"{name:28} {middle:6.1f} s an item, {base / middle:.2f}x ({each})")


def one_by_one(prompts: list[str], options: list[str], folder: Path) -> None:
    for index, prompt in enumerate(prompts):
        run([*SDS3D, "generate", prompt, *options, "--out", str(folder / str(index)), "--quiet"])


def batch(prompts: list[str], options: list[str], folder: Path, *more: str) -> None:
    folder.mkdir(parents=True)
    path = folder / "list.txt"
    path.write_text("\n".join(prompts) + "\n")
    settings = [text for option in options for text in ("--set", option)]
    run([*SDS3D, "batch", str(path), *settings, "--out", str(folder / "out"), "--json", *more])


def run(command: list[str]) -> None:
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)


if __name__ == "__main__":
    main()
