"""The whole application against what a hostile client can send: nothing breaks, nothing is told, nothing is written."""

import asyncio
import json
import logging
import os
import random
import socket
import string
from pathlib import Path
from typing import Any

import pytest

from sds3d.errors import ConfigError
from sds3d_app.ui.server import check_login, is_news, is_taken

TRAVERSALS = [
    "../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/etc/passwd", "....//....//etc/passwd", "/etc/passwd",
    "..\\..\\etc\\passwd", "config.json/../../../../etc/passwd", "config.json%00.png", ".", "..", "%00", "events.jsonl",
    "checkpoints", "a" * 5000, "\u2025/etc/passwd", "file:///etc/passwd",
]  # fmt: skip


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def run(page: Any, small_config: Any) -> str:
    """The name of a finished run below the page's outputs."""
    from sds3d import Session

    list(Session(small_config(steps=4, preview_every=2), page.works.outputs / "a-ball").run())
    return "a-ball"


def test_results_and_previews_of_a_run_are_served(page: Any, run: str) -> None:
    for name, kind in (("sheet.png", "image/png"), ("mesh.glb", "model/gltf-binary"), ("orbit.mp4", "video/mp4")):
        answer = page.client.get(f"/run/{run}/{name}")
        assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
        assert answer.content == (page.works.outputs / run / name).read_bytes()
    assert page.client.get(f"/run/{run}/previews/step-000002.png").status_code == 200
    assert page.client.get(f"/run/{run}/splats.splat").status_code == 404  # known, and not made


@pytest.mark.parametrize("attempt", TRAVERSALS)
def test_no_path_of_a_client_is_followed(page: Any, run: str, attempt: str) -> None:
    for address in (f"/run/{run}/{attempt}", f"/run/{attempt}/config.json", f"/run/{run}/previews/{attempt}"):
        answer = page.client.get(address)
        assert "root:" not in answer.text, address
        # a dot segment is resolved by the client, as browsers do: then another address of ours is meant
        assert answer.status_code in (404, 400) or answer.headers["content-type"].startswith("text/html"), address


@pytest.mark.parametrize(
    "attempt", ["/etc/passwd", "../../etc/passwd", "file:///etc/passwd", "http://evil.example/x", "//evil.example"]
)
def test_gradio_serves_no_file_that_is_not_its_own(page: Any, run: str, attempt: str) -> None:
    config = page.works.outputs / run / "config.json"
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


def test_a_run_is_queued_as_the_page_says(page: Any) -> None:
    name = page.generate(prompt="a blue ball", more="steps=7\noptim.guidance_lr=0.8")[1]
    config = page.works.find(name).config
    assert (config.prompt, config.steps, config.optim.guidance_lr, config.prior.name) == ("a blue ball", 7, 0.8, "analytic")


@pytest.mark.parametrize(
    ("fields", "field", "said"),
    [
        ({"prompt": ""}, "prompt", "is empty"),
        ({"prompt": "a ball\x00"}, "prompt", "control character"),
        ({"prompt": "a zzz qqq", "prior": "embedded"}, "prompt", "does not know: zzz, qqq"),
        ({"seed": -1}, "seed", "greater than or equal to 0"),
        ({"seed": 10**25}, "seed", "not allowed"),
        ({"seed": 0.5}, "seed", "not allowed"),
        ({"more": "steps=0"}, "steps", "greater than or equal to 1"),
        ({"more": "steps=many"}, "steps", "valid integer"),
        ({"more": "guidance.guidance_scale=1e9"}, "guidance.guidance_scale", "less than or equal to 200"),
        ({"more": "optim.guidance_lr=NaN"}, "optim.guidance_lr", "not allowed"),
        ({"more": "nothing=1"}, "nothing", "is not an option"),
        ({"more": "no equals sign"}, "more", "is not KEY=VALUE"),
        ({"prior": "nothing"}, "prior", "is unknown"),
        ({"prior": "diffusers"}, "prior.model", "is missing"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_wrong_is_refused_with_the_field(page: Any, fields: dict[str, Any], field: str, said: str) -> None:
    before = tree(page.works.outputs)
    problem = "".join(map(str, page.generate(**fields)[2:]))
    assert f'role="alert" data-field="{field}"' in problem
    assert said in problem
    assert tree(page.works.outputs) == before


@pytest.mark.parametrize(
    "fields",
    [
        *({"prompt": value} for value in ("x" * 501, {"a": 1}, ["a red ball"], 7, True)),
        *({"seed": value} for value in ("soon", True, [1], {"a": 1}, 10**400)),
        *({"more": value} for value in ({"steps": 3}, "x" * 5000)),
        *({"preset": value} for value in ({"steps": 3}, ["draft"], 1)),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_the_page_would_not_send_is_no_call(page: Any, fields: dict[str, Any]) -> None:
    before = tree(page.works.outputs)
    assert page.generate(**fields) == ["the page would not say this"]
    assert tree(page.works.outputs) == before


@pytest.mark.parametrize(
    "prompt", ["../../red", "/etc/red", "red; rm -rf /", "$(red)", "..red", "a red ball\u202e", "-red"]
)
def test_no_prompt_becomes_a_path(page: Any, prompt: str) -> None:
    name = page.generate(prompt=prompt)[1]
    assert set(name) <= set(string.ascii_lowercase + string.digits + "-")
    assert not name.startswith("-")
    assert (page.works.ledger.folder / name / "job.json").is_file()


def test_a_full_queue_says_so(page: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page.works, "limit", 0)
    before = tree(page.works.outputs)
    assert "the queue is full" in page.generate(prompt="a green ball")[3]
    assert tree(page.works.outputs) == before


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


def test_200_random_bad_payloads_find_no_hole(page: Any, run: str) -> None:
    """Every event in turn: no 500, no traceback, no path of the machine, and no file outside the outputs."""
    rng = random.Random(9)
    events = [*page.events, max(page.events) + 1]  # the last is none
    outside = page.works.outputs.parent
    before = tree(outside) - {str(Path("outputs") / name) for name in tree(page.works.outputs)}
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
    assert tree(outside) - {str(Path("outputs") / name) for name in tree(page.works.outputs)} == before
    assert (page.works.outputs / run / "mesh.glb").is_file()
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


def test_the_live_view_of_a_run(page: Any, run: str) -> None:
    answer = page.client.get(f"/live/{run}")
    assert answer.headers["content-type"].startswith("text/html")
    assert f'data-run="{run}" data-state="done"' in answer.text
    assert page.client.get("/live/nothing").status_code == 404


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
