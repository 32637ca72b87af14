"""benchmarks/gpu.sh: it stops cleanly without a GPU, and with one does everything offline and in order."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "benchmarks" / "gpu.sh"
# Stands in for python3.12 and notes how it is called; the environment that it makes has itself as its python.
FAKE_PYTHON = """#!/bin/sh
echo "SDS3D_BUILD_CUDA=$SDS3D_BUILD_CUDA $*" >> "{log}"
case "$*" in
  "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
  "-m pytest"*) exit {tests} ;;
esac
"""


def write_program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess:
    command = [str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder of programs as on a GPU machine, and wheels beside it."""
    write_program(tmp_path / "bin" / "nvidia-smi", "#!/bin/sh\necho 'GPU 0: Test (UUID: GPU-0)'\n")
    write_program(tmp_path / "bin" / "nvcc", "#!/bin/sh\necho 'Cuda compilation tools, release 13.0, V13.0.1'\n")
    write_program(tmp_path / "bin" / "c++", "#!/bin/sh\n")
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "torch-2.11.0-cp312-cp312-linux_x86_64.whl").touch()
    return tmp_path


def run_on(machine: Path, *arguments: str | Path, tests: int = 0) -> tuple[int, str, list[str]]:
    log = machine / "log"
    write_program(machine / "bin" / "python3.12", FAKE_PYTHON.format(log=log, tests=tests))
    path = f"{machine / 'bin'}:/usr/bin:/bin"
    done = run(*arguments, "--env", machine / "env", PATH=path, PYTHON="python3.12", CXX="c++")
    return done.returncode, done.stderr, log.read_text().splitlines() if log.exists() else []


def test_without_a_gpu_it_says_so_and_exits_with_2(tmp_path):
    write_program(tmp_path / "nvidia-smi", "#!/bin/sh\nexit 9\n")  # as where there is a driver and no card
    done = run("--wheels", tmp_path, PATH=f"{tmp_path}:/usr/bin:/bin", PYTHON=sys.executable)
    assert done.returncode == 2
    assert "no NVIDIA GPU here" in done.stderr


def test_a_folder_without_wheels_is_named(machine, tmp_path):
    (tmp_path / "empty").mkdir()
    code, said, _ = run_on(machine, "--wheels", tmp_path / "empty")
    assert code == 2
    assert "empty holds no torch wheel" in said


def test_another_cuda_is_refused(machine):
    write_program(machine / "bin" / "nvcc", "#!/bin/sh\necho 'Cuda compilation tools, release 12.8, V12.8.1'\n")
    code, said, _ = run_on(machine, "--wheels", machine / "wheels")
    assert code == 2
    assert "release 12.8" in said


def test_it_builds_tests_and_times_without_a_network(machine):
    code, said, calls = run_on(machine, "--wheels", machine / "wheels", "--out", machine / "gpu.json")
    assert code == 0, said
    steps = [
        "-m venv",
        "torch==2.11.0",
        "--editable",
        "torch.cuda.is_available",
        "pytest -m cuda",
        "rasterizer.py",
        "volume.py",
        "mesh_ops.py",
        "prior_overhead.py",
        "gpu_table.py",
    ]
    places = [next(i for i, call in enumerate(calls) if step in call) for step in steps]
    assert places == sorted(places)
    assert all("--no-index" in call for call in calls if "pip install" in call)
    assert calls[places[2]].startswith("SDS3D_BUILD_CUDA=1 ")
    assert f"--json {machine / 'gpu.json'}" in calls[places[-1]]


def test_failed_tests_fail_the_script_but_not_the_table(machine):
    code, _, calls = run_on(machine, "--wheels", machine / "wheels", tests=1)
    assert code == 1
    assert "gpu_table.py" in calls[-1]


@pytest.mark.slow
def test_the_table_shows_what_ran_on_the_gpu(tmp_path):
    rows = [
        {"size": 64, "contestant": "cuda", "forward_ms": 0.5, "over_torch": None},
        {"size": 64, "contestant": "avx2", "forward_ms": 9.25, "over_torch": None},
    ]
    (tmp_path / "rasterizer.json").write_text(json.dumps({"rows": rows}))
    (tmp_path / "tests.xml").write_text(
        '<testsuites><testsuite tests="9" failures="1" errors="0" skipped="2"/></testsuites>'
    )
    program = ROOT / "benchmarks" / "gpu_table.py"
    command = [sys.executable, str(program), str(tmp_path), "--json", str(tmp_path / "out.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "tests: 6 passed, 1 failed, 2 skipped" in done.stdout
    assert "0.5" in done.stdout
    assert "9.25" not in done.stdout
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["benchmarks"]["rasterizer"]["rows"] == rows
    assert report["machine"]["torch"]
