"""Every family against its own pipeline: what the pipeline asks and concludes, and what the prior says of the same."""

from functools import cache

import pytest
import torch

from sds3d.guidance.base import inject_gradient
from sds3d.priors import DiffusersConfig
from sds3d.priors.base import Prior, TrainablePrior
from sds3d.priors.hub.families import FAMILIES
from tests.priors.hub.tiny_models import CAMERA_AWARE, MODELS

pytestmark = pytest.mark.xdist_group("hub")
SIDE, SCALE, PROMPT = 64, 2.5, "a red mug"


@cache  # no test changes one
def build(folder, **options):
    return DiffusersConfig(model=str(folder), **options).build("cpu")


def sampled_by_pipeline(name, folder):
    """(x, time in thousandths, x one step later, the time there) of each step, by the pipeline alone."""
    import diffusers

    absent = {"text_encoder_3": None, "tokenizer_3": None} if name == "sd3-without-t5" else {}
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder, **absent)
    flows = isinstance(pipeline.scheduler, diffusers.FlowMatchEulerDiscreteScheduler) or name == "sana"
    if name == "sana":
        pipeline.scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    if not flows:
        pipeline.scheduler = diffusers.DDIMScheduler.from_config(
            pipeline.scheduler.config,
            clip_sample=False, thresholding=False, timestep_spacing="trailing", steps_offset=0, set_alpha_to_one=True,
        )  # fmt: skip
        pipeline.scheduler.register_to_config(variance_type="fixed_small")
    steps, step = [], pipeline.scheduler.step

    def watched(out, t, x, *args, **kwargs):
        out = step(out, t, x, *args, **kwargs)
        steps.append((x, float(t), out[0]))
        return out

    pipeline.scheduler.step = watched
    pipeline.set_progress_bar_config(disable=True)
    asked = {"height": SIDE, "width": SIDE, "guidance_scale": SCALE, "output_type": "latent", "num_inference_steps": 3}
    if name == "deepfloyd":
        asked |= {"height": 16, "width": 16, "output_type": "pt", "clean_caption": False}
    if name.startswith(("pixart", "sana")):
        asked |= {"clean_caption": False, "use_resolution_binning": False}
    if name.startswith("flux"):
        asked |= {"guidance_scale": 3.5, "true_cfg_scale": SCALE, "negative_prompt": ""}
    pipeline(PROMPT, generator=torch.Generator().manual_seed(3), **asked)
    if name.startswith("flux"):
        unpack = pipeline._unpack_latents
        steps = [(unpack(x, SIDE, SIDE, 8), t, unpack(later, SIDE, SIDE, 8)) for x, t, later in steps]
    times = [t for _, t, _ in steps[1:]] + [0.0] if flows else [t - 1000 // 3 for _, t, _ in steps]
    return flows, [(x, t, later, end) for (x, t, later), end in zip(steps, times, strict=True)]


def t_of(prior, timestep):
    """Our t of a time that the network is timestep."""
    u, shift = timestep / 1000, getattr(prior.schedule, "shift", 1.0)
    return torch.tensor([u / (shift - (shift - 1) * u)], dtype=torch.float64)


@pytest.mark.parametrize("name", MODELS)
def test_a_step_of_the_pipeline_is_the_step_that_our_eps_means(name, model_folder):
    """DDIM's or Euler's step from (eps, alpha, sigma), with classifier-free guidance, at three times."""
    options = {"distilled_guidance": 3.5} if name.startswith("flux") else {}
    prior = build(model_folder(name), image_size=16 if name == "deepfloyd" else SIDE, **options)
    assert isinstance(prior, Prior)
    flows, steps = sampled_by_pipeline(name, model_folder(name))
    words, null = prior.embed([PROMPT]), prior.embed([""])
    compared = 0
    for x, timestep, later, end in steps:
        t = t_of(prior, timestep)
        assert float(prior.schedule.timestep(t)) == pytest.approx(timestep, abs=0.01)
        alpha, sigma = prior.alpha_sigma(t)
        assert float(alpha.square() + sigma.square()) == pytest.approx(1.0, abs=1e-6)
        x_t = x * (alpha + sigma) if flows else x
        eps_y, eps_null = prior.predict_noise(x_t, t, [words, null])
        eps = eps_null + SCALE * (eps_y - eps_null)
        if float(alpha) < 1e-3:  # pure noise: x_t holds next to nothing of x, so eps says nothing of it either
            continue
        compared += 1
        clean = (x_t - sigma * eps) / alpha
        if flows:
            u = end / 1000
            ours = (1 - u) * clean + u * eps
        else:
            a, s = prior.alpha_sigma(t_of(prior, end)) if end > 0 else (torch.ones(()), torch.zeros(()))
            ours = a * clean + s * eps
        torch.testing.assert_close(ours, later, rtol=1e-4, atol=1e-4)
    assert compared >= 2


@pytest.mark.parametrize("name", MODELS)
def test_embeddings_are_the_pipelines_and_words_change_the_answer(name, model_folder):
    prior = build(model_folder(name), image_size=16 if name == "deepfloyd" else SIDE)
    texts = prior.embed([PROMPT, "", "a blue cat", PROMPT])
    assert torch.equal(texts[0], texts[3])
    assert not torch.equal(texts[0], texts[1])
    x_t, t = torch.randn(1, *prior.latent_shape, generator=torch.Generator().manual_seed(1)), torch.tensor([0.4])
    mug, null, cat = (texts[n : n + 1] for n in range(3))
    together = prior.predict_noise(x_t, t, [mug, null, cat])
    for one, eps in zip((mug, null, cat), together, strict=True):
        torch.testing.assert_close(prior.predict_noise(x_t, t, [one])[0], eps, rtol=1e-4, atol=1e-5)
    assert (together[0] - together[2]).abs().max() > 1e-4


@pytest.mark.parametrize("name", MODELS)
def test_gradients_reach_the_image(name, model_folder):
    prior = build(model_folder(name), image_size=16 if name == "deepfloyd" else SIDE)
    image = torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    x = prior.encode(image)
    assert x.shape == (2, *prior.latent_shape)
    inject_gradient(x, torch.ones_like(x)).backward()
    assert torch.isfinite(image.grad).all()
    assert image.grad.abs().sum() > 0
    side = prior.image_size
    assert prior.decode(x.detach()).shape == (2, 3, side, side)


@pytest.mark.parametrize("name", MODELS)
def test_a_critic_starts_as_the_prior_learns_from_the_camera_and_leaves_the_prior_alone(name, model_folder, views):
    prior = build(model_folder(name), image_size=16 if name == "deepfloyd" else SIDE)
    assert isinstance(prior, TrainablePrior)
    view, other = views
    x_t = torch.randn(2, *prior.latent_shape, generator=torch.Generator().manual_seed(1))
    t, text = torch.tensor([0.3, 0.8]), prior.embed([PROMPT] * 2)
    (before,) = prior.predict_noise(x_t, t, [text])
    critic = prior.trainable_copy(2, torch.Generator().manual_seed(0))
    torch.testing.assert_close(critic(x_t, t, text, view), before, rtol=0, atol=1e-6)
    assert {name.split("/")[-1] for name in critic.added} >= {"to_q", "to_k", "to_v"}
    optimizer = torch.optim.Adam(critic.parameters(), lr=1e-2)
    losses = []
    for _ in range(3):
        loss = (critic(x_t, t, text, view) - before - 0.1).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert min(losses) < losses[0], losses
    assert torch.equal(prior.predict_noise(x_t, t, [text])[0], before)
    assert (critic(x_t, t, text, other) - critic(x_t, t, text, view)).abs().max() > 1e-5


@pytest.mark.parametrize("name", ["sd", "sd3", "deepfloyd"])
def test_chunks_change_no_answer(name, model_folder):
    options = {"image_size": 16 if name == "deepfloyd" else SIDE}
    whole, parts = build(model_folder(name), **options), build(model_folder(name), micro_batch=2, **options)
    generator = torch.Generator().manual_seed(2)
    image, t = torch.rand(3, 3, SIDE, SIDE, generator=generator), torch.tensor([0.2, 0.5, 0.9])
    grads, answers = [], []
    for prior in (whole, parts):
        leaf = image.clone().requires_grad_(True)
        x = prior.encode(leaf)
        x.square().sum().backward()
        text, null = prior.embed([PROMPT] * 3), prior.embed([""] * 3)
        grads.append(leaf.grad)
        answers.append([x.detach(), *prior.predict_noise(x.detach(), t, [text, null])])
    torch.testing.assert_close(answers[0], answers[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-4, atol=1e-5)


def test_every_family_is_tested(model_folder):
    import json

    names = [*MODELS, *CAMERA_AWARE, "zero123"]  # the last two in test_camera_aware.py
    tested = {json.loads((model_folder(name) / "model_index.json").read_text())["_class_name"] for name in names}
    assert tested | {"MVDreamPipeline"} == set(FAMILIES)  # which is made there of a folder in the other layout


def test_a_size_that_is_no_multiple_of_a_token_is_refused(model_folder):
    from sds3d.errors import PriorUnavailable

    with pytest.raises(PriorUnavailable, match=r"image_size = 72.*multiple of 16"):
        build(model_folder("sd3"), image_size=72)


def test_a_network_waits_elsewhere_with_offload_and_says_the_same(model_folder, monkeypatch):
    plain, parked = build(model_folder("sd")), build(model_folder("sd"), offload="model")
    moves, to = [], parked.network.to
    monkeypatch.setattr(parked.network, "to", lambda device: moves.append(str(device)) or to(device))
    x_t, t = torch.randn(1, *plain.latent_shape, generator=torch.Generator().manual_seed(0)), torch.tensor([0.5])
    text = plain.embed([PROMPT])
    torch.testing.assert_close(plain.predict_noise(x_t, t, [text]), parked.predict_noise(x_t, t, [text]))
    assert moves == ["cpu", "cpu"]  # to the device, which is the CPU here, and away
    with pytest.raises(Exception, match="offload"):
        parked.trainable_copy(2, torch.Generator())
