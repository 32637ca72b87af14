"""The files a finished run hands over: their names, and who writes them."""

import importlib.metadata
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image as PIL

from sds3d.atomic import writing
from sds3d.config.run_config import RunConfig
from sds3d.errors import ConfigError, OutputError
from sds3d.export.contact_sheet import arrange, draw_comparison, render_sheet
from sds3d.export.extract import extract_mesh
from sds3d.export.formats import MESH_FORMATS, verification_views, write_verified
from sds3d.export.info import read_info
from sds3d.export.mesh import Mesh
from sds3d.export.png import to_uint8, write_png
from sds3d.export.splat_files import check_splat, check_splats_ply, write_splat, write_splats_ply, write_verified_splats
from sds3d.export.video import write_orbit, write_turntable
from sds3d.export.views import SceneViews
from sds3d.scenes.base import Scene
from sds3d.scenes.image import ImageScene


class SceneExport:
    """One scene of a run, and what its results are made from, each of it made once."""

    def __init__(self, scene: Scene, config: RunConfig, step: int) -> None:
        self.scene, self.config, self.step = scene, config, step

    @cached_property
    def mesh(self) -> Mesh:
        return extract_mesh(self.scene, self.config.export)

    @cached_property
    def truth(self) -> SceneViews:
        return verification_views(self.scene)

    def metadata(self) -> dict[str, Any]:
        """How the files were made, for a place inside them."""
        config = self.config
        scale = getattr(config.guidance, "guidance_scale", None)
        return {
            "prompt": config.prompt,
            "negative_prompt": config.negative_prompt,
            "seed": config.seed,
            "step": self.step,
            "steps": config.steps,
            "guidance": {"name": config.guidance.name, "guidance_scale": scale},
            "prior": getattr(config.prior, "model", config.prior.name),
            "scene": config.scene.name,
            "sds3d": importlib.metadata.version("sds3d"),
        }


@dataclass(frozen=True)
class Artifact:
    """One file of the run folder. `write` puts it at a path and returns what there is to say about it."""

    file_name: str
    write: Callable[[SceneExport, Path], dict[str, Any]]


def write_artifact(
    file_format: str, made: SceneExport, folder: Path, force: bool = False
) -> tuple[Path, dict[str, Any]]:
    """Write one of ARTIFACTS; OutputError where the disk refuses, ExportError where the scene gives nothing fit.

    A mesh of the same name that was not written by sds3d, or that another program has saved since, is written over only
    with `force`.
    """
    result = ARTIFACTS[file_format]
    path = folder / result.file_name
    if not force and file_format in MESHES and path.exists() and not _is_ours(path):
        raise OutputError(
            f"{path} is there already and was not written by sds3d", hint="rename it, or say --force to replace it"
        )
    with writing(path):
        folder.mkdir(exist_ok=True, parents=True)
        return path, result.write(made, path)


def _is_ours(path: Path) -> bool:
    try:
        return read_info(path).made is not None
    except ConfigError:
        return False


def artifacts_of(config: RunConfig) -> list[str]:
    """Names of all results that a run's scenes can give."""
    known = config.scene.artifacts
    more = [name for name in (*MESHES, "check", "turntable") if "glb" in known]
    return [*known, *(name for name in [*more, *(["splat"] if "ply" in known else [])] if name not in known)]


def checked_format(name: str, config: RunConfig) -> str:
    """The name of a result that the run's scene can give; ConfigError with those that there are.

    "ply" is the mesh where there are no splats.
    """
    known = artifacts_of(config)
    if name == "ply" and name not in known:
        name = "mesh-ply"
    if name not in known:
        what = f"no format of the scene {config.scene.name}" if name in ARTIFACTS else "unknown"
        raise ConfigError(f"format {name!r} is {what}", hint="known: " + ", ".join(known))
    return name


