"""/api/v1: what the page can do, for programs: JSON, described by /api/v1/openapi.json. docs/api.md has examples.

A problem is {"error": {"message", "hint", "field"}} with a status of 4xx, or 507 where the disk refuses.
"""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

import sds3d
from sds3d.config import RunConfig, load_config, local_files, read_recipe, recipe_names
from sds3d.config.layers import flatten
from sds3d.errors import ConfigError, OutputError, RunBusy, Sds3dError
from sds3d.jobs.queue import fork
from sds3d.priors.hub.locate import cached
from sds3d.priors.hub.model_list import MODELS
from sds3d.prompts import unknown_word_warnings
from sds3d.run.events import Change, Command, FinishEarly, Pause, Resume, Stop
from sds3d.run.inputs import MESH

from ..commands.recipes import about
from ..commands.texture import refine_config, taken_over, texture_config
from .api_models import (
    PROBLEMS,
    ExportInfo,
    Files,
    Health,
    JobDetail,
    JobInfo,
    JobList,
    NewCommand,
    NewExport,
    NewFork,
    NewJob,
    Upload,
)
from .controls import check_files
from .event_stream import follow_events
from .export_files import FileMaker, files_at
from .fragments import prompt_of
from .live_stream import LiveStreams
from .routes import BINARY, STREAM_HEADERS, TYPES
from .run_index import QueueFull, RunEntry, RunIndex
from .uploads import SUFFIXES, Uploads

MOST_STREAMS = 500
COMMANDS: Mapping[str, Command] = {"pause": Pause(), "resume": Resume(), "stop": Stop(), "finish": FinishEarly()}


