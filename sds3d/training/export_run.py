"""Exports from a run that is there already: any formats, any checkpoint, with figures in a report.json beside them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sds3d.atomic import write_atomic
from sds3d.config.run_config import RunConfig, read_json_object
from sds3d.run.artifacts import SceneExport, checked_format, particle_folder, write_artifact
from sds3d.training.session import REPORT, Session

EXPORTS = "exports"  # the folder of exports from other steps, and the key of the figures in report.json


@dataclass(frozen=True)
class Written:
    """One file, and what its check found."""

    path: Path
    stats: Mapping[str, Any]


def export_run(
    run: Path | str,
    formats: Sequence[str],
    particle: int = 1,
    step: int | None = None,
    options: Mapping[str, Any] | None = None,
    force: bool = False,
) -> Iterator[Written]:
    """Write results of a run again, from its end or from the checkpoint of `step`, one after the other.

    `options` go over the run's export options. Files go into the run folder; where a step is given or the run is not
    finished, into exports/step-N/ in it. ConfigError for what cannot be, before anything is written; ExportError where
    the scene gives nothing fit; OutputError where the disk refuses, or a file is there that sds3d did not write.
    """
    session = Session.resume(run, step=step)
    config = with_export_options(session.config, options or {})
    names = list(dict.fromkeys(checked_format(name, config) for name in formats))
    made = SceneExport(session.scene(particle), config, session.exported_step())
    folder = session.out_dir
    if step is not None or not (folder / REPORT).is_file():
        folder = folder / EXPORTS / f"step-{made.step:06d}"
    for name in names:
        path, stats = write_artifact(name, made, particle_folder(folder, particle), force)
        _note(folder / REPORT, str(path.relative_to(folder)), stats)
        yield Written(path, stats)


def with_export_options(config: RunConfig, options: Mapping[str, Any]) -> RunConfig:
    """The config with other export options; ConfigError names what is wrong with them."""
    data = config.to_dict()
    return RunConfig.from_dict({**data, "export": {**data["export"], **options}})


def _note(report: Path, name: str, stats: Mapping[str, Any]) -> None:
    """Put the figures of one file into a report.json, which may be there already."""
    known = read_json_object(report) if report.is_file() else {}
    known[EXPORTS] = {**known.get(EXPORTS, {}), name: dict(stats)}
    write_atomic(report, (json.dumps(known, indent=2, ensure_ascii=False) + "\n").encode())
