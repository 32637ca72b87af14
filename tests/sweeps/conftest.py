import pytest

from sds3d.scenes import GaussiansConfig


@pytest.fixture
def sheet_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of splats hand over a sheet and nothing else: for tests that look at no mesh."""
    monkeypatch.setattr(GaussiansConfig, "artifacts", ("sheet",))
