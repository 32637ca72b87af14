"""A real server with its worker, and a real Chromium, for test_browser.py."""

import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sds3d.jobs import Queue

FLAGS = [
    *("--no-sandbox", "--headless=new", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
    "--ignore-gpu-blocklist",
]
QUICK = {
    "steps": 40,
    "cameras.views": 1,
    "scene.count": 500,
    "checkpoint_every": 20,
    "export.resolution": 32,
    "export.faces": 2000,
    "export.color_size": 64,
    "export.texture_size": 128,
}
PATIENCE = 180.0  # seconds, for what takes ten on a quiet machine


def find_chromium() -> str | None:
    """The one that SDS3D_CHROMIUM names, else one of the system's."""
    named = os.environ.get("SDS3D_CHROMIUM")
    if named:
        return named if Path(named).is_file() else None
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next((found for name in names if (found := shutil.which(name))), None)


class Server:
    """`sds3d ui` as a process of its own."""

    def __init__(self, out: Path, *options: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.address, self.out = f"http://127.0.0.1:{self.port}/", out
        command = [sys.executable, "-m", "sds3d_app", "ui", "--out", str(out), "--port", str(self.port), *options]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}  # a model that nobody has is not looked for elsewhere
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        )
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                urllib.request.urlopen(self.address, timeout=5).close()
                return
            except OSError:
                assert self.process.poll() is None, self.process.communicate()[0]
                assert time.monotonic() < deadline, "the server does not answer"
                time.sleep(0.2)

    def end(self) -> str:
        """Ctrl-C; all that it has said."""
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.communicate(timeout=PATIENCE)[0]
        finally:
            self.process.kill()

    @property
    def queue(self) -> Queue:
        return Queue(self.out / "queue")

    def folder(self, name: str) -> Path:
        return self.queue.job(name).run.path


class Visitor:
    """One browser window, and what can be done in it. Notes every request that leaves the machine."""

    def __init__(self, browser: Any, server: Server, query: str = "", width: int = 1280) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 1000}, accept_downloads=True)
        self.page = self.context.new_page()
        self.elsewhere: list[str] = []
        self.asked: list[str] = []  # addresses of the server
        self.page.on("request", lambda request: self._note(request.url, server.address))
        self.page.set_default_timeout(1000 * PATIENCE)
        self.page.goto(server.address + query)
        self.page.wait_for_selector("#go")

    def _note(self, url: str, address: str) -> None:
        if url.startswith(address):
            self.asked.append(url.removeprefix(address))
        elif not url.startswith(("data:", "blob:")):
            self.elsewhere.append(url)

    def ask(self, prompt: str, base: Mapping[str, object] = QUICK, **options: object) -> None:
        """Fill in the form and press the button; `options` go over those of `base`."""
        self.page.fill("#prompt textarea", prompt)
        if not self.page.is_visible("#more textarea"):
            self.page.click("#advanced button >> nth=0")
        lines = {**base, **options}
        self.page.fill("#more textarea", "\n".join(f"{key}={value}" for key, value in lines.items()))
        self.page.click("#go")

    def generate(self, prompt: str, base: Mapping[str, object] = QUICK, **options: object) -> str:
        """As `ask`, for what is in order: the name of the run."""
        before = self.page.url
        self.ask(prompt, base, **options)
        self.page.wait_for_function("before => location.href !== before", arg=before)
        name = self.page.url.partition("?run=")[2]
        self.page.wait_for_selector(f'#live [data-run="{name}"]')
        return name

    def until(self, *states: str) -> str:
        """Wait until the chosen run is in one of these states; which."""
        self.page.wait_for_selector(", ".join(f'#live [data-state="{state}"]' for state in states))
        return str(self.page.get_attribute("#live [data-state]", "data-state"))

    def frames(self, count: int) -> list[tuple[float, str]]:
        """(when, address) of so many different preview pictures, as they come."""
        seen: list[tuple[float, str]] = []
        deadline = time.monotonic() + PATIENCE
        while len(seen) < count:
            assert time.monotonic() < deadline, f"only {len(seen)} pictures: {seen}"
            image = self.page.query_selector('#live img[src*="/preview/"]')
            address = image.get_attribute("src") if image else None
            if address and address not in [old for _, old in seen]:
                seen.append((time.monotonic(), address))
            self.page.wait_for_timeout(50)
        return seen

    def spread(self, selector: str) -> float:
        """Standard deviation of the pixels that an element shows, 0..255; waits until there is something to see."""
        canvas = self.page.wait_for_selector(selector)
        deadline = time.monotonic() + PATIENCE
        while True:
            pixels = np.asarray(Image.open(io.BytesIO(canvas.screenshot())).convert("RGB"), dtype=float)
            found = float(pixels[20:-20, 20:-20].std(axis=(0, 1)).max())
            if found > 5 or time.monotonic() > deadline:
                return found
            self.page.wait_for_timeout(500)

    def download(self, selector: str, path: Path) -> Path:
        """What a click on a link hands over."""
        with self.page.expect_download() as waiting:
            self.page.click(selector)
        waiting.value.save_as(path)
        return path

    def close(self) -> None:
        self.context.close()
        assert not self.elsewhere, self.elsewhere
