"""The files a finished run hands over: their names, and who writes them."""

import importlib.metadata
from dataclasses import asdict, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image as PIL

from sds3d.atomic import write_atomic, writing
from sds3d.config.run_config import RunConfig
from sds3d.errors import ConfigError, OutputError
from sds3d.export.contact_sheet import arrange, draw_comparison, render_sheet
from sds3d.export.extract import extract_mesh
from sds3d.export.formats import MESH_FORMATS, verification_views, write_verified
from sds3d.export.info import read_info
from sds3d.export.mesh import Mesh
from sds3d.export.placement import turned_splats
from sds3d.export.png import to_uint8, write_png
from sds3d.export.splat_files import (
    check_splat,
    check_splats_ply,
    checked_splats,
    write_splat,
    write_splats_ply,
    write_verified_splats,
)
from sds3d.export.textured import write_textured
from sds3d.export.video import write_orbit, write_turntable
from sds3d.export.views import SceneViews
from sds3d.metrics.mesh import tunnel_count
from sds3d.metrics.roughness import crease_figures
from sds3d.scenes.base import Scene, SceneConfig
from sds3d.scenes.image import ImageScene
from sds3d.scenes.mesh import MeshConfig
from sds3d.types import Material


class SceneExport:
    """One scene of a run, and what its results are made from, each of it made once."""

    def __init__(self, scene: Scene, config: RunConfig, step: int, stage: int = 0) -> None:
        """The scene of a `stage` after the run's `step`."""
        self.scene, self.config, self.step = scene, config, step
        self.parts = config.in_stage(stage)  # the options that made it

    @cached_property
    def mesh(self) -> Mesh:
        return replace(extract_mesh(self.scene, self.config.export), material=self.material)

    @property
    def material(self) -> Material:
        """What the prior knows of it."""
        return self.config.prior.material(self.config.prompt)

    @cached_property
    def truth(self) -> SceneViews:
        return verification_views(self.scene)

    def metadata(self) -> dict[str, Any]:
        """How the files were made, for a place inside them."""
        config, parts = self.config, self.parts
        scale = getattr(parts.guidance, "guidance_scale", None)
        return {
            "prompt": config.prompt,
            "negative_prompt": config.negative_prompt,
            "seed": config.seed,
            "step": self.step,
            "steps": config.steps,
            "guidance": {"name": parts.guidance.name, "guidance_scale": scale},
            "prior": getattr(config.prior, "model", config.prior.name),
            "scene": parts.scene.name,
            "sds3d": importlib.metadata.version("sds3d"),
        }


def write_artifact(
    file_format: str, made: SceneExport, folder: Path, force: bool = False
) -> tuple[Path, dict[str, Any]]:
    """Write one of ARTIFACTS: (its path, what there is to say about it).

    OutputError where the disk refuses, ExportError where the scene gives nothing fit.

    A mesh of the same name that was not written by sds3d, or that another program has saved since, is written over only
    with `force`.
    """
    path = folder / ARTIFACTS[file_format]
    if not force and file_format in MESHES and path.exists() and not _is_ours(path):
        raise OutputError(
            f"{path} is there already and was not written by sds3d", hint="rename it, or say --force to replace it"
        )
    with writing(path):
        folder.mkdir(exist_ok=True, parents=True)
        return path, _write(file_format, made, path)


def format_for(path: Path, scene: SceneConfig, force: bool = False) -> str:
    """The result of a kind of scene that a file's ending asks for. ConfigError where there is none, OutputError where a
    file of that name is there that sds3d did not write, or the folder that it is to be in cannot be made."""
    known = {Path(ARTIFACTS[name]).suffix: name for name in reversed(artifacts_of(scene))}
    if path.suffix.lower() not in known:
        problem = f"{path}: a run of the scene {scene.name} gives no {path.suffix}"
        raise ConfigError(problem, "it gives " + ", ".join(sorted(known)))
    if path.exists() and not (force or _is_ours(path)):
        raise OutputError(f"{path} is there, and does not say that sds3d wrote it", "say another name, or remove it")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    return known[path.suffix.lower()]


def write_result(file_format: str, made: SceneExport, path: Path, kept: Path | None = None) -> dict[str, Any]:
    """A result where somebody wants it, or a copy of the one that is `kept`, if there is one and it is a single file;
    what there is to say about it."""
    if kept is not None and kept.is_file() and not side_files(kept):
        write_atomic(path, kept.read_bytes())
        return {}
    with writing(path):
        return _write(file_format, made, path)


def _is_ours(path: Path) -> bool:
    try:
        return read_info(path).made is not None
    except ConfigError:
        return False


