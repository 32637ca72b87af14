"""The stream of a run: one reader for all pages, the newest state for slow ones, and nothing left when they go."""

import asyncio
import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the web page is an extra: pip install sds3d[ui]")

from sds3d.run.events import Finished, Preview, Started, StepDone
from sds3d.run.folder import RunFolder
from sds3d_app.ui import live_stream
from sds3d_app.ui.live_stream import LiveStreams, message_of
from sds3d_app.ui.run_index import RunIndex


class Looks:
    """Counts looks at runs; `messages` says how they are."""

    def __init__(self) -> None:
        self.messages: dict[str, dict[str, Any]] = {"a": {"step": 0, "active": True}}
        self.count = 0

    def __call__(self, name: str) -> dict[str, Any] | None:
        self.count += 1
        return self.messages.get(name)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_stream, "POLL", 0.02)


async def take(stream: AsyncIterator[str]) -> Any:
    """The next message of a stream."""
    text = await asyncio.wait_for(anext(stream), 5)
    assert text.startswith("data: ")
    assert text.endswith("\n\n")
    return json.loads(text[6:])


def test_all_pages_share_one_reader_and_are_sent_what_is_new() -> None:
    async def main() -> None:
        looks = Looks()
        streams = LiveStreams(looks)
        pages = [streams.follow("a") for _ in range(20)]
        assert [(await take(page))["step"] for page in pages] == [0] * 20
        await asyncio.sleep(0.2)
        assert looks.count <= 12, "one reader, not twenty"
        looks.messages["a"] = {"step": 1, "active": True}
        assert [(await take(page))["step"] for page in pages] == [1] * 20
        for page in pages:
            await page.aclose()
        assert not streams.slots
        count = looks.count
        await asyncio.sleep(0.1)
        assert looks.count <= count + 1, "nobody watches"

    asyncio.run(main())


def test_a_slow_page_is_sent_the_newest_and_holds_up_nobody() -> None:
    async def main() -> None:
        looks = Looks()
        streams = LiveStreams(looks)
        slow, fast = streams.follow("a"), streams.follow("a")
        assert (await take(slow))["step"] == 0
        for step in range(30):
            looks.messages["a"] = {"step": step, "active": True}
            assert (await take(fast))["step"] == step
        assert (await take(slow))["step"] == 29
        await slow.aclose()
        await fast.aclose()

    asyncio.run(main())


def test_a_stream_ends_with_its_run_and_begins_anew() -> None:
    async def main() -> None:
        looks = Looks()
        streams = LiveStreams(looks)
        stream, slow = streams.follow("a"), streams.follow("a")
        await take(stream)
        await take(slow)
        looks.messages["a"] = {"step": 9, "active": False}
        assert (await take(stream))["step"] == 9
        with pytest.raises(StopAsyncIteration):
            await asyncio.wait_for(anext(stream), 5)
        looks.messages["a"] = {"step": 10, "active": True}  # taken up again, while a slow page has not heard of the end
        again = streams.follow("a")
        assert (await take(again))["step"] == 10
        assert (await take(slow))["step"] == 9
        del looks.messages["a"]  # deleted
        with pytest.raises(StopAsyncIteration):
            await asyncio.wait_for(anext(again), 5)
        await slow.aclose()
        assert not streams.slots

    asyncio.run(main())


def test_without_news_there_is_a_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    assert live_stream.HEARTBEAT == 15.0
    monkeypatch.setattr(live_stream, "HEARTBEAT", 0.05)

    async def main() -> None:
        stream = LiveStreams(Looks()).follow("a")
        await take(stream)
        assert (await asyncio.wait_for(anext(stream), 5)).startswith(":")
        await stream.aclose()

    asyncio.run(main())


def test_the_end_of_the_server_ends_all_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        streams = LiveStreams(Looks())
        pages = [streams.follow("a") for _ in range(3)]
        for page in pages:
            await take(page)
        monkeypatch.setattr(live_stream, "MAX_STREAMS", 3)
        assert streams.is_full()
        waits = [asyncio.ensure_future(anext(page)) for page in pages]
        await asyncio.sleep(0.05)
        streams.close()
        for wait in waits:
            with pytest.raises(StopAsyncIteration):
                await asyncio.wait_for(wait, 5)
        await asyncio.sleep(0.1)
        assert not streams.slots

    asyncio.run(main())


