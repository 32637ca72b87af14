"""What a call of one of the page's events may hold: Gradio itself makes text of anything, or breaks."""

import json
import math
import re
from typing import Any

import gradio as gr
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_OPTIONS = 200  # controls that a visitor may have changed
MAX_LENGTH = 4000  # characters of a text that has no limit of its own
CALL = "/gradio_api/run/predict"
SESSION = re.compile(r"[A-Za-z0-9_-]{1,64}")


class CallFilter:
    """An ASGI middleware, inside of the Guard, which bounds the body's length."""

    def __init__(self, app: ASGIApp, blocks: gr.Blocks) -> None:
        self._app, self._blocks = app, blocks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "").rstrip("/")
        if scope["type"] != "http" or scope["method"] != "POST" or path != CALL:
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            data = await request.body()
            body = json.loads(data)
        except ClientDisconnect:
            return
        except (ValueError, RecursionError):
            body = None
        if not self.allows(body):
            await PlainTextResponse("the page does not make such calls", 422)(scope, receive, send)
            return
        unread = [{"type": "http.request", "body": data, "more_body": False}]

        async def receive_again() -> Message:
            return unread.pop() if unread else await receive()

        await self._app(scope, receive_again, send)

    def allows(self, body: Any) -> bool:
        """Whether it is a call of an event with as many values as it has inputs, each of the input's kind."""
        if not isinstance(body, dict) or not isinstance(body.get("data"), list):
            return False
        number, data, session = body.get("fn_index"), body["data"], body.get("session_hash")
        if type(number) is not int or not isinstance(session, str) or not SESSION.fullmatch(session):
            return False
        event = self._blocks.fns.get(number)
        if event is None or event.fn is None:
            return False
        return len(data) == len(event.inputs) and all(map(is_of, event.inputs, data))


def is_of(component: Any, value: object) -> bool:
    """Whether a browser that shows the component could have sent this."""
    if value is None or isinstance(component, gr.State):  # the server has its own states, and uses no other
        return True
    if isinstance(component, gr.Dropdown) and not component.allow_custom_value:
        return isinstance(value, str) and value in [choice for _, choice in component.choices]
    if isinstance(component, gr.Textbox | gr.Dropdown):
        return isinstance(value, str) and len(value) <= (getattr(component, "max_length", None) or MAX_LENGTH)
    if isinstance(component, gr.HTML):  # the controls under Advanced: page.js sends what was changed
        return isinstance(value, dict) and len(value) <= MAX_OPTIONS and all(map(is_option, value.items()))
    if isinstance(component, gr.Number | gr.Dataset):
        is_number = type(value) is int or (type(value) is float and isinstance(component, gr.Number))
        return is_number and is_plain(value)
    return isinstance(component, gr.Checkbox) and isinstance(value, bool)


def is_option(pair: tuple[object, object]) -> bool:
    """A dotted key with a plain value."""
    return isinstance(pair[0], str) and len(pair[0]) <= 100 and is_plain(pair[1])


def is_plain(value: object) -> bool:
    """A text, a switch or a finite number, or nothing."""
    if isinstance(value, str):
        return len(value) <= MAX_LENGTH
    if type(value) in (int, float):
        return abs(value) < 1e300 and not math.isnan(value)  # type: ignore[arg-type, operator]
    return value is None or isinstance(value, bool)
