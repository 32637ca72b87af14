"""The stream of a run that is watched: the newest state is a slot, which every open page follows.

A page asks for /events/NAME and is sent server-sent events. However many pages watch a run, one task reads it. A page
that is slow, or behind a slow line, misses what came in between and is sent the newest: nothing piles up.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from typing import Any

from sds3d.errors import Sds3dError

from . import fragments
from .run_index import RunIndex

POLL = 0.25  # seconds between looks at a run that is watched
HEARTBEAT = 15.0  # seconds without news after which a comment is sent, so that nothing between closes the connection
MAX_STREAMS = 200

Message = Mapping[str, Any]


def message_of(index: RunIndex, name: str) -> Message | None:
    """What a page is told of a run; None where there is none of that name."""
    entry = index.find(name)
    if entry is None:
        return None
    log, place = index.log(entry), index.place(entry)
    if entry.state == "running":
        entry.folder.watch()  # somebody looks
    return {
        "name": entry.name,
        "state": fragments.state_of(entry, log),
        "active": entry.active,
        "step": log.step,
        "steps": log.steps or entry.config.steps,
        "losses": {name: points[-1][1] for name, points in log.losses.items()},
        "preview": fragments.preview_address(entry, log),
        "reason": entry.reason,
        "place": place,
        "stage": fragments.stage_of(entry, log),
        "view": fragments.live(entry, log, place),
    }


class _Slot:
    """The newest message about one run."""

    task: asyncio.Task[None]

    def __init__(self) -> None:
        self.text, self.is_over, self.watchers, self.changed = "", False, 0, asyncio.Event()

    def put(self, text: str, is_over: bool) -> None:
        """Wakes the pages only if there is something new. An empty text leaves the last one as it is."""
        if text in ("", self.text) and not is_over:
            return
        self.text, self.is_over = text or self.text, self.is_over or is_over
        self.changed.set()
        self.changed = asyncio.Event()


class LiveStreams:
    """The slots of the runs that somebody watches. Belongs to one event loop."""

    def __init__(self, look: Callable[[str], Message | None]) -> None:
        """`look(name)` is called in a thread; None ends the stream."""
        self.slots = dict[str, _Slot]()  # by the name of the run
        self._look, self.is_closed = look, False

    def is_full(self) -> bool:
        """Whether no further page may watch."""
        return sum(slot.watchers for slot in self.slots.values()) >= MAX_STREAMS

    async def follow(self, name: str) -> AsyncIterator[str]:
        """Server-sent events: the newest message whenever there is another, until the run has ended or `close`."""
        slot = self.slots.get(name)
        if slot is None:
            slot = self.slots[name] = _Slot()
            slot.task = asyncio.create_task(self._read(name, slot))
        slot.watchers += 1
        sent = ""
        try:
            while not self.is_closed:
                changed = slot.changed
                if slot.text != sent:
                    sent = slot.text
                    yield f"data: {sent}\n\n"
                elif slot.is_over:
                    return
                else:
                    try:
                        await asyncio.wait_for(changed.wait(), HEARTBEAT)
                    except asyncio.TimeoutError:  # not yet the built-in one in Python 3.10
                        yield ": nothing new\n\n"
        finally:
            slot.watchers -= 1
            if slot.watchers == 0:
                slot.task.cancel()
                self._forget(name, slot)

    def close(self) -> None:
        """End all streams: the server is about to end."""
        self.is_closed = True
        for slot in list(self.slots.values()):
            slot.put("", is_over=True)

    async def _read(self, name: str, slot: _Slot) -> None:
        try:
            while True:
                with suppress(OSError, Sds3dError):  # deleted at this moment, or the disk is busy: the next look tells
                    message = await asyncio.to_thread(self._look, name)
                    slot.put(json.dumps(message) if message else "", is_over=not (message and message["active"]))
                if slot.is_over:
                    return
                await asyncio.sleep(POLL)
        finally:
            self._forget(name, slot)
            slot.put("", is_over=True)

    def _forget(self, name: str, slot: _Slot) -> None:
        if self.slots.get(name) is slot:
            del self.slots[name]
