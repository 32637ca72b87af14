"""The client, curl and a whole server with its worker."""

import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh

from sds3d import __version__
from sds3d.client import Client, Job, Problem
from sds3d.run.folder import RunFolder
from tests.sizes import FULL

from .browser import Server

ROOT = Path(__file__).resolve().parents[3]
SMALL = {
    "prior": "analytic", "scene": "gaussians", "scene.count": 150, "cameras.size": 24, "cameras.views": 2,
    "export.resolution": 32, "export.faces": 2000, "export.color_size": 64, "export.texture_size": 128,
    "preview_every": 5, "checkpoint_every": 5,
}  # fmt: skip
LOGIN = ("ann", "correct horse")

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("server")]  # one server for all


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("api") / "outputs")
    yield running
    running.end()


@pytest.fixture
def client(server: Server) -> Client:
    return Client(server.address)


def test_from_words_to_a_mesh_and_its_colours(client: Client, server: Server, tmp_path: Path) -> None:
    job = client.generate("a red ball", **SMALL, steps=20)
    assert client.generate("a red ball", **SMALL, steps=20).name == job.name  # sent twice
    events = list(job.events())
    folder = RunFolder(server.folder(job.name))
    written = [type(event).__name__ for _, event in folder.reader().read()]
    assert [event.kind for event in events] == [*written, "End"]
    assert events[-1].data["state"] == "done"
    assert [event.id for event in job.events(after=events[3].id)] == [event.id for event in events[4:]]
    assert job.wait()["step"] == 20
    assert (job.preview() or b"").startswith(b"\x89PNG")

    assert {"mesh.glb", "sheet.png"} <= job.files().keys()
    path = job.download("mesh.glb", tmp_path / "ball.glb")
    assert path.read_bytes() == folder.artifact("glb").read_bytes()
    (stl,) = job.export("stl", tmp_path / "print")
    assert trimesh.load(stl).is_watertight
    with pytest.raises(Problem, match="no such address") as refused:
        job.download("../queue", tmp_path / "no")
    assert refused.value.status == 404
    assert not list(tmp_path.glob("no*"))
    assert not list(tmp_path.glob(".*"))

    painted = client.texture(path, "a blue ball", **{"prior": "analytic", "steps": 4, "cameras.size": 24})
    assert painted.wait(timeout=200)["state"] == "done"
    before, after = (
        trimesh.load(file, force="mesh") for file in (path, painted.download("textured.glb", tmp_path / "t.glb"))
    )
    assert np.array_equal(before.vertices, after.vertices)
    again = client.refine(job, steps=2, **{"cameras.size": 24})
    assert again.info()["prompt"] == "a red ball"
    again.stop()
    assert {each["name"] for each in client.jobs(find="ball")} == {job.name, painted.name, again.name}
    painted.delete()
    with pytest.raises(Problem, match="no such run"):
        client.job(painted.name)


def test_a_job_is_watched_paused_changed_and_finished(client: Client) -> None:
    job = client.generate("a red ball", **SMALL, steps=100_000)
    for event in job.events():
        if event.kind == "CheckpointSaved" and event.data["step"] == 10:
            job.change(prompt="a blue ball")
        elif event.kind == "Changed":
            job.pause()
        elif event.kind == "Finished" and event.data["interrupted"]:  # its worker is free for others
            child = job.fork(prompt="a green ball", steps=50_000)
            child.pause()
            job.resume()
        elif event.kind == "Started" and event.data["step"] > 0:
            job.finish()
    assert event.data == {"state": "stopped", "reason": ""}
    assert "mesh.glb" in job.files()
    assert job.info()["options"]["prompt"] == "a blue ball"
    child.stop()
    assert child.wait(timeout=60)["state"] == "stopped"
    child.retry()
    child.pause()
    assert child.info()["state"] == "paused"
    with pytest.raises(Problem) as refused:
        client.generate("a red ball", **{"guidance.guidance_scal": 3})
    assert (refused.value.status, refused.value.field) == (400, "guidance.guidance_scal")
    assert "guidance_scale" in refused.value.hint


class Flaky:
    """A server that cuts each connection after so many lines."""

    def __init__(self, client: Client, lines: int) -> None:
        self._stream, self._lines, self.opened = client.stream, lines, 0

    def __call__(self, address: str, headers: Any = None) -> Any:
        self.opened += 1
        whole, lines = self._stream(address, headers), self._lines

        class Cut:
            def __enter__(self) -> Iterator[bytes]:
                return self._read()

            def __exit__(self, *error: object) -> None:
                whole.close()

            def _read(self) -> Iterator[bytes]:
                for number, line in enumerate(whole):
                    if number == lines:
                        raise ConnectionResetError("cut")
                    yield line

        return Cut()


