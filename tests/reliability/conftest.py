"""Sizes: small in `make test`, those of the promises under SDS3D_FULL=1 (`make test-reliability`)."""

import os

import pytest


@pytest.fixture(scope="session")
def full() -> bool:
    return os.environ.get("SDS3D_FULL", "0") not in ("", "0")
