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
from sds3d.priors.embedded.data import FIRST_OF_PAIRS, Dataset, make_shard, random_backgrounds, read_shard, write_shard
from sds3d.priors.embedded.layers import FIELD_PLANES, FRAME, READ_PLANES
from sds3d.priors.embedded.network import BLOCK, pixel_rays
from sds3d.priors.embedded.render import render_depths, render_solids
from sds3d.priors.embedded.solids import frame
from sds3d.priors.embedded.training import (
    SHOWN,
    TrainConfig,
    Trainer,
    _blocks,
    _details,
    _target_frames,
    _things_met,
    how_often,
    save_weights,
    warm_start,
)

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sds3d.priors.embedded.data.make_shard", lambda index, held_out: make_shard(index, 3, held_out))
        write_shard(folder, 0)
    assert len(read_shard(folder / "shard_00000.safetensors").captions) == 3
    return Dataset(folder)


def _run(trainer, dataset, steps):
    return [record["loss"] for record in islice(trainer.train(dataset), steps)]


def test_resumed_training_equals_uninterrupted(dataset, tmp_path):
    config = TrainConfig(batch=2, warmup=2)
    whole = Trainer(config, CPU)
    losses = _run(whole, dataset, 4)
    first = Trainer(config, CPU)
    begun = _run(first, dataset, 2)
    first.save(tmp_path)
    second = Trainer.load(tmp_path, CPU)
    assert begun + _run(second, dataset, 2) == losses
    assert (second.step, second.images) == (whole.step, whole.images)
    for a, b in zip(whole.average.parameters(), second.average.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not list(tmp_path.glob("*.tmp"))


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


def test_it_learns_a_handful_of_images(dataset):
    losses = _run(Trainer(TrainConfig(batch=4, warmup=5, seed=1), CPU), dataset, 24)
    assert sum(losses[-6:]) < 0.7 * sum(losses[:6])


def test_a_truncated_state_is_named(dataset, tmp_path):
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


def test_what_is_learned_last_is_shown_most(dataset):
    assert how_often("a red mug") == 1.0
    assert how_often("two green apples") == SHOWN["two"] * SHOWN["apple"]
    shard = dataset.shards[0]
    favoured = shard.captions[1]
    batches = dataset.batches(
        200, torch.Generator().manual_seed(0), lambda caption: 8.0 if caption == favoured else 1.0
    )
    assert 0.7 < next(batches).captions.count(favoured) / 200 < 0.9
    first, again = (next(dataset.batches(5, torch.Generator().manual_seed(7))) for _ in range(2))
    assert first.captions == again.captions
    assert torch.equal(first.rgba, again.rgba)
    assert torch.equal(first.depths, again.depths)
    scene = shard.captions.index(first.captions[0])
    assert torch.equal(first.frames[0], shard.frames[scene])


def test_shards_of_pairs_are_never_those_that_are_left_out(dataset, tmp_path, monkeypatch):
    shard = make_shard(FIRST_OF_PAIRS, 6)
    assert {parse(caption).relation for caption in shard.captions} <= {"beside", "two"}
    monkeypatch.setattr("sds3d.priors.embedded.data.make_shard", lambda index, held_out: shard)
    mixed = [write_shard(tmp_path, index) for index in (3, 4)]
    pairs = write_shard(tmp_path, FIRST_OF_PAIRS)
    data = Dataset(tmp_path, leave=1)
    assert (data.left, data.paths) == (mixed[1:], [mixed[0], pairs])


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
    rgba, depths = render_solids(solids, cameras), render_depths(solids, cameras)
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


def test_depths_are_learned_by_the_unet_and_paint_and_frames_by_the_words_alone(dataset):
    trainer = Trainer(TrainConfig(text_dropout=0.0, camera_dropout=0.0, seed=1), CPU)
    batch = next(dataset.batches(4, torch.Generator().manual_seed(1)))
    losses, text = trainer.losses(batch), trainer.networks.text
    losses["paint"].backward(retain_graph=True)
    assert text.painter.outside.weight.grad.any()
    assert text.reader.told.weight.grad is None
    (losses["frame"] + losses["second"]).backward()
    assert text.field.frame.weight.grad.any()
    assert text.second.weight.grad.any()
    assert all(parameter.grad is None for parameter in trainer.networks.unet.parameters())
    optimizer, depths = torch.optim.Adam(trainer.networks.parameters(), 3e-3), []
    for _ in range(12):
        loss = trainer.losses(batch)["depth"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        depths.append(float(loss.detach()))
    assert depths[-1] < 0.5 * depths[0]
