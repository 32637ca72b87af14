"""Sizes: small in `make test`, those of the promises under SDS3D_FULL=1 (`make test-reliability`)."""

import pytest

from tests.sizes import FULL


@pytest.fixture(scope="session")
def full() -> bool:
    return FULL