def side_files(path: Path) -> list[Path]:
    """Files that a result refers to and that have to be kept beside it, as far as they are there."""
    beside = {".gltf": (".bin",), ".obj": (".mtl",)}.get(path.suffix, ())
    texture = [path.with_name(f"{path.stem}_color.png")] if beside else []
    return [file for file in (*(path.with_suffix(suffix) for suffix in beside), *texture) if file.is_file()]


def draw(scenes: list[Scene], config: RunConfig, folder_of: Callable[[int], Path], views: int, size: int) -> list[Path]:
    """Draw the pictures of a run again: `views` views on the sheet, `size` pixels a side.

    `folder_of` gives the folder of each particle, from 1.
    """
    names = [ARTIFACTS[name].file_name for name in config.scene.artifacts if name in DRAWN]
    written = []
    for number, scene in enumerate(scenes, start=1):
        paths = [folder_of(number) / name for name in names]
        write_preview([scene], paths[0], views, size)
        if len(paths) > 1:
            write_orbit(scene, paths[1], size=size)
        written += paths
    if len(scenes) > 1:
        write_preview(scenes, folder_of(1) / OVERVIEW, views, size)
        written.append(folder_of(1) / OVERVIEW)
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


def _image(made: SceneExport, path: Path) -> dict[str, Any]:
    scene = made.scene
    assert isinstance(scene, ImageScene)
    write_png(to_uint8(scene.pixels.detach().cpu().numpy()), path)
    return {"size": scene.config.size}


def _sheet(made: SceneExport, path: Path) -> dict[str, Any]:
    write_png(render_sheet(made.scene), path)
    return {"views": 8}


def _orbit(made: SceneExport, path: Path) -> dict[str, Any]:
    write_orbit(made.scene, path)
    return {}


def _splats(made: SceneExport, path: Path) -> dict[str, Any]:
    def write(temporary: Path) -> int:
        return write_splats_ply(made.scene, temporary, made.metadata())

    return {"splats": write_verified_splats(write, check_splats_ply, made.scene, path)}


def _splat(made: SceneExport, path: Path) -> dict[str, Any]:
    def write(temporary: Path) -> int:
        return write_splat(made.scene, temporary)

    return {"splats": write_verified_splats(write, check_splat, made.scene, path)}


def _mesh(file_format: str) -> Callable[[SceneExport, Path], dict[str, Any]]:
    def write(made: SceneExport, path: Path) -> dict[str, Any]:
        stats, figures = write_verified(made.mesh, file_format, path, made.metadata(), made.truth)
        how = {"surface": made.mesh.surface, "level": round(made.mesh.level, 5), "colored_by": made.mesh.colored_by}
        return {**asdict(stats), **figures.to_dict(), **how, "dropped_share": round(made.mesh.dropped_share, 4)}

    return write


def _check(made: SceneExport, path: Path) -> dict[str, Any]:
    write_png(draw_comparison(made.mesh, made.truth), path)
    return {"views": len(made.truth.cameras)}


def _turntable(made: SceneExport, path: Path) -> dict[str, Any]:
    write_turntable(made.scene, made.mesh, path)
    return {}


OVERVIEW = "particles.png"  # all particles of a run that has several
PICTURES = (OVERVIEW, "sheet.png", "image.png")  # the first that is there stands for the run
DRAWN = ("image", "sheet", "orbit")  # artifacts that `draw` makes again
MESHES = {"mesh-ply" if name == "ply" else name: name for name in MESH_FORMATS}  # ply alone means splats
ARTIFACTS = {  # in the order of writing: what can be refused comes last
    "image": Artifact("image.png", _image),
    "sheet": Artifact("sheet.png", _sheet),
    "orbit": Artifact("orbit.mp4", _orbit),
    "ply": Artifact("splats.ply", _splats),
    "splat": Artifact("splats.splat", _splat),
    **{name: Artifact(f"mesh.{file_format}", _mesh(file_format)) for name, file_format in MESHES.items()},
    "check": Artifact("mesh_check.png", _check),
    "turntable": Artifact("turntable.mp4", _turntable),
}
