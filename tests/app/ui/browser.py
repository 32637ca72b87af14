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
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from sds3d.jobs import Queue

FLAGS = [
    *("--no-sandbox", "--headless=new", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
    *("--ignore-gpu-blocklist", "--disable-dev-shm-usage", "--disable-gpu-watchdog"),
]
# A run of the prior that knows balls only, on a flat picture: what it takes is the page's and the worker's time.
QUICK = {"prior": "analytic", "scene": "image", "steps": 40, "cameras.views": 1, "checkpoint_every": 500}
# A run with splats, a video and a mesh; the form's prior, so the one that ships unless another is named.
SPLATS = {
    "scene": "gaussians",
    "steps": 40,
    "cameras.views": 1,
    "scene.count": 300,
    "checkpoint_every": 20,
    "export.resolution": 16,
    "export.faces": 2000,
    "export.color_size": 32,
    "export.texture_size": 64,
}
# A mesh under a light that its colours do not have.
MESH = {
    "prior": "analytic",
    "scene": "mesh",
    "scene.light": '{"direction": [1, 0, 1], "ambient": 0.6, "diffuse": 0.4}',
    "scene.finish": 0,
    "cameras.views": 1,
    "checkpoint_every": 500,
    "export.faces": 2000,
    "export.texture_size": 64,
}
ENDLESS = 1_000_000  # steps: until somebody stops it
OVER_STAGE = ".modes, .head, .foot, #orders, #downloads"
PATIENCE = 200.0  # seconds, for what takes ten on a quiet machine; what cannot come any more is not waited for
ENDED = ("done", "stopped", "failed")

# As Core Web Vitals has it: shifts that no input explains.
NOTE_SHIFTS = """
window.shifts = 0;
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shifts += entry.value;
}).observe({type: "layout-shift", buffered: true});
"""
NOTE_BOXES = """(selectors) => {
  window.boxes = Object.fromEntries(selectors.map((selector) => [selector, []]));
  const look = () => {
    for (const selector of selectors) {
      const { x, y, width, height } = document.querySelector(selector).getBoundingClientRect();
      const box = [x, y, width, height].map((side) => side.toFixed(1)).join(" ");
      if (!window.boxes[selector].includes(box)) window.boxes[selector].push(box);
    }
    requestAnimationFrame(look);
  };
  look();
}"""
# Texts whose contrast with what is behind them is below 4.5 (WCAG 2.2, 1.4.3; all here are smaller than large text).
FAINT_TEXTS = """() => {
  const parse = (text) => { const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number); return {rgb: [r, g, b], a}; };
  const linear = (value) => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const luminance = ({rgb: [r, g, b]}) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const over = (top, below) => ({rgb: top.rgb.map((value, i) => top.a * value + (1 - top.a) * below.rgb[i]), a: 1});
  function behind(element) {
    if (!element) return {rgb: [255, 255, 255], a: 1};
    const color = parse(getComputedStyle(element).backgroundColor);
    return color.a === 1 ? color : over(color, behind(element.parentElement));
  }
  const faint = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    const isSeen = element.checkVisibility({opacityProperty: true, visibilityProperty: true});
    if (!isSeen || !node.textContent.trim() || element.closest("script, style, .sr-only")) continue;
    const below = behind(element), color = over(parse(getComputedStyle(element).color), below);
    const [high, low] = [luminance(color), luminance(below)].sort((a, b) => b - a);
    const contrast = (high + 0.05) / (low + 0.05);
    if (contrast < 4.5) faint.push(`${contrast.toFixed(2)} ${node.textContent.trim().slice(0, 40)}`);
  }
  return faint;
}"""
# Words of what is smaller than a fingertip.
SMALL_BUTTONS = """[...document.querySelectorAll('button, summary, #quality label')]
  .filter((one) => one.checkVisibility())
  .map((one) => [one.textContent, one.getBoundingClientRect()])
  .filter(([, {width, height}]) => Math.min(width, height) < 43.5).map(([text]) => text)"""

Result = TypeVar("Result")


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

    def end(self, by: signal.Signals = signal.SIGINT) -> str:
        """Ctrl-C, or another signal; all that it has said."""
        self.process.send_signal(by)
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
    """One tab, and what can be done in it. Notes every request that leaves the machine."""

    def __init__(self, browser: Any, server: Server, query: str = "") -> None:
        """In a window of its own if `browser` is one; in a context, beside the tabs that it has."""
        self.page = browser.new_page()
        self.page.emulate_media(reduced_motion="reduce")
        self.server, self.name = server, query.removeprefix("?run=")
        self.elsewhere: list[str] = []
        self.asked: list[str] = []  # addresses of the server
        self.console: list[str] = []  # what the page's programs print, and their errors
        self.page.on("console", lambda message: self.console.append(message.text))
        self.page.on("pageerror", lambda error: self.console.append(str(error)))
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
            self.page.click("#options-button button")
        lines = {**base, **options}
        self.page.fill("#more textarea", "\n".join(f"{key}={value}" for key, value in lines.items()))
        self.page.click("#go")

    def generate(self, prompt: str, base: Mapping[str, object] = QUICK, **options: object) -> str:
        """As `ask`, for what is in order: the name of the run."""
        self.ask(prompt, base, **options)
        return self.follow_new()

    def follow_new(self) -> str:
        """Wait until another run than before is shown; its name."""
        before = self.name

        def look() -> str | None:
            problem = self.page.query_selector("#say .problem")
            assert problem is None or not problem.is_visible(), problem.inner_text()
            live = self.page.query_selector("#live [data-run]")
            name = live.get_attribute("data-run") if live else ""
            return name if name and name != before and self.page.url.endswith(f"?run={name}") else None

        self.name = self._wait(look, "no new run is shown")
        return self.name

    def choose(self, name: str) -> None:
        """Show another run, by its address."""
        self.name = name
        self.page.goto(f"{self.server.address}?run={name}")
        self.wait(f'#live [data-run="{name}"]')

    def click_card(self, name: str) -> None:
        """Show another run, by its card."""
        self.name = name
        self.page.click(f'#strip .card a[data-run="{name}"]')
        self.wait(f'#live [data-run="{name}"]')

    def press_while_it_is_made_anew(self, selector: str) -> None:
        """A click, but with a new value of what it is in between the press and the release."""
        self.page.hover(selector)
        self.page.mouse.down()
        self.page.evaluate(
            "(selector) => { const one = document.querySelector(selector); one.outerHTML = one.outerHTML; }", selector
        )
        self.page.mouse.up()

    def open_details(self, tab: str) -> None:
        """Unfold what is below, and one of its tabs."""
        if not self.page.is_visible("#details-box [role=tab]"):
            self.page.click("#details-box button.label-wrap")
        self.page.get_by_role("tab", name=tab).click()

    def until(self, *states: str) -> str:
        """Wait until the page shows the chosen run in one of these states; which. It has failed if the run ends in
        another one."""
        wanted = dict.fromkeys((*states, *ENDED))
        found = self.wait(", ".join(f'#live [data-run="{self.name}"][data-state="{state}"]' for state in wanted))
        state = str(found.get_attribute("data-state"))
        assert state in states, found.inner_text()
        return state

    def wait(self, selector: str) -> Any:
        """The element, once it is to be seen. Fails at once where the server has ended."""

        def look() -> Any:
            element = self.page.query_selector(selector)
            return element if element is not None and element.is_visible() else None

        return self._wait(look, f"not to be seen: {selector}")

    def _wait(self, look: Callable[[], Result | None], problem: str, patience: float = PATIENCE) -> Result:
        """What `look` finds, in time."""
        deadline = time.monotonic() + patience
        while (found := look()) is None:
            code = self.server.process.poll()
            assert code is None, f"the server has ended with {code}"
            assert time.monotonic() < deadline, f"{problem}; {self._state()}"
            self.page.wait_for_timeout(50)
        return found

    def _state(self) -> str:
        """What tells why something does not come."""
        tabs = self.page.locator("[role=tab][aria-selected=true]").all_inner_texts()
        parts = {
            "page": self.page.inner_text("#live"),
            "tabs": tabs,
            "asked": self.asked[-12:],
            "console": self.console,
        }
        return "; ".join(f"{name}: {value}" for name, value in parts.items())

    def pictures(self, count: int) -> list[str]:
        """Addresses of so many different previews, as they come. It has failed if the run ends before."""
        seen: list[str] = []

        def look() -> list[str] | None:
            live = self.page.query_selector("#live [data-state]")
            assert live is None or live.get_attribute("data-state") not in ENDED, live.inner_text()
            image = self.page.query_selector('#live img[src*="/preview/"]')
            address = image.get_attribute("src") if image else None
            if address and address not in seen:
                seen.append(address)
            return seen if len(seen) >= count else None

        return self._wait(look, f"not {count} pictures")

    def stage(self) -> Any:
        """What the stage shows, [H, W, 3] in 0 to 255, without its buttons."""
        picture = self.page.locator("#stage canvas").screenshot(style=OVER_STAGE + " { visibility: hidden }")
        return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"), dtype=float)

    def on_stage(self, kind: str, after: int | None = None) -> dict[str, str]:
        """Wait until the stage shows this kind of thing; `after` which step, or, with -1, the finished one."""

        def look() -> dict[str, str] | None:
            shown: dict[str, str] = self.page.evaluate("({...document.querySelector('#stage canvas').dataset})")
            if shown.get("kind") != kind:
                return None
            step = shown["step"]
            is_there = after is None or (step == "" if after < 0 else step != "" and int(step) > after)
            return shown if is_there and self.stage().std(axis=(0, 1)).max() > 5 else None

        return self._wait(look, f"the stage does not show {kind} after {after}")

    def turn_stage(self, across: float, down: float, canvas: str = "#stage canvas") -> None:
        """Drag the object by so many pixels."""
        self.page.locator(canvas).scroll_into_view_if_needed()
        box = self.page.locator(canvas).bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        self.page.mouse.move(x + across, y + down, steps=3)
        self.page.mouse.up()

    def boxes(self, *selectors: str) -> list[dict[str, float]]:
        """Where each element is."""
        return [self.page.locator(selector).bounding_box() for selector in selectors]

    def note_boxes(self, *selectors: str) -> Callable[[], dict[str, list[str]]]:
        """From now on, at each frame: the boxes that each element has had."""
        self.page.evaluate(NOTE_BOXES, selectors)
        return lambda: self.page.evaluate("window.boxes")

    def download(self, selector: str, path: Path) -> Path:
        """What a click on a link hands over."""
        with self.page.expect_download() as waiting:
            self.page.click(selector)
        waiting.value.save_as(path)
        return path

    def close(self) -> None:
        self.page.close()
        assert not self.elsewhere, self.elsewhere
