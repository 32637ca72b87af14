"""Orbit videos."""

import itertools
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from sds3d.atomic import temporary_folder, write_atomic, writing
from sds3d.cameras import orbit
from sds3d.errors import ExportError, first_line
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
        except OSError as error:
            raise ExportError(f"ffmpeg made no video for {path}: {first_line(error)}", hint=NO_VIDEO) from error
        write_atomic(path, video.read_bytes())


def _encode(parts: Iterator[Float[ndarray, "B H W 3"]], fps: int, video: Path) -> None:
    """OSError where ffmpeg fails, also at its very end, where it writes what makes the file one."""
    import imageio_ffmpeg  # here: `import sds3d` stays quick

    first = next(parts)
    size, log = f"{first.shape[2]}x{first.shape[1]}", video.with_name("log")
    command = [
        *(imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-v", "error"),
        *("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", str(fps), "-i", "-", "-an", "-c:v", "libx264"),
        *("-pix_fmt", "yuv420p", "-crf", "20", "-preset", "medium", "-movflags", "+faststart", str(video)),
    ]
    with log.open("wb") as said:  # Ctrl-C is for this process alone: in a session of its own ffmpeg does not hear it
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=said, stderr=said, start_new_session=True)
        with suppress(BrokenPipeError), process:  # its log tells more
            assert process.stdin is not None
            for part in itertools.chain([first], parts):
                process.stdin.write(np.ascontiguousarray(to_uint8(part)).data)
    if process.returncode != 0:
        reason = log.read_text(errors="replace").strip().partition("\n")[0]
        raise OSError(reason or f"it ended with {process.returncode}")
