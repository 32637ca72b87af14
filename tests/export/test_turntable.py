"""Mesh and scene side by side, and the bytes of .splat."""

import imageio_ffmpeg
import numpy as np

from sds3d.export.contact_sheet import draw_comparison
from sds3d.export.formats import verification_cameras
from sds3d.export.render_mesh import render_mesh
from sds3d.export.splat_files import write_splat
from sds3d.export.video import write_turntable

from .body import textured_body
from .conftest import cluster, scene_of

__all__ = ["textured_body"]


def test_the_comparison_has_the_scene_above_and_the_mesh_below(textured_body):
    truth = render_mesh(textured_body, verification_cameras())
    picture = draw_comparison(textured_body, truth)
    above, below = np.array_split(picture[:, :, 0].astype(int), 2)
    assert picture.shape[1] > 8 * 256
    assert abs((above < 100).mean() - (below < 100).mean()) < 0.01


def test_the_turntable_is_twice_as_wide_as_high(tmp_path, textured_body, clean_scene):
    write_turntable(clean_scene, textured_body, tmp_path / "turntable.mp4", frames=3, size=48)
    frames = imageio_ffmpeg.read_frames(str(tmp_path / "turntable.mp4"))
    assert next(frames)["size"] == (96, 48)
    assert len(list(frames)) == 3


def test_splat_has_32_bytes_each_the_most_visible_first(tmp_path):
    import torch

    small, large = (cluster(torch.tensor([[x, 0.0, 0.2]]), (0.2, 0.4, 0.6), opacity=0.6) for x in (0.1, 0.3))
    large["raw_scales"] += 1.0
    assert write_splat(scene_of(small, large), tmp_path / "two.splat") == 2
    rows = np.frombuffer((tmp_path / "two.splat").read_bytes(), dtype=np.uint8).reshape(2, 32)
    floats = rows[:, :24].copy().view("<f4")
    assert np.allclose(floats[:, :3], [[0.3, 0, 0.2], [0.1, 0, 0.2]])
    assert np.allclose(floats[1, 3:], 0.03)
    assert rows[0, 24:28].tolist() == [51, 102, 153, 153]
    assert rows[0, 28:].tolist() == [255, 128, 128, 128]
