"""The embedded prior's default run, splats and then a mesh: the same however it is begun and wherever it is stopped."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sds3d import RunConfig, RunFolder, Session, load_config
from sds3d.jobs import Queue, Worker
from sds3d.jobs.job_list import read_job_list
from sds3d.priors import EmbeddedConfig
from sds3d.run.events import StageBegun, StepDone, Stop
from sds3d.scenes.mesh import Mesh
from sds3d_app.cli import invoke
from tests.training.test_stages import quick_take_over

__all__ = ["quick_take_over"]
pytestmark = [pytest.mark.usefixtures("quick_take_over"), pytest.mark.xdist_group("default run")]
PROMPT = "a red mug"
# the options of a small run that leave the scene alone, all of the first stage or of both
SMALL = {"steps": "3", "cameras.views": "1", "scene.count": "100", "checkpoint_every": "1", "seed": "1"}
LINES = [f"{key}={value}" for key, value in SMALL.items()]


@pytest.fixture(scope="module", autouse=True)
def quick() -> Any:
    """One prior for all runs; nothing looks for faces or for a palette, which takes longer than a run."""
    prior = EmbeddedConfig().build("cpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EmbeddedConfig, "build", lambda self, device: prior)
        patch.setattr("sds3d.run.report.janus_metrics", lambda *run: {})
        patch.setattr(Mesh, "_find_palette", lambda self, *step: None)
        yield


def staged() -> RunConfig:
    return load_config(preset="mesh", overrides={"prompt": PROMPT, **SMALL})


def made(run: Path) -> dict[str, torch.Tensor]:
    """The last checkpoint of a finished run, which ended with a mesh."""
    folder = RunFolder(run)
    report = folder.report()
    assert report is not None
    assert [(stage["scene"], stage["begin"]) for stage in report["stages"]] == [("gaussians", 0), ("mesh", 1)]
    assert report["parts"]["scene"] == "mesh"
    spent = [stage["seconds"] for stage in report["stages"]]
    assert min(spent) > 0
    assert sum(spent) + report["seconds"]["export"] <= report["seconds"]["total"]
    checkpoint = folder.load_checkpoint()[0]
    assert checkpoint is not None
    return dict(checkpoint.tensors)


def stop_at(session: Session, step: int) -> None:
    for event in session.run():
        if isinstance(event, StepDone) and event.step == step:
            session.send(Stop())


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    return SimpleNamespace(tensors={}, folder=tmp_path_factory.mktemp("staged"))


@pytest.fixture
def expected(told: SimpleNamespace) -> dict[str, torch.Tensor]:
    """What `--preset mesh` makes."""
    if not told.tensors:
        list(Session(staged(), told.folder / "run").run())
        told.tensors = made(told.folder / "run")
    return told.tensors


def same(run: Path, expected: dict[str, torch.Tensor]) -> bool:
    found = made(run)
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


def test_generate_makes_it_and_says_where_the_time_went(expected, tmp_path: Path, capsys) -> None:
    assert invoke(["generate", PROMPT, *LINES, "--out", str(tmp_path / "run")]) == 0
    assert same(tmp_path / "run", expected)
    (line,) = (line for line in capsys.readouterr().out.splitlines() if str(tmp_path) in line)
    assert all(f"{name} " in line.split(" s: ")[1] for name in ("gaussians", "mesh", "export"))


@pytest.mark.parametrize("step", [1, 2])
def test_it_goes_on_in_each_stage_bit_for_bit(expected, tmp_path: Path, step: int) -> None:
    session = Session(load_config(overrides={"prompt": PROMPT, **SMALL}), tmp_path / "run")
    stop_at(session, step)
    assert RunFolder(tmp_path / "run").report() is None
    assert invoke(["resume", str(tmp_path / "run"), "--quiet"]) == 0
    assert same(tmp_path / "run", expected)


def test_a_batch_makes_it(expected, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(PROMPT)
    (config,) = read_job_list(tmp_path / "list.txt", overrides=SMALL)
    queue = Queue(tmp_path / "queue")
    job = queue.add(config)
    list(Worker(queue).run())
    assert same(job.run.path, expected)


def test_the_page_makes_it(expected, tmp_path: Path) -> None:
    pytest.importorskip("gradio", reason="the web page is an extra: pip install sds3d[ui]")
    from sds3d_app.ui.actions import start
    from sds3d_app.ui.run_index import RunIndex

    index = RunIndex(tmp_path, limit=3)
    fields = {"prompt": PROMPT, "prior": "embedded", "guidance": "sds", "scene": "", "preset": "default"}
    name, problem = start(index, {"scene.count": "100"}, "\n".join(LINES[:2] + LINES[3:]), fields)
    assert problem == ""
    list(Worker(index.queue).run())
    entry = index.find(name)
    assert entry is not None
    assert same(entry.folder.path, expected)


def test_the_best_of_several_is_it(expected, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranked in the middle of the mesh's stage."""
    score = lambda session: {"attributes": float(session.config.seed == 1)}  # noqa: E731
    monkeypatch.setattr("sds3d.evaluation.scores.scorer_for", lambda config: score)
    lines = [line for line in LINES if not line.startswith("seed")]
    options = ["--best-of", "2", "--until", "2", "--out", str(tmp_path / "best"), "--quiet"]
    assert invoke(["generate", PROMPT, *lines, *options]) == 0
    assert same(tmp_path / "best" / "seed-1", expected)


def test_an_old_run_stays_what_it_was(tmp_path: Path) -> None:
    """Its config.json says nothing of the scene, and resolved.json has splats to the end."""
    splats = load_config(overrides={"prompt": PROMPT, **SMALL, "scene": "gaussians"})
    old = type(splats).restore({"prompt": PROMPT, **SMALL}, splats.to_dict())
    stop_at(Session(old, tmp_path / "run"), 1)
    events = list(Session.resume(tmp_path / "run").run())
    assert not [event for event in events if isinstance(event, StageBegun)]
    report = RunFolder(tmp_path / "run").report()
    assert report is not None
    assert (report["steps"], report["parts"]["scene"]) == (3, "gaussians")
    assert "stages" not in report
    assert RunFolder(tmp_path / "run").config().sources["stages"] == "the saved run"
