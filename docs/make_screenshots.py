"""docs/ui.png and, with --all DIR, the page in every state at two widths: `python docs/make_screenshots.py`.

Starts its own server with the prior that ships, makes runs on it, and photographs them with Chromium (the one that
SDS3D_CHROMIUM names; by default /usr/bin/chromium).
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

FLAGS = [
    "--no-sandbox", "--headless=new", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
]  # fmt: skip
WIDTHS = {"desktop": (1440, 900), "phone": (390, 844)}
QUICK = "scene=gaussians\nsteps=40\ncameras.views=1\nscene.count=500\n"
QUICK += "export.resolution=32\nexport.faces=2000\nexport.texture_size=128"
PICTURE = Path(__file__).parent / "ui.png"
LONGEST = 900.0  # seconds for a run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--all", type=Path, metavar="DIR", help="every state at both widths as well")
    parser.add_argument("--steps", type=int, default=400, help="of the run that is shown")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sds3d-shots-") as folder, sync_playwright() as playwright:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [sys.executable, "-m", "sds3d_app", "ui", "--out", folder, "--port", str(port)]
        server = subprocess.Popen(command)
        try:
            address = f"http://127.0.0.1:{port}/"
            wait_for(address)
            chromium = os.environ.get("SDS3D_CHROMIUM", "/usr/bin/chromium")
            browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
            take(browser, address, arguments.all, arguments.steps)
        finally:
            server.send_signal(signal.SIGINT)
            server.wait()


def wait_for(address: str) -> None:
    for _ in range(240):
        try:
            urllib.request.urlopen(address, timeout=2)
            return
        except OSError:
            time.sleep(0.5)
    raise SystemExit(f"no answer from {address}")


def take(browser: Any, address: str, folder: Path | None, steps: int) -> None:
    """Makes the runs and the pictures."""
    page = browser.new_page(viewport=dict(zip(("width", "height"), WIDTHS["desktop"], strict=True)))
    page.goto(address)
    page.wait_for_selector("#go")
    shoot(browser, address, "empty", folder)
    generate(page, "a red dragon", "prior=nobody/has-this-model")
    until(page, "failed")
    shoot(browser, page.url, "failed", folder)
    for prompt in ("a red mug", "a yellow duck", "a striped green and white house"):
        generate(page, prompt, QUICK)
    shoot(browser, page.url, "queued", folder)
    until(page, "done")
    generate(page, "a blue car", f"steps={steps}")
    page.wait_for_selector('#live img[src*="/preview/"]', timeout=1000 * LONGEST)
    shoot(browser, page.url, "running", folder)
    until(page, "done")
    time.sleep(10)  # until the viewer has drawn
    page.screenshot(path=str(PICTURE), full_page=True)
    shoot(browser, page.url, "done", folder)


def generate(page: Page, prompt: str, options: str) -> None:
    page.fill("#prompt textarea", prompt)
    if not page.is_visible("#more textarea"):
        page.click("#advanced button >> nth=0")
    page.fill("#more textarea", options)
    page.click("#advanced button >> nth=0")
    before = page.url
    page.click("#go")
    page.wait_for_function("(before) => location.href !== before", arg=before, timeout=30_000)
    page.wait_for_selector(f'#live h3:has-text("{prompt}")', timeout=30_000)


def until(page: Page, state: str) -> None:
    page.wait_for_selector(f'#live [data-state="{state}"]', timeout=1000 * LONGEST)


def shoot(browser: Any, address: str, name: str, folder: Path | None) -> None:
    """The page at both widths, each in a browser of its own."""
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    for width, (across, down) in WIDTHS.items():
        page = browser.new_page(viewport={"width": across, "height": down})
        page.goto(address)
        page.wait_for_selector("#go")
        time.sleep(8 if name == "done" else 3)
        page.screenshot(path=str(folder / f"{name}-{width}.png"), full_page=True)
        page.close()


if __name__ == "__main__":
    main()
