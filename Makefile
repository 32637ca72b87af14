# `make help` lists what there is.
# Needs: Python 3.10 or newer, a C++ compiler, a package index. Everything goes into .venv/; delete it to start afresh.

PYTHON ?= python3
TORCH ?= torch==2.13.0
PROMPT ?= a red mug
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
PIP := $(BIN)/python -m pip install -qq --no-input --disable-pip-version-check --progress-bar off
# One thread a test worker: two workers on two cores are faster than two threads, and idle threads must not spin.
QUIET_THREADS := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive
PYTEST := $(QUIET_THREADS) $(BIN)/python -m pytest
# Folders too: their time changes when a file is added or removed.
BUILD_INPUTS := setup.py pyproject.toml $(wildcard MANIFEST.in) $(shell find cuda_ext 2>/dev/null)
KERNELS := $(shell find cuda_ext -name '*.h' -o -name '*.cpp' -o -name '*.cu' 2>/dev/null)

export PIP_ROOT_USER_ACTION = ignore

.PHONY: help install demo quick test test-reliability test-ui test-dcc lint format hooks wheel blender sanitize clean FORCE
.DELETE_ON_ERROR:

help:  ## list the targets
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 24
	@echo "variables: PYTHON, TORCH, PROMPT, ARGS (more arguments), such as make test ARGS=tests/guidance"

install: $(STAMPS)/package  ## set up .venv/ with everything, and build the kernels

demo: install  ## set everything up, then make a 3D object: PROMPT="a blue chair" ARGS="--preset draft"
	$(BIN)/sds3d generate "$(PROMPT)" $(ARGS)

quick: install  ## the tests without those that take seconds each: under two minutes on two cores
	$(PYTEST) -n 2 --dist loadgroup -m "not slow" $(ARGS)

test: install  ## the whole CPU test suite: under eight minutes on two cores
	$(PYTEST) -n 2 --dist loadgroup $(ARGS)

test-reliability: install  ## the promises of docs/reliability.md at their full sizes
	SDS3D_FULL=1 $(PYTEST) -n 2 --dist loadgroup --timeout 1800 \
	  tests/reliability tests/run/test_checkpoint.py tests/config/test_run_config.py tests/evaluation/test_refine.py \
	  tests/config/test_resolve.py tests/test_packaging.py tests/ops/test_build.py \
	  tests/ops/test_rasterize_triangles.py tests/priors/hub/test_distilling.py tests/priors/hub/test_embeddings.py \
	  tests/priors/hub/test_adapters.py tests/e2e/test_recipes.py \
	  tests/strict_device tests/app/test_offline.py tests/app/test_process.py tests/test_examples.py tests/app/ui/test_client.py $(ARGS)

# On Debian and Ubuntu Chromium is installed where it is missing and may be. On two quiet cores no test takes 30 seconds;
# after two that fail or hang the page is broken, and the others would only wait as well. ARGS="--maxfail 0" runs all.
test-ui: install  ## the web page in a real browser (Chromium, or SDS3D_CHROMIUM=/path)
	@command -v chromium >/dev/null || [ -n "$$SDS3D_CHROMIUM" ] || apt-get install -y -qq chromium \
	  || { echo "no Chromium: install it, or set SDS3D_CHROMIUM=/path/to/it"; exit 1; }
	SDS3D_BROWSER=1 $(PYTEST) tests/app/ui --timeout 240 --maxfail 2 $(ARGS)

# Khronos' glTF validator (npm) and Blender as a Python module (pip, 1 GB, GPL, so in an environment of its own; Python
# 3.11).
DCC := build/dcc
BLENDER_PYTHON ?= python3.11
test-dcc: install  ## what Blender and Khronos' glTF validator make of the exports (npm, and 1 GB from PyPI)
	@mkdir -p $(DCC)
	@[ -d $(DCC)/node_modules/gltf-validator ] || npm install --silent --prefix $(DCC) gltf-validator
	@[ -x $(DCC)/blender/bin/python ] || $(BLENDER_PYTHON) -m venv $(DCC)/blender
	@$(DCC)/blender/bin/python -c "import bpy" 2>/dev/null || $(DCC)/blender/bin/python -m pip install -qq bpy==5.0.1
	SDS3D_BPY=$(abspath $(DCC))/blender/bin/python \
	  SDS3D_GLTF_VALIDATOR=$(abspath $(DCC))/node_modules/gltf-validator $(PYTEST) tests/dcc $(ARGS)