def test_what_a_message_holds(tmp_path: Path, small_config) -> None:
    index = RunIndex(tmp_path / "outputs", limit=3)
    folder = RunFolder(tmp_path / "outputs" / "a red#1 50%")
    folder.path.mkdir(parents=True)
    folder.write_config(small_config(steps=9))
    with folder.lock():
        folder.append(Started("a red ball", folder.path, "cpu", 0, 9))
        folder.append(StepDone(4, {"guidance": 0.5}))
        folder.append(Preview(4, folder.preview_path(4)))
        message = message_of(index, "a red#1 50%")
        assert message is not None
        assert {key: message[key] for key in ("state", "active", "step", "steps", "losses", "place", "reason")} == {
            "state": "running", "active": True, "step": 4, "steps": 9, "losses": {"guidance": 0.5}, "place": 0,
            "reason": "",
        }  # fmt: skip
        assert message["preview"] == "run/a%20red%231%2050%25/preview/step-000004.png"
        assert message["preview"] in message["view"]
        assert folder.is_watched(), "the run is told that somebody looks"
        assert message["stage"]["live"] == ""
        folder.write_live(b"scene")
        live = message_of(index, "a red#1 50%")["stage"]["live"]  # type: ignore[index]
        assert live.startswith("run/a%20red%231%2050%25/live/all?v=")
    folder.append(Finished({"steps": 9}))
    assert message_of(index, "a red#1 50%")["active"] is False  # type: ignore[index]
    assert message_of(index, "../outputs") is None
    queued = index.add(small_config())
    index.add(small_config(seed=1))
    assert message_of(index, queued.name)["state"] == "queued"  # type: ignore[index]
    assert not queued.folder.is_watched(), "nothing is written into a folder that waits"
    assert message_of(index, index.add(small_config(seed=2)).name)["place"] == 2  # type: ignore[index]


@pytest.fixture
def served(tmp_path: Path, small_config, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The page's application behind uvicorn, with a queued run."""
    pytest.importorskip("gradio")
    uvicorn = pytest.importorskip("uvicorn")
    from sds3d_app.ui.server import make_app, quiet_environment

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    quiet_environment()
    index = RunIndex(tmp_path / "outputs", limit=3)
    app = make_app(index, None, None, {"127.0.0.1"})
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", timeout_graceful_shutdown=10))
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_until(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    name = index.add(small_config()).name
    yield SimpleNamespace(index=index, streams=app.state.streams, port=port, name=name, server=server, thread=thread)
    app.state.streams.close()
    server.should_exit = True
    thread.join(30)
    assert not thread.is_alive()


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_closed_tab_leaves_nothing_behind(served: SimpleNamespace) -> None:
    connections = []
    for _ in range(5):
        connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
        connection.request("GET", f"/events/{served.name}")
        answer = connection.getresponse()
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-accel-buffering"] == "no"
        assert json.loads(answer.readline()[6:])["name"] == served.name
        connections.append((connection, answer))
    assert list(served.streams.slots) == [served.name]
    for connection, answer in connections:
        answer.close()
        connection.close()
    wait_until(lambda: not served.streams.slots)


def test_a_page_that_reads_nothing_holds_up_neither_others_nor_the_end(served: SimpleNamespace) -> None:
    with contextlib.closing(socket.create_connection(("127.0.0.1", served.port))) as silent:
        silent.sendall(f"GET /events/{served.name} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        wait_until(lambda: list(served.streams.slots) == [served.name])
        connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
        connection.request("GET", f"/events/{served.name}")
        answer = connection.getresponse()
        assert json.loads(answer.readline()[6:])["state"] == "queued"
        served.index.queue.delete(served.index.find(served.name).job)
        assert answer.read().strip() == b""  # the stream is over
        connection.request("GET", f"/events/{served.name}")
        assert connection.getresponse().status == 404
        connection.close()
