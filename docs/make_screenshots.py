"""docs/ui.png and, with --all DIR, the page in every state and size, light and dark: `python docs/make_screenshots.py`.

Starts its own server with the prior that ships, makes runs on it, and photographs them with Chromium (the one that
SDS3D_CHROMIUM names; by default /usr/bin/chromium).
"""

import argparse
import io
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

from PIL import Image
from playwright.sync_api import Page, sync_playwright

FLAGS = [
    "--no-sandbox", "--headless=new", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
]  # fmt: skip
SIZES = {"desktop": (1440, 900), "phone": (390, 844)}
PICTURE, COLORS = Path(__file__).parent / "ui.png", 256
LONGEST = 300.0  # seconds for a run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--all", type=Path, metavar="DIR", help="every state at both sizes in both themes as well")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sds3d-shots-") as folder, sync_playwright() as playwright:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [sys.executable, "-m", "sds3d_app", "ui", "--out", folder, "--port", str(port)]
        server = subprocess.Popen(command, env={**os.environ, "HF_HUB_OFFLINE": "1"})
        try:
            address = f"http://127.0.0.1:{port}/"
            wait_for(address)
            chromium = os.environ.get("SDS3D_CHROMIUM", "/usr/bin/chromium")
            browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
            take(browser, address, arguments.all)
            browser.close()
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


def take(browser: Any, address: str, folder: Path | None) -> None:
    """Makes the runs and the pictures."""
    page = open_page(browser, address, "desktop", "light")
    shoot(browser, address, "empty", folder)
    if folder is not None:
        generate(page, "a red mug", "prior=nobody/has-this-model")
        until(page, "failed")
        shoot(browser, page.url, "failed", folder)
    for prompt in ("a yellow duck", "a green cactus", "a red cone on a blue cube"):
        generate(page, prompt, "")
    shoot(browser, page.url, "queued", folder)
    until(page, "running")
    page.wait_for_function("document.querySelector('#stage canvas').dataset.step > 50", timeout=1000 * LONGEST)
    shoot(browser, page.url, "running", folder)
    until(page, "done")
    generate(page, "a blue car", "")
    until(page, "done")
    page.wait_for_selector('#stage canvas[data-kind="mesh"][data-step=""]', timeout=1000 * LONGEST)
    turn(page)
    shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    shot.quantize(COLORS, dither=Image.Dither.NONE).save(PICTURE, optimize=True)
    shoot(browser, page.url, "done", folder)


def open_page(browser: Any, address: str, size: str, theme: str) -> Page:
    """A tab that shows something."""
    width, height = SIZES[size]
    looks = {"color_scheme": theme, "reduced_motion": "reduce", "has_touch": size == "phone"}
    page = browser.new_page(viewport={"width": width, "height": height}, **looks)
    page.set_default_timeout(1000 * LONGEST)
    page.goto(address)
    run = address.partition("?run=")[2]
    page.wait_for_selector(f'#live [data-run="{run}"]' if run else '#stage canvas[data-kind="mesh"]')
    page.wait_for_selector("#strip .card, #strip .none")
    if run and page.locator('#live [data-state="queued"], #live [data-state="failed"]').count() == 0:
        page.wait_for_selector('#stage canvas[data-kind="splats"], #stage canvas[data-kind="mesh"]')
    page.wait_for_timeout(500)  # pictures of the cards
    return page


def generate(page: Page, prompt: str, options: str) -> None:
    """Ask for a run and wait until it is shown."""
    page.fill("#prompt textarea", prompt)
    page.click("#options-button button")
    page.fill("#more textarea", options)
    page.click("#options-button button")
    before = page.url
    page.click("#go")
    page.wait_for_function("(before) => location.href !== before", arg=before)
    page.wait_for_selector(f'#live h3:has-text("{prompt}")')


def until(page: Page, state: str) -> None:
    page.wait_for_selector(f'#live [data-state="{state}"]')


def turn(page: Page) -> None:
    """Drag the object a little, so that it shows more than its front."""
    box = page.locator("#stage canvas").bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 55, y + 20, steps=3)
    page.mouse.up()
    page.mouse.move(0, 0)
    page.wait_for_function("Number(document.querySelector('#stage canvas').dataset.yaw) > 0.5")


def shoot(browser: Any, address: str, name: str, folder: Path | None) -> None:
    """The page at both sizes in both themes, each in a browser of its own."""
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    for size in SIZES:
        for theme in ("light", "dark"):
            page = open_page(browser, address, size, theme)
            page.screenshot(path=str(folder / f"{name}-{size}-{theme}.png"))
            page.close()


if __name__ == "__main__":
    main()