lint: install  ## ruff, mypy and clang-format, as .pre-commit-config.yaml runs them
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy sds3d app
	$(BIN)/clang-format --dry-run --Werror $(KERNELS)

format: install  ## repair what ruff and clang-format can repair
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(KERNELS)

hooks: install  ## run the linters before each commit, by pre-commit
	$(PIP) pre-commit && $(BIN)/pre-commit install

wheel: install  ## a wheel in dist/
	$(BIN)/python -m pip wheel -qq --no-input --disable-pip-version-check --no-build-isolation --no-deps --wheel-dir dist .
	@ls dist/*.whl

blender: install  ## the Blender add-on in dist/, as an extension to install from disk
	$(BIN)/python app/blender/pack.py dist

# In a copy: the installed library stays as it is. Needs g++ and Linux.
SANITIZED := build/sanitize
SANITIZE := -g -fsanitize=address,undefined -fno-sanitize-recover=undefined
sanitize: install  ## the CPU kernels' tests under AddressSanitizer and UBSan
	rm -rf $(SANITIZED) && mkdir -p $(SANITIZED)
	cp -r setup.py pyproject.toml README.md cuda_ext sds3d app assets tests $(SANITIZED)/ && rm -f $(SANITIZED)/sds3d/*.so
	cd $(SANITIZED) && CC=gcc CXX=g++ CFLAGS="$(SANITIZE)" CXXFLAGS="$(SANITIZE)" LDFLAGS="$(SANITIZE)" SDS3D_BUILD_CUDA=0 \
	  $(abspath $(BIN))/python setup.py -q build_ext --inplace
	cd $(SANITIZED) && $(QUIET_THREADS) PYTHONPATH=. ASAN_OPTIONS=detect_leaks=0 \
	  LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libubsan.so)" \
	  $(abspath $(BIN))/python -m pytest tests/ops -k "not fallback and not emulated" \
	  --ignore tests/ops/test_build.py --ignore tests/ops/test_emulation.py $(ARGS)

clean:  ## remove build products; .venv/ stays
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find sds3d -name '*.so' -delete

# The environment: torch first, because building the kernels needs the very torch that will load them. Another torch is
# installed only when TORCH is given and differs: `make demo TORCH=...`, then `make test`, tests what the demo ran.
$(STAMPS)/torch: FORCE
	@if [ -x $(BIN)/python ] && [ -e $@ ]; then case "$(origin TORCH):$$(cat $@)" in \
	  file:*|*":$(TORCH)") exit 0;; esac; fi; \
	$(PREFLIGHT) \
	if [ ! -x $(BIN)/python ]; then echo "sds3d: making $(VENV)"; $(PYTHON) -m venv $(VENV) || exit 1; fi; \
	echo "sds3d: installing $(TORCH) (the largest download)"; \
	$(PIP) $(TORCH) numpy "setuptools>=77" wheel ninja || exit 1; \
	mkdir -p $(STAMPS) && echo "$(TORCH)" > $@

$(STAMPS)/package: $(STAMPS)/torch $(BUILD_INPUTS)
	@echo "sds3d: building the kernels and installing sds3d into $(VENV)"
	@$(PIP) --no-build-isolation --editable ".[dev]"
	@touch $@

# Said before anything is downloaded, in one line each.
define PREFLIGHT
fail() { echo "error: $$1" >&2; exit 1; }; \
command -v "$(PYTHON)" >/dev/null || fail "$(PYTHON) was not found: install Python 3.10 or newer, or run make PYTHON=/path/to/python3"; \
"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
  || fail "$(PYTHON) is too old: sds3d needs Python 3.10 or newer (make PYTHON=/path/to/python3)"; \
"$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null \
  || fail "$(PYTHON) cannot make virtual environments: install its venv module (Debian, Ubuntu: apt-get install python3-venv)"; \
command -v "$${CXX:-c++}" >/dev/null \
  || fail "no C++ compiler ($${CXX:-c++}): install one (Debian, Ubuntu: apt-get install g++; macOS: xcode-select --install) or set CXX";
endef
