"""R14: nothing off this machine is asked for, by the tests' own process or by those that they start."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

CONNECT = """
import socket
for ask in (lambda: socket.create_connection(("192.0.2.1", 80), 0.1), lambda: socket.getaddrinfo("example.org", 80)):
    try:
        ask()
    except OSError as error:
        print(error)
"""
LIGHT = ["steps=2", "export.resolution=32", "export.faces=2000", "export.color_size=64", "export.texture_size=128"]
SEPARATE = ["unshare", "--map-root-user", "--net", "--"]  # not even a loopback interface that is up


def test_the_guard_sees_what_other_processes_ask_for(no_network: Callable[[], list[str]]) -> None:
    said = subprocess.run([sys.executable, "-c", CONNECT], capture_output=True, text=True, check=True).stdout
    assert said.count("the tests run without network") == 2
    attempts = no_network()
    assert len(attempts) == 2
    assert "192.0.2.1" in attempts[0]
    assert "example.org" in attempts[1]


def can_separate() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*SEPARATE, "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not can_separate(), reason="this system does not give a process a network of its own")
def test_a_run_and_a_batch_need_no_network_at_all(small_file: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "list.txt"
    prompts.write_text("a red ball\n")
    sds3d, environment = [*SEPARATE, sys.executable, "-m", "sds3d_app"], {**os.environ, "OMP_NUM_THREADS": "1"}
    for arguments in (
        ["generate", "a red mug", *LIGHT, "--out", str(tmp_path / "run")],
        ["batch", str(prompts), "--config", str(small_file), "--out", str(tmp_path / "batch")],
    ):
        done = subprocess.run([*sds3d, *arguments], capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "sheet.png").is_file()
    assert json.loads((tmp_path / "batch" / "summary.json").read_text())["counts"] == {"done": 1}
