"""eps from each parametrisation, against a prior whose score is known exactly."""

import json
import shutil

import pytest
import torch

from sds3d.errors import PriorUnavailable
from sds3d.priors import DiffusersConfig
from sds3d.priors.analytic import AnalyticConfig
from sds3d.priors.base import sample_from_eps
from sds3d.priors.hub.schedule import Discrete, Flow, schedule_of


def alphas_cumprod():
    from diffusers import DDPMScheduler

    return DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").alphas_cumprod


class Exact:
    """The exact eps and clean image of a Gaussian mixture in any number of dimensions, at any (alpha, sigma)."""

    def __init__(self, seed):
        generator = torch.Generator().manual_seed(seed)
        self.means = torch.randn(3, 4 * 8 * 8, generator=generator, dtype=torch.float64)
        self.spread = 0.5

    def eps(self, x_t, alpha, sigma):
        """-sigma times the gradient of log p_t, by autograd in float64."""
        flat = x_t.double().flatten(1).requires_grad_(True)
        a, s = alpha.double().flatten(), sigma.double().flatten()
        variance = a.square() * self.spread**2 + s.square()
        distances = (flat[:, None] - a[:, None, None] * self.means).square().sum(-1)
        log_p = torch.logsumexp(-0.5 * distances / variance[:, None], dim=1)
        (score,) = torch.autograd.grad(log_p.sum(), flat)
        return (-s[:, None] * score).reshape(x_t.shape)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("seed", range(3))
def test_networks_of_ddpm_ticks_are_turned_into_the_exact_eps(prediction, seed):
    schedule, exact = Discrete(alphas_cumprod(), prediction), Exact(seed)
    generator = torch.Generator().manual_seed(seed)
    t = torch.rand(5, generator=generator) * 0.96 + 0.02
    x_t = torch.randn(5, 4, 8, 8, generator=generator)
    alpha, sigma = schedule.alpha_sigma(t)
    eps = exact.eps(x_t, alpha, sigma)
    alpha, sigma = alpha.double(), sigma.double()
    clean = (x_t - sigma * eps) / alpha
    out = {"epsilon": eps, "v_prediction": alpha * eps - sigma * clean, "sample": clean}[prediction]
    got = schedule.eps(out, x_t.double(), alpha.double(), sigma.double())
    torch.testing.assert_close(got, eps, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shift", [1.0, 3.0, 6.0])
def test_velocities_are_turned_into_the_exact_eps(shift):
    """The network's input is (1 - u) x + u eps, so its exact velocity is that mixture's."""
    schedule, exact, generator = Flow(shift, torch.device("cpu")), Exact(7), torch.Generator().manual_seed(7)
    t = torch.rand(5, generator=generator) * 0.96 + 0.02
    x_t = torch.randn(5, 4, 8, 8, generator=generator)
    alpha, sigma = schedule.alpha_sigma(t)
    u = (schedule.timestep(t) / 1000).double()[:, None, None, None]
    torch.testing.assert_close(u.flatten(), (shift * t / (1 + (shift - 1) * t)).double(), rtol=0, atol=1e-6)
    x_u = schedule.network_input(x_t, alpha, sigma)
    eps = exact.eps(x_u, 1 - u, u)
    clean = (x_u.double() - u * eps) / (1 - u)
    got = schedule.eps(eps - clean, x_t.double(), alpha.double(), sigma.double())
    torch.testing.assert_close(got, eps, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(exact.eps(x_t, alpha, sigma), eps, rtol=1e-4, atol=1e-5)


def test_the_conversion_holds_for_what_x_was_made_from():
    """x_t from a known x and eps: each parametrisation's true output gives that eps back."""
    generator = torch.Generator().manual_seed(1)
    x, noise, t = (
        torch.randn(2, 4, 8, 8, generator=generator),
        torch.randn(2, 4, 8, 8, generator=generator),
        torch.tensor([0.3, 0.7]),
    )
    flow = Flow(3.0, torch.device("cpu"))
    alpha, sigma = flow.alpha_sigma(t)
    x_t = alpha * x + sigma * noise
    u = (flow.timestep(t) / 1000)[:, None, None, None]
    torch.testing.assert_close(flow.network_input(x_t, alpha, sigma), (1 - u) * x + u * noise, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(flow.eps(noise - x, x_t, alpha, sigma), noise, rtol=1e-5, atol=1e-5)


def test_the_analytic_prior_says_the_same_as_its_own_network_would():
    prior = AnalyticConfig(size=8).build("cpu")
    x_t, t = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0.2, 0.6])
    (eps,) = prior.predict_noise(x_t, t, [prior.embed(["red", "blue"])])
    alpha, sigma = prior.alpha_sigma(t)
    clean = (x_t - sigma * eps) / alpha
    for prediction, out in (("v_prediction", alpha * eps - sigma * clean), ("sample", clean), ("epsilon", eps)):
        got = Discrete(alphas_cumprod(), prediction).eps(out, x_t, alpha, sigma)
        torch.testing.assert_close(got, eps, rtol=1e-5, atol=1e-5)
    velocity = (eps - clean) * 1.0
    got = Flow(1.0, torch.device("cpu")).eps(velocity, x_t, alpha, sigma)
    torch.testing.assert_close(got, eps, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("tokens", "shift"), [(256, 1.6487), (4096, 3.1582), (1024, 1.8773)])
def test_the_shift_by_the_number_of_tokens_is_diffusers_own(tokens, shift):
    from diffusers import FlowMatchEulerDiscreteScheduler
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift

    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    schedule = schedule_of(scheduler, tokens, torch.device("cpu"))
    assert schedule.shift == pytest.approx(shift, rel=1e-3)
    scheduler.set_timesteps(sigmas=[0.9, 0.5, 0.1], mu=calculate_shift(tokens, 256, 4096, 0.5, 1.15))
    torch.testing.assert_close(schedule.timestep(torch.tensor([0.9, 0.5, 0.1])), scheduler.timesteps.float())


def with_scheduler(folder, source, kind, **options):
    """A copy of a model with another scheduler, as fine-tunes have them."""
    import diffusers

    shutil.copytree(source, folder)
    shutil.rmtree(folder / "scheduler")
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    getattr(diffusers, kind)(**{**betas, **options}).save_pretrained(folder / "scheduler")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "scheduler": ["diffusers", kind]}))
    return DiffusersConfig(model=str(folder), image_size=64).build("cpu")


