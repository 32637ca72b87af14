"""`sds3d batch`: a list of prompts, done by workers that share a queue; the same command goes on with it."""

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, BadParameter, Option

from ..arguments import folder_of, parse_settings, require
from ..exit_codes import DONE, FAILED, say_interrupted, say_note
from ..shared_options import AnyOption, ConfigFile, Events, Preset
from ..signals import stopped_by_signals
from ..terminal import can_redraw, is_narrow

if TYPE_CHECKING:
    from rich.table import Table

    from sds3d import RunConfig
    from sds3d.jobs import Job, Queue

    from ..workers.local_pool import WorkerPool
    from ..workers.ray_pool import RayWorkerPool

SOME_FAILED = 3  # besides DONE for all and FAILED for none
LOOK_EVERY = 1.0  # seconds
ROWS = 20  # of the table on a terminal
RANK = {"running": 0, "paused": 1, "queued": 2, "failed": 3, "stopped": 4, "done": 5}


def batch(
    job_list: Annotated[Path, Argument(metavar="LIST", help="prompts or options: .txt, .csv, .jsonl or .yaml")],
    jobs: Annotated[
        int | None, Option("--jobs", "-j", min=1, max=4096, help="workers; 1, or with --ray as many as have room")
    ] = None,
    ray: Annotated[
        str | None, Option(metavar="ADDRESS", help="work on a Ray cluster: HOST:PORT, auto, or local to start one here")
    ] = None,
    gpus_per_worker: Annotated[
        float | None, Option(min=0, max=64, help="with --ray, or a part of one; 1 if the jobs are for CUDA")
    ] = None,
    vary: Annotated[list[str] | None, Option(metavar="KEY=A,B", help="each item with every value: seed=0,1,2")] = None,
    preset: Preset = None,
    assignments: AnyOption = None,
    config_file: ConfigFile = None,
    shard: Annotated[
        str | None, Option(metavar="I/N", help="only every N-th job, from the I-th on; each shard has a DIR of its own")
    ] = None,
    attempts: Annotated[int, Option(min=1, max=100, help="that may crash before a job is set aside")] = 3,
    retry: Annotated[bool, Option("--retry", help="try failed jobs again")] = False,
    dry_run: Annotated[bool, Option("--dry-run", help="check the list and say what would be done")] = False,
    out: Annotated[
        Path | None, Option(metavar="DIR", help="default: outputs/batch-LIST, with -I-of-N for a shard")
    ] = None,
    as_json: Events = False,
) -> int:
    """Make everything in LIST, whose options win over --set. The same command again goes on with what is left."""
    require("--ray", ray is not None, {"--gpus-per-worker": gpus_per_worker is not None})
    from sds3d.jobs import Queue
    from sds3d.jobs.job_list import read_job_list
    from sds3d.jobs.queue import job_name

    out = folder_of(out)
    every = read_job_list(job_list, preset, config_file, parse_settings(assignments), parse_vary(vary or []))
    configs, suffix = shard_of(every, shard)
    queue = Queue(out or Path("outputs") / f"batch-{job_list.stem}{suffix}", attempts)
    if dry_run:
        known = {job.name: job.state for job in queue.named(map(job_name, configs))}
        for config in configs:
            name = job_name(config)
            print(f"{known.get(name, 'new'):8} {name}  {config.prompt}")
        return DONE
    added = queue.add_many(configs)
    for job in added:
        if retry and job.state == "failed":
            queue.retry(job)
    view = BatchView(queue, added)
    devices = {config.device for config in configs}
    if ray is None:
        from ..workers.local_pool import WorkerPool, gpu_count, sharing_note

        number = jobs or 1
        gpus = 0 if any(":" in device for device in devices) else gpu_count()  # "cuda:1" is for the person to choose
        if note := sharing_note(number, gpus):
            say_note(note)
        return work(view, WorkerPool(queue, number, view.only, gpus=gpus), as_json)
    from ..workers.ray_pool import RayWorkerPool, actor_count, connect, gpu_share

    connect(ray)
    share = gpu_share(devices) if gpus_per_worker is None else gpus_per_worker
    return work(view, RayWorkerPool(queue, jobs or actor_count(share), view.only, share), as_json)


