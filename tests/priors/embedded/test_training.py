"""The training loop: it learns, and a run that was cut off goes on bit for bit."""

import json
import math
from copy import deepcopy
from itertools import islice
from random import Random

import pytest
import torch
from safetensors.torch import load_file, save_file

from sds3d.cameras import orbit
from sds3d.errors import CheckpointError
from sds3d.priors.embedded.captions import RADIUS, build_things, parse
from sds3d.priors.embedded.data import make_batch, random_backgrounds
from sds3d.priors.embedded.layers import FIELD_PLANES, FRAME, READ_PLANES
from sds3d.priors.embedded.network import BLOCK, pixel_rays
from sds3d.priors.embedded.render import draw
from sds3d.priors.embedded.solids import frame
from sds3d.priors.embedded.training import (
    TrainConfig,
    Trainer,
    _blocks,
    _details,
    _target_frames,
    _things_met,
    part_weights,
    save_weights,
    warm_start,
)

CPU = torch.device("cpu")


def _run(trainer, steps):
    return [record["loss"] for record in islice(trainer.train(), steps)]


def test_resumed_training_equals_uninterrupted(tmp_path):
    config = TrainConfig(batch=2, warmup=2)
    whole = Trainer(config, CPU)
    steps = whole.train()
    next(steps), next(steps)
    whole.save(tmp_path)
    second = Trainer.load(tmp_path, CPU)
    assert _run(second, 1)[0] == next(steps)["loss"]
    assert (second.step, second.images) == (whole.step, whole.images)
    for a, b in zip(whole.average.parameters(), second.average.parameters(), strict=True):
        assert torch.equal(a, b)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state.json", "state.safetensors"]


def test_a_new_run_can_begin_with_released_weights_and_more_words(tmp_path):
    released = Trainer(TrainConfig(seed=3), CPU).networks
    save_weights(deepcopy(released), tmp_path)
    settings = tmp_path / "text" / "config.json"
    config = json.loads(settings.read_text())
    config["words"][0], config["words"][1] = config["words"][1], config["words"][0]
    settings.write_text(json.dumps(config))
    fresh = Trainer(TrainConfig(seed=4), CPU)
    warm_start(fresh, tmp_path)
    rows, old = fresh.networks.text.words.weight, released.text.words.weight.half().float()
    assert torch.equal(rows[1], old[2])
    assert torch.equal(rows[2], old[1])
    assert torch.equal(rows[3:], old[3:])
    for name, value in released.unet.state_dict().items():
        for networks in (fresh.networks, fresh.average):
            assert torch.equal(networks.unet.state_dict()[name], value.half().float()), name


def test_planes_that_the_unet_gained_change_nothing_at_first(tmp_path):
    """Weights from before it read and painted: without the layers and UNet's planes for them, but with another."""
    released = Trainer(TrainConfig(seed=3), CPU).networks
    save_weights(deepcopy(released), tmp_path)
    path = tmp_path / "text" / "model.safetensors"
    tensors = load_file(path)
    kept = {k: v for k, v in tensors.items() if not k.startswith(("reader.", "field.", "painter."))}
    save_file(kept | {"painter.gone.weight": torch.ones(2, 3)}, path)
    path = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    tensors, said, gained = load_file(path), 3 * BLOCK**2, READ_PLANES + FIELD_PLANES + FRAME
    tensors["conv_in.weight"] = tensors["conv_in.weight"][:, :-gained].contiguous()
    tensors |= {name: tensors[name][:said].contiguous() for name in ("conv_out.weight", "conv_out.bias")}
    save_file(tensors, path)
    fresh = Trainer(TrainConfig(seed=4), CPU)
    warm_start(fresh, tmp_path)
    unet, old = fresh.networks.unet, deepcopy(released.unet).half().float()
    assert torch.equal(unet.conv_in.weight[:, :-gained], old.conv_in.weight[:, :-gained])
    assert torch.equal(unet.conv_out.weight[:said], old.conv_out.weight[:said])
    assert not unet.conv_in.weight[:, -gained:].any()
    assert not unet.conv_out.weight[said:].any()
    assert not unet.conv_out.bias[said:].any()
    for networks in (fresh.networks, fresh.average):  # random, but the same in both
        for layer in (lambda text: text.reader.key, lambda text: text.painter.inside):
            assert torch.equal(layer(networks.text).weight, layer(fresh.networks.text).weight)
            assert layer(networks.text).weight.any()


def test_it_learns_a_handful_of_images(monkeypatch):
    few = make_batch(0, 0, 2)
    monkeypatch.setattr("sds3d.priors.embedded.training.make_batch", lambda *_, **__: few)
    losses = _run(Trainer(TrainConfig(batch=2, warmup=3, seed=1), CPU), 12)
    assert sum(losses[-6:]) < 0.7 * sum(losses[:6])


def test_a_truncated_state_is_named(tmp_path):
    Trainer(TrainConfig(), CPU).save(tmp_path)
    path = tmp_path / "state.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        Trainer.load(tmp_path, CPU)


def test_backgrounds_are_a_third_grey():
    colors = random_backgrounds(3000, torch.Generator().manual_seed(0))
    grey = (colors[:, 0] == colors[:, 1]) & (colors[:, 1] == colors[:, 2])
    assert 0.28 < grey.float().mean() < 0.38
    assert colors.min() >= 0
    assert colors.max() <= 1


