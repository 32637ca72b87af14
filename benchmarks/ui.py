"""What the web page costs: `python benchmarks/ui.py`; what it leaves behind: `python benchmarks/ui.py --soak 30`.

Without --soak: seconds from the command to the first page; seconds between preview pictures as Chromium shows them; and
wall time a step of the same run by the command line, by the server with nobody looking, with a page open on another
machine (something that asks for what the page asks for and draws nothing), and with a page open in a Chromium that
draws on the same cores, in turn. With --history 500: milliseconds for a poll of the page with so many runs. With
--soak: short runs one after the other for so many minutes, with the memory of server and worker, their open files, and
the temporary files, a line a minute.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sds3d.run.events import StepDone
from sds3d.run.folder import RunFolder
from tests.app.ui.browser import FLAGS, SPLATS, Server, Visitor, find_chromium

EXPORT = {"scene": "gaussians", "export.resolution": 32, "export.faces": 2000, "export.texture_size": 128}
# Milliseconds at which the live view shows another preview.
NOTE_PICTURES = """() => {
  window.pictures = [];
  let last = "";
  const look = () => {
    const image = document.querySelector('#live img[src*="/preview/"]');
    if (image && image.src !== last) { last = image.src; window.pictures.push(performance.now()); }
  };
  new MutationObserver(look).observe(document.querySelector("#live"), { childList: true, subtree: true });
}"""
WAYS = {"server, nobody looks": "closes", "server, page elsewhere": "follows", "server, page here": "draws"}
KEEP_PAGE = 10  # runs of the soak that one page sees


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--history", type=int, metavar="RUNS")
    parser.add_argument("--soak", type=float, metavar="MINUTES")
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} CPU cores, load before: {os.getloadavg()[0]:.2f}")
    if arguments.history is not None:
        for number in (5, arguments.history):
            with tempfile.TemporaryDirectory(prefix="sds3d-ui-bench-") as folder:
                print(f"{number} ended runs: {1000 * poll(Path(folder), number):.2f} ms a poll")
        return
    with tempfile.TemporaryDirectory(prefix="sds3d-ui-bench-") as folder, browsing() as browser:
        if arguments.soak is not None:
            soak(browser, Path(folder), arguments.soak)
        else:
            cost(browser, Path(folder), arguments.steps, arguments.rounds)


@contextmanager
def browsing() -> Iterator[Any]:
    chromium = find_chromium()
    if chromium is None:
        raise SystemExit("no Chromium: install one, or name it with SDS3D_CHROMIUM")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


def cost(browser: Any, folder: Path, steps: int, rounds: int) -> None:
    """The three ways to make one run, in turn, so that what else the machine does meets all of them."""
    begun = time.perf_counter()
    server = Server(folder / "ui")
    print(f"first page after {time.perf_counter() - begun:.1f} s")
    found: dict[str, list[float]] = {"command line": [], **{way: [] for way in WAYS}}
    try:
        warm = Visitor(browser, server)  # the worker loads the prior once
        warm.generate("a red ball", SPLATS)
        warm.until("done")
        warm.close()
        for seed in range(rounds):
            options = {"steps": steps, "seed": seed, **EXPORT}
            found["command line"].append(by_command_line(folder / f"cli-{seed}", options))
            for way, look in WAYS.items():
                found[way].append(by_server(browser, server, options, look))
    finally:
        server.end()
    base = statistics.median(found["command line"])
    print(f"{steps} steps, median of {rounds}:")
    for way, seconds in found.items():
        each = " ".join(f"{1000 * one:.1f}" for one in seconds)
        median = statistics.median(seconds)
        print(f"  {way:22} {1000 * median:6.1f} ms a step, {median / base:.3f} of the command line's   ({each})")


def poll(folder: Path, number: int) -> float:
    """Median seconds of a page's look at everything, half of it jobs and half runs of the command line."""
    from sds3d.config import resolve
    from sds3d.jobs.processes import WorkerId
    from sds3d.run.events import Finished
    from sds3d_app.ui.export_files import FileMaker
    from sds3d_app.ui.page import refresh
    from sds3d_app.ui.run_index import RunIndex

    index, maker = RunIndex(folder, limit=10**6), FileMaker()
    configs = [resolve({"prompt": "a red mug", "seed": seed}) for seed in range(number)]
    index.queue.add_many(configs[: number // 2])
    while (job := index.queue.claim(WorkerId.here())) is not None:
        index.queue.finish(job, "stopped")
    for config in configs[number // 2 :]:
        run = RunFolder(folder / f"mug-{config.seed}")
        run.path.mkdir()
        run.write_config(config)
        run.append(Finished({"steps": config.steps}))
    shown, times = refresh(index, maker, "", {}, "")[0], []
    time.sleep(1.1)  # until the time of the folder tells
    for _ in range(50):
        begun = time.perf_counter()
        shown = refresh(index, maker, "", shown, "")[0]
        times.append(time.perf_counter() - begun)
    maker.close()
    return statistics.median(times)


def by_command_line(out: Path, options: dict[str, object]) -> float:
    settings = [f"{key}={value}" for key, value in options.items()]
    command = [sys.executable, "-m", "sds3d_app", "generate", "a red mug", *settings, "--out", str(out), "--quiet"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(os.cpu_count())}  # as the server's worker has
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    return seconds_a_step(RunFolder(out))


def by_server(browser: Any, server: Server, options: dict[str, object], look: str) -> float:
    """Through the page, which is closed as soon as the run is queued unless it draws. The run is removed at the end."""
    visitor = Visitor(browser, server)
    name = visitor.generate("a red mug", base={}, **options)
    visitor.page.evaluate(NOTE_PICTURES) if look == "draws" else visitor.close()
    if look == "follows":
        threading.Thread(target=follow_as_the_page, args=(server, name), daemon=True).start()
    while server.queue.job(name).state != "done":  # the browser is left alone: to be asked costs it time, too
        time.sleep(0.7)
    if look == "draws":
        waits = [(later - earlier) / 1000 for earlier, later in pairwise(visitor.page.evaluate("window.pictures"))]
        print(f"  a new picture every {statistics.mean(waits):.1f} s, at most {max(waits):.1f} s")
        visitor.close()
    found = seconds_a_step(RunFolder(server.folder(name)))
    server.queue.delete(server.queue.job(name))
    return found


def follow_as_the_page(server: Server, name: str) -> None:
    """The run's stream to its end, with every picture that it names."""
    with urllib.request.urlopen(f"{server.address}events/{name}", timeout=60) as stream:
        last = ""
        for line in stream:
            preview = json.loads(line[6:])["preview"] if line.startswith(b"data: ") else last
            if preview != last:
                urllib.request.urlopen(server.address + preview, timeout=30).close()
            last = preview


def seconds_a_step(run: RunFolder) -> float:
    """Wall time from the first to the last step that the log has: what a person waits, pictures included."""
    steps = [(when, event.step) for when, event in run.reader().read() if isinstance(event, StepDone)]
    return (steps[-1][0] - steps[0][0]) / (steps[-1][1] - steps[0][1])


def soak(browser: Any, folder: Path, minutes: float) -> None:
    """Short runs until the time is over."""
    temporary = folder / "tmp"
    temporary.mkdir()
    os.environ.update(TMPDIR=str(temporary), GRADIO_TEMP_DIR=str(temporary / "gradio"))
    server = Server(folder / "ui", "--queue", "8")
    end, shown, runs, rows = time.monotonic() + 60 * minutes, 0.0, 0, list[tuple[int, ...]]()
    print("minute  runs  server MB  worker MB  server files  worker files  temporary files  temporary MB")
    try:
        while time.monotonic() < end:
            visitor = Visitor(browser, server)
            for _ in range(KEEP_PAGE):
                visitor.generate("a red mug", SPLATS, seed=runs, steps=20)
                visitor.until("done")
                runs += 1
                if time.monotonic() - shown >= 60 or time.monotonic() >= end:
                    shown = time.monotonic()
                    rows.append(sample(server.process.pid, temporary))
                    minute = minutes - (end - shown) / 60
                    print(f"{minute:6.1f} {runs:5}" + "".join(f"{value:12}" for value in rows[-1]), flush=True)
                if time.monotonic() >= end:
                    break
            visitor.close()
    finally:
        server.end()
    half = max(1, len(rows) // 2)
    early, late = (
        [statistics.median(column) for column in zip(*part, strict=True)] for part in (rows[:half], rows[-half:])
    )
    print("median of the first half:", early, "of the second:", late)


def sample(server: int, temporary: Path) -> tuple[int, ...]:
    """Memory in MB and open files of the server and of its worker, and number and MB of the temporary files."""
    tasks = Path(f"/proc/{server}/task").glob("*/children")  # a thread begins the worker
    children = [int(pid) for task in tasks for pid in task.read_text().split()]
    (worker,) = (pid for pid in children if b"workers.process" in Path(f"/proc/{pid}/cmdline").read_bytes())
    files = [path for path in temporary.rglob("*") if path.is_file()]
    memory = [_resident(pid) for pid in (server, worker)]
    opened = [len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in (server, worker)]
    return (*memory, *opened, len(files), sum(path.stat().st_size for path in files) >> 20)


def _resident(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) >> 10 for line in lines if line.startswith("VmRSS:"))


if __name__ == "__main__":
    main()
