import struct

import numpy as np
import pytest
import torch

from sds3d.errors import ConfigError, ExportError
from sds3d.export.info import read_info
from sds3d.export.splat_files import COLUMNS, SH_C0, write_splats_ply
from sds3d.ops.spherical_harmonics import harmonics
from sds3d.scenes import GaussiansConfig
from sds3d.types import Cameras

from .conftest import cluster, scene_of
from .splat_reader import read_splats_ply

MADE = {"prompt": "a \N{SNOWMAN}\nx"}


@pytest.fixture
def splats():
    generator = torch.Generator().manual_seed(0)
    scene = scene_of(cluster(torch.rand(20, 3, generator=generator), (0.2, 0.5, 0.9)))
    with torch.no_grad():
        scene.raw_quats.copy_(torch.randn(20, 4, generator=generator))
        scene.raw_scales.add_(torch.randn(20, 3, generator=generator))
    return scene


def test_reads_back_what_was_written(tmp_path, splats):
    write_splats_ply(splats, tmp_path / "splats.ply", MADE)
    again = read_splats_ply(tmp_path / "splats.ply")
    for name in ("means", "quats", "scales", "opacities", "colors"):
        assert torch.allclose(getattr(again, name), getattr(splats, name), atol=1e-6), name


def test_layout_is_that_of_the_reference_viewer(tmp_path, splats):
    write_splats_ply(splats, tmp_path / "splats.ply", MADE)
    head, _, body = (tmp_path / "splats.ply").read_bytes().partition(b"end_header\n")
    lines = head.decode().splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    assert lines[2:4] == ['comment sds3d {"prompt":"a \\u2603\\nx"}', "element vertex 20"]
    names = [*COLUMNS[:9], *(f"f_rest_{index}" for index in range(45)), *COLUMNS[9:]]
    assert lines[4:] == [f"property float {name}" for name in names]
    assert len(body) == 20 * 248, "importers that look at no name want 62 floats a splat"
    row = dict(zip(names, struct.unpack("<62f", body[:248]), strict=True))
    assert not any(row[f"f_rest_{index}"] for index in range(45))
    assert row["z"] == splats.raw_means[0, 2]
    assert (row["nx"], row["ny"], row["nz"]) == (0, 0, 0)
    assert 0.5 + SH_C0 * row["f_dc_2"] == pytest.approx(0.9)
    assert row["opacity"] == splats.raw_opacities[0]
    assert row["scale_1"] == splats.raw_scales[0, 1]
    assert sum(row[f"rot_{k}"] ** 2 for k in range(4)) == pytest.approx(1)


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_harmonics_are_in_the_reference_viewers_columns_and_give_the_rendered_colours(tmp_path, degree):
    terms = (degree + 1) ** 2 - 1
    scene = GaussiansConfig(count=6, sh_degree=degree).build(torch.Generator().manual_seed(0))
    with torch.no_grad():
        scene.raw_harmonics.copy_(0.1 * torch.randn(6, terms, 3, generator=torch.Generator().manual_seed(1)))
    write_splats_ply(scene, tmp_path / "splats.ply", MADE)
    head, _, body = (tmp_path / "splats.ply").read_bytes().partition(b"end_header\n")
    names = [line.split()[-1] for line in head.decode().splitlines() if line.startswith("property")]
    assert names[6:10] == ["f_dc_0", "f_dc_1", "f_dc_2", "f_rest_0"]
    assert names[54] == "opacity"
    row = dict(zip(names, struct.unpack(f"<{len(names)}f", body[: 4 * len(names)]), strict=True))
    # as viewers do it, for the first splat seen from +x, at colour 1
    eye = torch.tensor([3.0, 0, 0])
    direction = torch.nn.functional.normalize(scene.means[0].detach() - eye, dim=0)
    values = harmonics(direction, terms + 1)
    rest = [row[f"f_rest_{15 + k}"] for k in range(terms)]
    green = 0.5 + SH_C0 * row["f_dc_1"] + sum(float(values[k + 1]) * rest[k] for k in range(terms))
    pose = torch.eye(4)
    pose[:3, 3] = eye
    one = torch.ones(1)
    cameras = Cameras(pose[None], torch.eye(3)[None], one, one, one, 8, 8)
    assert scene.colors_in(cameras)[0, 0, 1].item() == pytest.approx(min(max(green, 0), 1), abs=1e-5)
    read = read_splats_ply(tmp_path / "splats.ply").harmonics
    assert torch.equal(read[:, :terms], scene.harmonics.detach())
    assert not read[:, terms:].any()


@pytest.mark.parametrize("prompt", ["a" * 6000, "\N{SNOWMAN}" * 3000, "red \N{PILE OF POO} " * 500])
def test_the_header_ends_where_viewers_look_for_it(tmp_path, splats, prompt):
    write_splats_ply(splats, tmp_path / "splats.ply", {"prompt": prompt, "negative_prompt": prompt, "seed": 5})
    assert 0 < (tmp_path / "splats.ply").read_bytes().find(b"end_header\n") < 4096
    made = read_info(tmp_path / "splats.ply").made
    assert made["seed"] == 5
    assert made["prompt"].endswith("...")
    assert prompt.startswith(made["prompt"][:-3])


def test_columns_may_come_in_any_order_with_others(tmp_path):
    names = [*reversed(COLUMNS[:3]), "f_rest_0", *COLUMNS[6:]]
    header = "ply\nformat binary_little_endian 1.0\nelement vertex 2\n"
    header += "".join(f"property float {name}\n" for name in names) + "end_header\n"
    rows = np.arange(2 * len(names), dtype="<f4")
    (tmp_path / "other.ply").write_bytes(header.encode() + rows.tobytes())
    assert read_splats_ply(tmp_path / "other.ply").means[0].tolist() == [2, 1, 0]


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: d[:-1],
        lambda d: d + b"\0",
        lambda d: d[:30],
        lambda d: b"",
        lambda d: d.replace(b"vertex 20", b"vertex 99999999999999"),
        lambda d: d.replace(b"vertex 20", b"vertex -1"),
        lambda d: d.replace(b"little", b"big"),
        lambda d: d.replace(b"property float opacity\n", b""),
        lambda d: d.replace(b"float opacity", b"float scale_0"),
        lambda d: d.replace(b"element vertex 20", b"element face 20"),
    ],
)
def test_damaged_files_are_the_users_mistake(tmp_path, splats, damage):
    path = tmp_path / "splats.ply"
    write_splats_ply(splats, path, MADE)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ConfigError, match=r"splats\.ply"):
        read_splats_ply(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.ply"):
        read_splats_ply(tmp_path / "nowhere.ply")


def test_other_scenes_are_refused(tmp_path):
    class Field:
        render = param_groups = regularizers = after_step = density = color = print

    with pytest.raises(ExportError, match="splats"):
        write_splats_ply(Field(), tmp_path / "splats.ply", MADE)
    assert not list(tmp_path.iterdir())
