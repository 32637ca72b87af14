"""Orbit videos."""

import contextlib
import tempfile
from pathlib import Path

import numpy as np

from sds3d.cameras import orbit
from sds3d.errors import ExportError
from sds3d.export.sheet import BACKGROUND, to_uint8
from sds3d.export.views import render_views, select_views
from sds3d.files import write_atomic, writing
from sds3d.scenes.base import Scene
from sds3d.types import Cameras

FRAMES_AT_ONCE = 12
NO_VIDEO = "is there room in the temporary folder? see also: sds3d doctor"


def write_orbit(
    scene: Scene, path: Path, frames: int = 72, size: int = 256, fps: int = 24, elevation_deg: float = 15.0
) -> None:
    """One turn around the object as H.264 that browsers play while it loads; `size` is rounded up to an even number.

    ffmpeg writes to the system's temporary folder: only a finished video comes to `path`.
    """
    cameras = orbit(frames, elevation_deg=elevation_deg, size=size + size % 2)
    with writing(path), tempfile.TemporaryDirectory() as folder:
        video = Path(folder) / "orbit.mp4"
        try:
            _encode(scene, cameras, fps, video)
        except OSError as error:  # with ffmpeg's command line and log in it
            reason = str(error).strip().partition("\n")[0]
            raise ExportError(f"ffmpeg made no video for {path}: {reason}", hint=NO_VIDEO) from error
        if not video.is_file() or video.stat().st_size == 0:
            raise ExportError(f"ffmpeg made no video for {path}", hint=NO_VIDEO)
        write_atomic(path, video.read_bytes())


def _encode(scene: Scene, cameras: Cameras, fps: int, video: Path) -> None:
    import imageio_ffmpeg  # here: `import sds3d` stays quick

    writer = imageio_ffmpeg.write_frames(
        str(video),
        (cameras.width, cameras.height),
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
        for start in range(0, len(cameras), FRAMES_AT_ONCE):
            part = select_views(cameras, slice(start, start + FRAMES_AT_ONCE))
            for image in to_uint8(render_views(scene, part, BACKGROUND).rgb):
                writer.send(np.ascontiguousarray(image))
