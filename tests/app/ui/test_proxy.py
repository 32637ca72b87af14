"""The page behind a proxy, below a path: nginx and Caddy as docs/ui.md sets them up, and a proxy that changes Host."""

import http.client
import http.server
import json
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("gradio", reason="the web page is an extra: pip install sds3d[ui]")

NAME, ROOT = "box.example.org", "/sds3d"
DOCS = (Path(__file__).parents[3] / "docs" / "ui.md").read_text()


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, small_config: Any) -> Iterator[SimpleNamespace]:
    """The application behind uvicorn, with a run that is done; no workers."""
    import uvicorn

    from sds3d import Session
    from sds3d_app.ui.run_index import RunIndex
    from sds3d_app.ui.server import make_app, quiet_environment

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))
        quiet_environment()
        index = RunIndex(tmp_path_factory.mktemp("proxy") / "outputs", limit=9)
        list(Session(small_config(steps=4, preview_every=2), index.outputs / "a ball").run())
        app = make_app(index, None, None, {"127.0.0.1", NAME}, ROOT)
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", timeout_graceful_shutdown=3))
        thread = threading.Thread(target=server.run)
        thread.start()
        wait_until(lambda: server.started)
        yield SimpleNamespace(index=index, port=server.servers[0].sockets[0].getsockname()[1])
        app.state.streams.close()
        server.should_exit = True
        thread.join(30)


def block(kind: str) -> str:
    (found,) = re.findall(rf"```{kind}\n(.*?)```", DOCS, re.DOTALL)
    return str(found)


def start_nginx(folder: Path, port: int, behind: int) -> subprocess.Popen[bytes]:
    location = block("nginx").replace(":7860", f":{behind}")
    places = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; error_log stderr; events {{}}\n"
        f"http {{ access_log off; {places} server {{ listen 127.0.0.1:{port}; server_name {NAME}; {location} }} }}"
    )
    return subprocess.Popen(["nginx", "-p", str(folder), "-e", "stderr", "-c", str(folder / "nginx.conf")])


def start_caddy(folder: Path, port: int, behind: int) -> subprocess.Popen[bytes]:
    site = block("caddy").replace(":7860", f":{behind}").replace(f"{NAME} {{", f"http://{NAME}:{port} {{")
    (folder / "Caddyfile").write_text("{\n admin off\n auto_https off\n}\n" + site)
    command = ["caddy", "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]
    return subprocess.Popen(
        command, env={"HOME": str(folder), "PATH": "/usr/bin:/bin:/usr/local/bin"}, stderr=subprocess.DEVNULL
    )


class PlainProxy:
    """As one that nobody has set up: it takes the path off, and calls the server by the server's own address."""

    def __init__(self, port: int, behind: int) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {key: value for key, value in self.headers.items() if key.lower() != "host"}
                with closing(http.client.HTTPConnection("127.0.0.1", behind, timeout=60)) as connection:
                    connection.request(self.command, self.path.removeprefix(ROOT), body or None, headers)
                    answer = connection.getresponse()
                    self.send_response(answer.status)
                    self.send_header("Connection", "close")
                    self.end_headers()
                    self.wfile.write(answer.read())

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        threading.Thread(target=self._server.serve_forever).start()

    def terminate(self) -> None:
        self._server.shutdown()

    def wait(self) -> None:
        self._server.server_close()


class Visitor:
    """A browser's requests to a proxy that goes by NAME."""

    def __init__(self, port: int) -> None:
        self.port, self.host = port, f"{NAME}:{port}"

    def ask(self, path: str, data: object = None, **headers: str) -> tuple[int, bytes]:
        """(status, body, or where a redirection leads)."""
        body = None if data is None else json.dumps(data).encode()
        kind = {"Content-Type": "application/json"} if body else {}
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            connection.request("GET" if body is None else "POST", path, body, {"Host": self.host, **kind, **headers})
            answer = connection.getresponse()
            return answer.status, answer.headers.get("Location", "").encode() or answer.read()

    def order(self, config: dict[str, Any], origin: str) -> tuple[int, bytes]:
        """What the page's first event gives to a page of that origin."""
        number = next(event["id"] for event in config["dependencies"] if not event["inputs"] or event["targets"])
        event = next(event for event in config["dependencies"] if event["id"] == number)
        call = {"fn_index": number, "session_hash": "session", "data": [None] * len(event["inputs"])}
        return self.ask(f"{ROOT}/gradio_api/run/predict", call, Origin=origin)


@pytest.fixture(params=["nginx", "caddy"])
def proxied(request: pytest.FixtureRequest, served: SimpleNamespace, tmp_path: Path) -> Iterator[Visitor]:
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed (Debian, Ubuntu: apt-get install {request.param})")
    start = {"nginx": start_nginx, "caddy": start_caddy}[request.param]
    with ExitStack() as end:
        port = free_port()
        process = start(tmp_path, port, served.port)
        end.callback(process.wait)
        end.callback(process.terminate)
        wait_until(lambda: process.poll() is not None or answers(port))
        assert process.poll() is None
        yield Visitor(port)


def test_everything_is_there_behind_a_real_proxy(proxied: Visitor, served: SimpleNamespace) -> None:
    status, text = proxied.ask(f"{ROOT}/")
    assert status == 200
    assert b"</html>" in text
    status, elsewhere = proxied.ask(ROOT)
    assert status in (301, 302, 307)
    assert elsewhere.removeprefix(f"http://{proxied.host}".encode()) == f"{ROOT}/".encode()
    config = json.loads(proxied.ask(f"{ROOT}/config")[1])
    assert config["root"] == f"http://{proxied.host}{ROOT}"
    scripts = re.findall(r"(?:src|href)=\"([^\"]+\.(?:js|css))\"", text.decode())
    for address in scripts[:3]:
        path = address.removeprefix(f"http://{proxied.host}").removeprefix("./")
        assert proxied.ask(path if path.startswith("/") else f"{ROOT}/{path}")[0] == 200, address
    assert proxied.ask(f"{ROOT}/run/a%20ball/config.json") == (
        200,
        (served.index.outputs / "a ball" / "config.json").read_bytes(),
    )
    assert proxied.order(config, f"http://{proxied.host}")[0] == 200
    assert proxied.order(config, "http://evil.example")[0] == 403


def test_the_stream_is_passed_on_at_once_behind_a_real_proxy(proxied: Visitor) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", proxied.port, timeout=30)) as connection:
        connection.request("GET", f"{ROOT}/events/a%20ball", headers={"Host": proxied.host})
        message = json.loads(connection.getresponse().readline()[6:])  # the stream goes on
    assert message["name"] == "a ball"
    addresses = re.findall(r"(?:src|href)=\"([^\"?]*a%20ball[^\"?]*)", message["view"] + message["preview"])
    assert not [address for address in addresses if address.startswith("/")], "it would leave the path"


def test_a_proxy_that_changes_the_host_is_told_what_to_set(served: SimpleNamespace) -> None:
    port = free_port()
    proxy = PlainProxy(port, served.port)
    try:
        visitor = Visitor(port)
        status, text = visitor.ask(f"{ROOT}/config")
        assert status == 200
        status, said = visitor.order(json.loads(text), f"http://{visitor.host}")
    finally:
        proxy.terminate()
        proxy.wait()
    assert status == 403
    assert b"proxy_set_header Host $http_host" in said
