"""Priors that take the camera as an input: MVDream in both layouts, Zero-1-to-3 with its picture and anchors."""

import json
import math

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from sds3d.cameras import CamerasConfig, orbit, orbit_cameras, sample_cameras
from sds3d.config.run_config import RunConfig, load_config
from sds3d.errors import ConfigError, PriorUnavailable
from sds3d.priors import DiffusersConfig, MultiViewConfig, Zero123Config
from sds3d.priors.hub.families.mvdream import camera_numbers
from sds3d.priors.hub.families.zero123 import relative_pose
from sds3d.training.trainer import Trainer
from sds3d.types import ViewCondition

pytestmark = pytest.mark.xdist_group("hub")
T = torch.tensor


@pytest.fixture
def picture(tmp_path):
    """A red disc with a blue dot to the right, cut out."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 64), indexing="ij")
    rgba = torch.zeros(64, 64, 4)
    rgba[..., 0], rgba[..., 3] = 0.9, ((x.square() + y.square()) < 0.4).float()
    rgba[((x - 0.3).square() + y.square()) < 0.03] = T([0.0, 0.0, 1.0, 1.0])
    path = tmp_path / "picture.png"
    Image.fromarray((255 * rgba).byte().numpy()).save(path)
    return path


def multiview(folder, **options):
    return MultiViewConfig(model=str(folder), **options).build("cpu")


def question(prior, groups=1):
    count = 4 * groups
    x_t = torch.randn(count, *prior.latent_shape, generator=torch.Generator().manual_seed(1))
    return x_t, torch.full((count,), 0.5), prior.embed(["a red mug"] * count), ViewCondition(orbit(count))


def naive_attention(attn, x):
    """Self-attention of four views' tokens as one sequence, written out; no processor."""
    joined = x.reshape(len(x) // 4, 4 * x.shape[1], x.shape[2])
    outs = []
    for group in joined:
        heads = []
        for head in range(attn.heads):
            width = attn.to_q.out_features // attn.heads
            part = slice(head * width, (head + 1) * width)
            q, k, v = (layer(group)[:, part] for layer in (attn.to_q, attn.to_k, attn.to_v))
            heads.append(torch.softmax(q @ k.T / math.sqrt(width), dim=1) @ v)
        outs.append(attn.to_out[0](torch.cat(heads, dim=1)))
    return torch.stack(outs).reshape(x.shape)


def test_mvdream_agrees_with_its_network_written_out_and_ddims_own_step(model_folder):
    """As the other families: what its network says through diffusers' scheduler, and what our eps means."""
    import diffusers

    folder = model_folder("mvdream")
    prior = multiview(folder)
    x_t, t, text, view = question(prior)
    (eps,) = prior.predict_noise(x_t, t, [text], view)
    network = diffusers.UNet2DConditionModel.from_pretrained(folder / "unet")
    for name, module in network.named_modules():
        if name.endswith("attn1"):
            module.forward = lambda x, *a, attn=module, **k: naive_attention(attn, x)
    pose = view.cameras.camera_to_world.clone()
    pose[:, :3, 1:3] *= -1  # OpenCV's axes to OpenGL's
    pose[:, :3, 3] /= pose[:, :3, 3].norm(dim=1, keepdim=True)
    with torch.no_grad():
        out = network(x_t, 500, encoder_hidden_states=text, class_labels=pose.flatten(1)).sample
    scheduler = diffusers.DDIMScheduler.from_pretrained(folder / "scheduler")
    scheduler.set_timesteps(1000)
    alpha, sigma = prior.alpha_sigma(t)
    theirs = scheduler.step(out, 500, x_t).pred_original_sample
    torch.testing.assert_close((x_t - sigma * eps) / alpha, theirs, rtol=1e-4, atol=1e-4)


def test_views_of_a_group_look_at_each_other_and_groups_do_not(model_folder):
    prior = multiview(model_folder("mvdream"))
    x_t, t, text, view = question(prior, groups=2)
    (before,) = prior.predict_noise(x_t, t, [text], view)
    x_t[0] += 1.0
    (after,) = prior.predict_noise(x_t, t, [text], view)
    changed = (before - after).abs().flatten(1).max(dim=1).values
    assert (changed[:4] > 1e-5).all()
    assert (changed[4:] == 0).all()
    null = prior.embed([""] * 8)
    both = prior.predict_noise(x_t, t, [text, null], view)
    torch.testing.assert_close(both[0], after, rtol=1e-4, atol=1e-5)
    chunked = multiview(model_folder("mvdream"), micro_batch=1).predict_noise(x_t, t, [text, null], view)
    torch.testing.assert_close(both, chunked, rtol=1e-4, atol=1e-5)
    turned = ViewCondition(orbit(8, elevation_deg=40))
    assert (prior.predict_noise(x_t, t, [text], turned)[0] - after).abs().max() > 1e-4


def test_cameras_are_told_as_mvdream_was_taught():
    """From the front at azimuth 0, level: the camera at (1, 0, 0) looks along -x, its right is +y, its up is +z."""
    view = ViewCondition(orbit_cameras(T([0.0]), T([0.0]), T([2.5]), T([0.7]), 64))
    numbers = camera_numbers(view, 1).reshape(4, 4)
    wanted = T([[0.0, 0.0, 1.0, 1.0], [1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    torch.testing.assert_close(numbers, wanted, rtol=0, atol=1e-6)


def ldm_names(down, up, layers, attends):
    """(name in LDM's code, name in diffusers) of every layer of a UNet with these numbers of levels and layers."""
    resnet = (("in_layers.0", "norm1"), ("in_layers.2", "conv1"), ("emb_layers.1", "time_emb_proj"),
              ("out_layers.0", "norm2"), ("out_layers.3", "conv2"), ("skip_connection", "conv_shortcut"))  # fmt: skip
    pairs = [("time_embed.0", "time_embedding.linear_1"), ("time_embed.2", "time_embedding.linear_2"),
             ("camera_embed.0", "class_embedding.linear_1"), ("camera_embed.2", "class_embedding.linear_2"),
             ("input_blocks.0.0", "conv_in"), ("out.0", "conv_norm_out"), ("out.2", "conv_out")]  # fmt: skip

    def both(ldm, ours, parts):
        pairs.extend((f"{ldm}.{a}", f"{ours}.{b}") for a, b in parts)

    def attention(ldm, ours):
        pairs.append((ldm, ours))

    number = 1
    for level in range(down):
        for layer in range(layers):
            both(f"input_blocks.{number}.0", f"down_blocks.{level}.resnets.{layer}", resnet)
            if attends[level]:
                attention(f"input_blocks.{number}.1", f"down_blocks.{level}.attentions.{layer}")
            number += 1
        if level < down - 1:
            pairs.append((f"input_blocks.{number}.0.op", f"down_blocks.{level}.downsamplers.0.conv"))
            number += 1
    both("middle_block.0", "mid_block.resnets.0", resnet)
    attention("middle_block.1", "mid_block.attentions.0")
    both("middle_block.2", "mid_block.resnets.1", resnet)
    number = 0
    for level in range(up):
        has = attends[up - 1 - level]
        for layer in range(layers + 1):
            both(f"output_blocks.{number}.0", f"up_blocks.{level}.resnets.{layer}", resnet)
            if has:
                attention(f"output_blocks.{number}.1", f"up_blocks.{level}.attentions.{layer}")
            if level < up - 1 and layer == layers:
                pairs.append((f"output_blocks.{number}.{1 + has}.conv", f"up_blocks.{level}.upsamplers.0.conv"))
            number += 1
    return pairs


def test_released_weights_in_ldms_layout_are_the_same_network(model_folder, tmp_path):
    """A folder as the hub has it (mv_unet.MultiViewUNetModel, LDM's names) beside one in diffusers' layout."""
    import shutil

    from diffusers import UNet2DConditionModel

    torch.manual_seed(3)
    ldm = {
        "image_size": 8, "in_channels": 4, "out_channels": 4, "model_channels": 32, "channel_mult": [1, 2],
        "attention_resolutions": [1], "num_res_blocks": 1, "num_head_channels": 16, "context_dim": 16, "camera_dim": 16,
        "transformer_depth": 1, "dims": 2,
    }  # fmt: skip
    network = UNet2DConditionModel(
        sample_size=8, block_out_channels=(32, 64), layers_per_block=1, cross_attention_dim=16,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=(2, 4), use_linear_projection=True, class_embed_type="projection",
        projection_class_embeddings_input_dim=16,
    )  # fmt: skip
    names, weights = ldm_names(2, 2, 1, [True, False]), network.state_dict()
    renamed = {}
    for theirs, ours in names:
        found = {key: value for key, value in weights.items() if key.startswith(f"{ours}.")}
        renamed |= {theirs + key.removeprefix(ours): value.contiguous() for key, value in found.items()}
    assert len(renamed) == len(weights), "the test's own list of names is not complete"
    plain, released = tmp_path / "plain", tmp_path / "released"
    for folder in (plain, released):
        shutil.copytree(model_folder("mvdream"), folder)
        shutil.rmtree(folder / "unet")
    network.save_pretrained(plain / "unet")
    (released / "unet").mkdir()
    (released / "unet" / "config.json").write_text(json.dumps({"_class_name": "MultiViewUNetModel", **ldm}))
    save_file(renamed, released / "unet" / "diffusion_pytorch_model.safetensors")
    index = json.loads((released / "model_index.json").read_text())
    index |= {"_class_name": "MVDreamPipeline", "unet": ["mv_unet", "MultiViewUNetModel"]}
    (released / "model_index.json").write_text(json.dumps(index))
    first, second = multiview(plain), multiview(released)
    asked = question(first)
    torch.testing.assert_close(
        first.predict_noise(*asked[:2], [asked[2]], asked[3]), second.predict_noise(*asked[:2], [asked[2]], asked[3])
    )


def test_a_multi_view_run_draws_its_views_together(model_folder):
    config = load_config(
        overrides={"prompt": "a mug", "prior": {"name": "multiview", "model": str(model_folder("mvdream"))}}
    )
    assert config.cameras.orthogonal_views
    cameras = sample_cameras(CamerasConfig(views=8, orthogonal_views=True), torch.Generator().manual_seed(0))
    assert len(cameras.elevation.unique()) == len(cameras.distance.unique()) == 1
    gaps = torch.diff(cameras.azimuth)
    torch.testing.assert_close(gaps, torch.full((7,), math.pi / 4))
    with pytest.raises(ConfigError, match="does not go with the prior multiview"):
        load_config(overrides={"prompt": "a mug", "prior": config.prior.model_dump(), "cameras.views": 6})


def test_models_and_names_of_priors_that_do_not_fit_say_which_do(model_folder, picture):
    for name, wrong, right in (
        ("mvdream", DiffusersConfig, "multiview"),
        ("sd", MultiViewConfig, "diffusers"),
        ("zero123", MultiViewConfig, "zero123"),
    ):
        with pytest.raises(PriorUnavailable, match=f"use prior.name={right}"):
            wrong(model=str(model_folder(name))).build("cpu")


def zero123(folder, picture, **options):
    return Zero123Config(model=str(folder), reference_image={"path": str(picture)}, **options).build("cpu")


def test_zero123_agrees_with_its_network_asked_by_hand(model_folder, picture):
    import diffusers
    from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

    folder = model_folder("zero123")
    prior = zero123(folder, picture)
    assert prior.latent_shape == (4, 8, 8)
    x_t = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    azimuth, elevation = T([0.6, 2.0]), T([0.3, -0.2])
    view = ViewCondition(orbit_cameras(azimuth, elevation, T([3.2, 2.9]), torch.full((2,), 0.7), 64))
    eps, null = prior.predict_noise(x_t, T([0.5, 0.5]), [prior.embed(["any"] * 2), prior.embed([""] * 2)], view)

    network = diffusers.UNet2DConditionModel.from_pretrained(folder / "unet")
    vae = diffusers.AutoencoderKL.from_pretrained(folder / "vae")
    encoder = CLIPVisionModelWithProjection.from_pretrained(folder / "image_encoder")
    weights = load_file(folder / "cc_projection" / "diffusion_pytorch_model.safetensors")
    shown = Image.open(picture)
    white = Image.new("RGB", shown.size, "white")
    white.paste(shown, mask=shown.getchannel("A"))
    rgb = T(list(white.tobytes()), dtype=torch.float32).reshape(64, 64, 3).permute(2, 0, 1)[None] / 255
    processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, resample=3)
    with torch.no_grad():
        theirs = encoder(processor(white, return_tensors="pt").pixel_values).image_embeds
        clip = prior.family.images.clip
        torch.testing.assert_close(clip, theirs, rtol=5e-3, atol=5e-3)  # their resizing rounds to bytes
        latent = vae.encode(2 * rgb - 1).latent_dist.mode()
        pose = torch.stack([math.radians(10.0) - elevation, azimuth.sin(), azimuth.cos(), T([0.2, -0.1])], dim=1)
        words = torch.cat([clip.expand(2, -1), pose], 1) @ weights["projection.weight"].T + weights["projection.bias"]
        out = network(torch.cat([x_t, latent.expand(2, -1, -1, -1)], 1), 500, words[:, None]).sample
        empty = network(torch.cat([x_t, torch.zeros_like(x_t)], 1), 500, torch.zeros(2, 1, 16)).sample
    scheduler = diffusers.DDIMScheduler.from_pretrained(folder / "scheduler")
    scheduler.set_timesteps(1000)
    alpha, sigma = prior.alpha_sigma(T([0.5, 0.5]))
    for ours, raw in ((eps, out), (null, empty)):
        clean = scheduler.step(raw, 500, x_t).pred_original_sample
        torch.testing.assert_close((x_t - sigma * ours) / alpha, clean, rtol=1e-4, atol=1e-4)


def test_the_turn_is_zero_from_where_the_picture_was_taken():
    here = orbit_cameras(T([0.5]), T([0.2]), T([3.0]), T([0.7]), 64)
    torch.testing.assert_close(relative_pose(here, here), T([[0.0, 0.0, 1.0, 0.0]]))
    above = orbit_cameras(T([0.5]), T([0.5]), T([3.0]), T([0.7]), 64)
    assert float(relative_pose(here, above)[0, 0]) == pytest.approx(-0.3)  # nearer to the zenith


def test_anchors_are_sampled_once_and_each_view_goes_by_the_nearest(model_folder, picture, monkeypatch):
    plain = zero123(model_folder("zero123"), picture)
    monkeypatch.setattr("sds3d.priors.hub.zero123_prior.ANCHOR_STEPS", 2)
    anchored = zero123(model_folder("zero123"), picture, anchors=3)
    again = zero123(model_folder("zero123"), picture, anchors=3)
    monkeypatch.setattr("sds3d.priors.hub.zero123_prior.ANCHOR_STEPS", 3)
    longer = zero123(model_folder("zero123"), picture, anchors=3)
    pictures = anchored.family.images
    assert torch.equal(pictures.latents, again.family.images.latents)
    assert not torch.equal(pictures.latents[1:], longer.family.images.latents[1:])
    azimuths = torch.rad2deg(pictures.cameras.azimuth).tolist()
    assert azimuths == pytest.approx([0, 90, 180, 270])
    around = orbit_cameras(
        torch.deg2rad(T([5.0, 100.0, 170.0, -80.0])), torch.zeros(4), torch.full((4,), 3.0), torch.ones(4), 64
    )
    assert pictures.nearest(around).tolist() == [0, 1, 2, 3]
    x_t = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    text, t = plain.embed(["any"] * 4), torch.full((4,), 0.5)
    first, second = (prior.predict_noise(x_t, t, [text], ViewCondition(around))[0] for prior in (plain, anchored))
    same = (first - second).abs().flatten(1).max(dim=1).values
    assert same[0] < 1e-5
    assert (same[1:] > 1e-4).all()


METHODS = {"sds": {"name": "sds"}, "vsd": {"name": "vsd", "lora_rank": 2}, "cfd": {"name": "cfd"}}


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", ["mvdream", "zero123"])
def test_steps_run_and_resume_bit_for_bit(model_folder, picture, family, method):
    prior = {"name": "multiview" if family == "mvdream" else family, "model": str(model_folder(family))}
    config = RunConfig.from_dict(
        {
            "prompt": "a red mug", "steps": 2, "device": "cpu", "prior": prior,
            "scene": {"name": "gaussians", "count": 200},
            "guidance": METHODS[method], "cameras": {"views": 4, "size": 16, "orthogonal_views": family == "mvdream"},
            "reference_image": {"path": str(picture), "size": 16},
        }
    )  # fmt: skip
    picture_of_prior = {"mvdream": None, "zero123": config.reference_image}[family]
    assert getattr(config.prior, "reference_image", None) == picture_of_prior
    built = config.prior.build("cpu")

    def trainer():
        generator = torch.Generator().manual_seed(0)
        return Trainer(config, config.scene.build(generator), built, generator, torch.device("cpu"))

    whole, halves, resumed = trainer(), trainer(), trainer()
    for _ in whole.run():
        pass
    halves.advance()
    resumed.restore(halves.checkpoint())
    resumed.advance()
    first, second = whole.checkpoint().tensors, resumed.checkpoint().tensors
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("family", ["mvdream", "zero123"])
def test_critics_start_as_the_prior_and_gradients_reach_the_image(model_folder, picture, family):
    prior = multiview(model_folder(family)) if family == "mvdream" else zero123(model_folder(family), picture)
    x_t, t, text, view = question(prior)
    (before,) = prior.predict_noise(x_t, t, [text], view)
    critic = prior.trainable_copy(2, torch.Generator().manual_seed(0))
    torch.testing.assert_close(critic(x_t, t, text, view), before, rtol=0, atol=1e-6)
    image = torch.rand(4, 3, 64, 64).requires_grad_(True)
    prior.encode(image).square().sum().backward()
    assert image.grad.abs().sum() > 0
