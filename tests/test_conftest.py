"""The guards of conftest.py work."""

import socket
from collections.abc import Callable

import pytest
import torch

from tests.conftest import SLOW, TESTS


def test_loopback_connections_work() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        pass
    assert socket.getaddrinfo("localhost", 80)


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "example.org"])
def test_everything_else_is_refused_and_noted(host: str, no_network: Callable[[], list[str]]) -> None:
    with pytest.raises(OSError, match="without network"):
        socket.create_connection((host, 80), timeout=0.1)
    (attempt,) = no_network()
    assert host in attempt


def test_what_quick_leaves_out_is_there() -> None:
    assert [name for name in SLOW if not (TESTS / name).exists()] == []


def test_shapes_are_checked() -> None:
    from sds3d.cameras import look_at

    with pytest.raises(Exception, match="position"):
        look_at(torch.zeros(2, 4), torch.zeros(2, 4))


def test_runs_make_only_a_sheet() -> None:
    from sds3d.scenes import SCENES

    assert {
        name: kind.artifacts for name, kind in SCENES.items() if not kind.is_flat and kind.artifacts != ("sheet",)
    } == {}