class Api:
    """The handlers; their docstrings and signatures are the description."""

    def __init__(self, index: RunIndex, maker: FileMaker, streams: LiveStreams) -> None:
        self._index, self._maker, self._streams = index, maker, streams
        self._uploads, self._watchers = Uploads(index.outputs), 0

    def health(self) -> dict[str, Any]:
        """Whether the server answers, its version, and how many jobs there are."""
        return {"version": sds3d.__version__, "jobs": self._index.queue.counts()}

    def priors(self) -> dict[str, Any]:
        """The models that ship, and those of the hub that are known to fit."""
        models = [{**entry.to_dict(), "here": cached(name) is not None} for name, entry in MODELS.items()]
        return {"ships": ["embedded", "analytic"], "models": models}

    def recipes(self) -> dict[str, Any]:
        """Published methods as runs."""
        return {"recipes": [about(name, read_recipe(name)) for name in recipe_names()]}

    def options(self) -> dict[str, Any]:
        """All options of a run, as a JSON schema."""
        return RunConfig.model_json_schema()

    async def send_file(
        self, request: Request, name: Annotated[str, Query(max_length=300, description="its suffix says what it is")]
    ) -> dict[str, Any]:
        """Send a picture, mesh or LoRA, as the body. It is kept while room for it lasts."""
        file, size = await self._uploads.keep(name, request.stream())
        return {"file": file, "bytes": size}

    def add(self, body: NewJob) -> dict[str, Any]:
        """Queue a run. The same options again are the same run; if it failed or was stopped, it goes on."""
        return self._detail(self._index.add(self._config(body)))

    def jobs(
        self,
        state: Annotated[str | None, Query(max_length=20, description="only those in this state")] = None,
        find: Annotated[str, Query(max_length=300, description="only those with all of these words")] = "",
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
        offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
    ) -> dict[str, Any]:
        """Runs, newest first."""
        words = find.lower().split()
        found = [
            entry
            for entry in self._index.all()[0]
            if (state is None or entry.state == state)
            and all(word in f"{entry.prompt} {entry.name}".lower() for word in words)
        ]
        return {"jobs": [self._info(entry) for entry in found[offset : offset + limit]], "total": len(found)}

    def job(self, name: str) -> dict[str, Any]:
        """One run."""
        return self._detail(self._entry(name))

    def delete(self, name: str) -> None:
        """Remove a run and its files; 409 while a process works on it."""
        self._index.delete(self._entry(name))

    def command(self, name: str, body: NewCommand) -> dict[str, Any]:
        """Tell a job something. It holds within a quarter of a second and a step."""
        entry, queue = self._entry(name), self._index.queue
        if entry.job is None:
            raise ConfigError(f"{name} was made on the command line", "sds3d resume goes on with it")
        if bool(body.changes) != (body.command == "change"):
            raise ConfigError("changes go with the command change, and only with it", field="changes")
        if body.command == "retry":
            queue.retry(entry.job)
        else:
            queue.command(entry.job, Change(body.changes) if body.changes else COMMANDS[body.command])
        return self._info(self._entry(name))

    def fork(self, name: str, body: NewFork) -> dict[str, Any]:
        """Queue a new run that goes on from a checkpoint of this one."""
        index, entry = self._index, self._entry(name)
        index.check_room()
        check_files(entry.config, index.files, entry.folder.path)
        return self._detail(self._entry(fork(index.queue, entry.folder, body.changes, body.step).name))

    def events(
        self,
        name: str,
        request: Request,
        after: Annotated[int, Query(ge=0, le=2**62, description="id of the last event that is known")] = 0,
    ) -> Response:
        """Everything that has happened and happens in a run, as server-sent events; the last is End, with its state.

        The events are those of `sds3d generate --json`. Who was cut off goes on with `after` or Last-Event-ID.
        """
        self._entry(name)
        if self._watchers >= MOST_STREAMS:
            raise HTTPException(503, "too many streams are open")
        said = request.headers.get("last-event-id", "")
        start = int(said) if said.isascii() and said.isdecimal() and len(said) < 19 else after
        return StreamingResponse(self._follow(name, start), media_type="text/event-stream", headers=STREAM_HEADERS)

    def preview(self, name: str) -> Response:
        """The newest picture of a run: its sheet when it is done, before that a preview."""
        folder = self._entry(name).folder
        return _file(folder.picture() or folder.newest_preview(), {"Cache-Control": "no-store"})

    def files(self, name: str) -> dict[str, Any]:
        """The files of a run that can be fetched."""
        entry = self._entry(name)
        return {"files": _listed(entry, files_at(entry, None))}

    def file(self, name: str, file: str, step: Annotated[int | None, Query(ge=0, le=10**9)] = None) -> Response:
        """One of its files; with `step`, one that was exported from that checkpoint."""
        return _file(files_at(self._entry(name), step).get(file))

    def export(self, name: str, body: NewExport) -> dict[str, Any]:
        """Begin to write one more format; ask with GET until it is done."""
        entry = self._entry(name)
        check_files(entry.config, self._index.files, entry.folder.path, only=MESH)
        self._maker.start(entry, body.format)
        return self.exports(name)

    def exports(self, name: str) -> dict[str, Any]:
        """What became of the format that was asked for last."""
        entry = self._entry(name)
        made = self._maker.last.get(entry.name)
        if made is None:
            raise HTTPException(404, "no format was asked for")
        there = files_at(entry, made.step)
        found = {name: there[name] for name in made.names if name in there}
        state = "failed" if made.problem else "done" if made.names else "making"
        listed = _listed(entry, found, made.step)
        return {"format": made.file_format, "state": state, "problem": made.problem, "files": listed}

    def _entry(self, name: str) -> RunEntry:
        entry = self._index.find(name)
        if entry is None:
            raise HTTPException(404, "there is no such run")
        return entry

    def _info(self, entry: RunEntry) -> dict[str, Any]:
        log = self._index.log(entry)
        exporting = entry.state == "running" and log.exporting
        left = log.seconds_left() if entry.state == "running" and not exporting else None
        return {
            "name": entry.name, "state": entry.state, "reason": entry.reason, "prompt": prompt_of(entry),
            "guidance": entry.guidance, "added": entry.added, "step": log.step,
            "steps": log.steps or entry.config.steps, "exporting": exporting, "seconds_left": left,
            "ahead": self._index.place(entry),
        }  # fmt: skip

    def _detail(self, entry: RunEntry) -> dict[str, Any]:
        config, options = entry.config, flatten(entry.config.said)
        for key in options.keys() & local_files(config).keys():
            options[key] = Path(str(options[key])).name
        unknown = config.prior.unknown_words(f"{config.prompt} {config.negative_prompt}")
        warnings = unknown_word_warnings(unknown, config.prior, config.prompt)
        return {**self._info(entry), "options": options, "warnings": warnings}

    def _config(self, body: NewJob) -> RunConfig:
        given, own = dict(self._uploads.filled_in(body.options)), set[Path]()
        if body.prompt:
            given["prompt"] = body.prompt
        before = self._entry(body.run) if body.run else None
        if before is not None:
            given = {**taken_over(before.config), **given}
        if "prompt" not in given:
            raise ConfigError("prompt is empty", "say what to make", "prompt")
        if body.kind == "generate":
            _refuse(body, "mesh", "run")
            config = load_config(preset=body.preset, recipe=body.recipe, overrides=given)
        else:
            _refuse(body, "preset", "recipe", *(["run"] if body.kind == "texture" else []))
            file = self._mesh(body, before)
            scene = {"path": file, "up": None, "front": None}  # which the options say, where they cannot be found
            own = {file} if before is None else {file, before.folder.path}
            if body.kind == "texture":
                config = texture_config(None, {**scene, "geometry": "fixed"}, given)
            else:
                config = refine_config(None, {**scene, "geometry": "free"}, given)
        check_files(config, self._index.files, self._uploads.folder, *own)
        return config

    def _mesh(self, body: NewJob, before: RunEntry | None) -> Path:
        if bool(body.mesh) == bool(body.run):
            raise ConfigError(f"{body.kind} needs a mesh", "send one to /api/v1/files, and say it as mesh", "mesh")
        if before is None:
            return self._uploads.path(body.mesh)
        file = before.folder.artifact("glb")
        if not file.is_file():
            raise ConfigError(f"{before.name} has no {file.name}", "wait until it is done", "run")
        return file.resolve()

    async def _follow(self, name: str, start: int) -> AsyncIterator[str]:
        self._watchers += 1
        try:
            async for text in follow_events(self._index, name, start, lambda: self._streams.is_closed):
                yield text
        finally:
            self._watchers -= 1


