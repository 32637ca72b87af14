"""The Blender add-on, packed as a person gets it, in Blender, with a real server and its worker."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.app.ui.browser import Server
from tests.test_docs import load

ROOT = Path(__file__).resolve().parents[2]
BPY = os.environ.get("SDS3D_BPY")
OPTIONS = (
    "prior=analytic scene=gaussians scene.count=150 cameras.size=24 cameras.views=2 export.resolution=32 "
    "export.faces=2000 export.color_size=64 export.texture_size=128 preview_every=5 checkpoint_every=10"
)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    if BPY is None:
        pytest.skip("no Blender: make test-dcc")
    folder = tmp_path_factory.mktemp("addon")
    packed = load(ROOT / "app" / "blender" / "pack.py").pack(folder / "dist")
    server = Server(folder / "outputs")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    job = {
        "zip": str(packed), "server": server.address, "out": str(folder), "port": port, "options": OPTIONS,
        "texture_options": "prior=analytic cameras.size=24 export.texture_size=64",
        "refine_options": "prior=analytic cameras.size=24 export.texture_size=64",
        "command": str(Path(sys.executable).with_name("sds3d")),
    }  # fmt: skip
    script = Path(__file__).with_name("addon_in_blender.py")
    home = {"HOME": str(folder), "PATH": os.environ["PATH"], "BLENDER_USER_RESOURCES": str(folder / "blender")}
    try:
        done = subprocess.run([BPY, script, json.dumps(job)], env=home, capture_output=True, text=True, check=False)
    finally:
        server.end()
    lines = [line for line in done.stdout.splitlines() if line.startswith("FOUND ")]
    assert lines, (done.stdout + done.stderr)[-4000:]
    return dict(json.loads(lines[0].removeprefix("FOUND ")))


def test_the_zip_has_all_it_needs(tmp_path: Path) -> None:
    import zipfile

    packed = load(ROOT / "app" / "blender" / "pack.py").pack(tmp_path)
    assert packed.name == "sds3d-blender-0.1.0.zip"
    with zipfile.ZipFile(packed) as file:
        names = set(file.namelist())
        assert names == {
            "__init__.py", "scene.py", "work.py", "sds3d_client.py", "blender_manifest.toml", "LICENSE",
        }  # fmt: skip
        assert b"Apache License" in file.read("LICENSE")
        client = (ROOT / "sds3d" / "client" / "__init__.py").read_bytes()
        assert file.read("sds3d_client.py") == client


def test_a_server_that_is_not_there_is_said(found: dict[str, Any]) -> None:
    cancelled, text = found["nobody"]
    assert cancelled
    assert "does not answer" in text
    assert found["nobody_works"][0].startswith("the server does not answer")
    assert found["nobody_works"][1]


def test_what_is_made_stands_at_the_cursor_upright_and_as_large_as_was_said(found: dict[str, Any]) -> None:
    assert found["connected"][0].startswith("connected to sds3d")
    assert found["connected"][1] > 10
    assert found["made"] == "done"
    assert found["busy"] is False
    assert any(state.startswith("step ") for state in found["states"])
    assert "making the result" in found["states"]
    assert min(found["preview"]) > 0
    ball = found["ball"]
    assert ball["name"] == "a red ball"
    assert ball["objects"] == ["a red ball"]  # no empty nodes beside it
    assert ball["images"]
    low, high = np.array(ball["bounds"])
    assert np.allclose(ball["origin"], (4, -2, 1), atol=1e-5)
    assert np.isclose(low[2], 1, atol=0.02)
    assert np.isclose((high - low).max(), 2.5, rtol=0.02)
    assert np.allclose((low + high)[:2] / 2, (4, -2), atol=0.1)


def test_an_object_gets_its_colours_and_nothing_else(found: dict[str, Any]) -> None:
    assert found["textured"] == "done"
    texture = found["texture"]
    assert texture["untouched"]
    assert texture["packed"]
    assert texture["own"]
    assert texture["other"] == ["shared"]
    assert texture["size"] == [64, 64]
    assert texture["spread"] > 0.01
    assert found["bare"] == ["done", 1, 1]


def test_an_object_is_refined_in_its_place(found: dict[str, Any]) -> None:
    said, name, bounds, hidden = found["refined"]
    assert (said, name, hidden) == ("done", "a red ball refined", True)
    before, after = np.array(found["ball"]["bounds"]), np.array(bounds)
    assert np.abs(before - after).max() < 0.25  # of 2.5


def test_work_is_cancelled_and_mistakes_are_told(found: dict[str, Any]) -> None:
    assert found["cancelled"] == ["cancelled", True]
    assert found["wrong"][1]
    assert "guidance_scale" in found["wrong"][0]


def test_it_comes_and_goes_and_starts_a_server(found: dict[str, Any]) -> None:
    assert (found["disabled"], found["enabled"]) == (False, True)
    assert found["own_server"].startswith("connected to sds3d")
