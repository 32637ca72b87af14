"""The server: our own application with the page mounted in it, files of runs by name only, and workers beside it."""

import asyncio
import logging
import os
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sds3d.errors import ConfigError

from ..workers.local_pool import WorkerPool, gpu_count
from .run_index import RunIndex

OWN_FOLDERS: list[tempfile.TemporaryDirectory[str]] = []  # that this server made
LOOPBACK = {"127.0.0.1", "localhost", "::1"}
VISITORS = 200  # open pages whose states are remembered; Gradio's own limit is fifty times that, and never frees them


def serve(index: RunIndex, host: str, port: int, auth: str | None, workers: int | None, names: list[str]) -> None:
    """Serve until a signal; ConfigError for what cannot be served safely. One worker for each GPU if not given."""
    login = check_login(host, auth)
    quiet_environment()
    if is_taken(host, port):
        raise ConfigError(f"port {port} of {host} is in use", hint="say another --port")
    gpus = gpu_count()
    pool = WorkerPool(index.queue, workers or max(1, gpus), forever=True, gpus=gpus)
    pool.start()  # Gradio takes seconds to import, and the workers load theirs meanwhile
    app = make_app(index, pool, login, LOOPBACK | {host} | set(names))
    import uvicorn

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            app.state.streams.close()  # else it would wait for them
            await super().shutdown(sockets)

    shown = "127.0.0.1" if host == "0.0.0.0" else host
    print(f"sds3d: http://{shown}:{port}  (Ctrl-C saves what is under way and ends)", flush=True)
    logging.getLogger("uvicorn.error").addFilter(is_news)
    config = uvicorn.Config(
        app, host=host, port=port, log_level="warning", server_header=False, timeout_graceful_shutdown=3
    )
    Server(config).run()


def is_news(record: logging.LogRecord) -> bool:
    """False for what uvicorn says of the pages that are still open when the server ends: that is no error."""
    cancelled = record.exc_info is not None and isinstance(record.exc_info[1], asyncio.CancelledError)
    return not cancelled and "timeout graceful shutdown exceeded" not in record.getMessage()


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
        OWN_FOLDERS.append(tempfile.TemporaryDirectory(prefix="sds3d-ui-", ignore_cleanup_errors=True))
        os.environ["GRADIO_TEMP_DIR"] = OWN_FOLDERS[0].name


def is_taken(host: str, port: int) -> bool:
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError:
        return True
    return False


def make_app(index: RunIndex, pool: WorkerPool | None, login: tuple[str, str] | None, hosts: set[str]) -> Any:
    """The whole application; the workers of `pool` end with it."""
    import gradio as gr
    from fastapi import FastAPI

    from .export_files import FileMaker
    from .guard import CallFilter, Guard
    from .live_stream import LiveStreams, message_of
    from .page import HEAD, THEME, make_page
    from .routes import add_routes

    maker, streams = FileMaker(), LiveStreams(lambda name: message_of(index, name))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        maker.close()
        if pool is not None:
            pool.end()
        for folder in OWN_FOLDERS:  # uvicorn raises the signal again after this, and then nothing at exit runs
            folder.cleanup()

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.state.streams = streams
    blocks = make_page(index, maker)
    app.add_middleware(CallFilter, blocks=blocks)
    app.add_middleware(Guard, login=login, hosts=hosts)  # the last is the first to be asked
    add_routes(app, index, streams)
    blocks.state_session_capacity = VISITORS
    return gr.mount_gradio_app(
        app, blocks, path="/", footer_links=[], run_history=False, allowed_paths=[], show_error=False,
        max_file_size="5mb", ssr_mode=False, enable_monitoring=False, pwa=False, mcp_server=False, head=HEAD,
        theme=THEME, app_kwargs={"docs_url": None, "redoc_url": None, "openapi_url": None},
    )  # fmt: skip
