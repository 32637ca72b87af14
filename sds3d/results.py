"""The files a finished run hands over: their names, and who writes them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sds3d.config import RunConfig
from sds3d.export import check_mesh, extract_mesh, render_sheet, write_glb, write_orbit, write_png, write_splats_ply
from sds3d.files import writing
from sds3d.scenes import Scene


@dataclass(frozen=True)
class Result:
    """One file of the run folder. `write` puts it at a path and returns what there is to say about it."""

    file_name: str
    write: Callable[[Scene, RunConfig, Path], dict[str, Any]]


def write_result(file_format: str, scene: Scene, config: RunConfig, folder: Path) -> tuple[Path, dict[str, Any]]:
    """Write one of RESULTS; OutputError where the disk refuses, ExportError where the scene gives nothing fit."""
    result = RESULTS[file_format]
    path = folder / result.file_name
    with writing(path):
        return path, result.write(scene, config, path)


def draw(scene: Scene, folder: Path, views: int, size: int) -> list[Path]:
    """Sheet and orbit anew, with `views` pictures on the sheet and sides of `size` pixels."""
    sheet, orbit = (folder / RESULTS[name].file_name for name in ("sheet", "orbit"))
    with writing(sheet):
        write_png(render_sheet(scene, views=views, size=size), sheet)
    write_orbit(scene, orbit, size=size)
    return [sheet, orbit]


def _sheet(scene: Scene, config: RunConfig, path: Path) -> dict[str, Any]:
    write_png(render_sheet(scene), path)
    return {"views": 8}


def _orbit(scene: Scene, config: RunConfig, path: Path) -> dict[str, Any]:
    write_orbit(scene, path)
    return {}


def _splats(scene: Scene, config: RunConfig, path: Path) -> dict[str, Any]:
    write_splats_ply(scene, path)
    return {}


def _mesh(scene: Scene, config: RunConfig, path: Path) -> dict[str, Any]:
    mesh = extract_mesh(scene, config.export)
    check_mesh(mesh)  # before there is a file
    write_glb(mesh, path, {"prompt": config.prompt, "seed": config.seed})
    return check_mesh(path).to_dict()


RESULTS = {  # in the order of writing: what can be refused comes last
    "sheet": Result("sheet.png", _sheet),
    "orbit": Result("orbit.mp4", _orbit),
    "ply": Result("splats.ply", _splats),
    "glb": Result("mesh.glb", _mesh),
}
