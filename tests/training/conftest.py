"""What the tests of a run's life share."""

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture
def no_collector() -> Iterator[None]:
    """What is dropped is gone at once or not at all: the garbage collector does not happen to look."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()
