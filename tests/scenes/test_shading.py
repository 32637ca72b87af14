import pytest
import torch

from sds3d.cameras import orbit
from sds3d.scenes.shading import Light, ShadingConfig, draw_light


def lamp(mode):
    return Light(mode, torch.tensor([[0.0, 0, 3], [3.0, 0, 0]]))


def shaded(light, normals):
    colors = torch.tensor([0.8, 0.4, 0.2]).expand(len(normals), 3)
    return light.shade(colors, torch.tensor(normals), torch.zeros(len(normals), 3), torch.tensor([0, 0, 0, 1]))


NORMALS = [[0.0, 0, 1], [0.0, 0.6, 0.8], [0.0, 0, -1], [0.0, 0, 1]]  # towards the lamp, aslant, away; the other lamp
LIT = torch.tensor([1.0, 0.1 + 0.9 * 0.8, 0.1, 0.1])[:, None]


def test_lambertian_light_is_the_cosine_over_the_ambient() -> None:
    torch.testing.assert_close(shaded(lamp("lambertian"), NORMALS), LIT * torch.tensor([0.8, 0.4, 0.2]))


def test_textureless_is_the_same_on_white_and_tells_nothing_about_the_colours() -> None:
    torch.testing.assert_close(shaded(lamp("textureless"), NORMALS), LIT.expand(4, 3))


def test_the_schedule_begins_with_colours_alone_and_then_has_its_shares() -> None:
    config, generator, cameras = ShadingConfig(), torch.Generator().manual_seed(0), orbit(1, size=4)
    assert all(draw_light(config, cameras, 0.09, generator) is None for _ in range(50))
    drawn = [draw_light(config, cameras, 0.5, generator) for _ in range(1000)]
    modes = [None if light is None else light.mode for light in drawn]
    assert modes.count(None) == pytest.approx(250, abs=40)
    assert modes.count("textureless") == pytest.approx(375, abs=50)
    assert modes.count("lambertian") == pytest.approx(375, abs=50)


def test_the_lamp_is_mostly_on_the_cameras_side() -> None:
    cameras, generator = orbit(400, size=4), torch.Generator().manual_seed(0)
    light = draw_light(ShadingConfig(albedo_share=0), cameras, 1.0, generator)
    torch.testing.assert_close(light.positions.norm(dim=-1), torch.full((400,), 3.0))
    cosine = torch.nn.functional.cosine_similarity(light.positions, cameras.camera_to_world[:, :3, 3])
    assert cosine.mean() > 0.4
    assert (cosine < 0).any()


def test_as_many_numbers_are_drawn_whatever_comes_out() -> None:
    one, two = torch.Generator().manual_seed(0), torch.Generator().manual_seed(0)
    draw_light(ShadingConfig(), orbit(3, size=4), 0.0, one)
    draw_light(ShadingConfig(albedo_share=0), orbit(3, size=4), 1.0, two)
    assert torch.equal(one.get_state(), two.get_state())
