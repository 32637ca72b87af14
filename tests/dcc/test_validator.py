"""The Khronos glTF validator has nothing to complain of. `make test-dcc` installs it and sets SDS3D_GLTF_VALIDATOR."""

import json
import os
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest

from sds3d.export.glb import write_glb, write_gltf

MODULE = os.environ.get("SDS3D_GLTF_VALIDATOR", "")
pytestmark = pytest.mark.skipif(
    not MODULE or shutil.which("node") is None,
    reason="SDS3D_GLTF_VALIDATOR names no folder with npm's gltf-validator, or there is no node: see make test-dcc",
)
CODE = """
const validator = require(process.argv[1]), fs = require('fs'), path = require('path');
const file = process.argv[2];
const beside = name => Promise.resolve(new Uint8Array(fs.readFileSync(path.join(path.dirname(file), name))));
validator.validateBytes(new Uint8Array(fs.readFileSync(file)), {uri: file, externalResourceFunction: beside})
  .then(report => console.log(JSON.stringify(report)));
"""


@pytest.mark.parametrize("looks", ["texture", "normal map", "vertex colours"])
@pytest.mark.parametrize(("name", "write"), [("mesh.glb", write_glb), ("mesh.gltf", write_gltf)])
def test_no_errors_and_no_warnings(tmp_path, textured_body, name, write, looks):
    body = textured_body if looks != "vertex colours" else replace(textured_body, texture=None)
    if looks == "normal map":
        level = np.full_like(body.texture.image, (128, 128, 255))
        body = replace(body, texture=replace(body.texture, normals=level))
    write(body, tmp_path / name, {"prompt": "a \N{SNOWMAN}", "seed": 1})
    done = subprocess.run(
        ["node", "-e", CODE, MODULE, str(tmp_path / name)], capture_output=True, text=True, check=True
    )
    report = json.loads(done.stdout)
    assert (report["issues"]["numErrors"], report["issues"]["numWarnings"]) == (0, 0), report["issues"]["messages"]
    assert report["info"]["totalTriangleCount"] == len(body.faces)
    assert report["info"]["totalVertexCount"] == len(body.texture.uvs if body.texture else body.vertices)
