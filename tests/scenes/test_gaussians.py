import copy
import math

import pytest
import torch

from sds3d.cameras import orbit
from sds3d.scenes import SCENES, GaussiansConfig, Scene
from sds3d.scenes.base import RenderContext
from sds3d.scenes.densify import DensifyConfig
from sds3d.scenes.gaussians import LEARNING_RATES, Gaussians


def make_scene(seed=0, **options):
    return GaussiansConfig(**{"count": 60, **options}).build(torch.Generator().manual_seed(seed))


def make_optimizer(scene):
    return torch.optim.Adam([{"params": g.parameters, "lr": g.lr, "eps": g.eps} for g in scene.param_groups()])


def set_splats(scene, means, scales=0.1, opacities=0.9, colors=(1.0, 1.0, 1.0), quats=(1.0, 0.0, 0.0, 0.0)):
    """Overwrite the first splats with the given ones and make the others invisible."""
    count = len(means)
    with torch.no_grad():
        scene.raw_opacities.fill_(-20)
        scene.raw_means[:count] = torch.tensor(means)
        scene.raw_scales[:count] = torch.as_tensor(scales).expand(count, 3).log()
        scene.raw_opacities[:count] = torch.as_tensor(opacities).expand(count).logit()
        scene.raw_colors[:count] = torch.as_tensor(colors).expand(count, 3).logit(eps=1e-6)
        scene.raw_quats[:count] = torch.as_tensor(quats).expand(count, 4)
    return scene


def train(scene, optimizer, steps, start=0, of=1000):
    """A few steps towards a red image, as the trainer of a run of `of` steps does them."""
    cameras = orbit(2, size=16)
    for step in range(start, start + steps):
        out = scene.render(cameras, torch.zeros(2, 3))
        (out.rgb - torch.tensor([1.0, 0.0, 0.0])).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        scene.after_step(step, of, out, optimizer)


def sphere_pair(cameras):
    """Ray-traced target: a red sphere of radius 0.3 below a blue one of radius 0.2, unshaded, on white."""
    pixels = torch.arange(cameras.height) + 0.5
    v, u = torch.meshgrid(pixels, pixels, indexing="ij")
    rays = torch.stack([u, v, torch.ones_like(u)], dim=-1) @ torch.inverse(cameras.intrinsics)[:, None].mT
    rays = torch.nn.functional.normalize(rays @ cameras.camera_to_world[:, None, :3, :3].mT, dim=-1)
    image = torch.ones_like(rays)
    nearest = torch.full(rays.shape[:-1], math.inf)
    for center, radius, color in [((0.0, 0.0, -0.2), 0.3, (0.9, 0.1, 0.1)), ((0.0, 0.0, 0.25), 0.2, (0.1, 0.2, 0.9))]:
        to_center = torch.tensor(center) - cameras.camera_to_world[:, None, None, :3, 3]
        along = (rays * to_center).sum(-1)
        miss = to_center.square().sum(-1) - along.square()
        depth = along - (radius**2 - miss).clamp_min(0).sqrt()
        hit = (miss < radius**2) & (depth < nearest)
        image[hit], nearest[hit] = torch.tensor(color), depth[hit]
    return image


def test_is_a_scene_and_listed():
    assert isinstance(make_scene(), Scene)
    assert SCENES["gaussians"] is GaussiansConfig


def test_same_seed_same_start():
    first, again, other = make_scene(3), make_scene(3), make_scene(4)
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert not torch.equal(first.raw_means, other.raw_means)


def test_start_is_a_soft_grey_ball():
    scene = make_scene(count=2000)
    out = scene.render(orbit(2, size=32), torch.ones(2, 3))
    assert out.opacity[:, 16, 16].min() > 0.9
    assert out.opacity[:, 0, 0].max() == 0
    assert out.rgb[:, 16, 16].sub(0.5).abs().max() < 0.15
    assert scene.means.norm(dim=-1).max() <= 0.5


def test_render_needs_no_gradient():
    with torch.no_grad():
        out = make_scene().render(orbit(1, size=16), torch.ones(1, 3))
    assert not out.rgb.requires_grad
    assert out.normal is None


