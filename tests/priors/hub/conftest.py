"""Tiny models, made once a session, and a cache of embeddings that is the test's own."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sds3d.cameras import orbit
from sds3d.types import ViewCondition
from tests.priors.hub.tiny_models import save


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny model by its name in MODELS; not to be changed."""
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = save(name, tmp_path_factory.mktemp(name) / "model")
        return made[name]

    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Embeddings of one test are not found by another."""
    monkeypatch.setenv("SDS3D_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "embeddings"


@pytest.fixture
def views() -> tuple[ViewCondition, ViewCondition]:
    """Two views each, from different sides."""
    ring = orbit(4)
    first, second = (ring.select(torch.tensor(which)) for which in ([0, 1], [2, 3]))
    return ViewCondition(first), ViewCondition(second)
