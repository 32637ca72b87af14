"""What programs that watch a run cost it: `python benchmarks/api.py --clients 100`.

The same run by one server, alone and watched, in turn: wall time a step, and CPU seconds of the server a second. Each
client follows the events and asks for the state of the job every five seconds; all live in one process of their own,
which reads and counts and does nothing else, but on the same cores.
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sds3d.client import Client
from sds3d.run.events import StepDone
from sds3d.run.folder import RunFolder
from tests.app.ui.browser import Server

ASK_EVERY = 5.0  # seconds
OPTIONS = {
    "scene": "gaussians", "export.resolution": 32, "export.faces": 2000, "export.texture_size": 128,
}  # fmt: skip
TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--watch", nargs=2, metavar=("PORT", "JOB"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.watch:
        asyncio.run(watch(int(arguments.watch[0]), arguments.watch[1], arguments.clients))
        return
    print(f"{os.cpu_count()} CPU cores, load before: {os.getloadavg()[0]:.2f}")
    with tempfile.TemporaryDirectory(prefix="sds3d-api-bench-") as folder:
        server = Server(Path(folder) / "outputs")
        try:
            Client(server.address).generate("a red ball", **OPTIONS, steps=20).wait()  # the worker loads the prior
            found: dict[int, list[float]] = {0: [], arguments.clients: []}
            for seed in range(arguments.rounds):
                for clients, seconds in found.items():
                    seconds.append(one_run(server, clients, arguments.steps, seed))
        finally:
            server.end()
    alone, watched = (statistics.median(seconds) for seconds in found.values())
    print(f"median of {arguments.rounds}: {1000 * alone:.1f} ms a step alone, {1000 * watched:.1f} ms watched by")
    print(f"{arguments.clients} clients: {watched / alone:.3f} of it")


def one_run(server: Server, clients: int, steps: int, seed: int) -> float:
    """Wall time a step."""
    job = Client(server.address).generate("a red mug", **OPTIONS, steps=steps, seed=seed)
    watchers = None
    if clients:
        command = [sys.executable, __file__, "--clients", str(clients), "--watch", str(server.port), job.name]
        watchers = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    before, begun = cpu_seconds(server.process.pid), time.monotonic()
    while server.queue.job(job.name).state != "done":
        time.sleep(0.5)
    used = (cpu_seconds(server.process.pid) - before) / (time.monotonic() - begun)
    log = RunFolder(server.folder(job.name)).reader().read()
    said = ""
    if watchers is not None:
        counts = [int(count) for count in watchers.communicate()[0].split()]
        said = f"; each saw {min(counts)} to {max(counts)} events of {len(log) + 1}"
    points = [(when, event.step) for when, event in log if isinstance(event, StepDone)]
    each = (points[-1][0] - points[0][0]) / (points[-1][1] - points[0][1])
    print(f"  {clients:4} clients: {1000 * each:6.1f} ms a step; the server used {100 * used:.1f}% of a core{said}")
    job.delete()
    return each


def cpu_seconds(process: int) -> float:
    """User and system time, without that of its worker."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


async def watch(port: int, job: str, clients: int) -> None:
    """Prints how many events each client saw."""
    over = asyncio.Event()
    asking = [asyncio.create_task(ask(port, job, over, ASK_EVERY * number / clients)) for number in range(clients)]
    print(*await asyncio.gather(*(follow(port, job) for _ in range(clients))))
    over.set()
    await asyncio.gather(*asking)


async def follow(port: int, job: str) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET /api/v1/jobs/{job}/events HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
    count = 0
    while line := await reader.readline():
        count += line.startswith(b"event: ")
    writer.close()
    return count


async def ask(port: int, job: str, over: asyncio.Event, wait: float) -> None:
    while not over.is_set():
        try:
            await asyncio.wait_for(over.wait(), wait)
        except asyncio.TimeoutError:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"GET /api/v1/jobs/{job} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
            await reader.read()
            writer.close()
        wait = ASK_EVERY


if __name__ == "__main__":
    main()