def test_depth_is_weighted_by_opacity_and_nearer_splats_cover_farther_ones():
    scene = set_splats(make_scene(), [[0.5, 0.0, 0.0], [-0.5, 0.0, 0.0]], colors=[[1.0, 0, 0], [0, 0, 1.0]])
    out = scene.render(orbit(1, elevation_deg=0, distance=3.0, size=33), torch.zeros(1, 3))
    red, blue = out.rgb[0, 16, 16, 0], out.rgb[0, 16, 16, 2]  # their weights, colours being pure
    assert red > 0.85
    assert 0 < blue < 0.1
    assert torch.allclose(out.depth[0, 16, 16, 0], red * 2.5 + blue * 3.5, rtol=1e-3)


def test_normal_is_the_shortest_axis_towards_the_camera():
    tilt = math.radians(30)  # about y: the disc's axis z turns towards +x
    quat = [math.cos(tilt / 2), 0.0, math.sin(tilt / 2), 0.0]
    scene = set_splats(make_scene(), [[0.0, 0.0, 0.0]], scales=[[0.2, 0.2, 0.01]], quats=[quat])
    out = scene.render(orbit(2, elevation_deg=0, size=33), torch.zeros(2, 3), RenderContext(normals=True))
    axis = torch.tensor([math.sin(tilt), 0.0, math.cos(tilt)])
    assert torch.allclose(out.normal[0, 16, 16], axis, atol=1e-4)  # from +x
    assert torch.allclose(out.normal[1, 16, 16], -axis, atol=1e-4)  # from -x
    assert (out.normal[:, 0, 0] == 0).all()


def test_density_and_colour_in_space():
    scene = set_splats(
        make_scene(), [[0.3, 0.0, 0.0], [-0.3, 0.0, 0.0]], opacities=0.8, colors=[[1.0, 0, 0], [0, 0, 1.0]]
    )
    points = torch.tensor([[0.3, 0.0, 0.0], [0.3, 0.1, 0.0], [-0.3, 0.0, 0.0]])
    assert torch.allclose(scene.density(points), torch.tensor([0.8, 0.8 * math.exp(-0.5), 0.8]), atol=1e-3)
    assert torch.allclose(scene.color(points), torch.tensor([[1.0, 0, 0], [1.0, 0, 0], [0, 0, 1.0]]), atol=1e-3)
    grid = scene.density_grid(torch.tensor([0.3, 0.0, 0.0]), 0.1, (1, 2, 1))
    assert torch.allclose(grid.flatten(), scene.density(points[:2]), atol=1e-3)


def test_fits_a_two_coloured_object(monkeypatch):
    torch.manual_seed(0)
    cameras = orbit(8, size=24)
    target = sphere_pair(cameras)
    densify = DensifyConfig(refine_every=20)
    monkeypatch.setattr("sds3d.scenes.gaussians.LEARNING_RATES", {**LEARNING_RATES, "means": 0.01, "colors": 0.1})
    scene = make_scene(count=250, densify=densify)
    optimizer = make_optimizer(scene)
    steps = 110
    for step in range(steps):
        out = scene.render(cameras, torch.ones(8, 3))
        loss = (out.rgb - target).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        scene.after_step(step, steps, out, optimizer)
    assert len(scene) > 250
    assert -10 * math.log10(loss.item()) > 24
    top, bottom = scene.color(torch.tensor([[0.0, 0.0, 0.4], [0.0, 0.0, -0.45]]))
    assert top[2] > top[0] + 0.2
    assert bottom[0] > bottom[2] + 0.2


def test_means_and_scales_stay_in_bounds():
    scene = make_scene()
    with torch.no_grad():
        scene.raw_means[0] = torch.tensor([3.0, 4.0, 0.0])
        scene.raw_scales[1] = 2.0
        scene.raw_scales[2] = -20.0
    inside = scene.raw_means[3].clone()
    train(scene, torch.optim.SGD(scene.parameters(), lr=0.0), 1)
    assert torch.allclose(scene.means[0], torch.tensor([0.63, 0.84, 0.0]))
    assert torch.equal(scene.means[3], inside)
    assert scene.scales.max() <= 0.15 + 1e-6
    assert scene.scales.min() >= 0.003 - 1e-6


