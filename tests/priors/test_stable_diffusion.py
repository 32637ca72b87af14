"""The real loading path, on a tiny random Stable Diffusion that is made here and saved with save_pretrained."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from sds3d.cameras import orbit
from sds3d.errors import PriorUnavailable
from sds3d.guidance.base import Query
from sds3d.guidance.gradient import inject_gradient
from sds3d.guidance.vsd import VSD
from sds3d.priors.base import Prior, TrainablePrior
from sds3d.priors.stable_diffusion import DiffusersConfig
from sds3d.prompts import Prompts
from sds3d.types import ViewCondition


def _tokenizer():
    from transformers import CLIPTokenizer

    characters = [chr(code) for code in range(33, 127)]
    words = [*characters, *(c + "</w>" for c in characters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={word: number for number, word in enumerate(words)}, merges=[]), len(words)


def _save(folder, prediction_type):
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    tokenizer, count = _tokenizer()
    text = CLIPTextConfig(
        vocab_size=count, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=20, bos_token_id=count - 2, eos_token_id=count - 1, pad_token_id=count - 1,
    )  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=1, cross_attention_dim=16, norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=4,
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 8), norm_num_groups=4, latent_channels=4, sample_size=64,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=prediction_type,
        clip_sample=False, set_alpha_to_one=False, steps_offset=1,
    )  # fmt: skip
    StableDiffusionPipeline(
        vae=vae, text_encoder=CLIPTextModel(text), tokenizer=tokenizer, unet=unet, scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(folder)  # fmt: skip
    return folder


@pytest.fixture(scope="module", params=["epsilon", "v_prediction", "sample"])
def folder(request, tmp_path_factory):
    return _save(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def epsilon_folder(tmp_path_factory):
    return _save(tmp_path_factory.mktemp("eps"), "epsilon")


def test_predicted_noise_agrees_with_the_familys_own_scheduler(folder):
    """Both ways to the clean latent: ours from eps, and diffusers' DDIM step from what the network puts out."""
    from diffusers import StableDiffusionPipeline

    prior = DiffusersConfig(model=str(folder)).build("cpu")
    assert isinstance(prior, Prior)
    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, requires_safety_checker=False)
    x_t = torch.randn(2, *prior.latent_shape, generator=torch.Generator().manual_seed(1))
    embeddings = prior.embed(["a red mug", ""])
    for tick in (20, 500, 980):
        t = torch.full((2,), tick / 1000)
        (eps,) = prior.predict_noise(x_t, t, [embeddings])
        alpha, sigma = prior.alpha_sigma(t)
        ours = (x_t - sigma * eps) / alpha
        with torch.no_grad():
            out = pipeline.unet(x_t, tick, encoder_hidden_states=embeddings).sample
        pipeline.scheduler.set_timesteps(1000)
        theirs = pipeline.scheduler.step(out, tick, x_t).pred_original_sample
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_two_conditions_in_one_call_equal_two_calls(epsilon_folder):
    prior = DiffusersConfig(model=str(epsilon_folder)).build("cpu")
    x_t, t = torch.randn(1, *prior.latent_shape, generator=torch.Generator().manual_seed(0)), torch.tensor([0.4])
    mug, null = prior.embed(["a red mug"]), prior.embed([""])
    both = prior.predict_noise(x_t, t, [mug, null])
    alone = [prior.predict_noise(x_t, t, [one])[0] for one in (mug, null)]
    torch.testing.assert_close(both, alone, rtol=1e-4, atol=1e-5)
    assert (both[0] - both[1]).abs().max() > 1e-4


def test_gradients_reach_the_image_through_the_vae(epsilon_folder):
    prior = DiffusersConfig(model=str(epsilon_folder)).build("cpu")
    image = torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    x = prior.encode(image)
    assert x.shape == (1, *prior.latent_shape)
    x.square().sum().backward()
    assert image.grad.abs().sum() > 0
    assert prior.decode(x.detach()).shape == (1, 3, 64, 64)


@pytest.mark.parametrize(
    ("damage", "named"),
    [("index", "model_index.json"), ("weights", "cannot load"), ("kind", "SomePipeline"), ("absent", "no folder")],
)
def test_what_cannot_be_loaded_is_one_line(epsilon_folder, tmp_path, damage, named):
    broken = tmp_path / "model"
    if damage != "absent":
        shutil.copytree(epsilon_folder, broken)
    if damage == "index":
        (broken / "model_index.json").unlink()
    if damage == "weights":
        path = next((broken / "unet").glob("*.safetensors"))
        path.write_bytes(path.read_bytes()[:500])
    if damage == "kind":
        index = json.loads((broken / "model_index.json").read_text())
        (broken / "model_index.json").write_text(json.dumps({**index, "_class_name": "SomePipeline"}))
    with pytest.raises(PriorUnavailable) as caught:
        DiffusersConfig(model=str(broken)).build("cpu")
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pickled_weights_are_refused(epsilon_folder, tmp_path):
    broken = tmp_path / "model"
    shutil.copytree(epsilon_folder, broken)
    path = next((broken / "unet").glob("*.safetensors"))
    torch.save({"a": torch.zeros(1)}, broken / "unet" / "diffusion_pytorch_model.bin")
    path.unlink()
    with pytest.raises(PriorUnavailable):
        DiffusersConfig(model=str(broken)).build("cpu")


