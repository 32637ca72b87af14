"""A run's log as server-sent events, none left out: for programs. The page has one of its own, live_stream.py."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path, PurePath
from typing import Any

from .run_index import RunIndex

POLL = 0.25  # seconds between looks at a log
LOOKS = 8  # looks without news after which the queue is asked whether there can be more
HEARTBEAT = 60  # looks without news after which a comment is sent, so that nothing between closes the connection
LAST = re.compile(r"^event: (Finished|Failed)$", re.MULTILINE)
CHUNK = 1 << 20  # bytes read at once
PATHS = ("path", "out_dir")  # of an event, that say where the server keeps its files


async def follow_events(index: RunIndex, name: str, after: int, is_over: Callable[[], bool]) -> AsyncIterator[str]:
    """Every event of the run behind the log's byte `after`, as it happens, and then how the run ended, under "End".

    Each event's id is the byte at which the next one begins, so a client that was cut off goes on from its last id.
    Ends without "End" when `is_over`, and where the run is deleted.
    """
    entry, quiet = await asyncio.to_thread(index.find, name), 0
    while entry is not None and not is_over():
        text, after = read_events(entry.folder.reader().path, after)
        if text:
            quiet = LOOKS - 1 if LAST.search(text) else 0
            yield text
            continue
        if not entry.active:  # and it was so before the log was read
            yield _message("End", {"state": entry.state, "reason": entry.reason}, after)
            return
        quiet += 1
        if quiet % HEARTBEAT == 0:
            yield ": nothing new\n\n"
        await asyncio.sleep(POLL)
        if quiet % LOOKS == 0:
            entry = await asyncio.to_thread(index.find, name)


def read_events(log: Path, after: int) -> tuple[str, int]:
    """(whole lines behind the byte `after` as server-sent events, the byte behind them); a shorter log is another."""
    try:
        size = log.stat().st_size
        after = after if after <= size else 0
        if after == size:
            return "", after
        with log.open("rb") as file:
            file.seek(after)
            data = file.read(CHUNK)
    except OSError:  # it has not begun
        return "", after
    messages = []
    for line in data.splitlines(keepends=True):
        if not line.endswith(b"\n"):  # it is being written
            break
        after += len(line)
        try:
            event = dict(json.loads(line))
            messages.append(_message(event.pop("event"), event, after))
        except (ValueError, TypeError, KeyError):
            continue
    return "".join(messages), after


def _message(kind: str, data: dict[str, Any], end: int) -> str:
    shown = {key: PurePath(value).name if key in PATHS else value for key, value in data.items()}
    return f"id: {end}\nevent: {kind}\ndata: {json.dumps(shown)}\n\n"