def test_refinement_keeps_what_the_views_show():
    scene = make_scene(count=500, init_opacity=0.3, densify=DensifyConfig(grow_share=0.3))
    cameras = orbit(2, size=32)
    before = scene.render(cameras, torch.zeros(2, 3))
    scene.grad_sum.fill_(1)
    scene.view_count.fill_(1)
    scene.refine(make_optimizer(scene), 0)
    after = scene.render(cameras, torch.zeros(2, 3))
    assert len(scene) == 650
    assert (after.opacity - before.opacity).abs().mean() < 0.03


def test_gradients_of_hidden_splats_do_not_count():
    scene = make_scene()
    with torch.no_grad():
        scene.raw_means[0] = torch.tensor([0.0, 0.0, 60.0])  # outside every view, before the bound pulls it in
    train(scene, make_optimizer(scene), 1)
    assert scene.view_count[0] == 0
    assert scene.grad_sum[0] == 0
    assert scene.view_count[1:].max() == 2
    assert scene.grad_sum[1:].max() > 0


def test_refinement_waits_for_its_steps():
    scene = make_scene(densify=DensifyConfig(refine_every=2, refine_start=0.3, refine_stop=0.7, grow_share=0.1))
    optimizer = make_optimizer(scene)
    counts = []
    for step in range(14):
        train(scene, optimizer, 1, start=step, of=14)
        counts.append(len(scene))
    assert counts == [60] * 5 + [66] * 2 + [72] * 2 + [79] * 5  # after 6, 8 and 10 steps: 5/14 > 0.3, 9/14 < 0.7


def test_resume_is_bit_equal_across_a_changed_count():
    densify = DensifyConfig(refine_every=1, grow_share=0.2)
    scene = make_scene(densify=densify)
    optimizer = make_optimizer(scene)
    train(scene, optimizer, 4)
    assert len(scene) != 60
    saved = copy.deepcopy((scene.state_dict(), optimizer.state_dict()))
    train(scene, optimizer, 4, start=4)

    resumed = make_scene(seed=9, densify=densify)
    again = make_optimizer(resumed)
    resumed.load_state_dict(saved[0])
    again.load_state_dict(saved[1])
    torch.manual_seed(12345)  # no draw may come from the global generator
    train(resumed, again, 4, start=4)
    assert len(resumed) == len(scene) > len(saved[0]["raw_means"])
    for name, value in scene.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    for mine, theirs in zip(optimizer.state.values(), again.state.values(), strict=True):
        assert torch.equal(mine["exp_avg"], theirs["exp_avg"])


def test_load_refuses_another_layout():
    scene = make_scene()
    state = scene.state_dict()
    state["raw_means"] = torch.zeros(60, 2)
    with pytest.raises(RuntimeError, match="raw_means"):
        scene.load_state_dict(state)
    del state["raw_means"]
    with pytest.raises(RuntimeError, match="raw_means"):
        scene.load_state_dict(state)


def test_regularizers_are_scalars_that_can_be_minimized():
    scene = make_scene()
    cameras, white = orbit(1, size=16), torch.ones(1, 3)
    assert "z_variance" not in scene.regularizers(scene.render(cameras, white))  # costs a channel
    losses = scene.regularizers(scene.render(cameras, white, with_thickness()))
    assert set(losses) == set(GaussiansConfig.losses)
    sum(losses.values()).backward()
    assert torch.isfinite(scene.raw_scales.grad).all()
    assert scene.raw_opacities.grad.abs().max() > 0


def with_thickness():
    return RenderContext(0.5, ["z_variance"])


def test_z_variance_is_that_of_the_depths_in_a_pixel():
    # both in the middle of the view, which is 3 from the camera; the nearer takes 0.6, the farther 0.5 of the rest
    scene = set_splats(make_scene(), [[0.03, 0.0, 0.0], [-0.05, 0.0, 0.0]], opacities=[0.6, 0.5])
    cameras = orbit(1, elevation_deg=0, size=33)
    out = scene.render(cameras, torch.zeros(1, 3), with_thickness())
    near, far = 0.6, 0.4 * 0.5
    sum_z, sum_zz = (values[0, 16, 16, 0].item() for values in out.aux.depth_sums)
    assert out.opacity[0, 16, 16].item() == pytest.approx(near + far, abs=1e-3)
    assert sum_z == pytest.approx(-0.03 * near + 0.05 * far, abs=1e-4)
    assert sum_zz == pytest.approx(0.03**2 * near + 0.05**2 * far, abs=1e-5)


