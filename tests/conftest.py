"""For all tests: shapes are checked at run time, one thread, no network, and CUDA tests are skipped in one place."""

import os
import runpy
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import pytest

# before the first import of sds3d; the tower lets an int pass where a float is asked for, as type checkers do
jaxtyping.install_import_hook("sds3d", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")

import torch  # noqa: E402

torch.set_num_threads(1)


TESTS = Path(__file__).parent
# Whole runs, child processes and training: `make quick` leaves them out, as it does single tests that are marked slow.
SLOW = (
    "app/commands/test_batch.py",
    "app/test_offline.py",
    "app/test_process.py",
    "app/ui/test_run_index.py",
    "dcc",
    "e2e",
    "evaluation/test_evaluate.py",
    "export/test_oracle.py",
    "jobs/test_worker.py",
    "priors/embedded/test_training.py",
    "priors/hub/test_distilling.py",
    "reliability",
    "strict_device",
    "sweeps",
    "training/test_recovery.py",
    "training/test_session.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    skip = pytest.mark.skip(reason="no CUDA device")
    for item in items:
        if "cuda" in item.keywords and not torch.cuda.is_available():
            item.add_marker(skip)
        if any(item.path.is_relative_to(TESTS / name) for name in SLOW):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def only_a_sheet(request: pytest.FixtureRequest) -> Iterator[None]:
    """Runs of a test that is not marked `exports` hand over a sheet of views alone: a mesh and a video take seven times
    as long as a small run. Fixtures of a wider scope, and other processes, make everything."""
    from sds3d.scenes import SCENES

    with pytest.MonkeyPatch.context() as patch:  # one that no test undoes with patches of its own
        for scene in (kind for kind in SCENES.values() if not kind.is_flat and "exports" not in request.keywords):
            patch.setattr(scene, "artifacts", ("sheet",))
        yield


# Also read by every Python process that a test starts; pytest's own workers among them.
GUARD = TESTS / "guard"
guard = runpy.run_path(str(GUARD / "sitecustomize.py"))


@pytest.fixture(scope="session", autouse=True)
def network_log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where attempts to leave the machine are noted, of this process and of those that it starts."""
    log = tmp_path_factory.mktemp("network") / "attempts"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(guard["LOG"], str(log))
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(GUARD), os.environ.get("PYTHONPATH", "")])))
        for name in ("connect", "connect_ex", "sendto"):
            patch.setattr(socket.socket, name, getattr(socket.socket, name))  # as they are put back at the end
        patch.setattr(socket, "getaddrinfo", socket.getaddrinfo)
        guard["install"]()
        yield log


@pytest.fixture(autouse=True)
def no_network(network_log: Path) -> Iterator[Callable[[], list[str]]]:
    """Any connection off this machine fails the test, also where the code swallows the error. Yields what reads and
    forgets the attempts so far."""

    def attempts() -> list[str]:
        found = network_log.read_text().splitlines() if network_log.is_file() else []
        network_log.unlink(missing_ok=True)
        return found

    attempts()
    yield attempts
    found = attempts()
    assert not found, f"connections off this machine: {found}"


@pytest.fixture(scope="session")
def small_config() -> Any:
    """Makes configs of runs that take about a second: small images, few splats, early densification, no weights."""
    from sds3d import load_config

    small = {
        "prompt": "a red ball",
        "prior": {"name": "analytic", "size": 24},
        "cameras": {"views": 2, "size": 24},
        "scene": {"count": 150, "densify": {"refine_every": 3}},
        "export": {"resolution": 32, "faces": 2000, "color_size": 64, "texture_size": 128},
        "loss_weights": {"sparsity": 50.0},
        "steps": 24,
        "preview_every": 0,
        "checkpoint_every": 8,
    }

    def config(**overrides: Any) -> Any:
        scenes = [overrides.get("scene"), *(stage["options"].get("scene") for stage in overrides.get("stages", ()))]
        last = [scene for scene in scenes if scene is not None][-1:]
        values = {**small, **overrides}
        if (
            last
            and (last[0] if isinstance(last[0], str) else last[0].get("name")) == "mesh"
            and "export" not in overrides
        ):
            values["export"] = {**small["export"]}
            del values["export"]["resolution"]  # nothing is searched for
        return load_config(overrides=values)

    return config