def test_a_cut_connection_loses_no_event_and_tells_none_twice(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    job = client.generate("a red ball", **SMALL, steps=20)  # done before, or now
    expected = [(event.kind, event.id) for event in job.events()]
    flaky = Flaky(client, 10)  # two events and a half
    monkeypatch.setattr(client, "stream", flaky)
    monkeypatch.setattr("sds3d.client.time.sleep", lambda seconds: None)
    assert [(event.kind, event.id) for event in job.events()] == expected
    assert flaky.opened > 3
    never = Flaky(client, 0)
    never._stream = flaky._stream
    monkeypatch.setattr(client, "stream", never)
    with pytest.raises(ConnectionResetError):
        list(job.events())
    with pytest.raises(OSError, match=r"refused|urlopen"):
        Client("http://127.0.0.1:9").health()


def test_a_hundred_programs_watch_and_none_misses_an_event(client: Client, server: Server) -> None:
    job = client.generate("a red ball", **SMALL, steps=60, seed=5)
    seen: list[list[tuple[str, int]]] = []

    def watch() -> None:
        seen.append([(event.kind, event.id) for event in Job(Client(server.address), job.name).events()])

    threads = [threading.Thread(target=watch) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(200)
    assert len(seen) == 100
    assert seen.count(seen[0]) == 100
    written = [type(event).__name__ for _, event in RunFolder(server.folder(job.name)).reader().read()]
    assert [kind for kind, _ in seen[0]] == [*written, "End"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
def test_the_examples_of_the_page_run(server: Server, tmp_path: Path) -> None:
    (script,) = re.findall(r"^```sh\n(.+?)^```", (ROOT / "docs" / "api.md").read_text(), flags=re.DOTALL | re.MULTILINE)
    script = script.replace("http://127.0.0.1:7860/", server.address)
    assert server.address in script
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "preview.png").read_bytes().startswith(b"\x89PNG")
    assert len(trimesh.load(tmp_path / "mug.glb", force="mesh").faces) > 1000
    assert (tmp_path / "events.txt").read_text().rstrip().endswith('{"state": "stopped", "reason": ""}')


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_server_whose_terminal_is_closed_saves_what_is_under_way(by: signal.Signals, tmp_path: Path) -> None:
    if by != signal.SIGHUP and not FULL:
        pytest.skip("takes long: make test-reliability")
    server = Server(tmp_path / "outputs")
    job = Client(server.address).generate("a red ball", **{**SMALL, "checkpoint_every": 100_000}, steps=1_000_000)
    next(event for event in job.events() if event.kind == "StepDone")
    output = server.end(by)
    assert "Traceback" not in output, output
    assert server.process.returncode in (0, -signal.SIGTERM, -signal.SIGINT)
    assert server.queue.job(job.name).state == "queued"  # the next server goes on with it
    assert RunFolder(server.folder(job.name)).checkpoint_steps(), "it was saved"


def test_a_password_is_said_and_asked_for(tmp_path: Path) -> None:
    """In this process: a second server costs seconds."""
    import uvicorn

    from sds3d_app.ui.run_index import RunIndex
    from sds3d_app.ui.server import make_app, quiet_environment

    quiet_environment()
    app = make_app(RunIndex(tmp_path / "outputs", 3), None, LOGIN, {"127.0.0.1"})
    running = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=running.run)
    thread.start()
    try:
        while not running.started:
            assert thread.is_alive()
        port = running.servers[0].sockets[0].getsockname()[1]
        assert Client(f"http://127.0.0.1:{port}", LOGIN).health()["version"] == __version__
        with pytest.raises(Problem, match="name and password") as refused:
            Client(f"http://127.0.0.1:{port}").health()
        assert refused.value.status == 401
    finally:
        running.should_exit = True
        thread.join()


def test_the_client_alone_needs_nothing_else(tmp_path: Path) -> None:
    """Built and installed without sds3d; in a Python that has nothing but the standard library."""
    source = tmp_path / "client"
    shutil.copytree(
        ROOT / "sds3d" / "client", source, ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info")
    )
    target = tmp_path / "installed"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-build-isolation", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", target, source], check=True, capture_output=True)
    code = "import sys, sds3d.client; print(sds3d.client.__file__, 'torch' in sys.modules, 'sds3d' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(target)},
        capture_output=True,
        text=True,
        check=True,
    )
    file, has_torch, _ = done.stdout.split()
    assert Path(file).is_relative_to(target)
    assert has_torch == "False"
    assert f'version = "{__version__}"' in (source / "pyproject.toml").read_text()
