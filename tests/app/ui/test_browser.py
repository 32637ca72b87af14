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

from sds3d.run import live
from sds3d.run.events import Change, CheckpointSaved, FinishEarly, Started, Stop
from sds3d.run.folder import RunFolder

from .browser import (
    ENDLESS,
    FAINT_TEXTS,
    FLAGS,
    MESH,
    NOTE_SHIFTS,
    PATIENCE,
    SMALL_BUTTONS,
    SPLATS,
    Server,
    Visitor,
    find_chromium,
)

pytest.importorskip("gradio", reason="the web page is an extra: pip install sds3d[ui]")
playwright = pytest.importorskip("playwright.sync_api", reason="no Playwright: pip install playwright")

CHROMIUM = find_chromium()
pytestmark = [
    pytest.mark.xdist_group("browser"),  # one server and one worker for all
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: make test-ui installs one, or SDS3D_CHROMIUM names it"),
    pytest.mark.skipif(not os.environ.get("SDS3D_BROWSER"), reason="in a browser only with make test-ui"),
]
LIMIT = 3
DESKTOP, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}
KNOWN_LINES = ("svelte-i18n", "Autofocus processing")  # that Gradio prints


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
    context = browser.new_context(viewport=DESKTOP)
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
    visitor.page.click("#options-button button")
    parts = ("#prompt", "#go", "#quality", "#show", "#stage canvas", "#strip", "#details-box")
    places = visitor.note_boxes(*parts)
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
    assert visitor.page.evaluate(FAINT_TEXTS) == []
    visitor.page.click("#stop")
    visitor.until("saving")  # F4: it says so, and not how long its steps will take
    assert not visitor.page.is_visible("#stop")
    assert " left" not in visitor.page.inner_text("#live")
    visitor.until("stopped")
    assert visitor.on_stage("mesh", -1)["yaw"] == turned["yaw"], "the same camera, the same canvas"
    assert {part: len(boxes) for part, boxes in places().items()} == dict.fromkeys(parts, 1)
    assert visitor.page.evaluate(FAINT_TEXTS) == []
    assert visitor.page.evaluate("document.documentElement.scrollHeight") <= DESKTOP["height"]
    mesh = trimesh.load(visitor.download('#downloads a.first[href$="/mesh.glb"]', tmp_path / "mesh.glb"), force="mesh")
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
    damaged = [b"junk", live.HEADER.pack(b"JUNK", 1, live.SPLATS, 0, 3, 1, 0, 0.0, 1.0, 1.0) + bytes(live.SPLAT_BYTES)]
    damaged.append(live.HEADER.pack(b"SDSL", 1, live.SPLATS, 0, 3, 10**9, 0, 0.0, 1.0, 1.0))  # not so many follow
    visitor.page.route("**/live/all*", lambda route: route.fulfill(body=damaged.pop()), times=len(damaged))
    name = visitor.generate("a red ball", MESH, steps=ENDLESS, **placed)
    visitor.on_stage("mesh", 0)
    assert damaged == [], "what cannot be read is ignored"
    assert visitor.stage()[5, 5] == pytest.approx([235, 235, 235])
    context = browser.new_context()
    context.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")  # no WebGL: the pictures
    other = Visitor(context, server, f"?run={name}")
    other.wait('#live img[src*="/preview/"]')
    assert not other.page.is_visible("#stage canvas")
    assert [line for line in other.console if not any(known in line for known in KNOWN_LINES)] == []
    other.close()
    context.close()
    visitor.page.click("#stop")
    visitor.until("stopped")
    visitor.on_stage("mesh", -1)
    mesh, sheet = visitor.stage(), first_view(server.folder(name) / "sheet.png")
    assert object_color(mesh) == pytest.approx(object_color(sheet), rel=0.05, abs=2)
    assert overlap(mesh, sheet) > 0.95
    dark = browser.new_context(color_scheme="dark")
    other = Visitor(dark, server, f"?run={name}")
    other.on_stage("mesh", -1)
    shown = other.stage()
    on_object = np.abs(shown - shown[5, 5]).max(axis=-1) > 12
    assert shown[5, 5].max() < 60
    color = shown[on_object].mean(axis=0)  # its outline mixes with another backdrop
    assert color == pytest.approx(object_color(sheet), rel=0.1, abs=4)
    other.close()
    dark.close()
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
    second.page.locator("#strip .card[data-state=stopped]", has_text="a blue ball").wait_for()
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
    problem = visitor.wait("#say .problem")
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
    assert visitor.page.evaluate(FAINT_TEXTS) == []


