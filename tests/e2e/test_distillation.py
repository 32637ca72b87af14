"""From words to a scene, with the real splats and the real loop, against a prior whose answer is known."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from sds3d import Session
from sds3d.cameras import orbit
from sds3d.priors.analytic import COLORS
from sds3d.training.trainer import Trainer
from sds3d.types import ViewCondition

ROOT = Path(__file__).resolve().parents[2]


def target_distance(run: Trainer, word: str) -> float:
    """Root mean square distance of eight renders over two backgrounds from the prior's mode for `word`."""
    cameras = orbit(8, size=24)
    background = torch.tensor([[0.2, 0.2, 0.2], [0.9, 0.9, 0.9]]).repeat(4, 1)
    mode = run.prior.means_for(ViewCondition(cameras, background))[:, list(COLORS).index(word)]
    with torch.no_grad():
        rendered = run.prior.encode(run.scene.render(cameras, background).image())
    return float((rendered - mode).square().mean().sqrt())


def test_fifty_steps_bring_the_render_to_the_prompted_mode(small_config) -> None:
    options = {
        "scene.count": 400,
        "loss_weights": {"sparsity": 5.0},
        "optim.lr_scale": 1.0,
    }  # too few steps to slow down
    config = small_config(prompt="a blue ball", steps=50, **options)
    generator = torch.Generator().manual_seed(0)
    scene, prior = config.scene.build(generator), config.prior.build("cpu")
    run = Trainer(config, scene, prior, generator, torch.device("cpu"))
    before = target_distance(run, "blue")
    for _ in run.run():
        pass
    after = target_distance(run, "blue")
    assert after < 0.5 * before
    assert after < min(target_distance(run, word) for word in COLORS if word != "blue")


@pytest.mark.exports
def test_a_killed_process_loses_one_checkpoint_interval_and_the_result_is_the_same(
    small_config, tmp_path: Path
) -> None:
    """SIGKILL at some moment after the first checkpoint; the resumed run ends bit for bit like an undisturbed one."""
    config = small_config(steps=40)
    program = (
        "import json, sys; from sds3d import RunConfig, Session; import torch; torch.set_num_threads(1)\n"
        "for event in Session(RunConfig.from_dict(json.loads(sys.argv[1])), sys.argv[2]).run(): pass"
    )
    folder = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-c", program, config.model_dump_json(), str(folder)], cwd=ROOT)
    deadline = time.monotonic() + 120
    while not (folder / "checkpoints" / "step-000008").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was to be killed before it was done"

    events = list(Session.resume(folder).run())
    assert 8 <= events[0].step < 40
    list(Session(config, tmp_path / "whole").run())
    for name in ("splats.ply", "mesh.glb"):
        assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