def work(view: "BatchView", pool: "WorkerPool | RayWorkerPool", as_json: bool) -> int:
    """Everything that is not done yet, shown as a live table on a terminal, else as a line for each change of a job's
    state; the exit code."""
    from rich.console import Console
    from rich.live import Live

    from sds3d.errors import OutputError
    from sds3d.jobs.gallery import PAGE, SUMMARY, write_summary

    queue, console = view.queue, Console(stderr=True)
    has_table = can_redraw() and not is_narrow() and not as_json
    live = Live(console=console, transient=True, auto_refresh=False)
    with stopped_by_signals() as interruption, live if has_table else nullcontext():
        try:
            is_left = queue.unfinished(view.only)  # else workers would load torch to find nothing
            if is_left:
                pool.start()
            goes_on = True
            while goes_on:
                goes_on = is_left and not interruption.requested and pool.at_work()
                rows = view.look()
                if has_table:
                    live.update(progress_table(rows), refresh=True)
                else:
                    for job in view.changed:
                        line = {"job": job.name, "state": job.state, "reason": job.reason}
                        print(json.dumps(line), flush=True) if as_json else say_note(f"{job.state:8} {job.name}")
                interruption.wait(LOOK_EVERY if goes_on else 0)
        finally:  # the workers save and give back what they do
            pool.end()
    results, problem = view.look(), 0 if interruption.requested else pool.problem()
    with suppress(OutputError) if problem > 0 else nullcontext():  # a worker has met the same disk, and has said so
        write_summary(queue.folder, results)
    counts = Counter(result.state for result in results)
    if as_json:
        print(json.dumps({"counts": counts, "summary": str(queue.folder / SUMMARY)}), flush=True)
    else:
        print(f"{describe(counts)}; see {queue.folder / PAGE}")
        for result in results:
            if result.state == "failed":
                print(f"failed: {result.prompt} (seed {result.seed}, {result.guidance}): {result.reason}")
    if counts["queued"] or counts["running"] or counts["paused"]:
        if problem < 0:
            say_note("the workers were killed again and again, perhaps for lack of memory: try fewer --jobs")
            return FAILED
        return problem or say_interrupted(queue.folder)
    succeeded = counts["done"] + counts["stopped"]
    return DONE if succeeded == len(results) else SOME_FAILED if succeeded else FAILED


class BatchView:
    """A batch's jobs as they are now; a look costs as much as there are changes."""

    def __init__(self, queue: "Queue", jobs: "Sequence[Job]") -> None:
        from sds3d.jobs import Selection

        self.queue, self._token = queue, ""
        self.only = Selection([job.name for job in jobs])
        self._jobs = {job.name: job for job in jobs}
        self._states: dict[str, str] = dict.fromkeys(self._jobs, "queued")
        self.changed: list[Job] = []  # those whose state was another one before the last look

    def look(self) -> "list[Job]":
        """All jobs, in the order of the list."""
        changes = self.queue.changes_since(self._token)
        self._token = changes.token
        own = [job for job in changes.jobs if job.name in self._jobs]
        self.changed = [job for job in own if job.state != self._states[job.name]]
        self._states.update((job.name, job.state) for job in own)
        self._jobs.update((job.name, job) for job in own)
        for name in changes.deleted:
            self._jobs.pop(name, None)
        return list(self._jobs.values())


def progress_table(jobs: "Sequence[Job]") -> "Table":
    """What is running first, then what waits, then what has ended, as far as there is room."""
    from rich.table import Table
    from rich.text import Text

    title = describe(Counter(job.state for job in jobs))
    table = Table("prompt", "seed", "guidance", "state", "step", title=title)
    for job in sorted(jobs, key=lambda job: RANK[job.state])[:ROWS]:
        step = str(job.run.status().step) if job.state in ("running", "paused") else ""
        table.add_row(Text(job.prompt), str(job.seed), job.guidance, job.state, step)
    return table


def describe(counts: "Counter[Any]") -> str:
    """ "3 done, 1 failed"."""
    return ", ".join(f"{number} {state}" for state, number in counts.items())


def shard_of(configs: "Sequence[RunConfig]", text: str | None) -> "tuple[Sequence[RunConfig], str]":
    """(every N-th config, ending of the default folder's name) for `I/N` with I from 1 to N; all of them for none."""
    if text is None:
        return configs, ""
    index, slash, number = text.partition("/")
    if not (slash and index.isdecimal() and number.isdecimal() and 1 <= int(index) <= int(number)):
        raise BadParameter(f"--shard {text[:20]!r} is not I/N with I from 1 to N, as in --shard 2/8")
    return configs[int(index) - 1 :: int(number)], f"-{int(index)}-of-{int(number)}"


def parse_vary(texts: Sequence[str]) -> dict[str, list[str]]:
    """KEY=A,B,C texts."""
    varied = {}
    for text in texts:
        key, equals, values = text.partition("=")
        each = [value.strip() for value in values.split(",") if value.strip()]
        if not (key and equals and each):
            raise BadParameter(f"--vary {text[:60]!r} is not KEY=VALUE,VALUE,..., as in --vary seed=0,1,2")
        varied[key] = each
    return varied
