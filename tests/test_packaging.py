"""The wheel carries everything: installed elsewhere and called from another folder, it makes an object."""

import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from setuptools import Distribution, Extension

from tests.offline import OFFLINE
from tests.sizes import FULL

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ["setup.py", "pyproject.toml", "README.md", "LICENSE", "sds3d", "app", "assets", "cuda_ext"]
QUICK = [
    "--steps",
    "2",
    "--scene",
    "gaussians",
    "--set",
    "scene.count=64",
    "cameras.views=1",
    "export.resolution=32",
    "export.faces=2000",
]
QUICK += ["export.color_size=64", "export.texture_size=128"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("wheel"),  # one worker, so that it is built once
    pytest.mark.timeout(900),  # a slow machine compiles and installs for minutes
]


def run(*command: str | Path, cwd: Path) -> str:
    result = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{command}: {result.stderr[-3000:]}"
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the sources, with the kernels that are built here already, where none of their sources has
    changed since: setup.py compiles them anew otherwise, and under SDS3D_FULL=1."""
    copy = tmp_path_factory.mktemp("sources")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        else:
            shutil.copy2(source, copy / name)
    for built in [] if FULL else (ROOT / "sds3d").glob("_C*.so"):
        command = Distribution({"ext_modules": [Extension("sds3d._C", [])]}).get_command_obj("build")
        command.ensure_finalized()
        (copy / command.build_lib / "sds3d").mkdir(parents=True, exist_ok=True)
        shutil.copy2(built, copy / command.build_lib / "sds3d")
    pip = [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--no-index"]
    run(*pip, "--wheel-dir", copy / "dist", copy, cwd=copy)
    [path] = (copy / "dist").glob("sds3d-*.whl")
    return path


@pytest.fixture(scope="module")
def elsewhere(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with this wheel and, through a .pth file, this environment's dependencies; not its sds3d."""
    folder = tmp_path_factory.mktemp("elsewhere")
    venv.create(folder / "env", symlinks=True)
    python = folder / "env" / "bin" / "python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index"]
    run(*pip, wheel, cwd=folder)
    # A plain folder on the path is not searched for further .pth files, so an editable sds3d there stays unseen.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def test_the_wheel_holds_the_kernels_the_weights_and_no_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/", maxsplit=1)[0] for name in names}
    assert {"sds3d", "sds3d_app", "sds3d_assets"} <= tops
    assert not tops & {"tests", "app", "assets", "cuda_ext", "benchmarks", "setup.py"}
    assert [name for name in names if name.startswith("sds3d/_C") and name.endswith(".so")]
    assert [name for name in names if name.startswith("sds3d_assets/") and name.endswith(".safetensors")]
    assert {f"sds3d_assets/recipes/{path.name}" for path in (ROOT / "assets" / "recipes").iterdir()} <= {*names}
    assert any("LICENSE" in name for name in names)


def test_the_installed_command_makes_an_object(elsewhere: Path, tmp_path: Path) -> None:
    """With the prior that it brings along; on systems that allow it without any network."""
    command = elsewhere / "env" / "bin" / "sds3d"
    find = "import importlib.util; print(importlib.util.find_spec('sds3d').origin)"
    where = run(elsewhere / "env" / "bin" / "python", "-c", find, cwd=tmp_path)
    assert where.startswith(str(elsewhere))
    run(command, "doctor", cwd=tmp_path)
    out = run(*OFFLINE, command, "generate", "a red mug", *QUICK, "--quiet", cwd=tmp_path).strip()
    made = {path.name for path in (tmp_path / out).iterdir()}
    assert {"config.json", "events.jsonl", "report.json", "sheet.png", "splats.ply", "mesh.glb"} <= made
