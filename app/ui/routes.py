"""Our own addresses: files of runs by names that are known, and the stream of a run. No name becomes a path."""

import asyncio
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse, PlainTextResponse, Response, StreamingResponse

from sds3d.run.live import first_splats

from .export_files import files_at
from .live_stream import LiveStreams
from .run_index import RunIndex

TYPES = {
    ".png": "image/png", ".mp4": "video/mp4", ".glb": "model/gltf-binary", ".json": "application/json",
}  # fmt: skip
EXAMPLES = {path.name: path for path in (Path(__file__).parent / "example").iterdir()}
BINARY = "application/octet-stream"
MOST_SPLATS = {"all": 1 << 20, "few": 8000}  # of a live scene: 16 MB, and 128 KB for slow lines
STREAM_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # a proxy is to pass on each event at once


def add_routes(app: FastAPI, index: RunIndex, streams: LiveStreams) -> None:
    """Adds /run/... and /events/... of these runs, and /example/..."""

    def file_of(name: str, file: str, step: int | None) -> Response:
        entry = index.find(name)
        return answer(files_at(entry, step).get(file) if entry is not None else None)

    @app.get("/example/{file}")
    def example(file: str) -> Response:
        """What is shown before there is a run."""
        return answer(EXAMPLES.get(file), {"Cache-Control": "max-age=3600"})

    @app.get("/run/{name}/{file}")
    def result(name: str, file: str) -> Response:
        """A result of a run."""
        return file_of(name, file, None)

    @app.get("/run/{name}/exports/{step}/{file}")
    def export(name: str, step: str, file: str) -> Response:
        """A file that was exported from a checkpoint."""
        is_step = step.isascii() and step.isdecimal() and len(step) < 10
        return file_of(name, file, int(step)) if is_step else answer(None)

    @app.get("/run/{name}/preview/{file}")
    def preview(name: str, file: str) -> Response:
        entry = index.find(name)
        return answer(entry.folder.preview(file) if entry is not None else None, {"Cache-Control": "max-age=3600"})

    @app.get("/run/{name}/live/{splats}")
    def live(name: str, splats: str) -> Response:
        """The scene as it is now, with at most so many splats: sds3d.run.live."""
        entry = index.find(name)
        if entry is None or splats not in MOST_SPLATS:
            return answer(None)
        try:
            data = first_splats(entry.folder.live_file.read_bytes(), MOST_SPLATS[splats])
        except FileNotFoundError:
            return answer(None)
        return Response(data, media_type=BINARY, headers={"Cache-Control": "no-store"})

    @app.get("/events/{name}")
    async def events(name: str) -> Response:
        """The newest state of a run, and each later one, as server-sent events."""
        if await asyncio.to_thread(index.find, name) is None:
            return PlainTextResponse("there is no such run", 404)
        if streams.is_full():
            return PlainTextResponse("too many pages are open", 503, {"Retry-After": "60"})
        return StreamingResponse(streams.follow(name), media_type="text/event-stream", headers=STREAM_HEADERS)


def answer(path: Path | None, headers: dict[str, str] | None = None) -> Response:
    """The file, or 404."""
    if path is None or not path.is_file():
        return PlainTextResponse("there is no such file", 404)
    return FileResponse(path, media_type=TYPES.get(path.suffix, BINARY), headers=headers)
