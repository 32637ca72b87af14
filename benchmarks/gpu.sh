#!/usr/bin/env bash
# Everything that needs a GPU, in one go and without a network: builds the CUDA kernels, tests them, and times them
# against gsplat and nerfacc, and a whole step against bare network calls; prints one table and writes it as JSON.
#
#   benchmarks/gpu.sh --collect DIR        on a machine with a network and Python 3.12: puts all wheels into DIR (3 GB)
#   benchmarks/gpu.sh --wheels DIR [--out FILE.json] [--env DIR]     on the GPU machine
#
# The GPU machine needs an NVIDIA driver, the CUDA 13 toolkit (nvcc), a C++ compiler and Python 3.12. The environment goes
# to --env (default: build/gpu-env) and is used again by the next run; without --wheels such an environment must exist.
# Exit codes: 0 done, 1 something failed (the table is still written), 2 this machine or the call lacks something.
set -euo pipefail

ROOT=$(cd "$(dirname "$0")/.." && pwd)
TORCH="torch==2.11.0" # its wheels on PyPI are for CUDA 13
PYTHON=${PYTHON:-python3.12}
WHEELS="" OUT="$ROOT/build/gpu.json" ENVIRONMENT="$ROOT/build/gpu-env" COLLECT=""

stop() { echo "gpu.sh: $1" >&2; exit 2; }

while [ $# -gt 0 ]; do
  case "$1" in
    --collect | --wheels | --out | --env) [ $# -ge 2 ] || stop "$1 needs a value" ;;&
    --collect) COLLECT=$2; shift 2 ;;
    --wheels) WHEELS=$2; shift 2 ;;
    --out) OUT=$2; shift 2 ;;
    --env) ENVIRONMENT=$2; shift 2 ;;
    -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
    *) stop "unknown option $1 (see --help)" ;;
  esac
done

# What setup.py asks for, and what only this script needs; torch is pinned.
requirements() {
  "$1" - "$ROOT" <<'PYTHON_END'
import runpy, sys
from unittest import mock
import setuptools
with mock.patch.object(setuptools, "setup") as setup:
    runpy.run_path(f"{sys.argv[1]}/setup.py")
said = setup.call_args.kwargs
names = [*said["install_requires"], *said["extras_require"]["dev"], "ninja", "setuptools>=77", "wheel"]
print("\n".join(name for name in names if not name.startswith("torch>")))
PYTHON_END
}

command -v "$PYTHON" > /dev/null || stop "$PYTHON was not found; install Python 3.12, or say PYTHON=/path/to/python3.12"

if [ -n "$COLLECT" ]; then
  mkdir -p "$COLLECT"
  "$PYTHON" -c 'import setuptools' 2> /dev/null || stop "$PYTHON has no setuptools: $PYTHON -m pip install setuptools"
  requirements "$PYTHON" > "$COLLECT/requirements.txt"
  # --prefer-binary and wheel, not download: what comes as source is made into a wheel here, where there is a network
  "$PYTHON" -m pip wheel --prefer-binary --wheel-dir "$COLLECT" "$TORCH" -r "$COLLECT/requirements.txt"
  echo "gpu.sh: $(ls "$COLLECT"/*.whl | wc -l) wheels in $COLLECT; copy the folder and the repository to the GPU machine"
  exit 0
fi

command -v nvidia-smi > /dev/null && nvidia-smi -L 2> /dev/null | grep -q '^GPU' \
  || stop "no NVIDIA GPU here (nvidia-smi lists none): nothing to build for, to test or to time"
NVCC=$(command -v nvcc || ls /usr/local/cuda/bin/nvcc 2> /dev/null) || stop "no nvcc: install the CUDA 13 toolkit"
"$NVCC" --version | grep -q 'release 13\.' || stop "$NVCC is not of CUDA 13: $("$NVCC" --version | grep release)"
command -v "${CXX:-c++}" > /dev/null || stop "no C++ compiler (${CXX:-c++})"

if [ -n "$WHEELS" ]; then
  ls "$WHEELS"/torch-*.whl > /dev/null 2>&1 || stop "$WHEELS holds no torch wheel: make it with gpu.sh --collect"
  [ -x "$ENVIRONMENT/bin/python" ] || "$PYTHON" -m venv "$ENVIRONMENT"
  OFFLINE=("$ENVIRONMENT/bin/python" -m pip install -q --no-index --find-links "$WHEELS")
  "${OFFLINE[@]}" "$TORCH" -r "$WHEELS/requirements.txt"
  echo "gpu.sh: building the CUDA kernels"
  SDS3D_BUILD_CUDA=1 "${OFFLINE[@]}" --no-deps --no-build-isolation --editable "$ROOT"
fi
[ -x "$ENVIRONMENT/bin/python" ] || stop "no environment in $ENVIRONMENT: say --wheels DIR"
RUN="$ENVIRONMENT/bin/python"
PATH="$ENVIRONMENT/bin:$(dirname "$NVCC"):$PATH" # ninja and nvcc, for the kernels that gsplat and nerfacc compile
export PATH
"$RUN" -c 'import torch; raise SystemExit(not torch.cuda.is_available())' \
  || stop "torch sees no CUDA device: $("$RUN" -c 'import torch; print(torch.__version__, torch.version.cuda)')"

PARTS=$(mktemp -d)
trap 'rm -rf "$PARTS"' EXIT
cd "$ROOT"
FAILED=0
"$RUN" -m pytest -m cuda -p no:cacheprovider --junit-xml "$PARTS/tests.xml" || FAILED=1
for CALL in "rasterizer --cases all --seconds 6" "volume --seconds 6" "mesh_ops --seconds 6" "prior_overhead --repeats 10"; do
  SCRIPT=${CALL%% *}
  # shellcheck disable=SC2086
  "$RUN" "benchmarks/$SCRIPT.py" ${CALL#* } --json "$PARTS/$SCRIPT.json" > "$PARTS/$SCRIPT.log" 2>&1 \
    || { FAILED=1; echo "gpu.sh: benchmarks/$SCRIPT.py failed:" >&2; tail -n 20 "$PARTS/$SCRIPT.log" >&2; }
done
"$RUN" benchmarks/gpu_table.py "$PARTS" --json "$OUT"
exit $FAILED
