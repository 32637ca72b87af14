import torch

from sds3d.cameras import orbit
from sds3d.guidance.noise import Fixed, Fresh, NoiseRequest
from sds3d.types import RenderOutput


def two_views(size: int, generator: torch.Generator) -> NoiseRequest:
    nothing = torch.zeros(2, size, size, 1)
    return NoiseRequest(
        orbit(2, size=size), RenderOutput(torch.zeros(2, size, size, 3), nothing, nothing), (3, size, size), generator
    )


def test_fresh_noise_is_standard_normal_and_new_for_each_view_and_step() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (Fresh().sample(two_views(64, generator), None) for _ in range(2))
    assert first.shape == (2, 3, 64, 64)
    assert abs(first.mean()) < 0.02
    assert abs(first.std() - 1) < 0.02
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, second)


def test_fixed_noise_is_the_same_for_all_views_and_steps_and_draws_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    first, second = (Fixed(seed=4).sample(two_views(8, generator), None) for _ in range(2))
    assert torch.equal(first[0], first[1])
    assert torch.equal(first, second)
    assert torch.equal(generator.get_state(), before)
    assert not torch.equal(first, Fixed(seed=5).sample(two_views(8, generator), None))
