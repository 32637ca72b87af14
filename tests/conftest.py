"""For all tests: shapes are checked at run time, one thread, no network, and CUDA tests are skipped in one place."""

import ipaddress
import socket
from collections.abc import Iterator
from typing import Any

import jaxtyping
import pytest

# before the first import of sds3d; the tower lets an int pass where a float is asked for, as type checkers do
jaxtyping.install_import_hook("sds3d", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")

import torch  # noqa: E402

torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="no CUDA device")
    for item in items:
        if "cuda" in item.keywords:
            item.add_marker(skip)


def is_local(address: Any) -> bool:
    """True for Unix sockets and the loopback interface."""
    if not isinstance(address, tuple):
        return True
    host = address[0]
    try:
        return host in ("localhost", "") or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Any connection off this machine fails the test, also where the code swallows the error. Yields the attempts."""
    attempts: list[Any] = []

    def guarded(name: str) -> Any:
        original = getattr(socket.socket, name)

        def connect(self: socket.socket, *args: Any) -> Any:
            if not is_local(args[-1]):
                attempts.append(args[-1])
                raise OSError(f"the tests run without network, and this one asked for {args[-1]}")
            return original(self, *args)

        return connect

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, guarded(name))
    lookup = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host is not None and not is_local((host,)):
            attempts.append(host)
            raise socket.gaierror(f"the tests run without network, and this one looked up {host!r}")
        return lookup(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield attempts
    assert not attempts, f"connections off this machine: {attempts}"


@pytest.fixture(scope="session")
def small_config() -> Any:
    """Makes configs of runs that take about a second: small images, few splats, early densification, no weights."""
    from sds3d import load_config

    small = {
        "prompt": "a red ball",
        "prior": {"name": "analytic", "size": 24},
        "cameras": {"views": 2, "size": 24},
        "scene": {"count": 150, "densify": {"begin_step": 5, "every": 5}},
        "export": {"resolution": 32, "faces": 2000, "color_size": 64, "texture_size": 128},
        "loss_weights": {"sparsity": 50.0},
        "steps": 24,
        "log_every": 4,
        "preview_every": 0,
        "checkpoint_every": 8,
    }
    return lambda **overrides: load_config(overrides={**small, **overrides})
