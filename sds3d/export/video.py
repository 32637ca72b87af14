"""Orbit videos."""

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from sds3d.atomic import temporary_folder, write_atomic, writing
from sds3d.cameras import orbit
from sds3d.errors import ExportError
from sds3d.export.contact_sheet import BACKGROUND
from sds3d.export.mesh import Mesh
from sds3d.export.png import to_uint8
from sds3d.export.render_mesh import render_mesh
from sds3d.export.views import batches, render_views
from sds3d.scenes.base import Scene

FRAMES_AT_ONCE = 12
NO_VIDEO = "is there room on the disk? see also: sds3d doctor"


def write_orbit(scene: Scene, path: Path, frames: int = 72, size: int = 256, fps: int = 24) -> None:
    """One turn around the object; `size` is rounded up to an even number."""
    _write_video(_turn(scene, None, frames, size), fps, path)


def write_turntable(scene: Scene, mesh: Mesh, path: Path, frames: int = 48, size: int = 256, fps: int = 16) -> None:
    """The same turn of the scene, on the left, and of the mesh made from it."""
    _write_video(_turn(scene, mesh, frames, size), fps, path)


def _turn(scene: Scene, mesh: Mesh | None, frames: int, size: int) -> Iterator[Float[ndarray, "B H W 3"]]:
    for part in batches(orbit(frames, size=size + size % 2), FRAMES_AT_ONCE):
        images = [render_views(scene, part, BACKGROUND).rgb]
        if mesh is not None:
            images.append(render_mesh(mesh, part, BACKGROUND).rgb)
        yield np.concatenate(images, axis=2)


def _write_video(parts: Iterator[Float[ndarray, "B H W 3"]], fps: int, path: Path) -> None:
    """H.264 that browsers play while it loads. Only a video that ffmpeg has finished comes to `path`."""
    with writing(path), temporary_folder(path) as folder:
        video = folder / "orbit.mp4"
        try:
            _encode(parts, fps, video)
        except OSError as error:  # with ffmpeg's command line and log in it
            reason = str(error).strip().partition("\n")[0]
            raise ExportError(f"ffmpeg made no video for {path}: {reason}", hint=NO_VIDEO) from error
        if not video.is_file() or video.stat().st_size == 0:
            raise ExportError(f"ffmpeg made no video for {path}", hint=NO_VIDEO)
        write_atomic(path, video.read_bytes())


def _encode(parts: Iterator[Float[ndarray, "B H W 3"]], fps: int, video: Path) -> None:
    import imageio_ffmpeg  # here: `import sds3d` stays quick

    first = next(parts)
    writer = imageio_ffmpeg.write_frames(
        str(video),
        (first.shape[2], first.shape[1]),
        fps=fps,
        codec="libx264",
        quality=None,
        pix_fmt_out="yuv420p",
        macro_block_size=2,
        ffmpeg_log_level="error",
        output_params=["-crf", "20", "-preset", "medium", "-movflags", "+faststart"],
    )
    with contextlib.closing(writer):
        writer.send(None)
        for part in itertools.chain([first], parts):
            for image in to_uint8(part):
                writer.send(np.ascontiguousarray(image))
