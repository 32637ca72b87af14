"""The wheel carries everything: installed elsewhere and called from another folder, it makes an object."""

import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ["setup.py", "pyproject.toml", "README.md", "LICENSE", "sds3d", "app", "assets", "cuda_ext"]
QUICK = ["--steps", "2", "--set", "scene.count=64", "cameras.views=1", "export.resolution=32", "export.faces=2000"]

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
    """Built from a copy of the sources without anything that was built here."""
    copy = tmp_path_factory.mktemp("sources")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        else:
            shutil.copy(source, copy / name)
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
    assert any("LICENSE" in name for name in names)


@pytest.mark.parametrize(("prior", "prompt"), [("analytic", "a red ball"), ("embedded", "a red mug")])
def test_the_installed_command_makes_an_object(elsewhere: Path, prior: str, prompt: str, tmp_path: Path) -> None:
    command = elsewhere / "env" / "bin" / "sds3d"
    where = run(elsewhere / "env" / "bin" / "python", "-c", "import sds3d; print(sds3d.__file__)", cwd=tmp_path)
    assert where.startswith(str(elsewhere))
    run(command, "doctor", cwd=tmp_path)
    out = run(command, "generate", prompt, "--prior", prior, *QUICK, "--quiet", cwd=tmp_path).strip()
    made = {path.name for path in (tmp_path / out).iterdir()}
    assert {"config.json", "events.jsonl", "report.json", "sheet.png", "splats.ply", "mesh.glb"} <= made