def test_files_of_the_server_are_refused_beside_their_field(form: Visitor) -> None:
    form.ask("a red mug", prior="/etc")
    form.wait('#prior + .problem.beside:has-text("is a file of the server")')


@pytest.mark.parametrize(
    ("prompt", "options", "field", "said"),
    [
        ("a red mug", {"steps": "many"}, "#steps", "valid integer"),
        ("a red mug", {"guidance.guidance_scale": 1e9}, "#guidance-guidance_scale", "less than or equal to 200"),
    ],
)
def test_what_is_wrong_is_said_beside_its_field(
    form: Visitor, prompt: str, options: dict[str, Any], field: str, said: str
) -> None:
    form.ask(prompt, SPLATS, **options)
    form.wait(f'{field} + .problem.beside:has-text("{said}")')
    assert form.page.is_visible(field)


def test_prompts_to_try_are_those_of_the_prior_and_begin(visitor: Visitor, server: Server) -> None:
    visitor.page.click("#options-button button")
    visitor.page.fill("#prior input, #prior textarea", "analytic")
    visitor.page.click("#chips [data-prompt='a green ball']")
    job = server.queue.job(visitor.follow_new())
    assert (job.config.prompt, job.config.prior.name) == ("a green ball", "analytic")
    assert visitor.page.input_value("#prompt textarea") == "a green ball"
    server.queue.command(job, Stop())
    visitor.until("stopped")


def test_a_control_under_options_counts_and_untouched_ones_do_not(visitor: Visitor, server: Server) -> None:
    visitor.page.click("#options-button button")
    visitor.page.fill("#options .search", "checkpoint")
    visitor.page.wait_for_function("!document.querySelector('#steps').checkVisibility()")
    visitor.page.fill("#checkpoint_every input", "7")
    visitor.page.fill("#options .search", "")
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
    visitor.click_card(name)
    visitor.until("paused")
    visitor.page.click("#resume")
    visitor.until("running")
    visitor.open_details("Change or fork")
    visitor.page.fill("#other-words textarea", "a blue ball")
    visitor.page.click("#change")
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
    visitor.open_details("Curves and log")
    visitor.wait('#details .log:has-text("changed prompt to a blue ball")')


def test_a_card_swaps_the_stage_and_back_returns_and_removing_asks_and_can_be_undone(
    visitor: Visitor, server: Server
) -> None:
    names = [visitor.generate(prompt) for prompt in ("a pink ball", "an orange ball")]
    visitor.until("done")
    visitor.page.evaluate("window.mark = 1")
    visitor.press_while_it_is_made_anew(f'#strip .card a[data-run="{names[0]}"]')
    visitor.wait(f'#live [data-run="{names[0]}"]')
    assert visitor.page.input_value("#prompt textarea") == "a pink ball"
    assert visitor.page.url.endswith(f"?run={names[0]}")
    visitor.page.go_back()
    visitor.wait(f'#live [data-run="{names[1]}"]')
    visitor.page.wait_for_function("document.querySelector('#prompt textarea').value === 'an orange ball'")
    assert visitor.page.evaluate("window.mark") == 1, "the page was not loaded anew"
    assert visitor.page.evaluate("document.title") == "an orange ball - sds3d"
    card = visitor.page.locator("#strip .card", has=visitor.page.locator(f'a[data-run="{names[1]}"]'))
    card.hover()
    card.locator("[data-ask]").click()
    assert "an orange ball" in card.locator(".sure").inner_text()
    visitor.page.keyboard.press("Escape")
    assert not card.locator(".sure").is_visible()
    card.hover()
    card.locator("[data-ask]").click()
    card.locator("[data-act=delete]").click()
    visitor.wait('#say [data-act="undo"]')
    card.wait_for(state="detached")
    visitor.wait('#live .badge:has-text("an example")')
    assert server.folder(names[1]).is_dir(), "not yet"
    visitor.page.click('#say [data-act="undo"]')
    card.wait_for()
    visitor.wait(f'#live [data-run="{names[1]}"]')
    visitor.open_details("Result")
    visitor.page.click("#results [data-seed]")  # kept for the next run
    assert visitor.page.input_value("#seed input, #seed textarea") == str(server.queue.job(names[1]).config.seed)