@pytest.mark.parametrize("kind", ["DDIMScheduler", "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler"])
@pytest.mark.parametrize("prediction", ["v_prediction", "sample"])
def test_zero_terminal_snr_is_right_at_the_last_tick(kind, prediction, model_folder, tmp_path):
    """There x_t is noise alone: whatever the network says of the image, eps is x_t."""
    options = {"rescale_betas_zero_snr": True, "prediction_type": prediction}
    prior = with_scheduler(tmp_path / "model", model_folder("sd"), kind, **options)
    last = torch.tensor([0.9999, 1.0])
    alpha, sigma = prior.alpha_sigma(last)
    assert 0 < float(alpha.max()) < 3e-4
    x_t = torch.randn(2, *prior.latent_shape, generator=torch.Generator().manual_seed(0))
    (eps,) = prior.predict_noise(x_t, last, [prior.embed(["a mug"]).expand(2, -1, -1)])
    torch.testing.assert_close(eps, x_t, rtol=0, atol=5e-3)
    assert torch.isfinite(sample_from_eps(eps, x_t, alpha, sigma)).all()


def test_a_scheduler_that_the_network_goes_by_otherwise_is_named(model_folder, tmp_path):
    edm = {"timestep_type": "continuous", "prediction_type": "v_prediction", "sigma_min": 0.002, "sigma_max": 120.0}
    with pytest.raises(PriorUnavailable, match="EulerDiscreteScheduler of continuous times with prediction_type"):
        with_scheduler(tmp_path / "edm", model_folder("sd"), "EulerDiscreteScheduler", **edm)
    import diffusers

    with pytest.raises(PriorUnavailable, match="EDMEulerScheduler"):
        schedule_of(diffusers.EDMEulerScheduler(), 16, torch.device("cpu"))
    for kind in ("LCMScheduler", "TCDScheduler"):
        prior = with_scheduler(tmp_path / kind, model_folder("sd"), kind)
        assert f"its {kind} is of a model for few steps" in prior.cautions("a mug")[0]


@pytest.mark.parametrize("kind", ["DPMSolverMultistepScheduler", "UniPCMultistepScheduler"])
def test_a_flow_of_other_schedulers_has_their_shift(kind):
    """As Sana's: the solver is of another family, and its sigmas are flow matching's."""
    import diffusers

    scheduler = getattr(diffusers, kind)(use_flow_sigmas=True, flow_shift=3.0, prediction_type="flow_prediction")
    schedule = schedule_of(scheduler, 16, torch.device("cpu"))
    u = torch.tensor([0.1, 0.5, 0.9])
    torch.testing.assert_close(schedule.timestep(u) / 1000, 3 * u / (1 + 2 * u), rtol=0, atol=1e-6)


@pytest.mark.parametrize("options", [{"shift": 7.0}, {"shift": 1.0, "use_karras_sigmas": True}, {"shift": 0.5}])
def test_a_flow_has_the_shift_that_its_scheduler_says(options):
    import diffusers

    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(**options)
    schedule = schedule_of(scheduler, 16, torch.device("cpu"))
    u = torch.linspace(0.05, 1.0, 20)
    expected = options["shift"] * u / (1 + (options["shift"] - 1) * u)
    torch.testing.assert_close(schedule.timestep(u) / 1000, expected, rtol=0, atol=1e-6)
