"""A run that takes seconds, as a config file for the command line."""

import json
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def small_options() -> dict[str, Any]:
    return {
        "prior": {"name": "analytic", "size": 24},
        "cameras": {"views": 2, "size": 24},
        "scene": {"count": 150, "densify": {"refine_every": 3}},
        "export": {"resolution": 32, "faces": 2000, "color_size": 64, "texture_size": 128},
        "loss_weights": {"sparsity": 50.0},
        "steps": 24,
        "preview_every": 12,
        "checkpoint_every": 8,
    }


@pytest.fixture(scope="session")
def small_file(small_options: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("options") / "small.json"
    path.write_text(json.dumps(small_options))
    return path
