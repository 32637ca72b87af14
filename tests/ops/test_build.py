"""How setup.py decides about CUDA, and that the CUDA sources compile wherever there is an nvcc, GPU or not."""

import runpy
import shutil
import subprocess
from contextlib import nullcontext
from pathlib import Path

import pytest
import setuptools
import torch
from setuptools.errors import CompileError

from tests.sizes import FULL

ROOT = Path(__file__).resolve().parents[2]
# The oldest is the strictest: what compiles for it compiles for newer ones.
ARCHITECTURES = (80, 90) if FULL else (80,)
FAKE_NVCC = """#!/bin/sh
case "$1" in
  --version) echo "Cuda compilation tools, release {version}, V{version}.1" ;;
  --dryrun) echo "#$ TOP={root}/bin/.." >&2 ;;
esac
"""


# Compiles a file only while the other one is being compiled as well, and none whose name begins with "bad".
FAKE_COMPILER = """#!/bin/sh
while [ $# -gt 0 ]; do
  case "$1" in -o) object=$2; shift ;; *.cpp) source=$1 ;; esac
  shift
done
case "$source" in bad*) exit 1 ;; esac
[ -z "$object" ] && exit 0
touch "$object"
[ -z "$source" ] && exit 0
for _ in $(seq 200); do
  [ "$(find . -name '*.o' | wc -l)" = 2 ] && exit 0
  sleep 0.1
done
exit 1
"""


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> dict:
    """The names in setup.py."""
    monkeypatch.setattr(setuptools, "setup", lambda **_: None)
    for name in ("SDS3D_BUILD_CUDA", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    return runpy.run_path(str(ROOT / "setup.py"))


@pytest.fixture
def toolkit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A torch with CUDA 13.0, and a toolkit 13.1 that is reached through an nvcc in another folder."""
    root = tmp_path / "cuda"
    (root / "include").mkdir(parents=True)
    (root / "bin").mkdir()
    (root / "include" / "cuda_runtime.h").touch()
    write_nvcc(tmp_path / "elsewhere", root, "13.1")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "elsewhere"))
    return root


def write_nvcc(home: Path, root: Path, version: str) -> None:
    (home / "bin").mkdir(parents=True, exist_ok=True)
    (home / "bin" / "nvcc").write_text(FAKE_NVCC.format(version=version, root=root))
    (home / "bin" / "nvcc").chmod(0o755)


def test_a_toolkit_of_the_same_major_version_is_used(build, toolkit):
    assert build["cuda_decision"]() == (toolkit, f"nvcc 13.1 in {toolkit}, torch CUDA 13.0")


@pytest.mark.parametrize(("sources", "works"), [(["one.cpp", "two.cpp"], True), (["bad.cpp", "bad_too.cpp"], False)])
def test_files_are_compiled_side_by_side(
    sources: list[str], works: bool, build: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that cannot be compiled fails the build."""
    compiler = tmp_path / "compiler"
    compiler.write_text(FAKE_COMPILER)
    compiler.chmod(0o755)
    for name in ("CC", "CXX"):
        monkeypatch.setenv(name, str(compiler))
    monkeypatch.setenv("LDSHARED", f"{compiler} -shared")
    monkeypatch.setenv("MAX_JOBS", "2")
    monkeypatch.chdir(tmp_path)
    for name in sources:
        Path(name).touch()
    extension = setuptools.Extension("pair", sources, language="c++")
    command = build["build_command"]()(setuptools.Distribution({"name": "pair", "ext_modules": [extension]}))
    command.ensure_finalized()
    with nullcontext() if works else pytest.raises(CompileError):
        command.run()
    assert bool(list(tmp_path.rglob("pair*.so"))) == works


def test_zero_means_no_cuda_even_with_a_toolkit(build, toolkit, monkeypatch):
    monkeypatch.setenv("SDS3D_BUILD_CUDA", "0")
    assert build["cuda_decision"]() == (None, "SDS3D_BUILD_CUDA=0")


def test_another_major_version_is_refused(build, toolkit, tmp_path):
    write_nvcc(tmp_path / "elsewhere", toolkit, "12.8")
    assert build["cuda_decision"]() == (None, "nvcc is release 12.8, torch wants CUDA 13.0")


def test_a_toolkit_without_headers_is_refused(build, toolkit):
    (toolkit / "include" / "cuda_runtime.h").unlink()
    assert build["cuda_decision"]() == (None, f"nvcc 13.1 has no headers in {toolkit / 'include'} (set CUDA_HOME)")


def test_a_torch_without_cuda_builds_for_the_cpu_only(build, toolkit, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    assert build["cuda_decision"]() == (None, f"torch {torch.__version__} has no CUDA")


def test_one_fails_where_cuda_cannot_be_built(build, toolkit, tmp_path, monkeypatch):
    monkeypatch.setenv("SDS3D_BUILD_CUDA", "1")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "nowhere"))
    with pytest.raises(SystemExit, match=r"SDS3D_BUILD_CUDA=1, but no nvcc found for torch's CUDA 13\.0"):
        build["cuda_decision"]()


def test_other_values_are_named(build, monkeypatch):
    monkeypatch.setenv("SDS3D_BUILD_CUDA", "yes")
    with pytest.raises(SystemExit, match="SDS3D_BUILD_CUDA=yes: expected 0, 1 or auto"):
        build["cuda_decision"]()


def test_every_source_is_built(build):
    listed = {*build["SOURCES"], *build["X86_SOURCES"], *build["CUDA_SOURCES"]}
    found = {path.relative_to(ROOT).as_posix() for kind in ("cpp", "cu") for path in ROOT.glob(f"cuda_ext/**/*.{kind}")}
    assert listed == found


def nvcc_or_skip(build: dict) -> str:
    nvcc = build["find_nvcc"]()
    if nvcc is None:
        pytest.skip("no nvcc here")
    return nvcc


def run(*command: str | Path) -> None:
    done = subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


KERNELS = sorted(path.relative_to(ROOT) for path in ROOT.glob("cuda_ext/**/*.cu"))
SORTED = Path("cuda_ext/rasterize_gaussians/hit_sort.cu")  # of CUB's templates, which take as long as three others


@pytest.mark.slow
@pytest.mark.parametrize("source", [path for path in KERNELS if FULL or path != SORTED], ids=str)
def test_kernels_compile_without_a_warning(build, source, tmp_path):
    architectures = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in ARCHITECTURES]
    warnings = ["-Werror", "all-warnings"]
    run(nvcc_or_skip(build), *build["NVCC_FLAGS"], *warnings, *architectures, "-c", source, "-o", tmp_path / "kernel.o")


@pytest.mark.slow
def test_cuda_glue_compiles_against_the_oldest_stable_abi(build):
    headers = build["toolkit_root"](nvcc_or_skip(build)) / "include"
    if not (headers / "cuda_runtime_api.h").is_file():
        pytest.skip(f"no CUDA headers in {headers}")
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler here")
    torch_headers = Path(torch.__file__).parent / "include"
    flags = [*build["CXX_FLAGS"], *build["ABI"], "-DUSE_CUDA", "-Werror"]
    run(compiler, *flags, "-isystem", torch_headers, "-isystem", headers, "-fsyntax-only", "cuda_ext/bindings_cuda.cpp")
