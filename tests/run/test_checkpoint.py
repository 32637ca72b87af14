"""Checkpoints come back whole, or are refused by name."""

import errno
import hashlib
import json
import os
import random
import shutil
from pathlib import Path

import pytest
import torch

from sds3d.errors import CheckpointError, OutputError
from sds3d.priors.analytic import AnalyticConfig
from sds3d.priors.base import Prior
from sds3d.priors.embedded.prior import EmbeddedPrior
from sds3d.priors.embedded.training import Networks
from sds3d.priors.embedded.words import WORDS
from sds3d.run.checkpoint import (
    MANIFEST,
    STATE,
    TENSORS,
    Checkpoint,
    checkpoints_in,
    load_checkpoint,
    load_newest,
    pack,
    save_checkpoint,
    stage_of,
    step_of,
    unpack,
)
from sds3d.scenes import GaussiansConfig
from sds3d.scenes.optimizer import OptimConfig, build_optimizer
from sds3d.training.trainer import Trainer


def checkpoint(step: int = 3) -> Checkpoint:
    return Checkpoint(
        step, {"scene.a": torch.arange(6.0).reshape(2, 3), "generator": torch.zeros(4).byte()}, {"x": 1.5}, stage=2
    )


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, checkpoint())
    assert path == tmp_path / "step-000003"
    assert sorted(os.listdir(path)) == sorted([TENSORS, STATE, MANIFEST])
    loaded = load_checkpoint(path)
    assert (loaded.step, loaded.seconds, loaded.stage, stage_of(path)) == (3, {"x": 1.5}, 2, 2)
    assert torch.equal(loaded.tensors["scene.a"], checkpoint().tensors["scene.a"])
    assert loaded.tensors["generator"].dtype == torch.uint8


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    for step in (5, 10, 999_999, 1_000_000):
        save_checkpoint(tmp_path, checkpoint(step))
    assert [path.name for path in checkpoints_in(tmp_path)] == ["step-1000000", "step-999999"]


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint())
    (tmp_path / "step-000003" / STATE).write_bytes(b"damaged")
    save_checkpoint(tmp_path, checkpoint())
    assert load_checkpoint(tmp_path / "step-000003").step == 3


@pytest.mark.parametrize("name", [TENSORS, STATE, MANIFEST])
def test_every_truncation_is_noticed_and_named(name: str, tmp_path: Path) -> None:
    file = save_checkpoint(tmp_path, checkpoint()) / name
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(CheckpointError) as caught:
            load_checkpoint(file.parent)
        assert str(file.parent) in str(caught.value)
        assert name in str(caught.value)


@pytest.mark.parametrize("name", [TENSORS, STATE, MANIFEST])
def test_every_flipped_bit_is_noticed(name: str, tmp_path: Path) -> None:
    file = save_checkpoint(tmp_path, checkpoint()) / name
    whole = file.read_bytes()
    places = [(byte, bit) for byte in range(len(whole)) for bit in range(8)]
    for byte, bit in random.Random(0).sample(places, min(300, len(places))):
        file.write_bytes(whole[:byte] + bytes([whole[byte] ^ 1 << bit]) + whole[byte + 1 :])
        with pytest.raises(CheckpointError):
            load_checkpoint(file.parent)


@pytest.mark.parametrize("name", [TENSORS, STATE, MANIFEST])
def test_missing_longer_and_swapped_files_are_noticed(name: str, tmp_path: Path) -> None:
    first, second = (save_checkpoint(tmp_path, checkpoint(step)) for step in (1, 2))
    other = Checkpoint(2, {"scene.a": torch.ones(2, 3)}, {})
    second = save_checkpoint(tmp_path, other)
    (first / name).write_bytes((second / name).read_bytes())
    with pytest.raises(CheckpointError):
        load_checkpoint(first)
    (second / name).write_bytes((second / name).read_bytes() + b"\0")
    with pytest.raises(CheckpointError):
        load_checkpoint(second)
    (second / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name}: No such file"):
        load_checkpoint(second)


@pytest.mark.parametrize(
    "content", [b"[]", b"{}", b'{"format":2,"files":{}}', b'{"format":1,"files":7}', b"[" * 99_999]
)
def test_any_other_manifest_is_refused(content: bytes, tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, checkpoint())
    (path / MANIFEST).write_bytes(content)
    with pytest.raises(CheckpointError, match=MANIFEST):
        load_checkpoint(path)


