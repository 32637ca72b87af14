"""What stands before every request."""

import base64
import time
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the web page is an extra: pip install sds3d[ui]")

from fastapi import FastAPI
from starlette.testclient import TestClient

from sds3d_app.ui import guard
from sds3d_app.ui.guard import FILES, HEADERS, MAX_BODY, TRIES, Guard, credentials
from sds3d_app.ui.uploads import LARGEST


def client(login: tuple[str, str] | None = None, root: str = "", **kwargs: Any) -> TestClient:
    app = FastAPI()
    app.add_middleware(Guard, login=login, hosts={"localhost", "127.0.0.1", "::1"}, root=root)
    app.add_api_route("/", lambda: "here", methods=["GET", "POST"])
    app.add_api_route(FILES, lambda: "here", methods=["POST"])
    return TestClient(app, **{"base_url": "http://localhost:7860", **kwargs})


def basic(name: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


@pytest.mark.parametrize(
    "host", ["localhost:7860", "localhost", "LOCALHOST:80", "127.0.0.1:7860", "[::1]:7860", "[::1]"]
)
def test_its_own_names_are_answered(host: str) -> None:
    assert client().get("/", headers={"Host": host}).status_code == 200


ADDRESSES = ["192.168.1.7:7860", "10.0.0.1", "[fd00::2]:7860", "[::2]", "[::ffff:192.168.1.7]:7860"]


@pytest.mark.parametrize("host", ADDRESSES)
def test_a_page_is_opened_by_any_address_and_takes_orders_from_itself_alone(host: str) -> None:
    assert client().get("/", headers={"Host": host}).status_code == 200
    for origin, status in ((f"http://{host}", 200), ("http://evil.example", 403), ("http://192.168.1.8:7860", 403)):
        assert client().post("/", json={}, headers={"Host": host, "Origin": origin}).status_code == status, origin


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:7860", "localhost.evil.example", "[", "::1", "", "192.168.1.7.evil.example"),
        *("192.168.1.7.nip.io:7860", "[evil.example]", "192.168.1", "3232235783", "0x7f.1", "[::1%evil.example]x"),
    ],
)
def test_other_names_are_refused_so_that_dns_rebinding_finds_nothing(host: str) -> None:
    answer = client().get("/", headers={"Host": host, "Origin": f"http://{host}"})
    assert (answer.status_code, answer.text.partition(" (")[0]) == (400, "this server has another name")


def test_below_a_path_everything_is_there_whether_a_proxy_takes_the_path_off_or_not() -> None:
    below = client(root="/sds3d", follow_redirects=False)
    for path in ("/", "/sds3d/"):
        assert below.get(path).text == '"here"'
        assert below.post(path, json={}, headers={"Origin": "http://evil.example"}).status_code == 403
        assert below.get(f"{path}gradio_api/info").status_code == 404
    assert below.get("/sds3d?run=a").headers["location"] == "/sds3d/?run=a"
    assert below.get("/sds3dx/").status_code == 404
    assert client().get("/sds3d/").status_code == 404


@pytest.mark.parametrize("status", [200, 400, 404, 413])
def test_every_answer_has_the_headers(status: int) -> None:
    asked: dict[int, Any] = {
        200: lambda c: c.get("/"),
        400: lambda c: c.get("/", headers={"Host": "evil.example"}),
        404: lambda c: c.get("/nowhere"),
        413: lambda c: c.post("/", content=b"x" * (MAX_BODY + 1)),
    }
    answer = asked[status](client())
    assert answer.status_code == status
    assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS


def test_a_page_of_another_site_gives_no_orders() -> None:
    for origin in ("http://evil.example", "null", "http://localhost:1234", "http://evil.example/localhost:7860"):
        assert client().post("/", json={}, headers={"Origin": origin}).status_code == 403, origin
    assert client().post("/", json={}, headers={"Origin": "http://localhost:7860"}).status_code == 200
    assert client().post("/", json={}).status_code == 200  # no browser


def test_a_body_has_a_length_and_a_limit() -> None:
    assert client().post("/", content=b"x" * MAX_BODY).status_code == 200
    assert client().post("/", content=b"x" * (MAX_BODY + 1)).status_code == 413
    assert client().post("/", content=iter([b"x"] * 3)).status_code == 411  # in chunks
    assert client().post(FILES, content=b"x" * (MAX_BODY + 1)).status_code == 200  # a file that a run is to read
    assert client().post(FILES, headers={"Content-Length": str(LARGEST + 1)}, content=b"").status_code == 413
    assert client().post("/", headers={"Content-Length": "-1"}, content=b"").status_code == 411


def test_a_password_is_asked_for_and_a_wrong_one_costs_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "DELAY", 0.2)
    browser = client(("ann", "correct horse"))
    first = browser.get("/")
    assert (first.status_code, first.headers["WWW-Authenticate"]) == (401, 'Basic realm="sds3d"')
    assert browser.get("/", headers=basic("ann", "correct horse")).status_code == 200
    assert browser.get("/", headers={"Authorization": "Bearer correct horse"}).status_code == 200  # of a program
    wrong_token = {"Authorization": "Bearer correct hors"}
    for wrong in (
        wrong_token,
        basic("ann", "correct hors"),
        basic("bob", "correct horse"),
        {"Authorization": "Basic %%%"},
    ):
        begun = time.monotonic()
        assert browser.get("/", headers=wrong).status_code == 401
        waited = time.monotonic() - begun
        assert waited >= 0.2 or credentials(wrong["Authorization"], "ann") is None


def test_after_too_many_wrong_passwords_even_the_right_one_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "DELAY", 0.0)
    browser = client(("ann", "correct horse"))
    for _ in range(TRIES):
        assert browser.get("/", headers=basic("ann", "guess")).status_code == 401
    assert browser.get("/", headers=basic("ann", "correct horse")).status_code == 429
    other = TestClient(browser.app, base_url="http://localhost:7860", client=("10.0.0.7", 1))
    assert other.get("/", headers=basic("ann", "correct horse")).status_code == 200
    monkeypatch.setattr(guard, "WINDOW", 0.0)
    assert browser.get("/", headers=basic("ann", "correct horse")).status_code == 200


@pytest.mark.parametrize(
    "header",
    ["", "Basic", "Basic !", "Bearer", "Bearer ", "Token YTpi", "Basic YQ==", "Basic /w==", "Basic " + "A" * 5000],
)
def test_what_is_no_password_is_none(header: str) -> None:
    assert credentials(header, "ann") is None
