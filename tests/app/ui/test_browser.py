"""The page as people use it: a real Chromium, a real server, a real worker, the prior that ships."""

import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trimesh

from sds3d.run.events import Change, Started
from sds3d.run.folder import RunFolder

from .browser import FLAGS, QUICK, Server, Visitor, find_chromium

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


@pytest.fixture
def visitor(browser: Any, server: Server) -> Iterator[Visitor]:
    one = Visitor(browser, server)
    yield one
    one.close()


def test_watch_a_run_stop_it_and_take_the_mesh_home(visitor: Visitor, server: Server, tmp_path: Path) -> None:
    name = visitor.generate("a red mug", steps=100_000)
    visitor.until("running")
    seen = visitor.frames(6)
    waits = [later - earlier for (earlier, _), (later, _) in itertools.pairwise(seen)]
    assert sum(waits) / len(waits) < 4.0, waits  # two seconds on a quiet machine: benchmarks/ui.py measures that
    assert [address for address in visitor.asked if "events/" in address] == [f"events/{name}"], "one stream"
    assert not [address for address in visitor.asked if "queue/" in address], "nothing goes through Gradio's queue"
    visitor.page.click("#stop")
    assert visitor.until("stopped", "done", "failed") == "stopped"
    assert visitor.spread("#mesh canvas") > 5
    mesh = trimesh.load(visitor.download('#results a[href$="/mesh.glb"]', tmp_path / "mesh.glb"), force="mesh")
    assert 100 < len(mesh.faces) <= 2100
    assert (tmp_path / "mesh.glb").read_bytes() == (server.folder(name) / "mesh.glb").read_bytes()
    visitor.page.get_by_role("tab", name="Splats").click()
    assert visitor.spread("#splats canvas") > 5


def test_a_closed_tab_stops_nothing(browser: Any, server: Server) -> None:
    first = Visitor(browser, server)
    name = first.generate("a blue car", steps=150)
    first.until("running")
    first.close()
    second = Visitor(browser, server, f"?run={name}")
    assert second.until("running", "done") in ("running", "done")
    assert second.until("done", "failed", "stopped") == "done"
    assert RunFolder(server.folder(name)).report()["steps"] == 150
    # the history is a part of its own, and may be told a moment later
    second.page.locator("#history .card[data-state=done]", has_text="a blue car").wait_for()
    second.close()


def test_two_at_once_each_with_their_own(browser: Any, server: Server) -> None:
    prompts = ("a green cactus", "a yellow duck")
    both = [Visitor(browser, server) for _ in prompts]
    names = [one.generate(prompt, steps=60) for one, prompt in zip(both, prompts, strict=True)]
    assert len(set(names)) == 2
    for one, name, prompt in zip(both, names, prompts, strict=True):
        assert one.until("done", "failed", "stopped") == "done"
        assert one.page.inner_text("#live h3") == prompt
        assert f"/run/{name}/" in str(one.page.get_attribute("#live img", "src"))
        assert RunFolder(server.folder(name)).report()["prompt"] == prompt
        one.close()


def test_a_full_queue_is_said_and_a_waiting_run_can_be_called_off(visitor: Visitor) -> None:
    names = [visitor.generate("a red cube", steps=100_000, seed=seed) for seed in range(LIMIT)]
    visitor.ask("a red cube", seed=LIMIT)
    visitor.page.wait_for_selector("#problem .problem")
    assert "the queue is full: 3 runs wait or are under way" in visitor.page.inner_text("#problem")
    for name in reversed(names):
        visitor.page.goto(visitor.page.url.partition("?")[0] + f"?run={name}")
        visitor.page.wait_for_selector(f'#live [data-run="{name}"]')
        visitor.page.click("#stop")
        visitor.until("stopped")


def test_a_run_that_fails_says_why(visitor: Visitor) -> None:
    visitor.generate("a red mug", **{"prior": "nobody/has-this-model"})
    visitor.until("failed")
    assert "nobody/has-this-model" in visitor.page.inner_text("#live .reason")
    assert "Traceback" not in visitor.page.content()


def test_files_of_the_server_are_refused_beside_their_field(visitor: Visitor) -> None:
    visitor.ask("a red mug", prior="/etc")
    beside = visitor.page.wait_for_selector("#prior + .problem.beside")
    assert "is a file of the server" in beside.inner_text()


@pytest.mark.parametrize(
    ("prompt", "options", "field", "said"),
    [
        ("", {}, "#prompt", "prompt is empty"),
        ("a zzz qqq", {}, "#prompt", "does not know: zzz, qqq"),
        ("a red mug", {"guidance.guidance_scale": 1e9}, "#guidance-guidance_scale", "less than or equal to 200"),
    ],
)
def test_what_is_wrong_is_said_beside_its_field(
    visitor: Visitor, prompt: str, options: dict[str, Any], field: str, said: str
) -> None:
    visitor.ask(prompt, **options)
    beside = visitor.page.wait_for_selector(f"{field} + .problem.beside")
    assert said in beside.inner_text()
    assert beside.is_visible()
    assert visitor.page.is_visible(field)


def test_examples_are_those_of_the_prior(visitor: Visitor) -> None:
    visitor.page.click("#examples :text('a yellow duck')")
    visitor.page.wait_for_function("document.querySelector('#prompt textarea').value === 'a yellow duck'")
    visitor.page.fill("#prior input, #prior textarea", "analytic")
    visitor.page.click("#examples :text('a green ball')")
    visitor.page.wait_for_function("document.querySelector('#prompt textarea').value === 'a green ball'")


