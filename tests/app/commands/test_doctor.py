"""The doctor on this machine, and on machines that lack something."""

import importlib.metadata
import json
from pathlib import Path

import pytest

from sds3d_app.cli import invoke
from sds3d_app.commands import doctor
from sds3d_app.commands.doctor import Check, is_ready, missing_packages, show

REQUIREMENTS = [
    "torch>=2.11", "no-such-package>=1", 'nor-this-one; extra == "ui"', "pytest; extra == 'dev'",
    'not_for_us[x]<2; python_version < "3.8"', 'nor.that; python_version >= "3.8" and extra == "ui"',
]  # fmt: skip


def test_this_machine_can_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["doctor", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    checks = {check["name"]: check for check in result["checks"]}
    assert result["ready"]
    assert {"python", "torch", "kernels (CPU)", "CUDA device", "prior analytic", "ffmpeg", "packages"} <= set(checks)
    assert all(check["ok"] or check["fix"] for check in checks.values())


@pytest.mark.parametrize(
    ("extra", "missing"),
    [(None, ["no-such-package"]), ("ui", ["nor-this-one", "nor.that"]), ("dev", []), ("other", [])],
)
def test_missing_packages(extra: str | None, missing: list[str]) -> None:
    assert missing_packages(REQUIREMENTS, extra) == missing


def test_only_what_is_needed_decides(capsys: pytest.CaptureFixture[str]) -> None:
    optional = Check("CUDA device", False, "none seen", "install one", needed=False)
    needed = Check("torch", False, "not found", "pip install torch")
    assert is_ready([optional])
    assert not is_ready([optional, needed])
    show([optional, needed])
    text = capsys.readouterr().out
    assert "MISSING  torch" in text
    assert "fix: pip install torch" in text
    assert "not ready" in text


def test_a_machine_without_a_package_is_told_which(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: REQUIREMENTS)
    assert invoke(["doctor"]) == 1
    assert "fix: pip install no-such-package" in capsys.readouterr().out


def test_a_read_only_folder_is_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: False)
    check = doctor.output_folder()
    assert not check.ok
    assert "read-only" in check.found
