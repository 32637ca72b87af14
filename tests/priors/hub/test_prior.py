"""What the adapter adds around a family: precision, critics that train with VSD, forwards in half precision."""

from contextlib import nullcontext

import pytest
import torch

from sds3d.cameras import orbit
from sds3d.errors import PriorUnavailable
from sds3d.guidance.base import GuidanceInput, inject_gradient
from sds3d.guidance.vsd import VSD
from sds3d.priors import DiffusersConfig
from sds3d.priors.hub.locate import find_model
from sds3d.prompts import Prompts
from sds3d.types import ViewCondition

pytestmark = pytest.mark.xdist_group("hub")


def build(folder, **options):
    return DiffusersConfig(model=str(folder), **options).build("cpu")


def question(prior, count=2):
    x_t = torch.randn(count, *prior.latent_shape, generator=torch.Generator().manual_seed(1))
    return x_t, torch.linspace(0.3, 0.8, count), prior.embed(["a red mug"] * count), ViewCondition(orbit(count))


@pytest.mark.parametrize("name", ["sd", "sd3"])
def test_a_critic_of_a_half_precision_network_learns_in_float32(name, model_folder):
    prior = build(model_folder(name), dtype="bfloat16")
    critic = prior.trainable_copy(2, torch.Generator().manual_seed(0))
    eps = critic(*question(prior))
    eps.square().sum().backward()
    assert eps.dtype == torch.float32
    assert {p.dtype for p in critic.parameters()} == {torch.float32}
    assert all(torch.isfinite(p.grad).all() for p in critic.parameters() if p.grad is not None)
    assert any(p.grad.abs().sum() > 0 for p in critic.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", ["sd", "flux"])
def test_vsd_trains_the_critic_alone_and_saves_no_second_prior(name, model_folder):
    prior = build(model_folder(name), image_size=64)
    cameras, generator = orbit(2), torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, 64, 64, generator=generator).requires_grad_(True)
    x, t, method = prior.encode(image), torch.tensor([0.3, 0.6]), VSD()
    critic = method.init(prior, generator)
    cond, view = Prompts(prior, "a red mug", reads_views=True).at(cameras), ViewCondition(cameras)
    assert not torch.equal(cond.positive, cond.plain)
    noise = torch.randn(x.shape, generator=generator)
    out = method.step(GuidanceInput(x, t, noise, prior, cond, view, generator=generator), critic)
    out.loss.backward()
    assert image.grad is None
    assert all(p.grad is None for p in (*prior.network.parameters(), *prior.vae.parameters()))
    learned = {name for name, p in critic.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert any(name.startswith("extra.") for name in learned)
    assert any(name.startswith("added.") for name in learned)
    assert critic.state_dict().keys() == dict(critic.named_parameters()).keys()
    inject_gradient(x, out.grad).backward()
    assert image.grad.abs().sum() > 0


@pytest.mark.parametrize("has_bfloat16", [True, False])
def test_precision_is_by_device_and_network_unless_it_is_configured(model_folder, monkeypatch, has_bfloat16):
    """A GPU that only emulates bfloat16 is given float16."""
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: has_bfloat16)
    unet, transformer = (find_model(str(model_folder(name))).family for name in ("sd", "sd3"))
    auto, fixed = DiffusersConfig(model="-"), DiffusersConfig(model="-", dtype="bfloat16")
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert auto._precision(unet, cpu) == torch.float32
    assert auto._precision(unet, cuda) == torch.float16
    assert auto._precision(transformer, cuda) == (torch.bfloat16 if has_bfloat16 else torch.float16)
    assert fixed._precision(unet, cuda) == torch.bfloat16


def test_a_vae_that_overflows_in_half_precision_stays_in_float32(model_folder):
    prior = build(model_folder("sdxl"), dtype="float16")
    assert prior.network.dtype == torch.float16
    assert prior.vae.dtype == torch.float32


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3", "flux", "pixart-sigma", "sana"])
def test_half_precision_says_nearly_the_same(name, model_folder):
    options = {"image_size": 64}
    full, half = build(model_folder(name), **options), build(model_folder(name), dtype="bfloat16", **options)
    x_t, t, _, _ = question(full)
    for prior in (full, half):
        assert prior.alpha_sigma(t)[0].dtype == torch.float32
    eps = [prior.predict_noise(x_t, t, [prior.embed(["a red mug"] * 2)])[0] for prior in (full, half)]
    assert eps[1].dtype == torch.float32
    assert (eps[0] - eps[1]).square().mean().sqrt() < 0.05 * eps[0].std()


def test_tiles_of_the_vae_agree_but_for_their_seams(model_folder):
    whole, tiled = build(model_folder("sd"), image_size=128), build(model_folder("sd"), image_size=128, vae_tiling=True)
    image = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    first, second = whole.encode(image), tiled.encode(image)
    assert first.shape == second.shape
    assert not torch.equal(first, second)
    assert (first - second).abs().median() < 0.5 * first.std()


def test_a_compiled_network_is_asked_in_place_of_the_plain_one(model_folder, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda network: compiled.append(network) or network)
    prior = build(model_folder("sd"), compile=True)
    assert compiled == [prior.network]


def test_a_scheduler_that_is_neither_ddpm_nor_flow_is_refused(model_folder, tmp_path):
    import json
    import shutil

    broken = tmp_path / "model"
    shutil.copytree(model_folder("sd"), broken)
    path = broken / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "prediction_type": "noise_of_another_kind"}))
    with pytest.raises(PriorUnavailable, match="noise_of_another_kind"):
        build(broken)
