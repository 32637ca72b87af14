"""The HTTP API without workers: what is queued does not begin. test_client.py has a whole server."""

import asyncio
import json
import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import validate

from sds3d import Session
from sds3d.errors import ConfigError, RunBusy
from sds3d.jobs.worker import Worker
from sds3d.run.events import CheckpointSaved, Exported, Finished, Started, StepDone, Stop, Warned
from sds3d.run.folder import RunFolder
from sds3d_app.ui import event_stream, uploads
from sds3d_app.ui.event_stream import follow_events, read_events
from sds3d_app.ui.run_index import RunIndex
from sds3d_app.ui.uploads import Uploads

from .test_server import TRAVERSALS, tree

API = "/api/v1"
SMALL = {"prior": "analytic", "scene": "gaussians", "steps": 40}


def add(page: Any, status: int = 201, **body: Any) -> dict[str, Any]:
    answer = page.client.post(f"{API}/jobs", json={"prompt": "a red ball", **body})
    assert answer.status_code == status, answer.text
    return dict(answer.json())


def problem(page: Any, status: int = 400, **body: Any) -> dict[str, str]:
    return dict(add(page, status, **body)["error"])


def events_in(text: str) -> list[tuple[int, str, dict[str, Any]]]:
    """(id, kind, data) of server-sent events."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            found.append((int(fields["id"]), fields["event"], json.loads(fields["data"])))
    return found


def test_the_description_is_valid_and_whole(page: Any) -> None:
    description = page.client.get(f"{API}/openapi.json").json()
    validate(description)
    named = {(method, path) for path, methods in description["paths"].items() for method in methods}
    text = (Path(__file__).parents[3] / "docs" / "api.md").read_text()
    for _, path in named:
        assert path.replace("{name}", "NAME").replace("{file}", "FILE").removeprefix("/jobs/NAME") in text, path
    operations = [each["operationId"] for path in description["paths"].values() for each in path.values()]
    assert len(set(operations)) == len(operations)


def test_a_job_is_queued_told_of_commanded_and_deleted(page: Any) -> None:
    made = add(page, options={**SMALL, "guidance.guidance_scale": 7, "seed": 12})
    assert (made["state"], made["steps"], made["step"]) == ("queued", 40, 0)
    assert made["options"]["guidance.guidance_scale"] == 7
    config = page.index.queue.job(made["name"]).config
    assert (config.seed, config.guidance.guidance_scale, config.prior.name) == (12, 7, "analytic")
    # nested, and sent twice: the same job
    options = {**SMALL, "guidance": {"guidance_scale": 7}, "seed": 12}
    assert add(page, options=options)["name"] == made["name"]

    address = f"{API}/jobs/{made['name']}"
    assert page.client.get(address).json()["prompt"] == "a red ball"
    listed = page.client.get(f"{API}/jobs", params={"state": "queued", "find": "BALL red"}).json()
    assert made["name"] in [job["name"] for job in listed["jobs"]]
    assert page.client.get(f"{API}/jobs", params={"find": "nothing like it"}).json() == {"jobs": [], "total": 0}

    def command(name: str, **more: Any) -> Any:
        return page.client.post(f"{address}/commands", json={"command": name, **more})

    assert command("pause").json()["state"] == "paused"
    assert command("resume").json()["state"] == "queued"
    change = {"prompt": "a blue ball", "guidance.guidance_scale": 3}
    assert command("change", changes=change).status_code == 200
    changes = [
        told.changes
        for _, told in page.index.queue.commands(page.index.queue.job(made["name"]))
        if hasattr(told, "changes")
    ]
    assert changes == [change]
    assert "steps" in command("change", changes={"steps": 5}).json()["error"]["message"]
    assert command("change").status_code == command("pause", changes=change).status_code == 400
    assert command("stop").json()["state"] == "stopped"
    assert command("pause").json()["error"]["message"].endswith("it is stopped")
    assert command("retry").json()["state"] == "queued"
    assert page.client.delete(address).status_code == 204
    assert page.client.get(address).status_code == 404


def test_preset_and_recipe_are_those_of_the_command_line(page: Any) -> None:
    made = add(page, preset="draft", options=SMALL)
    assert page.index.queue.job(made["name"]).config.preview_every == 50
    assert "draft" in problem(page, preset="drafty")["hint"]
    assert problem(page, recipe="nobodys")["field"] == "recipe"
    names = {row["name"] for row in page.client.get(f"{API}/recipes").json()["recipes"]}
    assert {"dreamfusion", "magic3d"} <= names
    assert "embedded" in page.client.get(f"{API}/priors").json()["ships"]
    schema = page.client.get(f"{API}/options").json()
    assert {"prompt", "steps", "guidance"} <= schema["properties"].keys()


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"prompt": ""}, "prompt"),
        ({"options": {"steps": "many"}}, "steps"),
        ({"options": {"guidance.guidance_scal": 3}}, "guidance.guidance_scal"),
        ({"mesh": "upload:" + "0" * 32 + ".glb"}, "mesh"),
        ({"kind": "texture"}, "mesh"),
        ({"kind": "texture", "preset": "draft"}, "preset"),
        ({"kind": "texture", "run": "a-ball"}, "run"),
    ],
)
def test_what_is_wrong_is_named(page: Any, run: str, body: dict[str, Any], field: str) -> None:
    before = tree(page.index.outputs)
    assert problem(page, **body)["field"] == field
    assert tree(page.index.outputs) == before


@pytest.mark.parametrize("name", ["reference_image.path", "prior.weights", "scene.source.path"])
def test_no_option_names_a_file_of_the_server(page: Any, name: str, tmp_path: Path) -> None:
    inside = tmp_path / "secret.png"
    inside.write_bytes(b"x")
    scene = {"scene": "mesh", "stages": []} if name.startswith("scene") else {}
    for path in (str(inside), "/etc/passwd", str(page.index.outputs)):
        found = problem(page, options={**scene, name: path})
        assert (found["field"], "is a file of the server" in found["message"]) == (name, True)


def test_a_full_queue_is_told_by_its_status(small_config: Any, page: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page.index, "limit", 0)
    assert "try again later" in problem(page, 503, options=SMALL)["hint"]
    fork = page.client.post(f"{API}/jobs/a-ball/fork", json={"changes": {"steps": 9}})
    assert fork.status_code in (404, 503)


def test_a_busy_run_is_told_by_its_status(page: Any, run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(entry: object) -> None:
        raise RunBusy("process 7 has it")

    monkeypatch.setattr(page.index, "delete", busy)
    assert page.client.delete(f"{API}/jobs/{run}").status_code == 409


@pytest.mark.parametrize("name", TRAVERSALS)
def test_no_name_becomes_a_path(page: Any, run: str, name: str) -> None:
    for address in (f"jobs/{name}", f"jobs/{name}/events", f"jobs/{run}/files/{name}", f"jobs/{name}/preview"):
        answer = page.client.get(f"{API}/{address}")
        is_shorter = name in (".", "..")  # this client itself follows them, to an address that there is
        assert answer.status_code in (404, 422) or is_shorter, address
        assert "root:" not in answer.text
    assert page.client.delete(f"{API}/jobs/{name}").status_code in (404, 405)
    assert problem(page, kind="refine", run="nix", status=404)["message"] == "there is no such run"


def test_the_results_of_a_run_are_fetched(page: Any, run: str) -> None:
    listed = page.client.get(f"{API}/jobs/{run}/files").json()["files"]
    assert "sheet.png" in [file["name"] for file in listed]
    for file in listed:
        answer = page.client.get(file["address"])
        assert (answer.status_code, len(answer.content)) == (200, file["bytes"])
    sheet = (page.index.outputs / run / "sheet.png").read_bytes()
    assert page.client.get(f"{API}/jobs/{run}/preview").content == sheet
    assert page.client.get(f"{API}/jobs/{run}/exports").status_code == 404
    refused = page.client.post(f"{API}/jobs/{run}/exports", json={"format": "dwg"})
    assert "choose one of the formats" in refused.json()["error"]["message"]


# --- files that are sent ------------------------------------------------------------------------------------------


def test_a_file_that_was_sent_is_what_an_option_says(page: Any, run: str) -> None:
    picture = (page.index.outputs / run / "sheet.png").read_bytes()
    sent = page.client.post(f"{API}/files", params={"name": "../../my duck.PNG"}, content=picture)
    assert sent.status_code == 201
    file = sent.json()["file"]
    assert page.client.post(f"{API}/files", params={"name": "x.png"}, content=picture).json()["file"] == file
    made = add(page, options={**SMALL, "reference_image": {"path": file}})
    assert made["options"]["reference_image.path"] == file.removeprefix("upload:")  # a name, no path of the server
    used = Path(page.index.queue.job(made["name"]).config.reference_image.path)
    assert used.read_bytes() == picture
    assert used.is_relative_to(page.index.queue.folder)  # a copy of its own
    assert ".uploads" not in [entry.name for entry in page.index.all()[0]]
    missing = problem(page, options={"reference_image.path": "upload:" + "f" * 32 + ".png"})
    assert "send it" in missing["hint"]


@pytest.mark.parametrize("name", ["x.exe", "x", "x.png.py", "", ".png/../../x", "x.pkl"])
def test_other_kinds_of_files_are_not_kept(page: Any, name: str) -> None:
    before = tree(page.index.outputs)
    answer = page.client.post(f"{API}/files", params={"name": name}, content=b"data")
    assert answer.status_code == 400
    assert answer.json()["error"]["field"] == "name"
    assert page.client.post(f"{API}/files", params={"name": "x.png"}, content=b"").status_code == 400
    assert tree(page.index.outputs) - {".uploads"} == before - {".uploads"}


def test_a_mesh_that_was_sent_is_painted_and_a_run_is_refined(page: Any, run: str) -> None:
    obj = b"v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n"
    file = page.client.post(f"{API}/files", params={"name": "part.obj"}, content=obj).json()["file"]
    options = {"prior": "analytic", "scene.source.up": "y"}
    made = add(page, kind="texture", mesh=file, options=options)
    config = page.index.queue.job(made["name"]).config
    assert (config.scene.geometry, config.scene.source.up, config.steps) == ("fixed", "y", 250)
    assert Path(config.scene.source.path).read_bytes() == obj
    made = add(page, kind="refine", mesh=file, options={**options, "steps": 7})
    assert page.index.queue.job(made["name"]).config.steps == 7

    made = add(page, kind="refine", run=run, prompt="")
    config = page.index.queue.job(made["name"]).config
    assert (config.prompt, config.steps, config.prior.name) == ("a red ball", 250, "analytic")
    glb = page.index.outputs / run / "mesh.glb"
    glb.rename(glb.with_suffix(".away"))
    try:
        assert "mesh.glb" in problem(page, kind="refine", run=run)["message"]
    finally:
        glb.with_suffix(".away").rename(glb)
    both = problem(page, kind="refine", run=run, mesh=file)
    assert both["field"] == "mesh"


def test_old_files_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Uploads(tmp_path)
    monkeypatch.setattr(uploads, "KEPT", 30)
    monkeypatch.setattr(uploads, "LARGEST", 20)

    def send(data: bytes) -> Path:
        async def chunks() -> Any:
            yield data[:3]
            yield data[3:]

        time.sleep(0.01)
        return kept.path(asyncio.run(kept.keep("x.png", chunks()))[0])

    first, second, third = send(b"a" * 10), send(b"b" * 10), send(b"c" * 15)
    assert (first.exists(), second.exists(), third.exists()) == (False, True, True)
    with pytest.raises(ConfigError, match="larger than"):
        send(b"e" * 21)
    assert sorted(path.name for path in kept.folder.iterdir()) == sorted([second.name, third.name])


# --- events -------------------------------------------------------------------------------------------------------


def test_all_events_of_a_run_are_told_and_then_how_it_ended(page: Any, run: str) -> None:
    answer = page.client.get(f"{API}/jobs/{run}/events")
    told = events_in(answer.text)
    written = [json.loads(line) for line in (page.index.outputs / run / "events.jsonl").read_text().splitlines()]
    assert [kind for _, kind, _ in told] == [event["event"] for event in written] + ["End"]
    assert told[-1][2] == {"state": "done", "reason": ""}
    assert str(page.index.outputs) not in answer.text
    later = page.client.get(f"{API}/jobs/{run}/events", params={"after": told[2][0]})
    assert events_in(later.text) == told[3:]
    again = page.client.get(f"{API}/jobs/{run}/events", headers={"Last-Event-ID": str(told[2][0])})
    assert again.text == later.text


def test_events_that_are_written_while_somebody_follows_are_all_told(
    small_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "POLL", 0.001)
    index = RunIndex(tmp_path / "outputs", limit=3)
    name = index.add(small_config(steps=4)).name
    folder = index.queue.job(name).run
    folder.path.mkdir(parents=True)

    def write() -> None:
        for step in range(300):
            folder.append(StepDone(step + 1, {"loss": 1.0}))
        folder.append(Warned("a line\nof its own"))
        index.queue.command(index.queue.job(name), Stop())

    async def follow() -> str:
        return "".join([text async for text in follow_events(index, name, 0, lambda: False)])

    writer = threading.Thread(target=write)
    writer.start()
    told = events_in(asyncio.run(follow()))
    writer.join()
    assert [data["step"] for _, kind, data in told if kind == "StepDone"] == [*range(1, 301)]
    assert told[-2][1:] == ("Warned", told[-2][2])
    assert told[-2][2]["message"] == "a line\nof its own"
    assert told[-1][1:] == ("End", {"state": "stopped", "reason": "before it began"})


def test_half_a_line_waits_and_a_shorter_log_is_read_from_its_beginning(tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    assert read_events(log, 0) == ("", 0)
    log.write_text('{"event": "Warned", "message": "one"}\n{"event": "War')
    text, after = read_events(log, 0)
    assert [data for _, _, data in events_in(text)] == [{"message": "one"}]
    assert read_events(log, after) == ("", after)
    log.write_text('{"event": "Warned", "message": "one"}\nno json\n{"event": "Warned", "message": "two"}\n')
    assert [data for _, _, data in events_in(read_events(log, after)[0])] == [{"message": "two"}]
    log.write_text('{"event": "Warned", "message": "3"}\n')
    assert [data for _, _, data in events_in(read_events(log, 10_000)[0])] == [{"message": "3"}]


def test_the_stream_ends_with_the_server_and_with_its_run(small_config: Any, tmp_path: Path) -> None:
    index = RunIndex(tmp_path / "outputs", limit=3)
    name = index.add(small_config(steps=4)).name

    async def follow(is_over: Any) -> list[str]:
        return [text async for text in follow_events(index, name, 0, is_over)]

    looks = iter([False, False, True])
    assert asyncio.run(follow(lambda: next(looks))) == []
    index.queue.delete(index.queue.job(name))
    assert asyncio.run(follow(lambda: False)) == []


def test_a_fork_of_a_run_is_a_job(page: Any, small_config: Any) -> None:
    session = Session(small_config(steps=8, checkpoint_every=4), page.index.outputs / "to-fork")
    for event in session.run():
        if isinstance(event, CheckpointSaved):
            session.send(Stop())
    made = page.client.post(f"{API}/jobs/to-fork/fork", json={"changes": {"prompt": "a blue ball", "steps": 12}})
    assert made.status_code == 201, made.text
    assert (made.json()["prompt"], made.json()["steps"]) == ("a blue ball", 12)
    wrong = page.client.post(f"{API}/jobs/to-fork/fork", json={"changes": {"seed": 3}})
    assert (wrong.status_code, "seed" in wrong.json()["error"]["message"]) == (400, True)
    missing = page.client.post(f"{API}/jobs/to-fork/fork", json={"changes": {"prompt": "a toy"}, "step": 3})
    assert missing.status_code == 400


# --- whatever is sent ---------------------------------------------------------------------------------------------

VALUES = [
    None, True, -1, 1e308, 2**80, "", "x" * 5000, "a red ball", "\ud800", "\x00", "../../etc", [], {}, [1, "2", None],
    {"name": "mesh"}, {"name": {"name": 3}}, "generate", "texture", "refine", "draft", "upload:", "upload:../../x",
    float("nan"), [[[[]]]], {"a": {"b": {"c": {}}}}, "a-ball",
]  # fmt: skip
KEYS = [
    "prompt", "kind", "mesh", "run", "preset", "recipe", "options", "command", "changes", "step", "format", "steps",
    "seed", "scene", "guidance", "guidance.guidance_scale", "prior", "reference_image", "stages", "cameras.views", "",
    "a.b.c.d", "__class__", "loss_weights", "\ud800", "x" * 300,
]  # fmt: skip


def junk(random: random.Random, depth: int = 0) -> Any:
    if depth < 3 and random.random() < 0.5:
        return {random.choice(KEYS): junk(random, depth + 1) for _ in range(random.randrange(4))}
    return random.choice(VALUES)


def test_whatever_is_sent_is_refused_by_name(page: Any, run: str) -> None:
    """500 bodies, most of them near to what is right: 4xx, never 5xx, and nothing is made of them."""
    chance = random.Random(7)
    addresses = ["jobs", f"jobs/{run}/commands", f"jobs/{run}/fork", f"jobs/{run}/exports"]
    raw = [b"", b"{", b"[" * 100_000, b"null", b'{"prompt":' * 3000, b"\xff\xfe", b'{"a": 1e999}', b'"\\ud800"', b"0"]
    bodies = raw + [json.dumps(junk(chance)).encode() for _ in range(500 - len(raw))]
    before = tree(page.index.outputs / "queue")
    for number, body in enumerate(bodies):
        address = addresses[number % len(addresses)]
        answer = page.client.post(f"{API}/{address}", content=body, headers={"Content-Type": "application/json"})
        assert 400 <= answer.status_code < 500, (address, body[:300], answer.text[:300])
        assert answer.json()["error"]["message"], body[:300]
        assert "Traceback" not in answer.text
    assert tree(page.index.outputs / "queue") == before


def test_queries_are_checked_as_well(page: Any, run: str) -> None:
    for query in ("limit=0", "limit=x", "limit=501", "offset=-1", "limit=1e3", "state=" + "x" * 30):
        assert page.client.get(f"{API}/jobs?{query}").status_code == 422, query
    for query in ("after=-1", "after=x", f"after={2**63}"):
        assert page.client.get(f"{API}/jobs/{run}/events?{query}").status_code == 422, query
    assert page.client.get(f"{API}/jobs/{run}/files/sheet.png?step=-1").status_code == 422
    assert page.client.get(f"{API}/nothing").json()["error"]["message"] == "there is no such address"


def test_the_queue_of_the_api_is_what_workers_take(small_config: Any, tmp_path: Path) -> None:
    """A job of the API is done by a worker, and its events and files are those of any run."""
    from starlette.testclient import TestClient

    from sds3d_app.ui.server import make_app, quiet_environment

    quiet_environment()
    index = RunIndex(tmp_path / "outputs", limit=3)
    with TestClient(make_app(index, None, None, {"testserver"})) as client:
        small = small_config(steps=4).said
        made = client.post(f"{API}/jobs", json={"options": small})
        assert made.status_code == 201, made.text
        name = made.json()["name"]
        kinds = [type(event) for _, event in Worker(index.queue).run()]
        assert kinds[0] is Started
        assert kinds[-1] is Finished
        told = events_in(client.get(f"{API}/jobs/{name}/events").text)
        assert [kind for _, kind, _ in told].count("Exported") == kinds.count(Exported)
        assert client.get(f"{API}/jobs/{name}").json()["state"] == "done"
        assert RunFolder(index.queue.job(name).run.path).report() is not None
