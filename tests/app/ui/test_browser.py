"""The page as people use it: a real Chromium, a real server, a real worker, the prior that ships."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from PIL import Image

from sds3d.run.events import Change, CheckpointSaved, FinishEarly, Started, Stop
from sds3d.run.folder import RunFolder

from .browser import ENDLESS, FLAGS, MESH, PATIENCE, SPLATS, Server, Visitor, find_chromium

pytest.importorskip("gradio", reason="the web page is an extra: pip install sds3d[ui]")
playwright = pytest.importorskip("playwright.sync_api", reason="no Playwright: pip install playwright")

CHROMIUM = find_chromium()
pytestmark = [
    pytest.mark.xdist_group("browser"),  # one server and one worker for all
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: make test-ui installs one, or SDS3D_CHROMIUM names it"),
    pytest.mark.skipif(not os.environ.get("SDS3D_BROWSER"), reason="in a browser only with make test-ui"),
]
LIMIT = 3


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("ui") / "outputs", "--queue", str(LIMIT))
    yield running
    output = running.end()
    assert "Traceback" not in output, output


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def window(browser: Any) -> Iterator[Any]:
    """For all tabs but those of a second person: what the page is made of is loaded once, as at home."""
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    yield context
    context.close()


@pytest.fixture
def visitor(window: Any, server: Server) -> Iterator[Visitor]:
    one = Visitor(window, server)
    yield one
    one.close()


@pytest.fixture(scope="module")
def form(window: Any, server: Server) -> Iterator[Visitor]:
    """One tab for all that only fills in the form."""
    one = Visitor(window, server)
    yield one
    one.close()


def wait_for(happened: Callable[[], object], problem: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline, problem
        time.sleep(0.1)


def first_view(sheet: Path) -> Any:
    """The view from the front, [256, 256, 3]."""
    return np.asarray(Image.open(sheet).convert("RGB"), dtype=float)[8:264, 8:264]


def on_backdrop(picture: Any) -> Any:
    """Where there is an object, [H, W]."""
    return np.abs(picture - 235).max(axis=-1) > 12


def object_color(picture: Any) -> list[float]:
    return list(picture[on_backdrop(picture)].mean(axis=0))


def overlap(stage: Any, sheet: Any) -> float:
    """Intersection over union of an object on the stage, from the front, and in its view of the sheet."""
    side, left = min(stage.shape[:2]), (stage.shape[1] - min(stage.shape[:2])) // 2
    square = Image.fromarray(stage[:, left : left + side].astype("u1")).resize((256, 256), Image.Resampling.BOX)
    a, b = on_backdrop(np.asarray(square, dtype=float)), on_backdrop(sheet)
    return float((a & b).sum() / (a | b).sum())


def test_watch_a_run_stop_it_and_take_the_mesh_home(visitor: Visitor, server: Server, tmp_path: Path) -> None:
    name = visitor.generate(  # shown upright
        "a red mug", SPLATS, steps=ENDLESS, **{"export.up": "y"}
    )
    visitor.until("running")
    seen = visitor.pictures(3)
    assert seen == sorted(seen), "newer ones only"  # benchmarks/ui.py measures how fast they come
    assert [address for address in visitor.asked if "events/" in address] == [f"events/{name}"], "one stream"
    assert not [address for address in visitor.asked if "queue/" in address], "nothing goes through Gradio's queue"
    visitor.on_stage("splats")
    front = visitor.stage()
    visitor.turn_stage(-100, 40)
    turned = visitor.on_stage("splats", int(visitor.on_stage("splats")["step"]))
    assert float(turned["yaw"]) == pytest.approx(1.0, abs=0.05)
    assert np.abs(visitor.stage() - front).max() > 10
    assert visitor.on_stage("splats", int(turned["step"]))["yaw"] == turned["yaw"], "kept over another update"
    visitor.page.click("#stop")
    visitor.until("saving")  # F4: it says so, and not how long its steps will take
    assert not visitor.page.is_visible("#stop")
    assert " left" not in visitor.page.inner_text("#live")
    visitor.until("stopped")
    assert visitor.on_stage("mesh", -1)["yaw"] == turned["yaw"], "the same camera, the same canvas"
    mesh = trimesh.load(visitor.download('#results a[href$="/mesh.glb"]', tmp_path / "mesh.glb"), force="mesh")
    assert 100 < len(mesh.faces) <= 2100
    assert (tmp_path / "mesh.glb").read_bytes() == (server.folder(name) / "mesh.glb").read_bytes()
    visitor.page.click("[data-mode=splats]")
    visitor.page.focus("#stage canvas")
    visitor.page.keyboard.press("Home")
    visitor.wait('#stage canvas[data-yaw="0.000"]')
    visitor.on_stage("splats", -1)
    splats, sheet = visitor.stage(), first_view(server.folder(name) / "sheet.png")
    assert object_color(splats) == pytest.approx(object_color(sheet), rel=0.1)  # F3: not on black (edges are soft),
    assert overlap(splats, sheet) > max(0.9, overlap(splats[::-1], sheet) + 0.02)  # and not upside down


def test_a_mesh_grows_in_its_light_and_is_as_bright_in_the_end(visitor: Visitor, browser: Any, server: Server) -> None:
    placed = {"export.size": 30, "export.pivot": "base"}  # on the stage where and as large as it was
    name = visitor.generate("a red ball", MESH, steps=ENDLESS, **placed)
    growing = visitor.on_stage("mesh")
    assert growing["kind"] == "mesh"
    assert visitor.stage()[5, 5] == pytest.approx([235, 235, 235])
    context = browser.new_context()
    context.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")  # no WebGL: the pictures
    other = Visitor(context, server, f"?run={name}")
    other.wait('#live img[src*="/preview/"]')
    assert not other.page.is_visible("#stage canvas")
    other.close()
    context.close()
    visitor.page.click("#stop")
    visitor.until("stopped")
    visitor.on_stage("mesh", -1)
    mesh, sheet = visitor.stage(), first_view(server.folder(name) / "sheet.png")
    assert object_color(mesh) == pytest.approx(object_color(sheet), rel=0.05, abs=2)
    assert overlap(mesh, sheet) > 0.95
    visitor.page.click("[data-mode=sheet]")
    assert "sheet.png" in str(visitor.wait("#stage img").get_attribute("src"))
    assert not [line for line in visitor.console if "stage" in line or "WebGL" in line or "shader" in line.lower()]


def test_a_closed_tab_stops_nothing(window: Any, server: Server) -> None:
    first = Visitor(window, server)
    name = first.generate("a blue ball", steps=ENDLESS, checkpoint_every=25)
    first.until("running")
    first.close()
    log = RunFolder(server.folder(name)).reader()
    list(log.read())  # what happened while the tab was open
    wait_for(lambda: any(isinstance(event, CheckpointSaved) for _, event in log.read()), "the run ended with its tab")
    server.queue.command(server.queue.job(name), FinishEarly())  # nobody looks as it ends
    wait_for(lambda: server.queue.job(name).state == "stopped", "the run does not end")
    second = Visitor(window, server, f"?run={name}")
    second.until("stopped")
    assert RunFolder(server.folder(name)).report()["steps"] >= 25
    # the history is a part of its own, and may be told a moment later
    second.page.locator("#history .card[data-state=stopped]", has_text="a blue ball").wait_for()
    second.close()


def test_two_at_once_each_with_their_own(browser: Any, server: Server) -> None:
    prompts = ("a green ball", "a yellow ball")
    both = [Visitor(browser, server) for _ in prompts]
    names = [one.generate(prompt) for one, prompt in zip(both, prompts, strict=True)]
    assert len(set(names)) == 2
    for one, name, prompt in zip(both, names, prompts, strict=True):
        one.until("done")
        assert one.page.inner_text("#live h3") == prompt
        assert f"run/{name}/" in str(one.page.get_attribute("#live img", "src"))
        assert RunFolder(server.folder(name)).report()["prompt"] == prompt
        one.close()


def test_a_full_queue_is_said_and_a_waiting_run_can_be_called_off(visitor: Visitor) -> None:
    names = [visitor.generate("a pink ball", steps=ENDLESS, seed=seed) for seed in range(LIMIT)]
    visitor.ask("a pink ball", seed=LIMIT)
    problem = visitor.wait("#problem .problem")
    assert "the queue is full: 3 runs wait or are under way" in problem.inner_text()
    for name in reversed(names):
        visitor.choose(name)
        visitor.page.click("#stop")
        visitor.until("stopped")


def test_a_run_that_fails_says_why(visitor: Visitor) -> None:
    visitor.generate("a red mug", {"prior": "nobody/has-this-model"})
    visitor.until("failed")
    assert "nobody/has-this-model" in visitor.page.inner_text("#live .reason")
    assert "Traceback" not in visitor.page.content()


def test_files_of_the_server_are_refused_beside_their_field(form: Visitor) -> None:
    form.ask("a red mug", prior="/etc")
    form.wait('#prior + .problem.beside:has-text("is a file of the server")')


@pytest.mark.parametrize(
    ("prompt", "options", "field", "said"),
    [
        ("", {}, "#prompt", "prompt is empty"),
        ("a zzz qqq", {}, "#prompt", "does not know: zzz, qqq"),
        ("a red mug", {"guidance.guidance_scale": 1e9}, "#guidance-guidance_scale", "less than or equal to 200"),
    ],
)
def test_what_is_wrong_is_said_beside_its_field(
    form: Visitor, prompt: str, options: dict[str, Any], field: str, said: str
) -> None:
    form.ask(prompt, SPLATS, **options)
    form.wait(f'{field} + .problem.beside:has-text("{said}")')
    assert form.page.is_visible(field)


def test_examples_are_those_of_the_prior(form: Visitor) -> None:
    form.page.click("#examples :text('a yellow duck')")
    form.page.wait_for_function("document.querySelector('#prompt textarea').value === 'a yellow duck'")
    form.page.fill("#prior input, #prior textarea", "analytic")
    form.page.click("#examples :text('a green ball')")
    form.page.wait_for_function("document.querySelector('#prompt textarea').value === 'a green ball'")


def test_a_control_under_advanced_counts_and_untouched_ones_do_not(visitor: Visitor, server: Server) -> None:
    visitor.page.click("#advanced button >> nth=0")
    visitor.page.fill("#checkpoint_every input", "7")
    visitor.page.fill("#steps input", "")  # emptied: as it is by default
    visitor.page.click("#guidance input")
    visitor.page.get_by_role("option", name="cfd", exact=True).click()
    visitor.page.wait_for_selector('[data-option^="noise."]', state="attached")  # what cfd brings along
    assert visitor.page.input_value("#checkpoint_every input") == "7"
    options = {key: value for key, value in SPLATS.items() if key not in ("checkpoint_every", "steps")}
    name = visitor.generate("a red ball", options)
    job = server.queue.job(name)
    others = job.config.said.keys() - {"guidance", "scene", "prior", "prompt", "seed"}
    assert others == {"cameras", "checkpoint_every", "export"}  # the default preset says nothing
    assert (job.config.checkpoint_every, job.config.steps, job.config.guidance.name) == (7, 600, "cfd")
    server.queue.command(job, Stop())  # without a mesh, which takes longer
    visitor.until("stopped")


def test_pause_change_fork_and_delete(visitor: Visitor, server: Server) -> None:
    name = visitor.generate("a red ball", steps=ENDLESS)
    visitor.pictures(1)
    visitor.page.click("#pause")
    visitor.until("paused")
    assert "paused; others go on" in visitor.page.inner_text("#live .facts")
    other = visitor.generate("a purple ball", steps=ENDLESS)  # F5: the paused run holds nobody up
    visitor.until("running")
    visitor.page.click("#stop")
    visitor.until("stopped")
    assert server.queue.job(other).state == "stopped"
    visitor.name = name
    visitor.page.click(f'#history a[href="?run={name}"]')
    visitor.until("paused")
    visitor.page.click("#resume")
    visitor.until("running")
    visitor.page.click("#changing button >> nth=0")
    visitor.page.fill("#other-words textarea", "a blue ball")
    visitor.page.click("#change")
    visitor.wait('#details .log:has-text("changed prompt to a blue ball")')
    visitor.wait('#live h3:has-text("a blue ball")')
    job = server.queue.job(name)
    assert [sent.changes for _, sent in server.queue.commands(job) if isinstance(sent, Change)] == [
        {"prompt": "a blue ball"}
    ]  # F1: the guidance scale was not touched
    scale = job.config.guidance.guidance_scale
    assert job.run.config().guidance.guidance_scale == scale
    visitor.page.fill("#other-words textarea", "a zzz qqq")
    visitor.page.click("#change")
    assert "zzz" in visitor.wait("#changed .problem").inner_text()
    visitor.page.fill("#other-words textarea", "a green ball")
    visitor.page.click("#fork")  # F2: as it comes, with other words only
    forked = visitor.follow_new()
    config = server.queue.job(forked).config
    assert (config.prompt, config.steps, config.guidance.guidance_scale) == ("a green ball", ENDLESS, scale)
    for chosen in (forked, name):
        visitor.choose(chosen)
        visitor.page.click("#stop")
        visitor.until("stopped")
    visitor.page.get_by_role("tab", name="Delete").click()
    visitor.page.fill("#doomed input", forked)
    visitor.page.get_by_role("option").first.click()
    visitor.page.click("#delete")
    visitor.wait("#deleted .problem")
    assert (server.out / "queue" / forked).is_dir()
    visitor.page.check("#sure input")
    visitor.page.click("#delete")
    visitor.wait('#deleted:has-text("removed")')
    assert not (server.out / "queue" / forked).exists()


def test_a_further_format_is_linked_with_all_its_files(visitor: Visitor, tmp_path: Path) -> None:
    visitor.generate("a red ball", SPLATS, prior="analytic")
    visitor.until("done")
    visitor.page.click("#format input")
    visitor.page.get_by_role("option", name="gltf", exact=True).click()
    visitor.page.click("#make")
    for name in ("mesh.gltf", "mesh.bin", "mesh_color.png"):
        visitor.wait(f'#made a[href$="/{name}"]')
        visitor.download(f'#made a[href$="/{name}"]', tmp_path / name)
    assert len(trimesh.load(tmp_path / "mesh.gltf", force="mesh").faces) > 100


def test_a_server_that_is_killed_goes_on_where_it_was(window: Any, tmp_path: Path) -> None:
    killed = Server(tmp_path / "outputs")
    first = Visitor(window, killed)
    name = first.generate("a red ball", steps=ENDLESS, checkpoint_every=25)
    first.pictures(2)
    killed.process.kill()
    killed.process.wait()
    first.close()
    # the worker notices, saves, and gives the run back
    wait_for(lambda: killed.queue.job(name).state == "queued", "the worker did not give the run back")
    again = Server(tmp_path / "outputs")
    second = Visitor(window, again)
    second.name = name
    second.page.click(f'#history a[href="?run={name}"]')
    second.until("running")  # by itself: the queue lies on disk
    second.wait('#details .log:has-text("at step")')
    second.page.click("#stop")
    second.until("stopped")
    run = RunFolder(again.folder(name))
    assert "image" in run.artifacts()
    begun = [event.step for _, event in run.reader().read() if isinstance(event, Started)]
    assert len(begun) == 2
    assert begun[1] > 0
    second.close()
    again.end()
