import torch

from sds3d.scenes.background import RandomBackground, SolidBackground


def test_solid_background_is_the_colour_and_draws_nothing():
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    colors = SolidBackground(color=(0.1, 0.2, 0.3)).sample(3, generator)
    assert torch.allclose(colors, torch.tensor([0.1, 0.2, 0.3]).expand(3, 3))
    assert torch.equal(generator.get_state(), before)


def test_random_background_mixes_fixed_and_drawn_colours():
    background = RandomBackground(color=(0.5, 0.5, 0.5), random_share=0.3)
    colors = background.sample(2000, torch.Generator().manual_seed(0))
    fixed = (colors == 0.5).all(dim=-1)
    assert abs(fixed.float().mean().item() - 0.7) < 0.04
    drawn = colors[~fixed]
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    assert torch.allclose(drawn.mean(dim=0), torch.full((3,), 0.5), atol=0.05)
    assert torch.equal(colors, background.sample(2000, torch.Generator().manual_seed(0)))


def test_random_background_stream_does_not_depend_on_the_share():
    one, two = torch.Generator().manual_seed(0), torch.Generator().manual_seed(0)
    RandomBackground(random_share=0.0).sample(5, one)
    RandomBackground(random_share=1.0).sample(5, two)
    assert torch.equal(one.get_state(), two.get_state())
