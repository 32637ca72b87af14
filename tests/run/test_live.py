"""The file that a canvas draws while a run goes on: what it holds, and that nobody pays for it who does not look."""

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sds3d import Session
from sds3d.cameras import orbit
from sds3d.export.splat_files import most_visible_first
from sds3d.run import live
from sds3d.run.events import StepDone
from sds3d.run.folder import RunFolder
from sds3d.run.live import HEADER, MESH, SPLAT, SPLATS, first_splats, live_bytes
from sds3d.scenes import SCENES

COUNT = 500


def read(data: bytes) -> dict[str, Any]:
    """As stage.js reads it."""
    magic, version, kind, _, step, count, faces, low, high, bound = HEADER.unpack_from(data)
    assert (magic, version, HEADER.size) == (b"SDSL", 1, 32)
    body, found = data[32:], {"kind": kind, "step": step, "bound": bound}
    if kind == SPLATS:
        rows = np.frombuffer(body, SPLAT)
        assert (len(rows), len(body)) == (count, 16 * count)
        axis = (rows["quat"].astype(float) - 128) / 127
        real = np.sqrt(np.maximum(0, 1 - (axis**2).sum(-1)))
        found |= {"scales": low + rows["scale"] / 255 * (high - low), "opacities": rows["opacity"] / 255}
        found |= {"rgb": rows["rgb"] / 255, "quats": np.column_stack([real, axis])}
        places = rows["xyz"]
    else:
        assert len(body) == 12 * faces + 9 * count
        places = np.frombuffer(body, "<u2", 3 * count, 12 * faces).reshape(-1, 3)
        found |= {"faces": np.frombuffer(body, "<u4", 3 * faces).reshape(-1, 3)}
        found |= {"rgb": np.frombuffer(body, "u1", 3 * count, 12 * faces + 6 * count).reshape(-1, 3) / 255}
    return {**found, "places": (places / 65535 * 2 - 1) * bound}


def build(name: str, **options: Any) -> Any:
    return SCENES[name](name=name, **options).build(torch.Generator().manual_seed(0))


def test_splats_come_back_within_their_bytes() -> None:
    scene = build("gaussians", count=COUNT)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in scene.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=draw))
    found, order = read(live_bytes(scene, 7)), most_visible_first(scene)
    assert (found["kind"], found["step"]) == (SPLATS, 7)
    assert np.abs(found["places"] - scene.means[order].detach().numpy()).max() <= found["bound"] / 65535 + 1e-6
    scales = scene.raw_scales[order].detach().numpy()
    assert np.abs(found["scales"] - scales).max() <= np.ptp(scales) / 510 + 1e-5
    for name, values in (("rgb", scene.colors), ("opacities", scene.opacities)):
        assert np.abs(found[name] - values[order].detach().numpy()).max() <= 0.5 / 255 + 1e-6
    alike = np.abs((found["quats"] * scene.quats[order].detach().numpy()).sum(-1))
    assert np.rad2deg(2 * np.arccos(alike.clip(0, 1))).max() < 13, "degrees, where w is next to 0"
    assert np.median(np.rad2deg(2 * np.arccos(alike.clip(0, 1)))) < 1


def test_a_slow_line_gets_the_most_visible_splats() -> None:
    whole = live_bytes(build("gaussians", count=COUNT), 3)
    few, all_of_them = read(first_splats(whole, 20)), read(whole)
    assert np.array_equal(few["places"], all_of_them["places"][:20])
    assert first_splats(whole, COUNT) == whole


def test_a_mesh_comes_back_in_its_light() -> None:
    light = {"direction": (1.0, 0.0, 0.0), "ambient": 0.25, "diffuse": 0.5}
    scene = build("mesh", light=light)
    data = live_bytes(scene, 9)
    found = read(data)
    vertices, faces = (t.detach().numpy() for t in scene.surface())
    assert (found["kind"], found["step"]) == (MESH, 9)
    assert np.array_equal(found["faces"], faces)
    assert np.abs(found["places"] - vertices).max() <= found["bound"] / 65535 + 1e-6
    grey = scene.color(torch.from_numpy(vertices)).detach().numpy()
    front, back = vertices[:, 0].argmax(), vertices[:, 0].argmin()
    assert np.abs(found["rgb"][front] - 0.75 * grey[front]).max() < 0.01
    assert np.abs(found["rgb"][back] - 0.25 * grey[back]).max() < 0.01
    assert first_splats(data, 5) == data


def test_a_field_is_a_coarse_mesh_of_its_object() -> None:
    scene = build("nerf")
    found = read(live_bytes(scene, 1))
    with torch.no_grad():
        covered = scene.render(orbit(1, size=32), torch.zeros(1, 3)).opacity
    radius = np.linalg.norm(found["places"], axis=-1)
    assert float(covered.max()) > 0.3
    assert found["kind"] == MESH
    assert len(found["faces"]) > 100
    assert radius.max() < 1.2
    assert np.ptp(found["places"], axis=0).min() > 0.3


def test_a_flat_image_has_none() -> None:
    assert live_bytes(build("image"), 1) is None


@pytest.fixture
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "EVERY", 0.0)


@pytest.mark.usefixtures("every_step")
def test_it_is_written_while_somebody_looks_only_and_gone_at_the_end(small_config: Any, tmp_path: Path) -> None:
    folder, seen = RunFolder(tmp_path / "run"), []
    for event in Session(small_config(steps=6), folder.path).run():
        if isinstance(event, StepDone):
            if event.step == 2:
                folder.watch()
            if event.step == 4:
                seen.append(read(folder.live_file.read_bytes())["step"])
                (folder.path / "watched").unlink()
            if event.step > 4 or event.step <= 2:
                seen.append(folder.live_file.exists() and read(folder.live_file.read_bytes())["step"])
    assert seen == [False, False, 3, 3, 3], "step 3 was the last that somebody saw before step 5"
    assert not folder.live_file.exists()
    assert not (folder.path / "watched").exists()


def test_a_look_counts_for_some_seconds_and_needs_a_run(small_config: Any, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.watch()
    assert not folder.path.exists(), "a look makes no folder"
    folder.path.mkdir()
    folder.write_config(small_config())
    assert not folder.is_watched()
    folder.watch()
    assert folder.is_watched()
    old = time.time() - 60
    os.utime(folder.path / "watched", (old, old))
    assert not folder.is_watched()


def test_no_more_than_one_a_second(small_config: Any, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_config(small_config())
    folder.watch()
    scene, view = build("gaussians", count=COUNT), live.LiveView(folder)
    for step in range(5):
        view.show([scene], step)
    assert read(folder.live_file.read_bytes())["step"] == 0
    view.show([scene, scene], 6)
    assert read(folder.live_file.read_bytes())["step"] == 0
