from dataclasses import asdict, replace

import numpy as np
import pytest

from sds3d.errors import ExportError
from sds3d.export.formats import check_geometry
from sds3d.export.glb import read_glb, write_glb
from sds3d.export.mesh import Mesh


def test_statistics_of_a_file_are_those_of_the_mesh(tmp_path, mesh):
    write_glb(replace(mesh, texture=None), tmp_path / "mesh.glb", {})
    stats, direct = check_geometry(read_glb(tmp_path / "mesh.glb")), check_geometry(mesh)
    assert stats.faces == len(mesh.faces)
    assert stats.extent == pytest.approx(direct.extent)
    assert stats.volume == pytest.approx(direct.volume)
    assert stats.mean_color == pytest.approx(direct.mean_color, abs=1e-4)
    assert set(asdict(stats)) >= {"vertices", "faces", "pieces", "watertight", "extent", "volume", "mean_color"}


def test_empty_is_refused():
    empty = Mesh(np.zeros((0, 3), dtype=np.float32), np.zeros((0, 3), dtype=np.int64), np.zeros((0, 3)))
    with pytest.raises(ExportError, match="empty"):
        check_geometry(empty)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused(mesh, bad):
    vertices, colors = mesh.vertices.copy(), mesh.colors.copy()
    vertices[5, 1] = colors[7, 0] = bad
    for broken in (replace(mesh, vertices=vertices), replace(mesh, colors=colors)):
        with pytest.raises(ExportError, match="not finite"):
            check_geometry(broken)


def test_exploded_is_refused_with_its_size(mesh):
    with pytest.raises(ExportError, match=r"exploded.*3\.\d\d.*learning rates"):
        check_geometry(replace(mesh, vertices=mesh.vertices * np.float32(5)))


def test_tiny_is_refused(mesh):
    with pytest.raises(ExportError, match="across"):
        check_geometry(replace(mesh, vertices=mesh.vertices * np.float32(0.01)))


def test_black_is_refused_and_nearly_black_is_not(mesh):
    with pytest.raises(ExportError, match="black"):
        check_geometry(replace(mesh, colors=np.full_like(mesh.colors, 0.005)))
    check_geometry(replace(mesh, colors=np.full_like(mesh.colors, 0.06)))


def test_holes_are_refused(mesh):
    with pytest.raises(ExportError, match="holes"):
        check_geometry(replace(mesh, faces=mesh.faces[1:]))
