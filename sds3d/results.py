"""The files a finished run hands over: their names, and who writes them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image as PIL

from sds3d.config import RunConfig
from sds3d.export import (
    arrange,
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
        folder.mkdir(exist_ok=True)
        return path, result.write(scene, config, path)


def particle_folder(folder: Path, number: int) -> Path:
    """Where the results of a particle are: those of the first in the run folder itself, the others' in one each."""
    return folder if number == 1 else folder / f"particle-{number}"


def draw(scenes: list[Scene], config: RunConfig, folder: Path, views: int, size: int) -> list[Path]:
    """The pictures of a run anew, with `views` pictures on the sheet and sides of `size` pixels."""
    names = [RESULTS[name].file_name for name in config.scene.results if name in PICTURES]
    written = []
    for number, scene in enumerate(scenes, start=1):
        paths = [particle_folder(folder, number) / name for name in names]
        write_preview([scene], paths[0], views, size)
        if len(paths) > 1:
            write_orbit(scene, paths[1], size=size)
        written += paths
    if len(scenes) > 1:
        write_preview(scenes, folder / OVERVIEW, views, size)
        written.append(folder / OVERVIEW)
    return written


def write_preview(scenes: list[Scene], path: Path, views: int = 4, size: int = 128) -> None:
    """What the scene looks like: a sheet of views all around, or the image itself.

    Several particles have a row each, or as many images in rows, with the particle's number.
    """
    with writing(path):
        images = [_enlarged(scene, size) for scene in scenes if isinstance(scene, ImageScene)]
        if len(images) == 1:
            write_png(images[0], path)
        elif images:
            write_png(arrange(np.stack(images), [f"particle {n + 1}" for n in range(len(images))], columns=4), path)
        else:
            name = "particle {}: " if len(scenes) > 1 else ""
            rows = [render_sheet(s, views, size, title=name.format(n)) for n, s in enumerate(scenes, start=1)]
            write_png(np.concatenate(rows), path)


def _enlarged(scene: ImageScene, size: int) -> UInt8[ndarray, "H W 3"]:
    pixels = to_uint8(scene.pixels.detach().cpu().numpy())
    return np.asarray(PIL.fromarray(pixels).resize((size, size), PIL.Resampling.NEAREST))


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
OVERVIEW = "particles.png"  # all particles of a run that has several
RESULTS = {  # in the order of writing: what can be refused comes last
    "image": Result("image.png", _image),
    "sheet": Result("sheet.png", _sheet),
    "orbit": Result("orbit.mp4", _orbit),
    "ply": Result("splats.ply", _splats),
    "glb": Result("mesh.glb", _mesh),
}