def _question(prior, count=2):
    x_t = torch.randn(count, *prior.latent_shape, generator=torch.Generator().manual_seed(1))
    return x_t, torch.linspace(0.3, 0.8, count), prior.embed(["a red mug"] * count), ViewCondition(orbit(count))


def test_a_copy_predicts_eps_as_the_prior_does_and_leaves_it_alone_when_it_learns(folder):
    """For networks that predict eps, v and the clean latent: the copy goes through the same conversion."""
    prior = DiffusersConfig(model=str(folder)).build("cpu")
    assert isinstance(prior, TrainablePrior)
    x_t, t, text, view = _question(prior)
    (before,) = prior.predict_noise(x_t, t, [text], view)
    copy = prior.trainable_copy(4, torch.Generator().manual_seed(0))
    assert torch.equal(copy(x_t, t, text, view), before)
    optimizer, losses = torch.optim.Adam(copy.parameters(), lr=0.05), []
    for _ in range(20):
        loss = (copy(x_t, t, text, view) - before - 0.1).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert min(losses) < 0.8 * losses[0], losses
    assert torch.equal(prior.predict_noise(x_t, t, [text], view)[0], before)
    assert prior.unet.class_embedding is None


def test_a_copy_learns_in_the_attention_and_from_the_camera(epsilon_folder):
    prior = DiffusersConfig(model=str(epsilon_folder)).build("cpu")
    x_t, t, text, view = _question(prior)
    copy = prior.trainable_copy(2, torch.Generator().manual_seed(0))
    projections = {name.split("/")[-1] if "to_out" not in name else "to_out" for name in copy.added}
    assert projections == {"to_q", "to_k", "to_v", "to_out"}
    turned = ViewCondition(replace(view.cameras, camera_to_world=orbit(4).camera_to_world[1:3]))
    assert torch.equal(copy(x_t, t, text, turned), copy(x_t, t, text, view))
    optimizer = torch.optim.Adam(copy.parameters(), lr=1e-2)
    for _ in range(3):
        copy(x_t, t, text, view).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert (copy(x_t, t, text, turned) - copy(x_t, t, text, view)).abs().max() > 1e-4
    assert (copy(x_t, t, text, None) - copy(x_t, t, text, view)).abs().max() > 1e-4


def test_a_copy_of_a_half_precision_network_learns_in_float32(epsilon_folder):
    prior = DiffusersConfig(model=str(epsilon_folder), dtype="bfloat16").build("cpu")
    copy = prior.trainable_copy(2, torch.Generator().manual_seed(0))
    x_t, t, text, view = _question(prior)
    eps = copy(x_t, t, text, view)
    eps.square().sum().backward()
    assert eps.dtype == torch.float32
    assert {p.dtype for p in copy.parameters()} == {torch.float32}
    assert all(torch.isfinite(p.grad).all() for p in copy.parameters() if p.grad is not None)
    assert any(p.grad.abs().sum() > 0 for p in copy.parameters() if p.grad is not None)


def test_vsd_trains_the_copy_alone_and_saves_no_second_prior(epsilon_folder):
    prior = DiffusersConfig(model=str(epsilon_folder)).build("cpu")
    cameras, generator = orbit(2), torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, 64, 64, generator=generator).requires_grad_(True)
    x, t, method = prior.encode(image), torch.tensor([0.3, 0.6]), VSD()
    critic = method.init(prior, generator)
    cond, view = Prompts(prior, "a red mug").at(cameras), ViewCondition(cameras)
    assert not torch.equal(cond.positive, cond.plain)
    noise = torch.randn(x.shape, generator=generator)
    out = method.step(Query(x, t, noise, prior, cond, view, generator=generator), critic)
    out.loss.backward()
    assert image.grad is None
    assert all(p.grad is None for p in (*prior.unet.parameters(), *prior.vae.parameters()))
    learned = {name: p for name, p in critic.named_parameters() if p.grad.abs().sum() > 0}
    assert {"extra.class_embedding.last.weight"} < set(learned)
    assert any(name.startswith("added.") for name in learned)
    assert critic.state_dict().keys() == dict(critic.named_parameters()).keys()
    inject_gradient(x, out.grad).backward()
    assert image.grad.abs().sum() > 0