def test_z_variance_makes_a_thick_layer_thin():
    scene, cameras = make_scene(init_opacity=0.3, count=200), orbit(3, size=24)
    optimizer = make_optimizer(scene)
    seen = []
    for _ in range(60):
        out = scene.render(cameras, torch.zeros(3, 3), with_thickness())
        loss = scene.regularizers(out)["z_variance"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seen.append((loss.item(), out.opacity.mean().item()))
    assert seen[-1][0] < 0.3 * seen[0][0]
    assert seen[-1][1] > 0.5 * seen[0][1]  # and it is still there


def test_param_groups_cover_every_parameter_with_its_rate():
    scene = make_scene(sh_degree=1)
    groups = {group.name: group for group in scene.param_groups()}
    assert (groups["means"].lr, groups["colors"].lr, groups["harmonics"].lr) == (0.003, 0.03, 0.0015)
    assert {id(p) for g in groups.values() for p in g.parameters} == {id(p) for p in scene.parameters()}


def test_the_least_size_is_not_above_the_largest():
    with pytest.raises(ValueError, match=r"must not be above max_scale = 0.1"):
        GaussiansConfig(min_scale=0.5, max_scale=0.1)


def test_config_names_the_wrong_key():
    with pytest.raises(ValueError, match="colour"):
        GaussiansConfig(colour=1)
    assert isinstance(GaussiansConfig(count=8).build(torch.Generator()), Gaussians)


def test_without_harmonics_the_state_is_what_it_was():
    names = {"means", "quats", "scales", "opacities", "colors"}
    assert set(make_scene().state_dict()) == {f"raw_{name}" for name in names} | {"grad_sum", "view_count", "seed"}
    plain, with_harmonics = make_scene(5), make_scene(5, sh_degree=2)
    cameras = orbit(3, size=16)
    images = [scene.render(cameras, torch.zeros(3, 3)).rgb for scene in (plain, with_harmonics)]
    assert with_harmonics.raw_harmonics.shape == (60, 8, 3)
    assert torch.allclose(*images, atol=1e-6)  # they start at zero


def test_harmonics_learn_a_colour_that_changes_with_the_side(monkeypatch):
    """A ball that is red from the front and blue from the back: no colour without harmonics shows both."""
    monkeypatch.setattr(
        "sds3d.scenes.gaussians.LEARNING_RATES", {**LEARNING_RATES, "colors": 1.0, "harmonics": 1.0 / 20}
    )
    cameras = orbit(2, size=16)
    wanted = torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.1, 0.9]])[:, None, None]

    def error_after_training(degree):
        scene = make_scene(sh_degree=degree)
        # seen through, so that both sides look at the same splats
        set_splats(scene, [[0.0, 0.0, 0.0]], scales=0.15, opacities=0.9, colors=(0.5, 0.5, 0.5))
        optimizer = make_optimizer(scene)
        for _ in range(60):
            rgb = scene.render(cameras, torch.zeros(2, 3)).rgb[:, 7:9, 7:9]
            loss = (rgb - 0.9 * wanted).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return loss.item()

    assert error_after_training(1) < 0.02
    assert error_after_training(0) > 0.05


def test_harmonics_survive_refinement_and_a_resume_bit_for_bit():
    def run(steps, scene=None, optimizer=None, start=0):
        scene = scene or make_scene(sh_degree=1, densify=DensifyConfig(refine_every=2, grow_share=0.2))
        optimizer = optimizer or make_optimizer(scene)
        train(scene, optimizer, steps, start)
        return scene, optimizer

    whole, _ = run(9)
    first, optimizer = run(5)
    second = make_scene(sh_degree=1, densify=first.config.densify)
    second_optimizer = make_optimizer(second)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    second_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    run(4, second, second_optimizer, start=5)
    assert len(whole) > 60
    assert whole.raw_harmonics.abs().max() > 0
    for name, value in whole.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
