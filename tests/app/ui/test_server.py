"""The whole application against what a hostile client can send: nothing breaks, nothing is told, nothing is written."""

import asyncio
import json
import logging
import os
import random
import re
import shutil
import signal
import socket
import string
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
import trimesh
from PIL import Image
from starlette.testclient import TestClient

from sds3d import Session
from sds3d.atomic import temporary_folder
from sds3d.errors import ConfigError
from sds3d.run.events import CheckpointSaved, Finished, Preview, Stop
from sds3d.run.folder import RunFolder
from sds3d.run.live import HEADER, SPLAT_BYTES, SPLATS
from sds3d_app.ui import fragments, server
from sds3d_app.ui.actions import fork_run, make_format
from sds3d_app.ui.export_files import Export, FileMaker, make_file
from sds3d_app.ui.server import check_login, is_news, is_taken
from tests.reliability.children import ended, started

TRAVERSALS = [
    "../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/etc/passwd", "....//....//etc/passwd", "/etc/passwd",
    "..\\..\\etc\\passwd", "config.json/../../../../etc/passwd", "config.json%00.png", ".", "..", "%00", "events.jsonl",
    "checkpoints", "a" * 5000, "\u2025/etc/passwd", "file:///etc/passwd",
]  # fmt: skip


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def address(text: str, name: str) -> str:
    """Where a fragment of the page links to a file of that name."""
    found = re.search(rf'(?:href|src)="([^"]+/{re.escape(name)})(?:\\?[^"]*)?"', text)
    assert found is not None, (name, text)
    return found[1]


@pytest.mark.parametrize("name", ["a red#1 50%", "a+b&c=d", "ümlaut?x", 'quote\'d "ball"'])
def test_a_run_of_any_name_is_served_at_its_quoted_address(page: Any, small_config: Any, name: str) -> None:
    folder = RunFolder(page.index.outputs / name)
    folder.path.mkdir(parents=True)
    folder.write_config(small_config(steps=4))
    (folder.path / "sheet.png").write_bytes(b"sheet")
    folder.append(Finished({"steps": 4}))
    folder.preview_path(2).parent.mkdir()
    folder.preview_path(2).write_bytes(b"preview")
    folder.append(Preview(2, folder.preview_path(2)))
    entry = page.index.find(name)
    log = page.index.log(entry)
    everything = (
        fragments.live(entry, log, 0) + fragments.downloads(entry, None) + fragments.history([entry], "", "")
        + f'<img src="{fragments.preview_address(entry, log)}">'
    )  # fmt: skip
    for file, content in (("sheet.png", b"sheet"), ("step-000002.png", b"preview")):
        answer = page.client.get(address(everything, file))
        assert (answer.status_code, answer.content) == (200, content)
    assert not re.search(r"(?:href|src)=.[/h]|url\('?/", everything), "all are relative to the page"
    (query,) = re.findall(r'href="(\?run=[^"]+)"', everything)
    chosen = page.client.get(f"/{query}")
    assert chosen.request.url.params["run"] == name
    shutil.rmtree(folder.path)


@pytest.mark.slow
@pytest.mark.exports
@pytest.mark.usefixtures("exports_here")
@pytest.mark.parametrize(("finished", "file_format"), [(True, "gltf"), (False, "obj")], ids=["finished", "unfinished"])
def test_every_file_of_a_further_format_can_be_fetched(
    page: Any, run: str, small_config: Any, file_format: str, finished: bool, tmp_path: Path
) -> None:
    """.gltf with its .bin, .obj with its .mtl and picture; also of runs that are not finished."""
    if not finished:
        run = "half-a-ball"
        session = Session(small_config(steps=8, checkpoint_every=4), page.index.outputs / run)
        for event in session.run():
            if isinstance(event, CheckpointSaved):
                session.send(Stop())
    entry = page.index.find(run)
    step, names = make_file(entry, file_format)
    assert step == (None if finished else 4)
    assert len(names) >= 2
    links = fragments.downloads(entry, Export(file_format, step, tuple(names)))
    for name in names:
        answer = page.client.get(address(links, name))
        assert answer.status_code == 200, name
        (tmp_path / name).write_bytes(answer.content)
    mesh = trimesh.load(tmp_path / names[0], force="mesh")
    assert len(mesh.faces) > 100
    assert mesh.visual.kind == "texture"
    if finished:
        assert names[1] in fragments.downloads(entry, None)
    assert page.client.get(f"/run/{run}/exports/999/{names[0]}").status_code == 404


