"""What stands before every request: the Guard, and the CallFilter for the calls of the page's events."""

import base64
import hmac
import ipaddress
import json
import re
import threading
import time
from collections import defaultdict, deque
from typing import Annotated, Any
from urllib.parse import quote

import anyio
import gradio as gr
from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .uploads import LARGEST

POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self'; font-src 'self' data:; connect-src 'self' data: blob:; "
    "worker-src 'self' blob:; frame-ancestors 'none'; object-src 'none'; base-uri 'self'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
}
# What the page itself asks Gradio for. The rest stays shut: uploads, the proxy, files by URL (which the server would
# look up and fetch for whoever asks), its queue, streams, deep links, descriptions of the API.
GRADIO = "/gradio_api/"
USED = re.compile(r"(run/predict|heartbeat/\w+)/?$|file=(?![a-z][a-z0-9+.-]+:|//|\\\\)", re.I)
CALL = f"{GRADIO}run/predict"
MAX_BODY = 6 << 20  # bytes of a request
FILES = "/api/v1/files"  # where files are sent to, which may be larger
MAX_OPTIONS = 200  # controls that a visitor may have changed
MAX_LENGTH = 4000  # characters of a text that has no limit of its own
HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^\[\]:]+))(?::[0-9]*)?")  # an IPv6 address, or another or a name; a port
OTHER_NAME = "this server has another name"
OTHER_PAGE = (
    "orders are taken from this server's own page only; a proxy in front of it has to pass on the Host header that the "
    "browser sent, with its port (nginx: proxy_set_header Host $http_host)"
)
DELAY, TRIES, WINDOW = 0.5, 10, 300.0  # a wrong password costs DELAY seconds; at most TRIES per WINDOW seconds


class Guard:
    """An ASGI middleware, `app.add_middleware(Guard, login=..., hosts=...)`: the name of the host, a password where
    there is one, limits, and headers."""

    def __init__(self, app: ASGIApp, login: tuple[str, str] | None, hosts: set[str], root: str = "") -> None:
        """`hosts` are the names by which the server may be called, without ports; any address will do as well.

        Below `root` ("/sds3d") everything is there as it is without it: some proxies take it off, others do not.
        """
        self._app, self._login, self._hosts, self._root = app, login, hosts, root
        self._wrong: dict[str, deque[float]] = defaultdict(deque)
        self._lock = threading.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # the page has none
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        if self._root and scope["path"].startswith(f"{self._root}/"):
            rest = scope["path"].removeprefix(self._root)
            scope = {**scope, "path": rest, "raw_path": quote(rest).encode()}
        request = Request(scope)
        refusal = self._refuse(request) or self._redirect(request)
        if refusal is None and self._login is not None:
            refusal = await self._ask(request, self._login)
        await (refusal or self._app)(scope, receive, send_with_headers)

    def _refuse(self, request: Request) -> Response | None:
        called = request.headers.get("host", "").lower()
        parts = HOST.fullmatch(called)
        host = parts[1] or parts[2] if parts else ""
        if host not in self._hosts and not is_address(host):
            return PlainTextResponse(f"{OTHER_NAME} (--name lets it go by a further one)", 400)
        path = request.scope["path"]
        if path.startswith(GRADIO) and not USED.match(path.removeprefix(GRADIO)):
            return PlainTextResponse("there is no such address", 404)
        if request.method in ("GET", "HEAD"):
            return None
        origin = request.headers.get("origin")  # told by every browser, so a page of another site cannot give orders
        if origin is not None and origin.lower().partition("://")[2] != called:
            return PlainTextResponse(OTHER_PAGE, 403)
        length = request.headers.get("content-length", "" if "transfer-encoding" in request.headers else "0")
        if not (length.isascii() and length.isdigit()):  # a body without end, in chunks
            return PlainTextResponse("the request does not say how long it is", 411)
        limit = LARGEST if path == FILES else MAX_BODY
        return PlainTextResponse("the request is too large", 413) if int(length) > limit else None

    def _redirect(self, request: Request) -> Response | None:
        """From /sds3d to /sds3d/, below which the page finds all that it asks for."""
        if not self._root or request.scope["path"] != self._root:
            return None
        return RedirectResponse(f"{self._root}/" + (f"?{request.url.query}" if request.url.query else ""))

    async def _ask(self, request: Request, login: tuple[str, str]) -> Response | None:
        """HTTP's basic authentication, or the password as a bearer token; each wrong answer costs time, and too many
        of them all further ones."""
        who = request.client.host if request.client else ""
        with self._lock:
            tries = self._wrong[who]
            while tries and time.monotonic() - tries[0] > WINDOW:
                tries.popleft()
            if len(tries) >= TRIES:
                return PlainTextResponse("too many wrong passwords: wait some minutes", 429)
        given = credentials(request.headers.get("authorization", ""), login[0])
        if given is not None:
            right = [hmac.compare_digest(a.encode(), b.encode()) for a, b in zip(given, login, strict=True)]
            if all(right):
                return None
            with self._lock:
                tries.append(time.monotonic())
            await anyio.sleep(DELAY)
        return PlainTextResponse("a name and password are needed", 401, {"WWW-Authenticate": 'Basic realm="sds3d"'})


