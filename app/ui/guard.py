"""What stands before every request: the name of the host, a password where there is one, limits, and headers."""

import base64
import binascii
import hmac
import re
import threading
import time
from collections import defaultdict, deque

import anyio
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

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
MAX_BODY = 6 << 20  # bytes of a request
DELAY, TRIES, WINDOW = 0.5, 10, 300.0  # a wrong password costs DELAY seconds; at most TRIES per WINDOW seconds


class Guard:
    """An ASGI middleware: `app.add_middleware(Guard, login=..., hosts=...)`."""

    def __init__(self, app: ASGIApp, login: tuple[str, str] | None, hosts: set[str]) -> None:
        """`hosts` are the names by which the server may be called, without ports."""
        self._app, self._login, self._hosts = app, login, hosts
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

        request = Request(scope)
        refusal = self._refuse(request)
        if refusal is None and self._login is not None:
            refusal = await self._ask(request, self._login)
        await (refusal or self._app)(scope, receive, send_with_headers)

    def _refuse(self, request: Request) -> Response | None:
        called = request.headers.get("host", "").lower()
        host = called[1:].partition("]")[0] if called.startswith("[") else called.partition(":")[0]
        if host not in self._hosts:
            return PlainTextResponse("this server has another name", 400)
        path = request.url.path
        if path.startswith(GRADIO) and not USED.match(path.removeprefix(GRADIO)):
            return PlainTextResponse("there is no such address", 404)
        return None if request.method in ("GET", "HEAD") else self._refuse_order(request, called)

    def _refuse_order(self, request: Request, called: str) -> Response | None:
        origin = request.headers.get("origin")  # told by every browser, so a page of another site cannot give orders
        if origin is not None and origin.lower().partition("://")[2] != called:
            return PlainTextResponse("orders are taken from this server's own page only", 403)
        length = request.headers.get("content-length", "")
        if not (length.isascii() and length.isdigit()):  # a body without end, in chunks
            return PlainTextResponse("the request does not say how long it is", 411)
        if int(length) > MAX_BODY:
            return PlainTextResponse("the request is too large", 413)
        return None

    async def _ask(self, request: Request, login: tuple[str, str]) -> Response | None:
        """HTTP's basic authentication; each wrong answer costs time, and too many of them all further ones."""
        who = request.client.host if request.client else ""
        if self._too_many(who):
            return PlainTextResponse("too many wrong passwords: wait some minutes", 429)
        given = credentials(request.headers.get("authorization", ""))
        if given is not None:
            right = [hmac.compare_digest(a.encode(), b.encode()) for a, b in zip(given, login, strict=True)]
            if all(right):
                return None
            with self._lock:
                self._wrong[who].append(time.monotonic())
            await anyio.sleep(DELAY)
        return PlainTextResponse("a name and password are needed", 401, {"WWW-Authenticate": 'Basic realm="sds3d"'})

    def _too_many(self, who: str) -> bool:
        with self._lock:
            tries = self._wrong[who]
            while tries and time.monotonic() - tries[0] > WINDOW:
                tries.popleft()
            return len(tries) >= TRIES


def credentials(header: str) -> tuple[str, str] | None:
    """(name, password) of a basic Authorization header."""
    kind, _, text = header.partition(" ")
    if kind.lower() != "basic":
        return None
    try:
        name, colon, password = base64.b64decode(text, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return None
    return (name, password) if colon else None
