"""R14: nothing off this machine is asked for, by the tests' own process or by those that they start."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.offline import OFFLINE
from tests.sizes import at_full_size

CONNECT = """
import socket
for ask in (lambda: socket.create_connection(("192.0.2.1", 80), 0.1), lambda: socket.getaddrinfo("example.org", 80)):
    try:
        ask()
    except OSError as error:
        print(error)
"""
LIGHT = [
    "scene=gaussians",
    "steps=2",
    "export.resolution=32",
    "export.faces=2000",
    "export.color_size=64",
    "export.texture_size=128",
]


def test_the_guard_sees_what_other_processes_ask_for(no_network: Callable[[], list[str]]) -> None:
    said = subprocess.run([sys.executable, "-c", CONNECT], capture_output=True, text=True, check=True).stdout
    assert said.count("the tests run without network") == 2
    attempts = no_network()
    assert len(attempts) == 2
    assert "192.0.2.1" in attempts[0]
    assert "example.org" in attempts[1]


@pytest.mark.skipif(not OFFLINE, reason="this system does not give a process a network of its own")
@at_full_size
def test_a_batch_needs_no_network_at_all(tmp_path: Path) -> None:
    """With the embedded prior, in a worker's process; tests/test_packaging.py has a single run."""
    prompts = tmp_path / "list.txt"
    prompts.write_text("a red mug\n")
    command = [*OFFLINE, sys.executable, "-m", "sds3d_app", "batch", str(prompts), "--out", str(tmp_path / "batch")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for option in LIGHT:
        command += ["--set", option]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "batch").rglob("sheet.png"))
    assert json.loads((tmp_path / "batch" / "summary.json").read_text())["counts"] == {"done": 1}