def test_a_control_under_advanced_counts_and_untouched_ones_do_not(visitor: Visitor, server: Server) -> None:
    visitor.page.click("#advanced button >> nth=0")
    visitor.page.fill("#checkpoint_every input", "7")
    visitor.page.fill("#steps input", "")  # emptied: as it is by default
    visitor.page.click("#guidance input")
    visitor.page.get_by_role("option", name="cfd", exact=True).click()
    visitor.page.wait_for_selector('[data-option^="noise."]', state="attached")  # what cfd brings along
    assert visitor.page.input_value("#checkpoint_every input") == "7"
    options = {key: value for key, value in QUICK.items() if key not in ("checkpoint_every", "steps")}
    name = visitor.generate("a red ball", options)
    job = server.queue.job(name)
    others = job.config.said.keys() - {"guidance", "scene", "prior", "prompt", "seed"}
    assert others == {"steps", "cameras", "checkpoint_every", "export"}
    assert (job.config.checkpoint_every, job.config.steps, job.config.guidance.name) == (7, 600, "cfd")
    visitor.page.click("#stop")
    visitor.until("stopped")


def test_pause_change_fork_and_delete(visitor: Visitor, server: Server) -> None:
    name = visitor.generate("a red ball", steps=100_000)
    visitor.frames(1)
    visitor.page.click("#pause")
    visitor.until("paused")
    assert "paused; others go on" in visitor.page.inner_text("#live .facts")
    other = visitor.generate("a yellow duck", steps=100_000)  # F5: the paused run holds nobody up
    visitor.until("running")
    visitor.page.click("#stop")
    visitor.until("stopped")
    assert server.queue.job(other).state == "stopped"
    visitor.page.click(f'#history a[href="?run={name}"]')
    visitor.until("paused")
    visitor.page.click("#resume")
    visitor.until("running")
    visitor.page.click("#changing button >> nth=0")
    visitor.page.fill("#other-words textarea", "a blue ball")
    visitor.page.click("#change")
    visitor.page.wait_for_selector('#details .log:has-text("changed prompt to a blue ball")')
    visitor.page.wait_for_selector('#live h3:has-text("a blue ball")')
    job = server.queue.job(name)
    assert [sent.changes for _, sent in server.queue.commands(job) if isinstance(sent, Change)] == [
        {"prompt": "a blue ball"}
    ]  # F1: the guidance scale was not touched
    scale = job.config.guidance.guidance_scale
    assert job.run.config().guidance.guidance_scale == scale
    visitor.page.fill("#other-words textarea", "a zzz qqq")
    visitor.page.click("#change")
    assert "zzz" in visitor.page.wait_for_selector("#changed .problem").inner_text()
    visitor.page.fill("#other-words textarea", "a green ball")
    before = visitor.page.url
    visitor.page.click("#fork")  # F2: as it comes, with other words only
    visitor.page.wait_for_function("before => location.href !== before", arg=before)
    forked = visitor.page.url.partition("?run=")[2]
    config = server.queue.job(forked).config
    assert (config.prompt, config.steps, config.guidance.guidance_scale) == ("a green ball", 100_000, scale)
    for chosen in (forked, name):
        visitor.page.goto(f"{server.address}?run={chosen}")
        visitor.page.wait_for_selector(f'#live [data-run="{chosen}"]')
        visitor.page.click("#stop")
        visitor.until("stopped")
    visitor.page.get_by_role("tab", name="Delete").click()
    visitor.page.fill("#doomed input", forked)
    visitor.page.get_by_role("option").first.click()
    visitor.page.click("#delete")
    visitor.page.wait_for_selector("#deleted .problem")
    assert (server.out / "queue" / forked).is_dir()
    visitor.page.check("#sure input")
    visitor.page.click("#delete")
    visitor.page.wait_for_selector('#deleted:has-text("removed")')
    assert not (server.out / "queue" / forked).exists()


def test_a_further_format_is_linked_with_all_its_files(visitor: Visitor, tmp_path: Path) -> None:
    visitor.generate("a red mug")
    assert visitor.until("done", "failed") == "done"
    visitor.page.click("#format input")
    visitor.page.get_by_role("option", name="gltf", exact=True).click()
    visitor.page.click("#make")
    for name in ("mesh.gltf", "mesh.bin", "mesh_color.png"):
        visitor.page.wait_for_selector(f'#made a[href$="/{name}"]')
        visitor.download(f'#made a[href$="/{name}"]', tmp_path / name)
    assert len(trimesh.load(tmp_path / "mesh.gltf", force="mesh").faces) > 100


def test_a_server_that_is_killed_goes_on_where_it_was(browser: Any, tmp_path: Path) -> None:
    killed = Server(tmp_path / "outputs")
    first = Visitor(browser, killed)
    name = first.generate("a red mug", steps=100_000, checkpoint_every=25)
    first.frames(2)
    killed.process.kill()
    killed.process.wait()
    first.close()
    deadline = time.monotonic() + 60
    while killed.queue.job(name).state != "queued":  # the worker notices, saves, and gives the run back
        assert time.monotonic() < deadline
        time.sleep(0.2)
    again = Server(tmp_path / "outputs")
    second = Visitor(browser, again)
    second.page.click(f'#history a[href="?run={name}"]')
    second.until("running")  # by itself: the queue lies on disk
    second.page.wait_for_selector('#details .log:has-text("at step")')
    second.page.click("#stop")
    second.until("stopped")
    run = RunFolder(again.folder(name))
    assert "glb" in run.artifacts()
    begun = [event.step for _, event in run.reader().read() if isinstance(event, Started)]
    assert len(begun) == 2
    assert begun[1] > 0
    second.close()
    again.end()
