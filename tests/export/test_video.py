import imageio_ffmpeg
import numpy as np
import pytest

from sds3d.cameras import orbit
from sds3d.errors import ExportError, OutputError
from sds3d.export.contact_sheet import BACKGROUND
from sds3d.export.video import write_orbit
from sds3d.export.views import render_views


def read(path):
    frames = imageio_ffmpeg.read_frames(str(path))
    meta = next(frames)
    width, height = meta["size"]
    return meta, [np.frombuffer(frame, dtype=np.uint8).reshape(height, width, 3) for frame in frames]


def test_turns_once_around_the_object(tmp_path, scene):
    path = tmp_path / "orbit.mp4"
    write_orbit(scene, path, frames=14, size=63, fps=10)
    meta, frames = read(path)
    assert len(frames) == 14
    assert meta["size"] == (64, 64)  # even
    assert meta["fps"] == 10
    assert meta["pix_fmt"].startswith("yuv420p")
    expected = render_views(scene, orbit(14, size=64), BACKGROUND).rgb * 255
    for index in (0, 13):
        assert np.abs(frames[index].astype(float) - expected[index]).mean() < 6
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # faststart
    assert [file.name for file in tmp_path.iterdir()] == ["orbit.mp4"]


def test_a_folder_that_cannot_hold_the_file_is_an_output_error(tmp_path, scene):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OutputError, match=r"orbit\.mp4"):
        write_orbit(scene, tmp_path / "file" / "orbit.mp4", frames=2, size=16)


AT_THE_END = "#!/bin/sh\nfor last; do :; done\ncat > $last\necho 'Error writing trailer\nNo space left' >&2\nexit 1\n"


@pytest.mark.parametrize("program", ["/bin/false", "/nowhere/ffmpeg", AT_THE_END])
def test_a_failing_encoder_is_one_clear_line_and_leaves_nothing(tmp_path, scene, monkeypatch, program):
    folder = tmp_path / "run"
    folder.mkdir()
    if program == AT_THE_END:
        program = str(tmp_path / "ffmpeg")
        (tmp_path / "ffmpeg").write_text(AT_THE_END)
        (tmp_path / "ffmpeg").chmod(0o755)
    monkeypatch.setattr("imageio_ffmpeg.get_ffmpeg_exe", lambda: program)
    with pytest.raises(ExportError, match=r"ffmpeg made no video for .*orbit\.mp4") as caught:
        write_orbit(scene, folder / "orbit.mp4", frames=30, size=64)
    assert "\n" not in str(caught.value)
    assert not list(folder.iterdir())