def test_the_last_click_counts_and_what_is_typed_or_can_be_undone_stays(visitor: Visitor) -> None:
    page = visitor.page
    names = [visitor.generate(f"a {color} ball") for color in ("gray", "brown", "white")]
    visitor.until("done")
    running = visitor.generate("a black ball", steps=ENDLESS)
    visitor.click_card(names[0])
    card = page.locator("#strip .card", has=page.locator(f'a[data-run="{names[0]}"]'))
    card.hover()
    card.locator("[data-ask]").click()
    card.locator("[data-act=delete]").click()
    visitor.wait('#say [data-act="undo"]')
    page.wait_for_function("location.search === ''")
    line = page.context.new_cdp_session(page)  # a slow one: each click comes while the answer to another is awaited
    speed = {"offline": False, "downloadThroughput": -1, "uploadThroughput": -1}
    line.send("Network.emulateNetworkConditions", {**speed, "latency": 400})
    page.go_back()
    for name in (names[1], running, names[2]):
        page.click(f'#strip .card a[data-run="{name}"]')
        page.wait_for_timeout(100)
    visitor.wait(f'#live [data-run="{names[2]}"]')
    assert page.url.endswith(f"?run={names[2]}")
    page.click('#say [data-act="undo"]')
    visitor.wait(f'#live [data-run="{names[0]}"]')
    line.send("Network.emulateNetworkConditions", {**speed, "latency": 0})
    page.fill("#prompt textarea", "words of my own")
    visitor.click_card(running)
    visitor.press_while_it_is_made_anew("#stop")
    visitor.until("stopped")
    assert page.input_value("#prompt textarea") == "words of my own"
    for sought, count in (("brown", 1), ("brown zzz", 0), ("", 4)):
        page.fill("#find input, #find textarea", sought)
        page.wait_for_function(
            "([least, sought]) => { const count = document.querySelectorAll('#strip .card').length;"
            " return sought ? count === least : count >= least; }", arg=[count, sought], timeout=3000,
        )  # fmt: skip
        assert page.is_visible('#strip :text("No run has these words.")') == (count == 0)
    visitor.name = ""
    page.goto(f"{visitor.server.address}?run=foo-bar-1")
    visitor.wait('#live .foot:has-text("There is no run of that name any more")')
    page.wait_for_function("location.search === ''")


def test_one_screen_that_stands_still_in_both_themes(browser: Any, server: Server) -> None:
    """Page.md's checks 1, 2, 11, 16 of the first screen."""
    for viewport, theme in ((DESKTOP, "light"), (DESKTOP, "dark"), (PHONE, "light"), (PHONE, "dark")):
        context = browser.new_context(viewport=viewport, color_scheme=theme, has_touch=viewport is PHONE)
        context.add_init_script(NOTE_SHIFTS)
        one = Visitor(context, server)
        one.on_stage("mesh")  # the example
        where = (viewport, theme)
        assert one.page.evaluate("document.activeElement.closest('#prompt') !== null"), where
        assert one.page.evaluate("window.shifts") < 0.1, where
        assert one.page.evaluate(FAINT_TEXTS) == [], where
        across, down = (one.page.evaluate(f"document.documentElement.scroll{side}") for side in ("Width", "Height"))
        assert across <= viewport["width"], where
        assert down <= viewport["height"] * (1 if viewport is DESKTOP else 2), where
        assert one.stage()[5, 5] == pytest.approx([235] * 3 if theme == "light" else [0x16, 0x20, 0x2F], abs=1), where
        stage = one.boxes("#show")[0]
        assert stage["y"] + stage["height"] <= viewport["height"], where
        if viewport is PHONE:
            assert one.page.evaluate(SMALL_BUTTONS) == [], where
        else:
            order = list[str]()
            for _ in range(5):
                one.page.keyboard.press("Tab")
                order.append(one.page.evaluate("document.activeElement.closest('#go, #quality, #chips')?.id"))
            assert list(dict.fromkeys(order)) == ["go", "quality", "chips"], where
        assert one.page.get_attribute("#stage canvas", "data-yaw") == "0.000", "it does not turn for who wants it still"
        assert not [line for line in one.console if not any(known in line for known in KNOWN_LINES)]
        one.close()
        context.close()
    turning = Visitor(browser, server)
    turning.page.emulate_media(reduced_motion="no-preference")
    turning.page.reload()
    turning.page.wait_for_function("Number(document.querySelector('#stage canvas')?.dataset.yaw) > 0.1")
    turning.close()