@pytest.mark.slow
@pytest.mark.exports
def test_a_format_is_made_in_the_background(page: Any, run: str) -> None:
    maker, entry = FileMaker(), page.index.find(run)
    assert "choose one of the formats" in make_format(page.index, run, None, maker)
    assert make_format(page.index, run, "stl", maker) == ""
    assert "making stl" in fragments.downloads(entry, maker.last[run])
    deadline = time.monotonic() + 120
    while not (export := maker.last[run]).names:
        assert not export.problem, export
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert page.client.get(address(fragments.downloads(entry, export), "mesh.stl")).status_code == 200
    maker.close()


FILE_OPTIONS = [
    "reference_image.path=/etc/passwd",
    "prior.weights=/etc",
    "prior=diffusers\nprior.model=/etc",
    'prior={"name": "diffusers", "model": "/etc"}',
    'reference_image={"path": "/etc/passwd"}',
]


@pytest.mark.parametrize("more", FILE_OPTIONS)
def test_no_visitor_names_a_file_of_the_server(page: Any, more: str) -> None:
    before = tree(page.index.outputs)
    answers = [page.generate(prior="embedded", more=more), page.generate(prior="/etc")]
    if more.startswith("reference_image.path") or more.startswith("prior.weights"):
        key, _, value = more.partition("=")
        answers.append(page.generate(prior="embedded", options={key: value}))
    for answer in answers:
        problem = "".join(map(str, answer[1:]))
        assert "is a file of the server" in problem, answer
        assert 'role="alert"' in problem
        assert "root:" not in problem
    assert tree(page.index.outputs) == before


def test_a_change_or_fork_names_no_file_either(page: Any, run: str) -> None:
    """Only words, guidance scale and steps can be said there; whatever the text, it is their value."""
    for words, scale in (
        ("", "/etc/passwd"),
        ("", '{"path": "/etc/passwd"}'),
        ("", "reference_image.path=/etc/passwd"),
    ):
        answer = page.output(page.event("fork", "click"), [None, words, scale, ""], session="fork-session")
        assert "root:" not in str(answer)
        _, problem = fork_run(page.index, run, words, scale, "9")
        assert "guidance.guidance_scale" in problem


def test_a_run_folder_from_elsewhere_shows_no_file_of_the_server(page: Any, small_config: Any, tmp_path: Path) -> None:
    """Its own files go along with a fork; those that it names by a path of this machine do not."""
    Image.new("L", (32, 32)).save(tmp_path / "secret.png")
    mask = Image.new("L", (32, 32))
    mask.paste(255, (8, 8, 24, 24))
    mask.save(tmp_path / "mask.png")
    image = {"path": str(tmp_path / "secret.png"), "mask": str(tmp_path / "mask.png"), "size": 16}
    folder = page.index.outputs / "foreign"
    list(Session(small_config(steps=4, checkpoint_every=2, reference_image=image), folder).run())
    name, answer = fork_run(page.index, "foreign", "", "", "9")
    assert "a new run is in the queue" in answer
    assert Path(page.index.queue.job(name).config.reference_image.path).is_relative_to(page.index.queue.folder)
    resolved = folder / "resolved.json"
    said = json.loads(resolved.read_text())
    said["reference_image"]["path"] = str(tmp_path / "secret.png")
    resolved.write_text(json.dumps(said))
    before = tree(page.index.outputs)
    _, answer = fork_run(page.index, "foreign", "", "", "8")
    assert "is a file of the server" in answer
    said["reference_image"] = None
    said["scene"] = {"name": "mesh", "geometry": "fixed", "source": {"path": str(tmp_path / "secret.glb")}}
    said["loss_weights"] = {}
    (folder / "config.json").write_text('{"prompt": "a red ball"}')
    resolved.write_text(json.dumps(said))
    maker = FileMaker()
    assert "is a file of the server" in make_format(page.index, "foreign", "textured", maker)
    maker.close()
    assert tree(page.index.outputs) == before


@pytest.mark.parametrize(
    "options", ["x", [1], {"steps": [1]}, {"steps": {"a": 1}}, {1: 2, "x" * 200: 1}, {"a": "x" * 5000}]
)
def test_controls_hold_plain_values(page: Any, options: Any) -> None:
    assert page.generate(options=options) == ["the page does not make such calls"]


