"""`sds3d texture` on meshes that Blender wrote: it opens the results, and exactly one image is another one."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from sds3d import Session
from sds3d_app.commands.texture import texture_config

PYTHON = os.environ.get("SDS3D_BPY", "")
pytestmark = pytest.mark.skipif(
    not PYTHON, reason="SDS3D_BPY names no Python with Blender's module: make test-dcc installs one"
)
KINDS = ("cube", "sphere", "cone", "torus", "monkey")


def blender(*arguments: str):
    script = Path(__file__).with_name("uvs_in_blender.py")
    done = subprocess.run([PYTHON, str(script), *arguments], capture_output=True, text=True, check=False)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("FOUND ")] or [done.stderr[-2000:]]
    return json.loads(line.removeprefix("FOUND "))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """What Blender sees in its own files, and in them textured by two steps."""
    folder = tmp_path_factory.mktemp("primitives")
    files = {Path(file).stem: file for file in blender("make", str(folder))}
    results = {}
    for kind, file in files.items():
        scene = {"geometry": "fixed", "path": file, "up": None, "front": None}
        options = {"prompt": "a red ball", "steps": 2, "export.texture_size": 64, "scene.colors.log2_table": 10}
        session = Session(texture_config(None, scene, options), folder / kind)
        list(session.run())
        results[kind] = str(session.folder.artifact("textured"))
    seen = blender("look", *files.values(), *results.values())
    return {kind: (seen[files[kind]], seen[results[kind]]) for kind in files}


@pytest.mark.parametrize("kind", KINDS)
def test_objects_places_uvs_and_names_are_the_same_and_one_image_is_not(pairs, kind) -> None:
    before, after = pairs[kind]
    assert list(before["objects"]) == [f"my {kind}"]
    assert before["objects"] == after["objects"]
    assert before["objects"][f"my {kind}"]["materials"] == [f"{kind} skin"]
    assert len(before["objects"][f"my {kind}"]["uvs"]) == 1
    assert before["images"].keys() == after["images"].keys()
    changed = [name for name, pixels in before["images"].items() if after["images"][name] != pixels]
    assert changed == [f"{kind} skin: Base Color"]
    assert before["count"] == after["count"] == 2
