"""The page's application without a browser, and a browser where there is one."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

gradio = pytest.importorskip("gradio", reason="the web page is an extra: pip install sds3d[ui]")


class Page:
    """The application as a browser's requests meet it; `works` has no workers, so nothing that is queued begins."""

    def __init__(self, client: Any, works: Any) -> None:
        self.client, self.works = client, works
        config = client.get("/config").json()
        self.names = {part["id"]: part["props"].get("elem_id") for part in config["components"]}
        self.events = {event["id"]: event for event in config["dependencies"]}
        self._sessions = 0

    def event(self, elem_id: str, kind: str) -> int:
        """The number of a component's event."""
        found = [
            number
            for number, event in self.events.items()
            if any(self.names.get(target) == elem_id and name == kind for target, name in event["targets"])
        ]
        assert len(found) == 1, (elem_id, kind, found)
        return found[0]

    def call(self, number: int, data: object, session: str | None = None) -> tuple[int, str]:
        """(status, everything that the server says) of one event."""
        self._sessions += 1
        body = {"fn_index": number, "data": data, "session_hash": session or f"session{self._sessions}"}
        if number in self.events and not self.events[number]["queue"]:
            answer = self.client.post("/gradio_api/run/predict", json=body)
            return answer.status_code, answer.text
        joined = self.client.post("/gradio_api/queue/join", json=body)
        if joined.status_code != 200:
            return joined.status_code, joined.text
        answer = self.client.get(f"/gradio_api/queue/data?session_hash={body['session_hash']}")
        return answer.status_code, answer.text

    def output(self, number: int, data: object) -> list[Any]:
        """What an event gives; one text, the problem, where it goes wrong."""
        status, text = self.call(number, data)
        if status != 200:
            return [text]
        found = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
        (done,) = [message for message in found if message["msg"] == "process_completed"]
        return list(done["output"]["data"]) if done["success"] else [str(done["output"]["error"])]

    def generate(self, **fields: object) -> list[Any]:
        """The outputs of the button Generate, with these fields and small options for the rest."""
        given = {"prompt": "a red ball", "prior": "analytic", "preset": "draft", "seed": 0, "guidance": "sds"}
        given |= {"scene": "gaussians", **fields}
        names = ("more", "prompt", "negative", "prior", "guidance", "scene", "preset", "seed", "times", "noise")
        return self.output(self.event("go", "click"), [{}, *(given.get(name, "") for name in names)])


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    from starlette.testclient import TestClient

    from sds3d_app.ui.run_index import Works
    from sds3d_app.ui.server import make_app, quiet_environment

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))
        quiet_environment()
        works = Works(tmp_path_factory.mktemp("page") / "outputs", limit=1000)
        with TestClient(make_app(works, None, None, {"testserver"}), raise_server_exceptions=False) as client:
            yield Page(client, works)


@pytest.fixture
def made(small_config, tmp_path: Path) -> SimpleNamespace:
    """Works with one finished run of the command line."""
    from sds3d import Session
    from sds3d_app.ui.run_index import Works

    list(Session(small_config(steps=4), tmp_path / "outputs" / "ball").run())
    works = Works(tmp_path / "outputs", limit=3)
    return SimpleNamespace(works=works, run=tmp_path / "outputs" / "ball", work=works.find("ball"))
