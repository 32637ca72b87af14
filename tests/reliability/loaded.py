"""Imported once, by the process that the children of `children.py` are copies of: they have nothing left to load."""

import tempfile
from pathlib import Path

import torch

import sds3d_app.commands.generate
import sds3d_app.progress  # noqa: F401
from sds3d import Session, load_config
from sds3d.scenes import SCENES
from tests.sizes import FULL

torch.set_num_threads(1)

if not FULL:  # as in the tests' own process: a mesh and a video take seven times as long as a small run
    for scene in SCENES.values():
        if not scene.is_flat:
            scene.artifacts = ("sheet",)

SMALL = {
    "prompt": "a red ball",
    "prior": {"name": "analytic", "size": 24},
    "cameras": {"views": 2, "size": 24},
    "scene": {"count": 150},
    "export": {"resolution": 32, "faces": 500, "texture_size": 64},
    "loss_weights": {"sparsity": 50.0},
    "steps": 24,
}

with tempfile.TemporaryDirectory() as folder:
    list(Session(load_config(overrides=SMALL), Path(folder) / "run").run())