def artifacts_of(scene: SceneConfig) -> list[str]:
    """Names of all results that a kind of scene can give."""
    known = scene.results
    more = [name for name in (*MESHES, "check", "turntable") if "glb" in known]
    return [*known, *(name for name in [*more, *(["splat"] if "ply" in known else [])] if name not in known)]


def checked_format(name: str, scene: SceneConfig) -> str:
    """The name of a result that a kind of scene can give; ConfigError with those that there are.

    "ply" is the mesh where there are no splats.
    """
    known = artifacts_of(scene)
    if name == "ply" and name not in known:
        name = "mesh-ply"
    if name not in known:
        what = f"no format of the scene {scene.name}" if name in ARTIFACTS else "unknown"
        raise ConfigError(f"format {name!r} is {what}", hint="known: " + ", ".join(known))
    return name


def side_files(path: Path) -> list[Path]:
    """Files that a result refers to and that have to be kept beside it, as far as they are there."""
    beside = {".gltf": ".bin", ".obj": ".mtl"}.get(path.suffix)
    names = [f"{path.stem}{end}" for end in (beside, "_color.png", "_normal.png")] if beside else []
    return [path.with_name(name) for name in names if path.with_name(name).is_file()]


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


def _write(name: str, made: SceneExport, path: Path) -> dict[str, Any]:
    """Put one of ARTIFACTS at a path; returns what there is to say about it."""
    scene, facts = made.scene, dict[str, Any]()
    match name:
        case "image":
            assert isinstance(scene, ImageScene)
            write_png(to_uint8(scene.pixels.detach().cpu().numpy()), path)
            facts = {"size": scene.config.size}
        case "sheet":
            write_png(render_sheet(scene), path)
            facts = {"views": 8}
        case "orbit":
            write_orbit(scene, path)
        case "ply":
            splats = turned_splats(checked_splats(scene), made.config.export.up)
            turned = {} if splats is scene else {"up": made.config.export.up}
            write = partial(write_splats_ply, splats, metadata={**made.metadata(), **turned})
            facts = {"splats": write_verified_splats(write, check_splats_ply, splats, path)}
        case "splat":
            splats = turned_splats(checked_splats(scene), made.config.export.up)
            facts = {"splats": write_verified_splats(partial(write_splat, splats), check_splat, splats, path)}
        case "check":
            write_png(draw_comparison(made.mesh, made.truth), path)
            facts = {"views": len(made.truth.cameras)}
        case "textured":
            config = made.parts.scene
            assert isinstance(config, MeshConfig)
            assert config.source is not None
            facts = write_textured(scene, config.source, made.config.export.texture_size, path, made.material)
        case "turntable":
            write_turntable(scene, made.mesh, path)
        case _:
            mesh = made.mesh
            roughness, crease_length = crease_figures(mesh.vertices, mesh.faces)
            figures_inside = {"roughness": round(roughness, 2), "crease_length": round(crease_length, 2)}
            metadata = {**made.metadata(), "tunnels": tunnel_count(mesh.vertices, mesh.faces), **figures_inside}
            stats, figures = write_verified(mesh, MESHES[name], path, metadata, made.truth, made.config.export)
            facts = {"surface": mesh.surface, "level": round(mesh.level, 5), "colored_by": mesh.colored_by}
            mapped = (
                MESH_FORMATS[MESHES[name]].textured and mesh.texture is not None and mesh.texture.normals is not None
            )
            facts |= {"lost_deg": round(mesh.lost_deg, 2), "normal_map": mapped}
            facts = {**asdict(stats), **figures.to_dict(), **facts, "dropped_share": round(mesh.dropped_share, 4)}
            if name == "usdz" and mesh.texture is None:
                facts["warnings"].append("Apple's viewers show no colours of vertices: use --color texture")
    return facts


OVERVIEW = "particles.png"  # all particles of a run that has several
PICTURES = (OVERVIEW, "sheet.png", "image.png")  # the first that is there stands for the run
MESHES = {"mesh-ply" if name == "ply" else name: name for name in MESH_FORMATS}  # ply alone means splats
ARTIFACTS = {  # names of files, in the order of writing: what can be refused comes last
    "image": "image.png",
    "sheet": "sheet.png",
    "orbit": "orbit.mp4",
    "textured": "textured.glb",
    "ply": "splats.ply",
    "splat": "splats.splat",
    **{name: f"mesh.{file_format}" for name, file_format in MESHES.items()},
    "check": "mesh_check.png",
    "turntable": "turntable.mp4",
}
