"""python benchmarks/busy_machine.py: how long the embedded prior takes when other programs work, too.

Milliseconds of one forward (eight images) on all cores, alone and beside two busy processes for each core: where
threads of OpenMP spin as they wait for each other (`OMP_WAIT_POLICY=active`), as libgomp does it by itself, and where
they sleep, as `sds3d` has it (passive). All are measured in turns, so that they meet the same machine.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

POLICIES = ("active", "libgomp", "passive")
TURNS, FORWARDS = 3, 12


def forwards() -> None:
    """Print the median milliseconds of a forward in this process."""
    import torch

    from sds3d.priors.embedded.prior import load_embedded

    prior = load_embedded()
    torch.manual_seed(0)
    x, t, words = torch.randn(4, 3, 64, 64), torch.full((4,), 0.5), prior.embed(["a red mug"]).expand(4, -1, -1)
    taken = []
    for _ in range(FORWARDS + 2):
        begin = time.perf_counter()
        prior.predict_noise(x, t, [words, words])
        taken.append(1000.0 * (time.perf_counter() - begin))
    print(statistics.median(taken[2:]))


@contextmanager
def others(count: int) -> Iterator[None]:
    """So many processes that never rest."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def measured(policy: str) -> float:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    if policy != "libgomp":
        environment["OMP_WAIT_POLICY"] = policy
    return float(subprocess.check_output([sys.executable, __file__, policy], env=environment))


def main() -> None:
    busy = 2 * (os.cpu_count() or 1)
    taken: dict[tuple[str, int], list[float]] = {}
    for _ in range(TURNS):
        for count in (0, busy):
            for policy in POLICIES:
                with others(count):
                    taken.setdefault((policy, count), []).append(measured(policy))
    print(f"{os.cpu_count()} cores; milliseconds of a forward (median of {TURNS} turns; ratio to passive)")
    print(f"{'':10}{'alone':>13}{f'{busy} others':>13}")
    medians = {key: statistics.median(values) for key, values in taken.items()}
    for policy in POLICIES:
        columns = (f"{medians[policy, n]:6.0f} ({medians[policy, n] / medians['passive', n]:4.2f})" for n in (0, busy))
        print(f"{policy:10}" + "".join(columns))


if __name__ == "__main__":
    forwards() if sys.argv[1:] else main()
