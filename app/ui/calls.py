"""What a call of one of the page's events may hold: Gradio itself makes text of anything, or breaks."""

import json
import math
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import gradio as gr
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

LONGEST = 4000  # characters of a text that says no limit of its own
ONCE, QUEUED = "/gradio_api/run/predict", "/gradio_api/queue/join"
SESSION = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Calls:
    """A middleware, inside of the Guard, which bounds the body's length."""

    def __init__(self, blocks: gr.Blocks) -> None:
        self._blocks = blocks

    async def __call__(self, request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
        path = request.url.path.rstrip("/")
        if request.method == "POST" and path in (ONCE, QUEUED):
            try:
                body = json.loads(await request.body())
            except (ValueError, RecursionError):
                body = None
            if not self.allows(body, queued=path == QUEUED):
                return PlainTextResponse("the page would not say this", 422)
        return await go_on(request)

    def allows(self, body: Any, queued: bool) -> bool:
        """Whether it is a call of an event with as many values as it has inputs, each of the input's kind."""
        if not isinstance(body, dict) or not isinstance(body.get("data"), list):
            return False
        number, data, session = body.get("fn_index"), body["data"], body.get("session_hash")
        if type(number) is not int or not isinstance(session, str) or not SESSION.fullmatch(session):
            return False
        event = self._events(session).get(number)
        if event is None or event.fn is None or (event.queue is not False) != queued:
            return False
        return len(data) == len(event.inputs) and all(map(is_of, event.inputs, data))

    def _events(self, session: str) -> Mapping[int, Any]:
        """The page's events, and those of the controls that were made for this visitor alone."""
        visitors = self._blocks.state_holder.session_data
        return visitors[session].blocks_config.fns if session in visitors else self._blocks.fns


def is_of(component: Any, value: object) -> bool:
    """Whether a browser that shows the component could have sent this."""
    if value is None or isinstance(component, gr.State):  # of states the server has its own, and looks at no other
        return True
    if isinstance(component, gr.Textbox | gr.Dropdown):
        return isinstance(value, str) and len(value) <= (getattr(component, "max_length", None) or LONGEST)
    if isinstance(component, gr.Number):
        return type(value) in (int, float) and is_plain(value)
    if isinstance(component, gr.Dataset):
        return type(value) is int and 0 <= value < len(component.samples or [])
    return isinstance(component, gr.Checkbox) and isinstance(value, bool)


def is_plain(value: object) -> bool:
    """A text, a switch or a finite number, or nothing."""
    if isinstance(value, str):
        return len(value) <= LONGEST
    if type(value) in (int, float):
        return abs(value) < 1e300 and not math.isnan(value)  # type: ignore[arg-type, operator]
    return value is None or isinstance(value, bool)
