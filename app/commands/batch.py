"""sds3d batch: the options of the command. The library is imported when it is called, as in cli.py."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from ..arguments import parse_settings


def batch(
    job_list: Annotated[Path, Argument(metavar="LIST", help="prompts or options: .txt, .csv, .jsonl or .yaml")],
    jobs: Annotated[
        int | None, Option("--jobs", "-j", min=1, max=4096, help="workers; 1, or with --ray as many as have room")
    ] = None,
    ray: Annotated[
        str | None, Option(metavar="ADDRESS", help="work on a Ray cluster: HOST:PORT, auto, or local to begin one here")
    ] = None,
    gpus_per_worker: Annotated[
        float | None, Option(min=0, max=64, help="with --ray, or a part of one; 1 where the jobs are for CUDA")
    ] = None,
    vary: Annotated[
        list[str] | None, Option(metavar="KEY=A,B", help="each item with every value: --vary seed=0,1,2")
    ] = None,
    preset: Annotated[str | None, Option(help="draft, default or fine")] = None,
    assignments: Annotated[
        list[str] | None, Option("--set", metavar="KEY=VALUE", help="any option of all runs; the list goes before it")
    ] = None,
    config_file: Annotated[
        Path | None, Option("--config", metavar="FILE", help="options of all runs as a JSON object")
    ] = None,
    shard: Annotated[str | None, Option(metavar="I/N", help="only every N-th job, from the I-th on")] = None,
    attempts: Annotated[int, Option(min=1, max=100, help="that may crash before a job is set aside")] = 3,
    retry: Annotated[bool, Option("--retry", help="try failed jobs again")] = False,
    dry_run: Annotated[bool, Option("--dry-run", help="check the list and say what would be done")] = False,
    out: Annotated[Path | None, Option(metavar="DIR", help="default: outputs/batch-LIST")] = None,
    as_json: Annotated[
        bool, Option("--json", help="one JSON object a line on stdout, for each thing that happens")
    ] = False,
) -> int:
    """Make everything in LIST. Say it again to go on; on several machines with one DIR they share the work."""
    from sds3d.errors import ConfigError
    from sds3d.jobs.job_list import read_job_list

    from .batching import Crewing, parse_vary, run_batch, shard_of

    configs = read_job_list(job_list, preset, config_file, parse_settings(assignments or []), parse_vary(vary or []))
    folder = out or Path("outputs") / f"batch-{job_list.stem}"
    if gpus_per_worker is not None and ray is None:
        raise ConfigError("--gpus-per-worker goes with --ray")
    crewing = Crewing(jobs, ray, gpus_per_worker)
    return run_batch(shard_of(configs, shard), folder, crewing, attempts, retry, dry_run, as_json)
