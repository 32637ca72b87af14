"""The page's application without a browser, and a browser where there is one."""

import contextlib
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

gradio = pytest.importorskip("gradio", reason="the web page is an extra: pip install sds3d[ui]")


class Page:
    """The application as a browser's requests meet it. It has no workers, so nothing that is queued begins."""

    def __init__(self, client: Any, index: Any) -> None:
        self.client, self.index = client, index
        config = client.get("/config").json()
        self.components = config["components"]
        self.names = {part["id"]: part["props"].get("elem_id") for part in self.components}
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
        answer = self.client.post("/gradio_api/run/predict", json=body)
        return answer.status_code, answer.text

    def output(self, number: int, data: object, session: str | None = None) -> list[Any]:
        """What an event gives; one text, the problem, where it goes wrong."""
        status, text = self.call(number, data, session)
        return list(json.loads(text)["data"]) if status == 200 else [text]

    def generate(self, options: object = None, **fields: object) -> list[Any]:
        """[name of the run that the page then shows, what is said] of the button Generate, with these fields and
        controls, and small options for the rest."""
        self._sessions += 1
        session = f"session{self._sessions}"
        values = {"prompt": "a red ball", "prior": "analytic", "preset": "draft", "seed": "0", "guidance": "sds"}
        values |= {"scene": "gaussians", **fields}
        names = ("more", "prompt", "negative", "prior", "guidance", "scene", "preset", "seed", "times", "noise")
        data = [{} if options is None else options, *(values.get(name, "") for name in names)]
        answer = self.output(self.event("go", "click"), data, session)
        if len(answer) == 1:
            return answer
        live = self.output(self.event("live", "state_changed"), [None, None, ""], session)[1]
        found = re.search(r'data-run="([^"]+)"', live)
        return [found[1] if found else "", *answer[1:]]


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    from starlette.testclient import TestClient

    from sds3d_app.ui.run_index import RunIndex
    from sds3d_app.ui.server import make_app, quiet_environment

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))
        quiet_environment()
        index = RunIndex(tmp_path_factory.mktemp("page") / "outputs", limit=1000)
        with TestClient(make_app(index, None, None, {"testserver"}), raise_server_exceptions=False) as client:
            yield Page(client, index)


@pytest.fixture(scope="session")
def run(page: Any, small_config: Any) -> str:
    """The name of a finished run below the page's outputs."""
    from sds3d import Session

    list(Session(small_config(steps=4, preview_every=2), page.index.outputs / "a-ball").run())
    return "a-ball"


@pytest.fixture
def exports_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the page leaves to a process of its own is done in this one, which has everything loaded."""
    from sds3d_app.cli import invoke
    from sds3d_app.ui import export_files

    def run(command: list[str], **options: object) -> SimpleNamespace:
        said = io.StringIO()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
            code = invoke(command[3:])
        return SimpleNamespace(returncode=code, stderr=said.getvalue())

    monkeypatch.setattr(export_files.subprocess, "run", run)


@pytest.fixture
def ball(small_config, tmp_path: Path) -> SimpleNamespace:
    """An index with one finished run of the command line."""
    from sds3d import Session
    from sds3d_app.ui.run_index import RunIndex

    list(Session(small_config(steps=4), tmp_path / "outputs" / "ball").run())
    index = RunIndex(tmp_path / "outputs", limit=3)
    return SimpleNamespace(index=index, run=tmp_path / "outputs" / "ball", entry=index.find("ball"))
