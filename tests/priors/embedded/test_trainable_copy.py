"""The embedded prior's trainable copy, on freshly made networks."""

import pytest
import torch

from sds3d.cameras import orbit
from sds3d.priors.base import TrainablePrior
from sds3d.priors.embedded.prior import EmbeddedPrior
from sds3d.priors.embedded.training import Networks
from sds3d.priors.embedded.words import WORDS
from sds3d.types import ViewCondition


@pytest.fixture(scope="module")
def prior() -> EmbeddedPrior:
    torch.manual_seed(0)
    networks = Networks()
    return EmbeddedPrior(networks.unet, networks.text, WORDS, "cpu")


def question(prior: EmbeddedPrior):
    x_t = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    view = ViewCondition(orbit(2), torch.tensor([[0.1, 0.5, 0.9], [0.7, 0.2, 0.3]]))
    return x_t, torch.tensor([0.4, 0.7]), prior.embed(["a red mug", "a blue chair"]), view


def test_the_prior_stays_bit_equal_while_its_copy_learns(prior: EmbeddedPrior) -> None:
    assert isinstance(prior, TrainablePrior)
    x_t, t, embedding, view = question(prior)
    (before,) = prior.predict_noise(x_t, t, [embedding], view)
    copy = prior.trainable_copy(4, torch.Generator().manual_seed(0))
    assert torch.equal(copy(x_t, t, embedding, view), before)
    optimizer, losses = torch.optim.Adam(copy.parameters(), lr=2e-3), []
    for _ in range(4):
        loss = (copy(x_t, t, embedding, view) - before - 0.3).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert min(losses) < 0.8 * losses[0], losses
    assert torch.equal(prior.predict_noise(x_t, t, [embedding], view)[0], before)
    assert not torch.equal(copy(x_t, t, embedding, view), before)
    assert all(p.grad is None and not p.requires_grad for p in prior.unet.parameters())


def test_its_state_is_small_and_every_layer_gets_a_part(prior: EmbeddedPrior) -> None:
    copy = prior.trainable_copy(4, torch.Generator())
    own, whole = (sum(p.numel() for p in module.parameters()) for module in (copy, prior.unet))
    assert own < 0.05 * whole
    assert sum(value.numel() for value in copy.state_dict().values()) == own
    x_t, t, embedding, view = question(prior)
    copy(x_t, t, embedding, view).square().mean().backward()
    assert all(p.grad.abs().sum() > 0 for name, p in copy.named_parameters() if name.endswith("B.weight"))


def test_the_copy_is_told_the_view(prior: EmbeddedPrior) -> None:
    x_t, t, embedding, view = question(prior)
    copy = prior.trainable_copy(1, torch.Generator())
    with torch.no_grad():
        there, nowhere = copy(x_t, t, embedding, view), copy(x_t, t, embedding, None)
    assert (there - nowhere).abs().max() > 1e-4
