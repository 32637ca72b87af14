"""`sds3d compare`: configs for each guidance and seed, progress while they run, a table at the end."""

import json
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from sds3d import RunConfig, load_config
from sds3d.errors import ConfigError
from sds3d.guidance import GUIDANCE
from sds3d.run.events import Started, StepDone, Warned
from sds3d.run.folder import run_name
from sds3d.sweeps.comparison import COLUMNS, PAGE, SHEET, Comparison, Row
from sds3d.sweeps.pages import format_number

from ..exit_codes import DONE, INTERRUPTED, say_note
from ..signals import stopped_by_signals

SAID_EVERY = 50  # steps


def configs_for(
    names: Iterable[str],
    seeds: Iterable[int],
    preset: str | None,
    options: Mapping[str, Any],
    settings: Mapping[str, str],
) -> list[RunConfig]:
    """One config for each guidance and seed. A setting that begins with a guidance's name is for that one alone."""
    names = list(names)
    if not names:
        raise ConfigError("no guidance is named", hint="known: " + ", ".join(GUIDANCE))
    shared = {key: value for key, value in settings.items() if key.split(".", 1)[0] not in GUIDANCE}
    for key in settings:
        first = key.split(".", 1)[0]
        if first in GUIDANCE and first not in names:
            raise ConfigError(f"{key} is set, but {first} is not compared")
    given = {key: value for key, value in options.items() if value is not None}
    configs = []
    for name in names:
        own = {f"guidance.{k[len(name) + 1 :]}": v for k, v in settings.items() if k.startswith(f"{name}.")}
        for seed in seeds:
            configs.append(load_config(None, preset, {**given, "guidance": name, "seed": seed, **shared, **own}))
    return configs


def compare_guidances(configs: list[RunConfig], out: Path | None, as_json: bool) -> int:
    """All runs, then the sheet, the page and the table; the exit code."""
    folder = out or Path("outputs") / f"compare-{run_name(configs[0])}"
    comparison = Comparison(configs, folder)
    with stopped_by_signals(comparison.runs.stop):
        for path, event in comparison.runs.run():
            if as_json:
                print(json.dumps({"run": str(path), **event.to_dict()}), flush=True)
            elif isinstance(event, Warned):
                say_note(f"warning: {path.name}: {event.message}")
            elif isinstance(event, Started) or (isinstance(event, StepDone) and event.step % SAID_EVERY == 0):
                say_note(f"{path.name}: step {event.step} of {configs[0].steps}")
    if not comparison.runs.finished():
        say_note(f"interrupted and saved in {shlex.quote(str(folder))}; the same command goes on")
        return INTERRUPTED
    rows = comparison.write()
    if as_json:
        print(json.dumps({"event": "Compared", "rows": [asdict(row) for row in rows], "out_dir": str(folder)}))
    else:
        show(rows)
        print(f"{folder / SHEET}\n{folder / PAGE}")
    return DONE


def show(rows: list[Row]) -> None:
    """The table on the terminal."""
    table = Table("guidance", *COLUMNS.values(), box=SIMPLE, show_edge=False, pad_edge=False)
    for row in rows:
        table.add_row(row.guidance, *(format_number(getattr(row, name)) for name in COLUMNS))
    Console().print(table)
    for row in rows:
        for reason in row.notes:
            say_note(f"{row.guidance}: {reason}")
