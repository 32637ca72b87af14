import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest

from tests.strict_device import runs


@pytest.fixture(scope="session")
def on_device() -> Iterator[Callable[..., Any]]:
    """Calls a function of runs.py in the one process that has the device; compiling it takes 30 seconds, once."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, initializer=runs.begin) as pool:
        yield lambda function, *args, **kwargs: pool.submit(runs.call, function, *args, **kwargs).result()
