"""The server: our own application with the page mounted in it, files of runs by name only, and workers beside it."""

import os
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sds3d.errors import ConfigError

from .works import Workers, Works

LOOPBACK = {"127.0.0.1", "localhost", "::1"}
VISITORS = 200  # open pages whose controls are remembered; Gradio's own limit is fifty times that, and never frees them
TYPES = {
    ".png": "image/png", ".mp4": "video/mp4", ".glb": "model/gltf-binary", ".json": "application/json",
}  # fmt: skip


def serve(
    outputs: Path, host: str, port: int, auth: str | None, workers: int | None, limit: int, names: list[str]
) -> None:
    """Serve until a signal; ConfigError for what cannot be served safely."""
    login = check_login(host, auth)
    quiet_environment()
    import uvicorn

    works = Works(outputs, limit)
    app = make_app(works, Workers(works.ledger, workers or device_count()), login, LOOPBACK | {host} | set(names))
    taken = is_taken(host, port)
    if taken:
        raise ConfigError(f"port {port} of {host} is in use", hint="say another --port")
    shown = "127.0.0.1" if host == "0.0.0.0" else host
    print(f"sds3d: http://{shown}:{port}  (Ctrl-C saves what is under way and ends)", flush=True)
    uvicorn.run(app, host=host, port=port, log_level="warning", server_header=False, timeout_graceful_shutdown=3)


def check_login(host: str, auth: str | None) -> tuple[str, str] | None:
    """(name, password) from NAME:PASSWORD; anything but this machine alone needs one."""
    if auth is None:
        if host not in LOOPBACK:
            raise ConfigError(
                f"--host {host} would let others in without a password", hint="say --auth NAME:PASSWORD as well"
            )
        return None
    name, colon, password = auth.partition(":")
    if not (colon and name and len(password) >= 8):
        raise ConfigError("--auth is not NAME:PASSWORD with a password of 8 characters or more")
    return name, password


def quiet_environment() -> None:
    """Before Gradio is imported: nothing is sent anywhere, and temporary files are ours alone."""
    os.environ.update(GRADIO_ANALYTICS_ENABLED="False", HF_HUB_DISABLE_TELEMETRY="1", DO_NOT_TRACK="1")
    if "GRADIO_TEMP_DIR" not in os.environ:
        os.environ["GRADIO_TEMP_DIR"] = tempfile.mkdtemp(prefix="sds3d-ui-")


def device_count() -> int:
    """One worker for each GPU, one where there is none."""
    import torch

    return max(1, torch.cuda.device_count())


def is_taken(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False


def make_app(works: Works, workers: Workers | None, login: tuple[str, str] | None, hosts: set[str]) -> Any:
    """The whole application; `workers` are begun and ended with it."""
    import gradio as gr
    from fastapi import FastAPI
    from fastapi.responses import FileResponse, PlainTextResponse, Response

    from .calls import Calls
    from .guard import Guard
    from .page import CSS, HEAD, make_page

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if workers is not None:
            workers.start()
        yield
        if workers is not None:
            workers.end()

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    blocks = make_page(works)
    app.middleware("http")(Calls(blocks))
    app.middleware("http")(Guard(login, hosts))  # the last is the first to be asked

    @app.get("/run/{name}/{file}")
    def result(name: str, file: str) -> Response:
        """A result of a run, by a name that the run is known to have."""
        from .pieces import download_names
        from .runfiles import made_names

        work = works.find(name)
        if work is None or file not in {*download_names(work), *made_names(work)} or not (work.run / file).is_file():
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

    blocks.state_session_capacity = VISITORS
    blocks.queue(max_size=32, default_concurrency_limit=4)
    return gr.mount_gradio_app(
        app, blocks, path="/", footer_links=[], run_history=False, allowed_paths=[], show_error=False,
        max_file_size="5mb", ssr_mode=False, enable_monitoring=False, pwa=False, mcp_server=False, css=CSS, head=HEAD,
        theme=make_theme(), app_kwargs={"docs_url": None, "redoc_url": None, "openapi_url": None},
    )  # fmt: skip


def make_theme() -> Any:
    """System fonts only: nothing is fetched."""
    import gradio as gr

    fonts = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
    mono = ["ui-monospace", "SFMono-Regular", "Menlo", "monospace"]
    return gr.themes.Base(font=fonts, font_mono=mono, primary_hue="emerald", neutral_hue="slate", radius_size="md")
