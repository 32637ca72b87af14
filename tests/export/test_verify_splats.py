"""Splat files are read back before they get their name; what differs is refused, and the old file stays."""

from pathlib import Path

import pytest
import torch

from sds3d.errors import ExportError
from sds3d.export.splat_files import check_splat, check_splats_ply, write_splat, write_splats_ply, write_verified_splats

from .conftest import cluster, scene_of


@pytest.fixture
def splats():
    generator = torch.Generator().manual_seed(0)
    return scene_of(cluster(torch.rand(50, 3, generator=generator), (0.2, 0.5, 0.9)))


WRITERS = [
    pytest.param(lambda scene, path: write_splats_ply(scene, path, {"prompt": "x"}), check_splats_ply, id="ply"),
    pytest.param(write_splat, check_splat, id="splat"),
]


@pytest.mark.parametrize(("write", "check"), WRITERS)
def test_what_was_written_passes_and_another_scene_does_not(write, check, splats, tmp_path: Path) -> None:
    path = tmp_path / f"splats.{'ply' if check is check_splats_ply else 'splat'}"
    assert write_verified_splats(lambda temporary: write(splats, temporary), check, splats, path) == 50
    before = path.read_bytes()
    with torch.no_grad():
        splats.means[7, 1] += 0.01
    with pytest.raises(ExportError, match="does not read back"):
        check(path, splats)

    def wrong(temporary: Path) -> int:
        temporary.write_bytes(before)
        return 50

    with pytest.raises(ExportError, match="does not read back"):
        write_verified_splats(wrong, check, splats, path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(("write", "check"), WRITERS)
def test_an_opacity_that_differs_is_noticed(write, check, splats, tmp_path: Path) -> None:
    path = tmp_path / f"splats.{'ply' if check is check_splats_ply else 'splat'}"
    write(splats, path)
    with torch.no_grad():
        splats.raw_opacities -= 1.0
    with pytest.raises(ExportError, match="does not read back"):
        check(path, splats)
