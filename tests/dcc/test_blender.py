"""Blender opens what we write: counts, texture, size, orientation, and a render that agrees with ours.

`make test-dcc` installs Blender as a Python module (1 GB, GPL, so never in our own environment) and sets SDS3D_BPY.
"""

import json
import math
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sds3d.cameras import orbit
from sds3d.export.formats import MESH_FORMATS
from sds3d.export.obj_ply_stl import WORLD_TO_Z_UP
from sds3d.export.render_mesh import render_mesh

PYTHON = os.environ.get("SDS3D_BPY", "")
SIZE, FOV = 128, math.radians(40)
pytestmark = pytest.mark.skipif(
    not PYTHON, reason="SDS3D_BPY names no Python with Blender's module: make test-dcc installs one"
)


@pytest.fixture(scope="module")
def camera():
    return orbit(5, elevation_deg=25, size=SIZE).select(torch.tensor([1]))


@pytest.fixture(scope="module")
def found(tmp_path_factory, textured_body, camera):
    folder = tmp_path_factory.mktemp("blender")
    files = []
    for name, chosen in MESH_FORMATS.items():
        (folder / name).mkdir()
        files.append(folder / name / f"mesh.{name}")
        body = textured_body if chosen.textured else replace(textured_body, texture=None)
        chosen.write(body, files[-1], {"seed": 0})
    pose = camera.camera_to_world[0].numpy().astype(float)
    pose[:3] = WORLD_TO_Z_UP @ pose[:3]
    pose[:, 1:3] *= -1  # Blender's cameras look along -z with +y up
    job = {"files": [str(file) for file in files], "camera": pose.tolist(), "fov": FOV, "size": SIZE}
    script = Path(__file__).with_name("in_blender.py")
    done = subprocess.run(
        [PYTHON, str(script), json.dumps({**job, "out": str(folder)})], capture_output=True, text=True, check=False
    )
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("FOUND ")] or [done.stderr[-2000:]]
    return {Path(file).suffix[1:]: value for file, value in json.loads(line.removeprefix("FOUND ")).items()}


@pytest.mark.parametrize("name", MESH_FORMATS)
def test_the_mesh_arrives_whole_upright_and_in_its_size(found, textured_body, name):
    there = found[name]
    assert there["faces"] == len(textured_body.faces)
    assert there["places"] == len(textured_body.vertices)
    places = textured_body.vertices @ WORLD_TO_Z_UP.T
    assert there["low"] == pytest.approx(places.min(axis=0), abs=1e-3)
    assert there["high"] == pytest.approx(places.max(axis=0), abs=1e-3)


@pytest.mark.parametrize("name", ["glb", "gltf", "obj", "usdz"])
def test_the_texture_and_the_material_arrive(found, textured_body, name):
    there = found[name]
    height, width = textured_body.texture.image.shape[:2]
    assert there["uv_layers"] == 1
    assert there["images"] == [[width, height, "sRGB"]]
    assert there["roughness"] == pytest.approx(textured_body.material.roughness, abs=1e-3)
    assert there["metallic"] == pytest.approx(textured_body.material.metallic, abs=1e-3)


@pytest.mark.parametrize("name", ["glb", "gltf", "obj", "usdz"])
def test_blenders_render_agrees_with_ours(found, textured_body, camera, name):
    theirs = np.asarray(Image.open(found[name]["picture"]).convert("RGBA"), dtype=float) / 255
    ours = render_mesh(textured_body, camera)
    mask = ours.opacity[0] > 0.5
    solid = theirs[..., 3] > 0.5
    assert (mask & solid).sum() / (mask | solid).sum() > 0.97
    both = mask & (theirs[..., 3] > 0.99)
    gap = theirs[..., :3][both] - ours.rgb[0][both]
    assert np.abs(gap.mean(axis=0)).max() < 0.02
    assert np.sqrt((gap**2).mean()) < 0.1