def is_address(host: str) -> bool:
    """Whether it is an IP address and no name. A page that was loaded from an address is that machine's own: only names
    can be made to lead elsewhere afterwards (DNS rebinding)."""
    try:
        return bool(ipaddress.ip_address(host))
    except ValueError:
        return False


def credentials(header: str, name_of_token: str) -> tuple[str, str] | None:
    """(name, password) of an Authorization header; a bearer token is a password without a name."""
    kind, _, text = header.partition(" ")
    if kind.lower() == "bearer" and text:
        return name_of_token, text
    if kind.lower() != "basic":
        return None
    try:
        name, colon, password = base64.b64decode(text, validate=True).decode().partition(":")
    except ValueError:  # neither base64 nor UTF-8
        return None
    return (name, password) if colon else None


class Call(BaseModel):
    """What the page sends to `CALL`: an event's number, and a value for each of its inputs."""

    model_config = ConfigDict(strict=True)

    fn_index: int
    session_hash: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    data: list[Any]


class CallFilter:
    """An ASGI middleware inside of the Guard: what a call of one of the page's events may hold. Gradio itself makes
    text of anything, or breaks."""

    def __init__(self, app: ASGIApp, blocks: gr.Blocks) -> None:
        self._app, self._blocks = app, blocks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "").rstrip("/")
        if scope["type"] != "http" or scope["method"] != "POST" or path != CALL:
            await self._app(scope, receive, send)
            return
        try:
            body = await Request(scope, receive).body()
        except ClientDisconnect:
            return
        if not self.allows(body):
            await PlainTextResponse("the page does not make such calls", 422)(scope, receive, send)
            return
        unread = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive_again() -> Message:
            return unread.pop() if unread else await receive()

        await self._app(scope, receive_again, send)

    def allows(self, body: bytes) -> bool:
        """Whether it is a call of an event with as many values as it has inputs, each of the input's kind."""
        try:
            call = Call.model_validate(json.loads(body))
        except (ValueError, RecursionError):
            return False
        event = self._blocks.fns.get(call.fn_index)
        if event is None or event.fn is None:
            return False
        return len(call.data) == len(event.inputs) and all(map(is_of, event.inputs, call.data))


def is_of(component: Any, value: Any) -> bool:
    """Whether a browser that shows the component could have sent this."""
    if value is None or isinstance(component, gr.State):  # the server has its own states, and uses no other
        return True
    if isinstance(component, gr.Radio | gr.Dropdown) and not getattr(component, "allow_custom_value", False):
        return isinstance(value, str) and value in [choice for _, choice in component.choices]
    if isinstance(component, gr.Textbox | gr.Dropdown):
        return isinstance(value, str) and len(value) <= (getattr(component, "max_length", None) or MAX_LENGTH)
    if isinstance(component, gr.HTML):  # the what page.js knows: changed options, what was clicked
        is_small = isinstance(value, dict) and len(value) <= MAX_OPTIONS
        return is_small and all(len(key) <= 100 and is_plain(option) for key, option in value.items())
    return False


def is_plain(value: object) -> bool:
    """A text, a switch or a finite number, or nothing."""
    if isinstance(value, str):
        return len(value) <= MAX_LENGTH
    if type(value) in (int, float):
        return abs(value) < 1e300  # type: ignore[arg-type]  # which nan is not either
    return value is None or isinstance(value, bool)