def test_words_that_it_does_not_know_are_one_line_with_three_to_click(browser: Any, server: Server) -> None:
    context = browser.new_context(viewport=PHONE, has_touch=True)
    one = Visitor(context, server)
    one.wait("#chips .chip")
    parts = ("#show", "#strip", "#chips", "#prompt")
    places = one.note_boxes(*parts)
    one.page.fill("#prompt textarea", "a dragon")
    one.page.keyboard.press("Enter")
    said = one.wait("#say .problem")
    assert one.page.locator("#say .chip").count() == 3
    box, text, bar, runs = one.boxes("#say", "#say .said", "#ask", "#strip")
    assert box["height"] <= 120, "two lines and a row of prompts"
    assert text["width"] > 300, "no letter stands alone"
    assert runs["y"] + runs["height"] <= box["y"] + 8 < box["y"] + box["height"] <= bar["y"], "between runs and prompt"
    assert one.page.evaluate(SMALL_BUTTONS) == []
    one.page.type("#prompt textarea", "s")
    said.wait_for_element_state("hidden")
    names = list[str]()
    for prompt in ("a red zzz mug", "a blue zzz mug"):
        one.page.fill("#prompt textarea", prompt)
        one.page.press("#prompt textarea", "Shift+Enter")
        one.page.press("#prompt textarea", "Enter")
        names.append(one.follow_new())  # with what it knows
        warning = one.wait("#say .note")
        assert "zzz" in warning.inner_text()
        one.wait("#stop")
        one.page.click("#stop", trial=True)  # nothing lies over it
        if len(names) == 1:
            one.page.tap("#say .close")
            warning.wait_for_element_state("hidden")
    one.page.tap("#say .chip >> nth=0")
    names.append(one.follow_new())
    assert one.page.input_value("#prompt textarea") == server.queue.job(names[-1]).prompt
    assert len({server.queue.job(name).config.seed for name in names}) == 3, "drawn for each"
    assert {part: len(boxes) for part, boxes in places().items()} == dict.fromkeys(parts, 1)
    stage = one.boxes("#show")[0]
    assert stage["y"] >= 0
    assert stage["y"] + stage["height"] <= PHONE["height"], "in view after the click"
    for name in names:
        server.queue.command(server.queue.job(name), Stop())
    one.until("stopped")
    one.close()
    context.close()


def test_a_further_format_is_linked_with_all_its_files(visitor: Visitor, tmp_path: Path) -> None:
    visitor.generate("a red ball", SPLATS, prior="analytic")
    visitor.until("done")
    visitor.page.click(".menu summary")
    visitor.page.click("[data-format=gltf]")
    for name in ("mesh.gltf", "mesh.bin", "mesh_color.png"):
        link = f'.menu .files a[href$="/{name}"]'
        visitor.wait(link)
        visitor.download(link, tmp_path / name)
    assert len(trimesh.load(tmp_path / "mesh.gltf", force="mesh").faces) > 100


def test_two_runs_side_by_side_are_seen_by_one_camera(visitor: Visitor) -> None:
    names = [visitor.generate(f"a {color} ball", SPLATS, prior="analytic", steps=4) for color in ("red", "blue")]
    visitor.until("done")
    for name in names:
        card = visitor.page.locator("#strip .card", has=visitor.page.locator(f'a[data-run="{name}"]'))
        card.hover()
        card.locator("[data-pick]").click()
    assert "prompt" in visitor.wait("#pair table").inner_text()
    for place in (0, 1):
        visitor.page.locator('.compared canvas[data-kind="mesh"]').nth(place).wait_for()
    visitor.turn_stage(-100, 0, ".compared canvas >> nth=1")
    yaws = [visitor.page.locator(".compared canvas").nth(place).get_attribute("data-yaw") for place in (0, 1)]
    assert float(yaws[0]) == float(yaws[1]) == pytest.approx(1.0, abs=0.05)
    assert visitor.page.get_attribute("#stage canvas", "data-yaw") == "0.000", "a stage of its own"


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
    second.click_card(name)
    second.until("running")  # by itself: the queue lies on disk
    second.open_details("Curves and log")
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
