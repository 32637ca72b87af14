import math

import torch

from sds3d.cameras import orbit
from sds3d.scenes.background import EnvironmentMap, LearnedBackground, RandomBackground, SolidBackground
from sds3d.types import RenderOutput


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


def environment_map(**options):
    return EnvironmentMap(LearnedBackground(**options), rows=8)


def toward(azimuth, elevation):
    level = math.cos(elevation)
    return [level * math.cos(azimuth), level * math.sin(azimuth), math.sin(elevation)]


def test_the_map_has_up_in_its_first_row_and_is_continuous_behind():
    around = environment_map()
    with torch.no_grad():
        around.raw_colors[:] = -20
        around.raw_colors[:, 0, :4] = 20  # red above the horizon
        around.raw_colors[:, 1, :, 8] = around.raw_colors[:, 1, :, 7] = 20  # green in front, at +x
    high, low = (toward(2.0, elevation) for elevation in (0.5, -0.5))
    front, back = toward(0.0, -0.5), toward(math.pi, -0.5)
    colors = around.color(torch.tensor([high, low, front, back]))
    torch.testing.assert_close(colors[:, 0], torch.tensor([1.0, 0, 0, 0]), atol=1e-4, rtol=0)
    torch.testing.assert_close(colors[:, 1], torch.tensor([0.0, 0, 1, 0]), atol=1e-4, rtol=0)
    with torch.no_grad():
        around.raw_colors[:, 2, :, 0] = 20  # blue in the first column only: half of it shows at the seam
    seam = around.color(torch.tensor([toward(math.pi - 1e-4, 0.1), toward(-math.pi + 1e-4, 0.1)]))
    torch.testing.assert_close(seam[:, 2], torch.full((2,), 0.5), atol=1e-3, rtol=0)


def render(views, opacity):
    rgb = torch.full((views, 4, 4, 3), opacity * 0.25)
    return RenderOutput(rgb, torch.full((views, 4, 4, 1), opacity), torch.zeros(views, 4, 4, 1))


def test_the_map_is_behind_what_is_rendered_and_learns_where_it_shows():
    cameras, colors = orbit(3, size=4), torch.ones(3, 3)
    around, generator = environment_map(random_share=0.0), torch.Generator().manual_seed(0)
    over_white = RenderOutput(render(3, 0.4).rgb + 0.6, render(3, 0.4).opacity, render(3, 0.4).depth)
    shown = around.behind(over_white, cameras, colors, generator)
    torch.testing.assert_close(shown, torch.full((3, 4, 4, 3), 0.4 * 0.25 + 0.6 * 0.5))
    shown.sum().backward()
    assert around.raw_colors.grad.sum() > 0


def test_the_drawn_share_of_views_keeps_its_colour():
    cameras, colors = orbit(40, size=4), torch.rand(40, 3, generator=torch.Generator().manual_seed(1))
    around = environment_map(random_share=0.5)
    empty = render(40, 0.0)
    out = RenderOutput(empty.rgb + colors[:, None, None], empty.opacity, empty.depth)
    shown = around.behind(out, cameras, colors, torch.Generator().manual_seed(2))
    kept = (shown - out.rgb).abs().amax(dim=(1, 2, 3)) < 1e-6
    grey = (shown - 0.5).abs().amax(dim=(1, 2, 3)) < 1e-6
    assert (kept ^ grey).all()
    assert 10 < int(kept.sum()) < 30
