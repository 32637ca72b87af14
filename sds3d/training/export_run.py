"""Exports from an existing run: any formats, any checkpoint, with figures in a report.json beside them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sds3d.config import RunConfig
from sds3d.run.artifacts import SceneExport, checked_format, write_artifact
from sds3d.training.session import Session


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

    `options` override the run's export options. Files go into the run folder, or into exports/step-N/ in it if a step
    is given or the run is not finished. ConfigError before anything is written if a format or option is wrong;
    ExportError if the scene gives nothing fit to export; OutputError if the disk refuses, or a file is in the way that
    sds3d did not write.
    """
    session = Session.resume(run, step=step)
    config = with_export_options(session.config, options or {})
    names = list(dict.fromkeys(checked_format(name, config) for name in formats))
    scene = SceneExport(session.scene(particle), config, session.exported_step())
    from_checkpoint = scene.step if step is not None or session.folder.report() is None else None
    for name in names:
        folder = session.folder.results_folder(particle, from_checkpoint)
        path, stats = write_artifact(name, scene, folder, force)
        session.folder.add_export(path, stats, from_checkpoint)
        yield Written(path, stats)


def with_export_options(config: RunConfig, options: Mapping[str, Any]) -> RunConfig:
    """The config with other export options; ConfigError names what is wrong with them."""
    data = config.to_dict()
    return RunConfig.from_dict({**data, "export": {**data["export"], **options}})
