"""The server: our own application with the page mounted in it, files of runs by name only, and workers beside it."""

import asyncio
import atexit
import fcntl
import logging
import os
import re
import signal
import socket
import struct
import tempfile
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from sds3d.atomic import temporary_folder, writing
from sds3d.errors import ConfigError

from ..workers.local_pool import WorkerPool, gpu_count
from .run_index import RunIndex

OWN_FOLDERS = ExitStack()  # that this server made
ROOT = re.compile(r"(/[A-Za-z0-9._~@%+-]+)*")
SIOCGIFADDR = 0x8915  # Linux: the IPv4 address of a network interface
LOOPBACK = {"127.0.0.1", "localhost", "::1"}
VISITORS = 200  # open pages whose states are remembered; Gradio's own limit is fifty times that, and never frees them


def serve(
    index: RunIndex, host: str, port: int, auth: str | None, workers: int | None, names: list[str], root: str = ""
) -> None:
    """Serve until a signal; ConfigError for what cannot be served safely. One worker for each GPU if not given."""
    host, login, root = host.strip("[]"), check_login(host.strip("[]"), auth), root_path(root)
    quiet_environment()
    if is_taken(host, port):
        raise ConfigError(f"port {port} of {host} is in use", hint="say another --port")
    gpus = gpu_count()
    pool = WorkerPool(index.queue, workers or max(1, gpus), forever=True, gpus=gpus)
    pool.start()  # Gradio takes seconds to import, and the workers load theirs meanwhile
    names = [*names, host, *LOOPBACK, *([] if host in LOOPBACK else own_names())]
    app = make_app(index, pool, login, {name.lower() for name in names}, root)
    import uvicorn

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            app.state.streams.close()  # else it would wait for them
            await super().shutdown(sockets)

    first, *others = (url(address, port, root) for address in addresses(host))
    print("\n       ".join([f"sds3d: {first}  (Ctrl-C saves what is under way and ends)", *others]), flush=True)
    logging.getLogger("uvicorn.error").addFilter(is_news)
    config = uvicorn.Config(
        app, host=host, port=port, log_level="warning", server_header=False, timeout_graceful_shutdown=3
    )
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under nohup; else the terminal is closed
        signal.signal(signal.SIGHUP, lambda number, frame: signal.raise_signal(signal.SIGTERM))
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
        ours = Path(tempfile.gettempdir()) / "sds3d-ui"
        with writing(ours):
            os.environ["GRADIO_TEMP_DIR"] = str(OWN_FOLDERS.enter_context(temporary_folder(ours)))
        atexit.register(OWN_FOLDERS.close)


def is_taken(host: str, port: int) -> bool:
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError:
        return True
    return False


def root_path(text: str) -> str:
    """ "/sds3d" for "sds3d" or "/sds3d/"; "" for "/"."""
    path = "/" + text.strip("/") if text.strip("/") else ""
    if not ROOT.fullmatch(path):
        raise ConfigError(f"--root-path {text!r} is no path", hint="say where the proxy puts the page, as in /sds3d")
    return path


def own_names() -> list[str]:
    """By which others find this machine without asking a DNS server that anybody else runs."""
    name = socket.gethostname()
    return [name, f"{name.partition('.')[0]}.local"]


def addresses(host: str) -> list[str]:
    """Where the page can be opened; without asking any network."""
    found = list[str]()
    if host == "0.0.0.0":
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            for _, interface in socket.if_nameindex():
                with suppress(OSError):  # it has none
                    packed = fcntl.ioctl(any_socket, SIOCGIFADDR, struct.pack("256s", interface.encode()))
                    found.append(socket.inet_ntoa(packed[20:24]))
        return ["127.0.0.1", *(address for address in dict.fromkeys(found) if not address.startswith("127."))]
    if host == "::":
        with suppress(OSError), open("/proc/net/if_inet6") as lines:  # address, index, prefix, scope (00: global), ...
            fields = [line.split() for line in lines]
            found = [socket.inet_ntop(socket.AF_INET6, bytes.fromhex(line[0])) for line in fields if line[3] == "00"]
        return ["::1", *found]
    return [host]


def url(address: str, port: int, root: str) -> str:
    """What a browser opens."""
    return f"http://{f'[{address}]' if ':' in address else address}:{port}{root and f'{root}/'}"


def make_app(
    index: RunIndex, pool: WorkerPool | None, login: tuple[str, str] | None, hosts: set[str], root: str = ""
) -> Any:
    """The whole application; the workers of `pool` end with it."""
    import gradio as gr
    from fastapi import FastAPI

    from .api import make_api
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
        OWN_FOLDERS.close()  # uvicorn raises the signal again after this, and then nothing at exit runs

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.state.streams = streams
    blocks = make_page(index, maker)
    app.add_middleware(CallFilter, blocks=blocks)
    app.add_middleware(Guard, login=login, hosts=hosts, root=root)  # the last is the first to be asked
    add_routes(app, index, streams)
    app.mount("/api/v1", make_api(index, maker, streams))
    blocks.state_session_capacity = VISITORS
    return gr.mount_gradio_app(
        app, blocks, path="/", root_path=root or None, footer_links=[], run_history=False, allowed_paths=[],
        show_error=False, max_file_size="5mb", ssr_mode=False, enable_monitoring=False, pwa=False, mcp_server=False,
        head=HEAD, theme=THEME, app_kwargs={"docs_url": None, "redoc_url": None, "openapi_url": None},
    )  # fmt: skip
