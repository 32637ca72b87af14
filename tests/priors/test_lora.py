"""Low-rank copies: they start as the network, learn beside it, and own nothing but what they learn."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from sds3d.priors.lora import CameraEmbedding, LowRankCopy


class Small(nn.Module):
    """A convolution, a projection and something added to both, as in the networks of priors."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.block = nn.Sequential(nn.Linear(6, 5), nn.SiLU(), nn.Linear(5, 3))
        self.bonus: nn.Module | None = None
        self.register_buffer("offset", torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        out = self.block(self.conv(x).movedim(1, -1)) + self.offset
        return (out if self.bonus is None else out + self.bonus(x)).movedim(-1, 1)


def predict(network, x_t, t, embeddings, view) -> list[Tensor]:
    return [network(x_t).float() for _ in embeddings]


def pair(rank: int = 2, seed: int = 0, dtype: torch.dtype = torch.float32, **extra: nn.Module):
    torch.manual_seed(3)
    network = Small().to(dtype).requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    return network, LowRankCopy(network, ["conv", "block.0", "block.2"], rank, generator, predict, **extra)


def ask(copy: LowRankCopy, x: Tensor) -> Tensor:
    return copy(x, torch.zeros(len(x)), torch.zeros(len(x), 1, 1))


def pictures() -> Tensor:
    return torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(1))


def train(copy: LowRankCopy, steps: int = 60) -> None:
    optimizer = torch.optim.Adam(copy.parameters(), lr=0.02)
    for _ in range(steps):
        functional.mse_loss(ask(copy, pictures()), pictures()).backward()
        optimizer.step()
        optimizer.zero_grad()


def test_it_starts_as_the_network_and_learns_without_changing_it() -> None:
    network, copy = pair()
    before, weights = network(pictures()), [p.clone() for p in network.parameters()]
    assert torch.equal(ask(copy, pictures()), before)
    error = functional.mse_loss(before, pictures())
    train(copy)
    assert functional.mse_loss(ask(copy, pictures()), pictures()) < 0.7 * error
    assert torch.equal(network(pictures()), before)
    assert all(torch.equal(a, b) for a, b in zip(weights, network.parameters(), strict=True))
    assert not any(p.requires_grad or p.grad is not None for p in network.parameters())


def test_the_frozen_tensors_are_shared_and_belong_to_the_network_alone() -> None:
    network, copy = pair()
    inner = copy._network[0]
    assert inner.conv.base_layer.weight is network.conv.weight
    assert inner.offset is network.offset
    frozen = {id(tensor) for tensor in (*network.parameters(), *network.buffers())}
    assert not frozen & {id(tensor) for tensor in (*copy.parameters(), *copy.buffers())}
    assert all(p.requires_grad for p in copy.parameters())


@pytest.mark.parametrize("rank", [1, 4])
def test_its_state_is_what_it_learns_and_no_more(rank: int) -> None:
    _, copy = pair(rank)
    shapes = {name: tuple(value.shape) for name, value in copy.state_dict().items()}
    assert shapes == {
        "added.conv.A.weight": (rank, 3, 3, 3),
        "added.conv.B.weight": (6, rank, 1, 1),
        "added.block/0.A.weight": (rank, 6),
        "added.block/0.B.weight": (5, rank),
        "added.block/2.A.weight": (rank, 5),
        "added.block/2.B.weight": (3, rank),
    }


def test_the_state_carries_everything_over() -> None:
    _, copy = pair()
    train(copy, 5)
    _, twin = pair(seed=9)
    assert not torch.equal(ask(twin, pictures()), ask(copy, pictures()))
    twin.load_state_dict(copy.state_dict())
    assert torch.equal(ask(twin, pictures()), ask(copy, pictures()))


def test_two_copies_of_one_network_learn_apart() -> None:
    network, first = pair()
    second = LowRankCopy(network, ["conv"], 2, torch.Generator(), predict)
    train(first, 5)
    assert torch.equal(ask(second, pictures()), network(pictures()))


def test_it_is_drawn_from_the_given_generator_and_no_other() -> None:
    torch.manual_seed(5)
    (_, one), state = pair(seed=1), None
    state = torch.get_rng_state()
    torch.manual_seed(3)
    Small()  # what `pair` itself draws
    assert torch.equal(torch.get_rng_state(), state)
    (_, same), (_, other) = pair(seed=1), pair(seed=2)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not torch.equal(one.added["conv"]["A"].weight, other.added["conv"]["A"].weight)
    bound = 1 / 27**0.5  # the convolution reads 27 numbers
    assert 0.5 * bound < one.added["conv"]["A"].weight.abs().max() <= bound


def test_half_precision_networks_learn_in_float32() -> None:
    network, copy = pair(dtype=torch.bfloat16)
    assert {p.dtype for p in copy.parameters()} == {torch.float32}
    assert network.conv.weight.dtype == torch.bfloat16
    ask(copy, pictures().bfloat16()).square().sum().backward()
    assert copy.added["conv"]["B"].weight.grad.abs().sum() > 0


def test_extra_layers_take_the_place_of_the_copys_own() -> None:
    bonus = nn.Sequential(nn.Flatten(), nn.Linear(75, 1), nn.Unflatten(1, (1, 1, 1)))
    network, copy = pair(bonus=bonus)
    assert network.bonus is None
    assert not torch.equal(ask(copy, pictures()), network(pictures()))
    assert "extra.bonus.1.weight" in copy.state_dict()


def test_the_camera_embedding_starts_at_zero_and_can_learn() -> None:
    state = torch.get_rng_state()
    embedding = CameraEmbedding(8, torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), state)
    camera = torch.eye(4).reshape(1, 16)
    assert torch.equal(embedding(camera), torch.zeros(1, 8))
    embedding(camera).sum().backward()
    assert embedding.last.weight.grad.abs().sum() > 0