def test_the_page_knows_no_file_of_a_run_and_nothing_private_of_gradio() -> None:
    for path in Path(server.__file__).parent.glob("*.py"):
        source = path.read_text()
        assert not re.search(r"blocks\._|page\._|gr\._[a-z]|session_data|state_holder|\._queue\b", source), path
        for name in (
            "config.json",
            "resolved.json",
            "events.jsonl",
            "report.json",
            "preview/",
            "mesh.glb",
            "splats.ply",
            "live.bin",
        ):
            assert f'"{name}' not in source, (path, name)


def test_results_and_previews_of_a_run_are_served(page: Any, run: str) -> None:
    for name, kind in (("sheet.png", "image/png"), ("mesh.glb", "model/gltf-binary"), ("orbit.mp4", "video/mp4")):
        answer = page.client.get(f"/run/{run}/{name}")
        assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
        assert answer.content == (page.index.outputs / run / name).read_bytes()
    assert page.client.get(f"/run/{run}/preview/step-000002.png").status_code == 200
    assert page.client.get(f"/run/{run}/splats.splat").status_code == 404  # known, and not made


def test_the_live_scene_is_served_whole_or_for_a_slow_line(page: Any, small_config: Any) -> None:
    folder = RunFolder(page.index.outputs / "growing")
    folder.path.mkdir(parents=True)
    folder.write_config(small_config(steps=4))
    whole = HEADER.pack(b"SDSL", 1, SPLATS, 0, 3, 9000, 0, 0.0, 1.0, 1.0) + bytes(9000 * SPLAT_BYTES)
    assert page.client.get("/run/growing/live/all").status_code == 404
    folder.write_live(whole)
    answer = page.client.get("/run/growing/live/all?v=1")
    assert (answer.status_code, answer.content) == (200, whole)
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    few = page.client.get("/run/growing/live/few").content
    assert len(few) == HEADER.size + 8000 * SPLAT_BYTES
    assert few[HEADER.size :] == whole[HEADER.size : len(few)]
    shutil.rmtree(folder.path)


def test_the_live_scene_asks_for_the_password(page: Any, run: str) -> None:
    guarded = TestClient(server.make_app(page.index, None, ("ada", "correct-horse"), {"testserver"}))
    for address in (f"/run/{run}/live/all", f"/run/{run}/live/few"):
        assert guarded.get(address).status_code == 401
        assert guarded.get(address, auth=("ada", "correct-horse")).status_code == 404  # let in: it has ended
        assert guarded.get(address, headers={"Host": "evil.example"}).status_code == 400


@pytest.mark.parametrize("attempt", TRAVERSALS)
def test_no_path_of_a_client_is_followed(page: Any, run: str, attempt: str) -> None:
    for address in (
        *(f"/run/{run}/{attempt}", f"/run/{attempt}/config.json", f"/run/{run}/preview/{attempt}"),
        *(f"/run/{run}/live/{attempt}", f"/run/{attempt}/live/all"),
        *(f"/events/{attempt}", f"/run/{run}/exports/{attempt}/mesh.glb", f"/run/{run}/exports/4/{attempt}"),
    ):
        answer = page.client.get(address)
        assert "root:" not in answer.text, address
        # a dot segment is resolved by the client, as browsers do: then another address of ours is meant
        if answer.url.path != f"/run/{run}/mesh.glb":
            assert answer.status_code in (404, 400) or answer.headers["content-type"].startswith("text/html"), address


@pytest.mark.parametrize(
    "attempt", ["/etc/passwd", "../../etc/passwd", "file:///etc/passwd", "http://evil.example/x", "//evil.example"]
)
def test_gradio_serves_no_file_that_is_not_its_own(page: Any, run: str, attempt: str) -> None:
    config = page.index.outputs / run / "config.json"
    for path in (attempt, str(config), str(config.resolve())):
        answer = page.client.get(f"/gradio_api/file={path}", follow_redirects=False)
        assert answer.status_code in (403, 404, 400), (path, answer.status_code)
        assert "root:" not in answer.text


def test_gradio_fetches_nothing_for_others_and_takes_no_uploads(page: Any) -> None:
    assert page.client.get("/gradio_api/proxy=http://evil.example/x").status_code == 404
    temporary = Path(os.environ["GRADIO_TEMP_DIR"])
    before = tree(temporary)
    for size in (10, 7 * 2**20):
        assert page.client.post("/gradio_api/upload", files={"files": ("x.png", b"x" * size)}).status_code == 404
    assert tree(temporary) == before