def test_a_pickle_is_not_read(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, checkpoint())
    torch.save({"scene.a": torch.zeros(1)}, path / TENSORS)
    data = (path / TENSORS).read_bytes()
    manifest = json.loads((path / MANIFEST).read_bytes())
    manifest["files"][TENSORS] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (path / MANIFEST).write_text(json.dumps(manifest, separators=(",", ":")))
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(path)


def test_an_older_checkpoint_stands_in_for_a_damaged_one(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(1))
    newest = save_checkpoint(tmp_path, checkpoint(2))
    (newest / TENSORS).write_bytes(b"")
    found, problems = load_newest(tmp_path)
    assert found.step == 1
    assert len(problems) == 1
    assert str(newest / TENSORS) in problems[0]
    shutil.rmtree(tmp_path / "step-000001")
    with pytest.raises(CheckpointError, match=TENSORS):
        load_newest(tmp_path)


@pytest.mark.parametrize(
    ("kept", "milestones", "stay"), [(1, 0, [50]), (3, 0, [50, 40, 30]), (2, 20, [50, 40, 20]), (1, 25, [50, 25])]
)
def test_the_newest_and_the_milestones_stay(
    tmp_path: Path, kept: int, milestones: int, stay: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sds3d.run.checkpoint.KEPT", kept)
    for step in (10, 20, 25, 30, 40, 50):
        save_checkpoint(tmp_path, checkpoint(step), milestones)
    assert [step_of(path) for path in checkpoints_in(tmp_path)] == stay


def test_no_checkpoint_is_not_an_error(tmp_path: Path) -> None:
    assert load_newest(tmp_path / "none") == (None, [])


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("after", range(4))
def test_a_full_disk_leaves_the_old_checkpoint_and_no_rubbish(
    call: str, after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fills up at the first, second, ... call; every write, sync and rename gets its turn."""
    save_checkpoint(tmp_path, checkpoint(1))
    real, calls = getattr(os, call), []

    def limited(*args: object) -> None:
        calls.append(args)
        if len(calls) > after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(*args)

    monkeypatch.setattr(os, call, limited)
    if call == "replace" and after:
        save_checkpoint(tmp_path, checkpoint(2))
        return
    with pytest.raises(OutputError, match=f"{tmp_path / 'step-000002'}: No space left"):
        save_checkpoint(tmp_path, checkpoint(2))
    assert os.listdir(tmp_path) == ["step-000001"]
    assert load_newest(tmp_path)[0].step == 1


def test_what_a_killed_process_left_behind_is_cleared_and_never_loaded(tmp_path: Path) -> None:
    rubbish = tmp_path / ".step-000009.saving"
    rubbish.mkdir()
    (rubbish / TENSORS).write_bytes(b"half")
    assert load_newest(tmp_path) == (None, [])
    save_checkpoint(tmp_path, checkpoint())
    assert not rubbish.exists()


def parts(count: int, steps: int):
    """A scene after some steps, its optimizer and a generator in some state."""
    generator = torch.Generator().manual_seed(count)
    scene = GaussiansConfig(count=count).build(generator)
    optimizer = build_optimizer(OptimConfig(), scene, None)
    for _ in range(steps):
        scene.means.square().sum().backward()
        optimizer.step()
    return scene, optimizer, generator


def test_pack_and_unpack_carry_everything_over_also_to_another_number_of_splats() -> None:
    scene, optimizer, generator = parts(20, 3)
    tensors = pack(scene, optimizer, {}, generator)
    twin, twin_optimizer, twin_generator = parts(30, 1)
    unpack(tensors, twin, twin_optimizer, {}, twin_generator)
    again = pack(twin, twin_optimizer, {}, twin_generator)
    assert set(again) == set(tensors)
    assert all(torch.equal(again[name], tensors[name]) for name in tensors)
    assert any(name.startswith("optimizer.") and name.endswith("exp_avg") for name in tensors)


def test_what_is_packed_does_not_change_with_the_run() -> None:
    scene, optimizer, generator = parts(20, 1)
    tensors = pack(scene, optimizer, {}, generator)
    before = tensors["scene.raw_means"].clone()
    optimizer.step()
    assert torch.equal(tensors["scene.raw_means"], before)


def test_a_checkpoint_of_another_scene_is_refused() -> None:
    scene, optimizer, generator = parts(20, 1)
    with pytest.raises(CheckpointError, match="does not fit"):
        unpack({"scene.other": torch.zeros(1)}, scene, optimizer, {}, generator)


def embedded_prior() -> EmbeddedPrior:
    """The embedded prior with untrained weights."""
    torch.manual_seed(0)
    networks = Networks()
    return EmbeddedPrior(networks.unet, networks.text, WORDS, "cpu")


def vsd_run(small_config, prior: Prior, **changes: object) -> Trainer:
    """A run whose guidance trains a copy of the prior, at a rate that shows after a few steps."""
    config = small_config(guidance="vsd", steps=12, optim={"guidance_lr": 1e-2}, **changes)
    generator = torch.Generator().manual_seed(config.seed)
    scene = config.scene.build(generator)
    return Trainer(config, scene, prior, generator, torch.device("cpu"))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "cut"), [("analytic", 1), ("analytic", 7), ("embedded", 2)])
def test_a_run_with_a_critic_is_resumed_bit_for_bit(small_config, tmp_path: Path, name: str, cut: int) -> None:
    """Also the critic and its part of the optimizer; through the files, into parts that are made anew."""
    prior = AnalyticConfig(size=24).build("cpu") if name == "analytic" else embedded_prior()
    steps = 10 if name == "analytic" else 4
    whole = vsd_run(small_config, prior)
    start = {key: value.clone() for key, value in whole.state.state_dict().items()}
    while whole.step < steps:
        whole.advance()
    first = vsd_run(small_config, prior)
    while first.step < cut:
        first.advance()
    path = save_checkpoint(tmp_path, first.checkpoint())
    second = vsd_run(small_config, prior)
    second.restore(load_checkpoint(path))
    while second.step < steps:
        second.advance()
    expected, found = whole.checkpoint().tensors, second.checkpoint().tensors
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert all(not torch.equal(value, start[key]) for key, value in whole.state.state_dict().items())


def test_a_run_with_a_selective_optimizer_is_resumed_bit_for_bit(small_config, tmp_path: Path) -> None:
    """Across a refinement, from a file, and not the run that plain Adam makes."""
    prior = AnalyticConfig(size=24).build("cpu")

    def run(selective: bool = True) -> Trainer:
        # near cameras with a narrow view: some splats are off the image in every step
        views = {"views": 1, "size": 24, "distance": [1.4, 1.4], "fov_deg": [20, 20]}
        config = small_config(steps=12, optim={"selective": selective}, cameras=views)
        generator = torch.Generator().manual_seed(config.seed)
        return Trainer(config, config.scene.build(generator), prior, generator, torch.device("cpu"))

    whole, first, second, plain = run(), run(), run(), run(selective=False)
    for trainer, steps in ((whole, 10), (first, 7), (plain, 10)):
        while trainer.step < steps:
            trainer.advance()
    second.restore(load_checkpoint(save_checkpoint(tmp_path, first.checkpoint())))
    while second.step < 10:
        second.advance()
    expected, found = whole.checkpoint().tensors, second.checkpoint().tensors
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    other = plain.checkpoint().tensors["scene.raw_means"]
    assert other.shape != found["scene.raw_means"].shape or not torch.equal(other, found["scene.raw_means"])


def test_a_checkpoint_holds_what_the_critic_learned_and_no_second_prior(small_config) -> None:
    prior = embedded_prior()
    run = vsd_run(small_config, prior)
    run.advance()
    tensors = run.checkpoint().tensors
    saved = {name: value for name, value in tensors.items() if name.startswith("guidance.")}
    learned = [p for group in run.optimizer.param_groups if group["name"] == "guidance" for p in group["params"]]
    assert len(saved) == len(learned)
    assert sum(value.numel() for value in saved.values()) == sum(p.numel() for p in learned)
    frozen = sum(p.numel() for p in prior.unet.parameters())
    assert sum(value.numel() for value in saved.values()) < 0.05 * frozen
    assert sum(value.numel() for value in tensors.values()) < 0.2 * frozen


def test_a_checkpoint_of_a_critic_of_another_rank_is_refused(small_config) -> None:
    prior = embedded_prior()
    saved = vsd_run(small_config, prior).checkpoint()
    other = vsd_run(small_config, prior, **{"guidance.lora_rank": 2})
    with pytest.raises(CheckpointError, match="does not fit"):
        other.restore(saved)