def make_api(index: RunIndex, maker: FileMaker, streams: LiveStreams) -> FastAPI:
    """The application that is mounted at /api/v1."""
    app = FastAPI(
        title="sds3d", version="1", description=__doc__, docs_url=None, redoc_url=None, responses=PROBLEMS,
        servers=[{"url": "/api/v1"}], root_path_in_servers=False, generate_unique_id_function=lambda route: route.name,
    )  # fmt: skip
    _add_error_handlers(app)
    api, get, post = Api(index, maker, streams), app.get, app.post
    get("/health", response_model=Health)(api.health)
    get("/priors")(api.priors)
    get("/recipes")(api.recipes)
    get("/options")(api.options)
    post("/files", response_model=Upload, status_code=201, openapi_extra=_raw_body())(api.send_file)
    post("/jobs", response_model=JobDetail, status_code=201)(api.add)
    get("/jobs", response_model=JobList)(api.jobs)
    job = "/jobs/{name}"
    get(job, response_model=JobDetail)(api.job)
    app.delete(job, status_code=204)(api.delete)
    post(f"{job}/commands", response_model=JobInfo)(api.command)
    post(f"{job}/fork", response_model=JobDetail, status_code=201)(api.fork)
    get(f"{job}/events", response_class=StreamingResponse, responses=_binary("text/event-stream"))(api.events)
    get(f"{job}/preview", response_class=FileResponse, responses=_binary("image/png"))(api.preview)
    get(f"{job}/files", response_model=Files)(api.files)
    get(f"{job}/files/{{file}}", response_class=FileResponse, responses=_binary(BINARY))(api.file)
    post(f"{job}/exports", response_model=ExportInfo, status_code=202)(api.export)
    get(f"{job}/exports", response_model=ExportInfo)(api.exports)
    return app


def _refuse(body: NewJob, *names: str) -> None:
    for name in names:
        if getattr(body, name):
            raise ConfigError(f"{name} does not go with kind {body.kind}", "leave it out", name)


def _file(path: Path | None, headers: dict[str, str] | None = None) -> Response:
    if path is None or not path.is_file():
        raise HTTPException(404, "there is no such file")
    return FileResponse(path, media_type=TYPES.get(path.suffix, BINARY), headers=headers)


def _listed(entry: RunEntry, found: Mapping[str, Path], step: int | None = None) -> list[dict[str, Any]]:
    query = "" if step is None else f"?step={step}"
    address = f"/api/v1/jobs/{quote(entry.name, safe='')}/files"
    return [
        {"name": name, "bytes": path.stat().st_size, "address": f"{address}/{quote(name)}{query}"}
        for name, path in found.items()
    ]


def _raw_body() -> dict[str, Any]:
    content = {BINARY: {"schema": {"type": "string", "format": "binary"}}}
    return {"requestBody": {"required": True, "content": content, "description": ", ".join(sorted(SUFFIXES))}}


def _binary(media_type: str) -> dict[int | str, dict[str, Any]]:
    return {200: {"content": {media_type: {"schema": {"type": "string", "format": "binary"}}}}}


def _add_error_handlers(api: FastAPI) -> None:
    @api.exception_handler(Sds3dError)
    def refuse(request: Request, error: Sds3dError) -> Response:
        kinds = {QueueFull: 503, RunBusy: 409, OutputError: 507}
        status = next((code for kind, code in kinds.items() if isinstance(error, kind)), 400)
        return _problem(status, str(error.args[0]), error.hint, getattr(error, "field", ""))

    @api.exception_handler(RequestValidationError)
    def misread(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path"))
        hint = "see /api/v1/openapi.json" if place else "send a JSON object, with Content-Type: application/json"
        return _problem(422, f"{place or 'the body'}: {first['msg']}", hint, place)

    @api.exception_handler(HTTPException)
    def not_here(request: Request, error: HTTPException) -> Response:
        message = "there is no such address" if error.detail == "Not Found" else str(error.detail)
        return _problem(error.status_code, message, "see /api/v1/openapi.json")


def _problem(status: int, message: str, hint: str, field: str = "") -> Response:
    return JSONResponse({"error": {"message": message[:2000], "hint": hint, "field": field[:200]}}, status)