@pytest.mark.parametrize(
    "address",
    [
        "/docs",
        "/redoc",
        "/openapi.json",
        "/monitoring",
        "/gradio_api/mcp",
        "/gradio_api/info",
        "/gradio_api/openapi.json",
        "/gradio_api/queue/data?session_hash=x",
        "/gradio_api/queue/status",
    ],
)
def test_there_are_no_further_doors(page: Any, address: str) -> None:
    assert page.client.get(address).status_code in (403, 404)


def test_nothing_is_recorded_and_nothing_is_sent(page: Any) -> None:
    config = page.client.get("/config").json()
    assert config["analytics_enabled"] is False
    assert config["show_error"] is False
    assert not config.get("run_history")
    assert not config.get("is_space")
    text = page.client.get("/").text
    assert "fonts.googleapis.com" not in json.dumps(config.get("stylesheets", []))
    assert "huggingface.co" not in json.dumps(config.get("stylesheets", []))
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
    assert "</html>" in text


@pytest.mark.parametrize(
    "fields",
    [
        *({"prompt": value} for value in ("x" * 501, {"a": 1}, ["a red ball"], 7, True)),
        *({"seed": value} for value in (0, True, [1], {"a": 1}, "1" * 21)),
        *({"more": value} for value in ({"steps": 3}, "x" * 5000)),
        *({"preset": value} for value in ({"steps": 3}, ["draft"], 1, "mesh", "nothing")),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_the_page_would_not_send_is_no_call(page: Any, fields: dict[str, Any]) -> None:
    before = tree(page.index.outputs)
    assert page.generate(**fields) == ["the page does not make such calls"]
    assert tree(page.index.outputs) == before


@pytest.mark.parametrize(
    "prompt", ["../../red", "/etc/red", "red; rm -rf /", "$(red)", "..red", "a red ball\u202e", "-red"]
)
def test_no_prompt_becomes_a_path(page: Any, prompt: str) -> None:
    name = page.generate(prompt=prompt)[0]
    assert set(name) <= set(string.ascii_lowercase + string.digits + "-")
    assert not name.startswith("-")
    assert (page.index.queue.folder / name / "job.json").is_file()


def junk(rng: random.Random, depth: int = 0) -> Any:
    """Any JSON value, as often as not of a kind that hurts."""
    kinds: list[Any] = [
        *(None, True, -1, 0, 10**30, 1e308, [], {}, "", "a red ball", "../../../etc/passwd", "\x00", "%s%n{0}"),
        *("x" * rng.choice([10, 100_000]), "<script>alert(1)</script>", "'; DROP TABLE runs; --", "file:///etc/passwd"),
        *(
            {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}},
            {"__type__": "update", "value": 1},
            "\U0001f600",
        ),
    ]
    chosen = rng.randrange(len(kinds) + (4 if depth < 3 else 0))
    if chosen < len(kinds):
        return kinds[chosen]
    inner = [junk(rng, depth + 1) for _ in range(rng.randrange(4))]
    return inner if chosen % 2 else {f"k{index}": value for index, value in enumerate(inner)}


@pytest.mark.slow
def test_200_random_bad_payloads_find_no_hole(page: Any, run: str) -> None:
    """Every event in turn: no 500, no traceback, no path of the machine, and no file outside the outputs."""
    rng = random.Random(9)
    events = [*page.events, max(page.events) + 1]  # the last is none
    outside = page.index.outputs.parent
    before = tree(outside) - {str(Path("outputs") / name) for name in tree(page.index.outputs)}
    for turn in range(200):
        number = events[turn % len(events)]
        count = len(page.events[number]["inputs"]) if number in page.events else 2
        data = (
            junk(rng)
            if rng.random() < 0.15
            else [junk(rng) for _ in range(count if rng.random() < 0.8 else rng.randrange(14))]
        )
        status, text = page.call(number, data)
        assert status < 500, (number, data, text[:300])
        for told in ("Traceback", "root:x", 'File "/', str(Path(__file__).parents[3])):
            assert told not in text, (number, told, text[:300])
    assert tree(outside) - {str(Path("outputs") / name) for name in tree(page.index.outputs)} == before
    assert (page.index.outputs / run / "mesh.glb").is_file()
    assert page.client.get("/").status_code == 200


def test_bodies_that_are_no_calls_are_refused(page: Any) -> None:
    for body in (
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"fn_index": 99999, "data": []}',
        b'{"fn_index": "x"}',
        b"\xff\xfe",
        b"[" * 50_000,
    ):
        for address in ("/gradio_api/run/predict", "/gradio_api/queue/join", "/gradio_api/call/x", "/gradio_api/reset"):
            answer = page.client.post(address, content=body, headers={"Content-Type": "application/json"})
            assert answer.status_code < 500, (address, body[:40], answer.text[:200])
            assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    ("host", "auth", "said"),
    [
        ("0.0.0.0", None, "without a password"),
        ("192.168.1.2", None, "--auth NAME:PASSWORD"),
        ("127.0.0.1", "ann", "not NAME:PASSWORD"),
        ("127.0.0.1", "ann:short", "8 characters"),
        ("0.0.0.0", ":long enough", "not NAME:PASSWORD"),
    ],
)
def test_what_would_not_be_safe_is_not_served(host: str, auth: str | None, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_login(host, auth)


def test_a_password_may_hold_colons() -> None:
    assert check_login("0.0.0.0", "ann:pass:word:1") == ("ann", "pass:word:1")
    assert check_login("localhost", None) is None


def test_open_pages_are_no_error_when_the_server_ends() -> None:
    def record(text: str, error: BaseException | None) -> logging.LogRecord:
        about = None if error is None else (type(error), error, None)
        return logging.LogRecord("uvicorn.error", logging.ERROR, "", 0, text, None, about)

    assert not is_news(record("Exception in ASGI application", asyncio.CancelledError()))
    assert not is_news(record("Cancel 1 running task(s), timeout graceful shutdown exceeded", None))
    assert is_news(record("Exception in ASGI application", ValueError("a bug")))


def test_a_port_in_use_is_noticed() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        assert is_taken("127.0.0.1", other.getsockname()[1])
    assert not is_taken("127.0.0.1", other.getsockname()[1]) if other.fileno() != -1 else True


def test_the_addresses_of_this_machine_are_shown_as_a_browser_takes_them() -> None:
    assert server.addresses("192.168.1.7") == ["192.168.1.7"]
    for host, own in (("0.0.0.0", "127.0.0.1"), ("::", "::1")):
        first, *others = server.addresses(host)
        assert first == own
        for address in others:  # only an address of one's own can be bound
            with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
                probe.bind((address, 0))
    assert server.url("0.0.0.0", 80, "") == "http://0.0.0.0:80"
    assert server.url("fd00::2", 7860, "/sds3d") == "http://[fd00::2]:7860/sds3d/"


@pytest.mark.parametrize(
    ("said", "path"),
    [
        ("", ""),
        ("/", ""),
        ("sds3d", "/sds3d"),
        ("/sds3d/", "/sds3d"),
        ("/user/ada@x/proxy/7860", "/user/ada@x/proxy/7860"),
    ],
)
def test_a_root_path_is_taken_with_or_without_slashes(said: str, path: str) -> None:
    assert server.root_path(said) == path


@pytest.mark.parametrize("said", ["https://box.example.org/sds3d", "/a b", "/a?b", "/a//b", 'x"y'])
def test_what_is_no_root_path_is_refused(said: str) -> None:
    with pytest.raises(ConfigError, match="--root-path"):
        server.root_path(said)


def begin(folder: Path, kill: bool) -> None:
    """The beginning of a server that then ends, or is killed."""
    tempfile.tempdir = str(folder)
    os.environ.pop("GRADIO_TEMP_DIR", None)
    server.quiet_environment()
    (folder / "said").write_text(os.environ["GRADIO_TEMP_DIR"])
    if kill:
        os.kill(os.getpid(), signal.SIGKILL)
    server.OWN_FOLDERS.close()


@pytest.mark.xdist_group("children")
def test_the_temporary_folder_goes_with_the_server_and_that_of_a_killed_one_at_the_next_start(tmp_path: Path) -> None:
    """Only what is ours and dead goes: not the folder of another server that is there, nor files of others."""
    others = [tmp_path / name for name in ("sds3d-notes", ".sds3d-ui.txt", ".sds3d-uix.0.tmp", "said")]
    for path in others[:-1]:
        path.mkdir()

    def start(kill: bool) -> Path:
        assert ended(started(begin, tmp_path, kill)) == (-signal.SIGKILL if kill else 0)
        return Path(others[-1].read_text())

    killed = start(True)
    assert killed.is_dir()
    assert killed.stat().st_mode & 0o777 == 0o700
    with temporary_folder(tmp_path / "sds3d-ui") as alive:  # as of a second server; it sweeps as well
        assert not killed.exists()
        assert start(False).parent == tmp_path
        assert alive.is_dir()
    assert sorted(tmp_path.iterdir()) == sorted(others)