def test_small_parts_count_more_and_the_background_as_it_is():
    parts = torch.full((2, 20, 20), -1, dtype=torch.int32)
    parts[0, :10] = 0
    parts[0, 2:4, 2:4] = 6  # 4 of 200 pixels
    parts[0, 5, :5] = 2
    weights = part_weights(parts, 6.0)
    assert (weights[parts < 0] == 1.0).all()
    assert (weights[1] == 1.0).all()
    assert weights[0, 0, 0] == pytest.approx(math.sqrt(200 / 191))
    assert weights[0, 5, 0] == 6.0
    assert weights[0, 2, 2] == 6.0
    assert part_weights(parts, 20.0)[0, 2, 2] == pytest.approx(math.sqrt(50))
    assert (part_weights(parts, 1.0) == 1.0).all()


def test_an_error_on_a_small_part_costs_more_with_the_weight():
    batch = make_batch(0, 0, 6)
    losses = {}
    for most in (1.0, 8.0):
        trainer = Trainer(TrainConfig(part_weight=most, seed=1), CPU)
        with torch.no_grad():
            losses[most] = trainer.losses(batch)
    for name in ("loss", "depth"):
        assert losses[8.0][name] > 1.05 * losses[1.0][name]
    assert losses[8.0]["paint"] == losses[1.0]["paint"]


def test_an_average_to_start_from_is_kept(monkeypatch, tmp_path):
    """The first steps after a restart are worse than an average over thousands: they must not replace it."""
    save_weights(deepcopy(Trainer(TrainConfig(seed=3), CPU).networks), tmp_path)
    monkeypatch.setattr("sds3d.priors.embedded.training.PROBE_IMAGES", 2)
    trainer = Trainer(TrainConfig(batch=2, warmup=10, start_from=str(tmp_path)), CPU)
    warm_start(trainer, tmp_path)
    begin = [parameter.clone() for parameter in trainer.average.parameters()]
    before = trainer.probe()
    assert trainer.probe() == before  # the same pictures and noise, and none of the run's own draws
    _run(trainer, 2)
    moved = [
        (float((now - then).norm()), float((new.detach() - then).norm()))
        for now, then, new in zip(trainer.average.parameters(), begin, trainer.networks.parameters(), strict=True)
    ]
    assert all(kept <= 2e-3 * gone + 1e-9 for kept, gone in moved)
    assert abs(trainer.probe() - before) < 0.01 * before


def test_details_are_what_is_narrower_than_two_stripes_and_only_on_the_object():
    cover = torch.zeros(1, 1, 64, 64)
    cover[..., 16:48, 16:48] = 1.0
    flat = torch.full((1, 3, 64, 64), 0.7)
    torch.testing.assert_close(_details(flat, cover), torch.zeros_like(flat), atol=1e-6, rtol=0)
    stripes = torch.where(torch.arange(64) // 4 % 2 == 0, 1.0, -1.0).expand(1, 3, 64, 64)
    found = _details(stripes, cover)
    assert not found[:, :, :16].any()
    inside = (slice(None), slice(None), slice(24, 40), slice(24, 40))
    assert (found[inside].sign() == stripes[inside]).all()
    assert found[inside].abs().mean() > 0.5


def test_a_block_belongs_to_the_thing_that_it_shows_or_that_is_nearest():
    """Of a red thing and a blue one, where one hides the other as well."""
    things = build_things(parse("a red sphere beside a blue cube"), Random(0))
    cameras = orbit(8, elevation_deg=20.0, distance=3.0, fov_deg=40.0, size=64)
    solids = [solid for thing in things for solid in thing]
    rgba, depths, _ = draw([solids], cameras)
    frames = torch.tensor([frame(thing) for thing in things]).expand(8, -1, -1)
    rays = pixel_rays(cameras, torch.ones(8, dtype=torch.bool))
    met = _target_frames(frames, _things_met(frames, rays, *_blocks(depths, rgba[..., 3])))
    whole = torch.nn.functional.avg_pool2d(rgba.movedim(-1, 1), BLOCK).movedim(1, -1)
    red, blue = ((whole[..., 3] > 0.99) & (whole[..., a] > 3.0 * whole[..., b]) for a, b in ((0, 2), (2, 0)))
    assert red.sum() > 50
    assert blue.sum() > 50
    for shown, (x, y, z, radius) in zip((red, blue), frames[0].tolist(), strict=True):
        expected = torch.tensor([x, y, z, math.log(RADIUS / radius)])
        right = (met[shown] - expected).abs().amax(-1) < 1e-5
        assert right.float().mean() > 0.98  # at an edge where one hides the other a block may show some of both
    front = met[0]  # from +x the first of two stands on the left
    assert (front[:, 0, 1] == frames[0, 0, 1]).all()
    assert (front[:, -1, 1] == frames[0, 1, 1]).all()


def test_depths_are_learned_by_the_unet_and_paint_and_frames_by_the_words_alone():
    trainer = Trainer(TrainConfig(text_dropout=0.0, camera_dropout=0.0, seed=1), CPU)
    batch = make_batch(0, 0, 4)
    losses, text = trainer.losses(batch), trainer.networks.text
    losses["paint"].backward(retain_graph=True)
    assert text.painter.outside.weight.grad.any()
    assert text.reader.told.weight.grad is None
    (losses["frame"] + losses["second"]).backward()
    assert text.field.frame.weight.grad.any()
    assert text.second.weight.grad.any()
    assert all(parameter.grad is None for parameter in trainer.networks.unet.parameters())
    optimizer, depths = torch.optim.Adam(trainer.networks.parameters(), 3e-3), []
    batch = make_batch(0, 0, 2)
    for _ in range(10):
        loss = trainer.losses(batch)["depth"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        depths.append(float(loss.detach()))
    assert depths[-1] < 0.5 * depths[0]
