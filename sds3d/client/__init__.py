"""A client of the HTTP API of `sds3d ui`, with nothing but the standard library: no torch, one file.

    from sds3d.client import Client

    client = Client("http://127.0.0.1:7860")  # ("name", "password") as `login` where the server has one
    job = client.generate("a red mug", seed=3)
    for event in job.events():
        print(event.kind, event.data)
    job.download("mesh.glb", "mug.glb")

Problem is raised for what the server refuses, OSError where it cannot be reached.
"""

import base64
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urlencode

ENDED = ("done", "stopped", "failed", "interrupted")
TRIES = 5  # to go on with a stream that was cut off without a new event


class Problem(Exception):
    """What the server refuses: `status` of HTTP, `message`, what to do about it, and the option that is wrong."""

    def __init__(self, status: int, message: str, hint: str = "", field: str = "") -> None:
        super().__init__(f"{message} ({hint})" if hint else message)
        self.status, self.message, self.hint, self.field = status, message, hint, field


@dataclass(frozen=True)
class Event:
    """What happened in a run, as `sds3d generate --json` prints it: "StepDone", ..., and "End" with its state."""

    kind: str
    data: Mapping[str, Any]
    id: int  # `Job.events(after=id)` goes on behind it


class Client:
    """A server. `timeout` seconds is how long it may be silent."""

    def __init__(self, server: str, login: tuple[str, str] | None = None, timeout: float = 60.0) -> None:
        self._root, self._timeout = server.rstrip("/"), timeout
        self._headers = dict[str, str]()
        if login is not None:
            self._headers["Authorization"] = "Basic " + base64.b64encode(":".join(login).encode()).decode()

    def generate(self, prompt: str, *, recipe: str | None = None, preset: str | None = None, **options: Any) -> "Job":
        """Queue a new object. `options` are those of `sds3d generate --set`: seed=3, or **{"guidance.name": "vsd"}.

        The same options again are the same job.
        """
        return self._add(prompt=prompt, recipe=recipe, preset=preset, options=options)

    def texture(self, mesh: str | Path, prompt: str, **options: Any) -> "Job":
        """Queue colours for a mesh file (glb, obj, ply, stl), its shape and UVs untouched."""
        return self._add(kind="texture", mesh=self.send(mesh), prompt=prompt, options=options)

    def refine(self, what: "str | Path | Job", prompt: str = "", **options: Any) -> "Job":
        """Queue a run that goes on from the closed mesh of a file, or of a finished job."""
        begin = {"run": what.name} if isinstance(what, Job) else {"mesh": self.send(what)}
        return self._add(kind="refine", prompt=prompt, options=options, **begin)

    def send(self, file: str | Path) -> str:
        """Send a picture, mesh or LoRA; what options say for it, such as **{"reference_image.path": ...}."""
        path = Path(file)
        query = urlencode({"name": path.name})
        with path.open("rb") as body:
            headers = {"Content-Length": str(os.fstat(body.fileno()).st_size)}
            with self._open("POST", f"/api/v1/files?{query}", body, headers) as answer:
                return str(json.load(answer)["file"])

    def job(self, name: str) -> "Job":
        """The job of that name; Problem where there is none."""
        self.ask("GET", f"/api/v1/jobs/{quote(name, safe='')}")
        return Job(self, name)

    def jobs(self, state: str | None = None, find: str = "", limit: int = 50, offset: int = 0) -> list[dict[str, Any]]:
        """What there is to know of each job, newest first."""
        query = {"find": find, "limit": limit, "offset": offset, **({"state": state} if state else {})}
        return list(self.ask("GET", f"/api/v1/jobs?{urlencode(query)}")["jobs"])

    def priors(self) -> dict[str, Any]:
        """The models that can be distilled from."""
        return self.ask("GET", "/api/v1/priors")

    def recipes(self) -> list[dict[str, Any]]:
        """Published methods as runs."""
        return list(self.ask("GET", "/api/v1/recipes")["recipes"])

    def health(self) -> dict[str, Any]:
        """The server's version, and how many jobs are in each state."""
        return self.ask("GET", "/api/v1/health")

    def ask(self, method: str, address: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The JSON that the server answers; {} for an empty answer."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "Content-Length": str(len(data or b""))}
        with self._open(method, address, data, headers) as answer:
            text = answer.read()
        return dict(json.loads(text)) if text else {}

    def stream(self, address: str, headers: Mapping[str, str] | None = None) -> HTTPResponse:
        """An open answer, to be read as it comes."""
        return self._open("GET", address, None, headers or {})

    def _add(self, **body: Any) -> "Job":
        given = {key: value for key, value in body.items() if value}
        return Job(self, str(self.ask("POST", "/api/v1/jobs", given)["name"]))

    def _open(
        self, method: str, address: str, body: bytes | IO[bytes] | None, headers: Mapping[str, str]
    ) -> HTTPResponse:
        request = urllib.request.Request(
            self._root + address, data=body, method=method, headers={**self._headers, **headers}
        )
        try:
            opened: HTTPResponse = urllib.request.urlopen(request, timeout=self._timeout)
            return opened
        except urllib.error.HTTPError as error:
            raise _problem(error.code, error.read()) from None


class Job:
    """One run on a server."""

    def __init__(self, client: Client, name: str) -> None:
        self.client, self.name = client, name
        self._address = f"/api/v1/jobs/{quote(name, safe='')}"

    def __repr__(self) -> str:
        return f"Job({self.name!r})"

    def info(self) -> dict[str, Any]:
        """Its state, step, steps, ... as it is now."""
        return self.client.ask("GET", self._address)

    def events(self, after: int = 0) -> Iterator[Event]:
        """Everything that has happened and happens in it, to "End". A connection that is lost is made again, and
        no event is left out or told twice; OSError if the server is gone for good."""
        tries = 0
        while tries < TRIES:
            tries += 1
            try:
                with self.client.stream(f"{self._address}/events", {"Last-Event-ID": str(after)}) as lines:
                    for event in _events(lines):
                        after, tries = event.id, 0
                        yield event
                        if event.kind == "End":
                            return
            except (OSError, HTTPException) as error:
                if tries == TRIES:
                    raise error if isinstance(error, OSError) else ConnectionError(str(error)) from error
            time.sleep(0.2 * tries)
        raise ConnectionError(f"the server has ended the stream of {self.name}")

    def wait(self, timeout: float | None = None, poll: float = 0.5) -> dict[str, Any]:
        """Its `info` once it has ended; TimeoutError if that takes longer than `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (info := self.info())["state"] not in ENDED:
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"{self.name} is still {info['state']}")
            time.sleep(poll)
        return info

    def pause(self) -> None:
        """Save it and leave its worker to others."""
        self._command("pause")

    def resume(self) -> None:
        """Go on after a pause."""
        self._command("resume")

    def finish(self) -> None:
        """Make the results from what there is."""
        self._command("finish")

    def stop(self) -> None:
        """Save it and end it without results."""
        self._command("stop")

    def retry(self) -> None:
        """Go on with a job that was stopped or has failed."""
        self._command("retry")

    def change(self, **changes: Any) -> None:
        """Change its prompt, negative_prompt or **{"guidance.guidance_scale": ...} from the next step on."""
        self._command("change", changes)

    def fork(self, step: int | None = None, **changes: Any) -> "Job":
        """A new job from its newest checkpoint, or that of `step`, with changes; `steps` may change as well."""
        made = self.client.ask("POST", f"{self._address}/fork", {"changes": changes, "step": step})
        return Job(self.client, str(made["name"]))

    def delete(self) -> None:
        """Remove it and its files."""
        self.client.ask("DELETE", self._address)

    def preview(self) -> bytes | None:
        """Its newest picture, a PNG; None before there is one."""
        try:
            with self.client.stream(f"{self._address}/preview") as answer:
                return answer.read()
        except Problem as problem:
            if problem.status == 404:
                return None
            raise

    def files(self) -> dict[str, int]:
        """Names of the files that can be fetched, with their bytes."""
        return {file["name"]: file["bytes"] for file in self.client.ask("GET", f"{self._address}/files")["files"]}

    def download(self, name: str, to: str | Path) -> Path:
        """Fetch a file, whole or not at all."""
        return self._fetch(f"{self._address}/files/{quote(name, safe='')}", Path(to))

    def export(self, file_format: str, folder: str | Path, timeout: float = 600.0) -> list[Path]:
        """Have its results written in a further format (stl, obj, usdz, ...) and fetch all files of it."""
        made = self.client.ask("POST", f"{self._address}/exports", {"format": file_format})
        deadline = time.monotonic() + timeout
        while made["state"] == "making":
            if time.monotonic() > deadline:
                raise TimeoutError(f"{file_format} of {self.name} is still being made")
            time.sleep(0.5)
            made = self.client.ask("GET", f"{self._address}/exports")
        if made["state"] == "failed":
            raise Problem(400, made["problem"])
        Path(folder).mkdir(parents=True, exist_ok=True)
        return [self._fetch(file["address"], Path(folder) / file["name"]) for file in made["files"]]

    def _command(self, command: str, changes: Mapping[str, Any] | None = None) -> None:
        body = {"command": command, **({"changes": changes} if changes else {})}
        self.client.ask("POST", f"{self._address}/commands", body)

    def _fetch(self, address: str, path: Path) -> Path:
        draft = path.with_name(f".{path.name}.part")
        try:
            with self.client.stream(address) as answer, draft.open("wb") as file:
                size, expected = 0, int(answer.headers["Content-Length"])
                while chunk := answer.read(1 << 20):
                    size += file.write(chunk)
            if size != expected:
                raise ConnectionError(f"{path.name} was cut off after {size} of {expected} bytes")
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
        return path


def _events(lines: Iterable[bytes]) -> Iterator[Event]:
    """The server-sent events of a stream; one that was cut off is left out."""
    fields = dict[str, str]()
    for line in lines:
        text = line.decode().rstrip("\r\n")
        if not text and "data" in fields:
            yield Event(fields["event"], json.loads(fields["data"]), int(fields["id"]))
            fields = {}
        key, colon, value = text.partition(": ")
        if key and colon:
            fields[key] = value


def _problem(status: int, body: bytes) -> Problem:
    try:
        return Problem(status, **json.loads(body)["error"])
    except (ValueError, TypeError, KeyError):  # what stands before the API answers in plain words
        return Problem(status, body.decode(errors="replace").strip()[:300] or f"the server answers {status}")
