"""What goes on while Blender stays free: one thread that talks to the server. Nothing here knows Blender."""

import queue
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .sds3d_client import Client, Event, Job, Problem


@dataclass
class Status:
    """What the panel shows."""

    text: str = ""
    part: float = 0.0  # of the steps, 0 to 1
    is_problem: bool = False


class Work:
    """One job on the server, from its order to its file.

    `order(client)` queues it; `result` is the file that is fetched when it is done. What has to be done in Blender's
    own thread is called there by `take`: `on_picture(path)` for each preview, `on_result(path)` at the end.
    """

    def __init__(
        self,
        client: Client,
        order: Callable[[Client], Job],
        result: str,
        on_picture: Callable[[Path], None],
        on_result: Callable[[Path], None],
    ) -> None:
        self.status, self.folder = Status("asking the server"), Path(tempfile.mkdtemp(prefix="sds3d-blender-"))
        self._client, self._order, self._result = client, order, result
        self._on_picture, self._on_result = on_picture, on_result
        self._calls: queue.Queue[Callable[[], None]] = queue.Queue()
        self._job: Job | None = None
        self._is_cancelled = False
        self._thread = threading.Thread(target=self._run, name="sds3d", daemon=True)
        self._thread.start()

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do, in either thread."""
        return not self._thread.is_alive() and self._calls.empty()

    def take(self) -> None:
        """Do what waits for Blender's thread."""
        while not self._calls.empty():
            try:
                self._calls.get()()
            except Exception as error:  # of Blender, about its scene: the panel tells it
                self.status = Status(f"{type(error).__name__}: {error}", is_problem=True)

    def cancel(self) -> None:
        """End the job on the server; what it has made so far is not fetched."""
        self._is_cancelled = True
        if self._job is not None:
            threading.Thread(target=self._stop, daemon=True).start()

    def _stop(self) -> None:
        try:
            assert self._job is not None
            self._job.stop()
        except (Problem, OSError):  # it has ended, or the server has
            pass

    def _run(self) -> None:
        try:
            self._job = job = self._order(self._client)
            if self._is_cancelled:
                self._stop()
            for event in job.events():
                self._tell(event, job)
            self._end(event.data, job)
        except Problem as problem:
            self.status = Status(str(problem), is_problem=True)
        except OSError as error:
            self.status = Status(f"the server does not answer: {getattr(error, 'reason', error)}", is_problem=True)

    def _tell(self, event: Event, job: Job) -> None:
        data = event.data
        if event.kind == "Started":
            self.status, self._steps = Status("working"), int(data["steps"])
        elif event.kind == "StepDone":
            self.status = Status(f"step {data['step']} of {self._steps}", data["step"] / self._steps)
        elif event.kind == "Preview":
            self._show(job)
        elif event.kind == "Exporting":
            self.status = Status("making the result", 1.0)

    def _show(self, job: Job) -> None:
        picture = job.preview()
        if picture is not None:
            path = self.folder / "preview.png"
            path.write_bytes(picture)
            self._calls.put(lambda: self._on_picture(path))

    def _end(self, data: Mapping[str, Any], job: Job) -> None:
        if self._is_cancelled:
            self.status = Status("cancelled")
        elif data["state"] != "done":
            self.status = Status(data["reason"] or f"the job was {data['state']} on the server", is_problem=True)
        else:
            self._show(job)
            path = job.download(self._result, self.folder / self._result)
            self.status = Status("done", 1.0)
            self._calls.put(lambda: self._on_result(path))
