"""Our own addresses: files of runs by names that are known, and the live view. A name from outside is never a path."""

from fastapi import FastAPI
from fastapi.responses import FileResponse, HTMLResponse, PlainTextResponse, Response

from . import fragments as pieces
from .export_files import made_names
from .run_index import Works

TYPES = {
    ".png": "image/png", ".mp4": "video/mp4", ".glb": "model/gltf-binary", ".json": "application/json",
}  # fmt: skip


def add_routes(app: FastAPI, works: Works) -> None:
    """Adds /run/... and /live/... of these runs."""

    @app.get("/run/{name}/{file}")
    def result(name: str, file: str) -> Response:
        """A result of a run, by a name that the run is known to have."""
        work = works.find(name)
        if (
            work is None
            or file not in {*pieces.download_names(work), *made_names(work)}
            or not (work.run / file).is_file()
        ):
            return PlainTextResponse("there is no such file", 404)
        path = work.run / file
        return FileResponse(path, media_type=TYPES.get(path.suffix, "application/octet-stream"))

    @app.get("/run/{name}/previews/{file}")
    def preview(name: str, file: str) -> Response:
        work = works.find(name)
        known = {path.name: path for path in (work.run / "previews").glob("step-*.png")} if work is not None else {}
        if file not in known:
            return PlainTextResponse("there is no such file", 404)
        return FileResponse(known[file], media_type="image/png", headers={"Cache-Control": "max-age=3600"})

    @app.get("/live/{name}")
    def live(name: str) -> Response:
        """The large view of a run as HTML; page.js asks for it all the time, which is cheaper than Gradio's events."""
        work = works.find(name)
        if work is None:
            return PlainTextResponse("there is no such run", 404)
        return HTMLResponse(pieces.live(work, works.place(work) if work.state == "queued" else 0))
