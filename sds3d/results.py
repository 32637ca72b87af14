"""The files a finished run hands over: their names, and who writes them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PIL

from sds3d.config import RunConfig
from sds3d.export import (
    check_mesh,
    extract_mesh,
    render_sheet,
    to_uint8,
    write_glb,
    write_orbit,
    write_png,
    write_splats_ply,
)
from sds3d.files import writing
from sds3d.scenes import ImageScene, Scene


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


def draw(scene: Scene, config: RunConfig, folder: Path, views: int, size: int) -> list[Path]:
    """The pictures of a run anew, with `views` pictures on the sheet and sides of `size` pixels."""
    paths = [folder / RESULTS[name].file_name for name in config.scene.results if name in PICTURES]
    write_preview(scene, paths[0], views, size)
    if len(paths) > 1:
        write_orbit(scene, paths[1], size=size)
    return paths


def write_preview(scene: Scene, path: Path, views: int = 4, size: int = 128) -> None:
    """What the scene looks like: a sheet of views all around, or the image itself."""
    with writing(path):
        if isinstance(scene, ImageScene):
            pixels = to_uint8(scene.pixels.detach().cpu().numpy())
            write_png(np.asarray(PIL.fromarray(pixels).resize((size, size), PIL.Resampling.NEAREST)), path)
        else:
            write_png(render_sheet(scene, views=views, size=size), path)


def _image(scene: Scene, config: RunConfig, path: Path) -> dict[str, Any]:
    assert isinstance(scene, ImageScene)
    write_png(to_uint8(scene.pixels.detach().cpu().numpy()), path)
    return {"size": scene.config.size}


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


PICTURES = ("image", "sheet", "orbit")
RESULTS = {  # in the order of writing: what can be refused comes last
    "image": Result("image.png", _image),
    "sheet": Result("sheet.png", _sheet),
    "orbit": Result("orbit.mp4", _orbit),
    "ply": Result("splats.ply", _splats),
    "glb": Result("mesh.glb", _mesh),
}
