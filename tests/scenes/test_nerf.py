"""The radiance field as a scene: what it renders is what is in space, and training sees no more than it asks for."""

import copy
import itertools
import math

import pytest
import torch
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from sds3d.cameras import orbit
from sds3d.export.extract import ExportConfig, extract_mesh
from sds3d.export.formats import check_geometry
from sds3d.scenes import SCENES, NerfConfig, Scene
from sds3d.scenes.base import RenderContext
from sds3d.scenes.nerf import RAY_LOSSES, Nerf
from sds3d.scenes.nerf_field import FieldConfig
from tests.ops.splat_cases import assert_agrees

SMALL = {"levels": 4, "finest_resolution": 32, "log2_table": 12, "hidden": 8}


def make_scene(seed=0, field=(), **options) -> Nerf:
    config = NerfConfig(field=FieldConfig(**{**SMALL, **dict(field)}), **options)
    return config.build(torch.Generator().manual_seed(seed))


def training(losses=(), progress=0.0, seed=0) -> RenderContext:
    return RenderContext(progress, frozenset(losses), torch.Generator().manual_seed(seed))


def ball_scene(radius=0.5, density=400.0, **options) -> Nerf:
    """A hard ball, red above and blue below, in place of the field."""
    scene = make_scene(**options)

    def inside(points):
        return density * (0.5 - 100 * (points.norm(dim=-1) - radius)).clamp(0, 1)

    def both(points):
        top = (points[:, 2:] > 0).float()
        return inside(points), torch.cat([top, torch.zeros_like(top), 1 - top], dim=-1)

    scene.field.density, scene.field.forward = inside, both
    scene.occupancy.estimator.occs.zero_()
    for step in range(0, 64, 16):
        scene.occupancy.update(step, scene.density)
    return scene


def train(scene, optimizer, steps, start=0):
    """A few steps towards a red image, as the trainer does them."""
    cameras = orbit(2, size=16)
    for step in range(start, start + steps):
        out = scene.render(cameras, torch.zeros(2, 3), training(["distortion"], step / 20, seed=step))
        loss = (out.rgb - torch.tensor([1.0, 0.0, 0.0])).square().mean() + scene.regularizers(out)["distortion"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        scene.after_step(step, 20, out, optimizer)


def make_optimizer(scene):
    return torch.optim.Adam([{"params": g.parameters, "lr": g.lr, "eps": g.eps} for g in scene.param_groups()])


def test_is_a_scene_and_listed() -> None:
    assert isinstance(make_scene(), Scene)
    assert SCENES["nerf"] is NerfConfig


def test_same_seed_same_start() -> None:
    first, again, other = make_scene(3), make_scene(3), make_scene(4)
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert not torch.equal(first.field.table, other.field.table)


def test_start_is_a_soft_grey_ball() -> None:
    out = make_scene().render(orbit(2, size=32), torch.ones(2, 3))
    assert out.opacity[:, 16, 16].min() > 0.8
    assert out.opacity[:, 0, 0].max() == 0
    assert (out.rgb[:, 0, 0] == 1).all()
    assert out.rgb[:, 16, 16].sub(0.5).abs().max() < 0.15


def test_a_ball_looks_as_it_should() -> None:
    cameras = orbit(2, elevation_deg=0, distance=3.0, size=65)
    background = torch.tensor([[0.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
    with torch.no_grad():
        out = ball_scene().render(cameras, background)
    assert out.normal is None
    focal = float(cameras.intrinsics[0, 0, 0])
    area = math.pi * (focal * 0.5 / math.sqrt(9 - 0.25)) ** 2  # of the silhouette: a circle of tangents
    assert out.opacity[0].sum() == pytest.approx(area, rel=0.02)
    assert out.opacity[0].max() <= 1 + 1e-6
    assert (out.rgb[:, 0, 0] == background).all()
    torch.testing.assert_close(out.rgb[:, 24, 32], torch.tensor([[1.0, 0, 0]]).expand(2, 3), atol=2e-3, rtol=0)
    torch.testing.assert_close(out.rgb[:, 40, 32], torch.tensor([[0.0, 0, 1]]).expand(2, 3), atol=2e-3, rtol=0)
    assert out.depth[0, 32, 32] == pytest.approx(2.5, abs=0.04)


def test_depth_is_along_the_cameras_z_and_not_along_the_ray() -> None:
    cameras = orbit(1, elevation_deg=0, distance=1.2, fov_deg=80, size=65)
    with torch.no_grad():
        out = ball_scene().render(cameras, torch.zeros(1, 3))
    across = 13 / float(cameras.intrinsics[0, 0, 0])  # pixels from the middle: the ray is (across, 0, 1) z
    z = (1.2 - math.sqrt(1.2**2 - (1 + across**2) * (1.2**2 - 0.5**2))) / (1 + across**2)
    assert z * math.sqrt(1 + across**2) > z + 0.04
    assert out.depth[0, 32, 32 + 13] / out.opacity[0, 32, 32 + 13] == pytest.approx(z, abs=0.02)


def test_normals_are_those_of_the_surface_by_either_way(monkeypatch) -> None:
    monkeypatch.setattr("sds3d.scenes.nerf_field.BLOB_STRENGTH", 40.0)  # a hard ball
    scene, cameras = make_scene(), orbit(1, elevation_deg=0, distance=3.0, size=65)
    with torch.no_grad():
        analytic = scene.render(cameras, torch.zeros(1, 3), RenderContext(normals=True))
    differences = scene.render(cameras, torch.zeros(1, 3), RenderContext(normals=True))
    toward_camera = torch.tensor([1.0, 0, 0])
    torch.testing.assert_close(analytic.normal[0, 32, 32], toward_camera, atol=0.02, rtol=0)
    solid = analytic.opacity[0, ..., 0] > 0.9
    torch.testing.assert_close(analytic.normal[0].norm(dim=-1)[solid], torch.ones(int(solid.sum())))
    assert F.cosine_similarity(analytic.normal, differences.normal, dim=-1)[0][solid].min() > 0.99
    assert (analytic.normal[0, 0, 0] == 0).all()
    assert analytic.normal[0, 20, 32, 2] > 0.5  # the upper half looks up
    differences.normal.square()[..., 0].sum().backward()
    assert scene.field.table.grad.abs().max() > 0


def test_samples_that_nobody_sees_are_left_out(monkeypatch) -> None:
    seen, rendered = [], []
    for depth in (6.0, 1e9):
        scene = ball_scene(density=100.0)
        monkeypatch.setattr("sds3d.scenes.occupancy.HIDDEN_DEPTH", depth)
        forward = scene.field.forward
        scene.field.forward = lambda points, forward=forward: seen.append(len(points)) or forward(points)
        with torch.no_grad():
            rendered.append(scene.render(orbit(1, size=32), torch.ones(1, 3)))
    assert seen[0] < 0.6 * seen[1]
    for name in ("rgb", "opacity", "depth"):
        assert (getattr(rendered[0], name) - getattr(rendered[1], name)).abs().max() < 0.003 * 3


def test_fog_is_marched_in_longer_steps_and_pictures_in_shorter_ones(monkeypatch) -> None:
    step = {"start": 0.1, "end": 0.05, "begin_at": 0.5, "end_at": 0.5}
    scene, seen = make_scene(step=step), []
    monkeypatch.setattr("sds3d.scenes.occupancy.HIDDEN_DEPTH", 1e9)
    forward = scene.field.forward
    scene.field.forward = lambda points: seen.append(len(points)) or forward(points)
    for when in (training(), training(progress=0.5), RenderContext()):
        scene.render(orbit(1, size=16), torch.ones(1, 3), when)
    assert seen[1] == pytest.approx(2 * seen[0], rel=0.1)
    assert seen[2] == pytest.approx(4 * seen[0], rel=0.1)
    for end in (0.0, 1.0):  # the second leaves no sample in the ball
        with pytest.raises(ValueError, match="above 0 and below 1"):
            NerfConfig(step={**step, "end": end})


def test_an_empty_scene_shows_the_background_and_still_has_a_gradient(monkeypatch) -> None:
    monkeypatch.setattr("sds3d.scenes.nerf_field.DENSITY_SCALE", 0.0)
    scene = make_scene()
    assert not scene.occupancy.binaries.any()
    out = scene.render(orbit(1, size=16), torch.full((1, 3), 0.3), training(RAY_LOSSES))
    assert (out.rgb == 0.3).all()
    assert (out.opacity == 0).all()
    (out.rgb.sum() + sum(scene.regularizers(out).values())).backward()
    assert (scene.field.table.grad == 0).all()


def test_chunks_bound_the_memory_and_change_nothing_else() -> None:
    cameras, found = orbit(2, size=32), {}
    for chunk in (128, 256, 512, 4096):
        scene = make_scene(chunk=chunk, shading={"begin_at": 0, "albedo_share": 0})
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
            out = scene.render(cameras, torch.ones(2, 3), training(NerfConfig.losses, progress=0.5))
            losses = scene.regularizers(out)
            (out.rgb.square().sum() + out.depth.sum() + sum(losses.values())).backward()
        events = trace.profiler.kineto_results.events()
        steps = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
        held = torch.tensor([size for _, size in steps]).cumsum(0)
        found[chunk] = (int(held.max()), out, losses, [p.grad for p in scene.parameters()])
    peaks = [found[chunk][0] for chunk in (128, 256, 512, 4096)]
    assert all(1.2 * small < large for small, large in itertools.pairwise(peaks)), peaks
    for chunk in (128, 256, 512):
        for name in ("rgb", "opacity", "depth", "normal"):
            torch.testing.assert_close(getattr(found[chunk][1], name), getattr(found[4096][1], name))
        torch.testing.assert_close(found[chunk][2], found[4096][2])
        for got, want in zip(found[chunk][3], found[4096][3], strict=True):  # sums in another order
            assert_agrees(got, want, "a gradient", relative=1e-3)


def test_dear_regularizers_are_computed_where_they_are_asked_for_and_only_there() -> None:
    scene, cameras = make_scene(), orbit(1, size=16)
    asked = []
    normals = scene.field.normals
    scene.field.normals = lambda *given: asked.append(given) or normals(*given)
    assert scene.regularizers(scene.render(cameras, torch.ones(1, 3), training(["sparsity"]))).keys() == {"sparsity"}
    assert not asked
    for name in NerfConfig.losses:
        scene.zero_grad()
        out = scene.render(cameras, torch.ones(1, 3), training([name]))
        losses = scene.regularizers(out)
        assert losses.keys() == {name}
        assert losses[name] > 0
        losses[name].backward()
        assert scene.field.table.grad.abs().max() > 0, name
    assert len(asked) == 2  # orientation and normal_smoothness


def test_z_variance_falls_where_a_surface_becomes_thin() -> None:
    cameras = orbit(1, size=24)

    def thickness(scene):
        with torch.no_grad():
            return scene.regularizers(scene.render(cameras, torch.ones(1, 3), training(["z_variance"])))["z_variance"]

    assert thickness(ball_scene(density=300.0)) < 0.1 * thickness(ball_scene(density=5.0))


def test_light_changes_the_colours_in_training_and_pictures_are_unlit() -> None:
    cameras, black = orbit(2, size=16), torch.zeros(2, 3)
    plain, lit = make_scene(), make_scene(shading={"begin_at": 0.5, "albedo_share": 0, "textureless_share": 1})
    early, late = training(progress=0.4), training(progress=0.6)
    first, second = lit.render(cameras, black, early), lit.render(cameras, black, late)
    torch.testing.assert_close(first.rgb, plain.render(cameras, black, training(progress=0.4)).rgb)
    assert (second.rgb - first.rgb).abs().max() > 0.1
    torch.testing.assert_close(second.rgb[..., 0], second.rgb[..., 2])  # white light on white
    torch.testing.assert_close(lit.render(cameras, black).rgb, plain.render(cameras, black).rgb)


def test_finer_grids_come_in_one_after_the_other() -> None:
    scene = make_scene(field={"start_levels": 2})
    points = torch.rand(50, 3) - 0.5
    for progress, expected in {0.0: [1, 1, 0, 0], 0.125: [1, 1, 0.5, 0], 0.25: [1, 1, 1, 0], 0.5: [1] * 4}.items():
        scene.field.show_levels(progress)
        assert scene.field.level_weights.tolist() == expected
        shown = scene.field.features(points).view(50, 4, 2).abs().amax(dim=(0, 2)) > 0
        assert shown.tolist() == [weight > 0 for weight in expected]
    assert make_scene(field={"start_levels": 2}).field.level_weights.tolist() == [1, 1, 0, 0]
    assert make_scene().field.level_weights.tolist() == [1] * 4


def test_resume_is_bit_equal(monkeypatch) -> None:
    options = {"field": {"start_levels": 2}}
    scene = make_scene(**options)
    monkeypatch.setattr("sds3d.scenes.occupancy.EVERY", 3)
    optimizer = make_optimizer(scene)
    train(scene, optimizer, 5)
    saved = copy.deepcopy((scene.state_dict(), optimizer.state_dict()))
    train(scene, optimizer, 5, start=5)
    torch.testing.assert_close(scene.field.level_weights, torch.tensor([1, 1, 1, 0.8]))  # after 9/20 of the run

    resumed = make_scene(seed=9, **options)
    again = make_optimizer(resumed)
    resumed.load_state_dict(saved[0])
    again.load_state_dict(saved[1])
    torch.manual_seed(12345)  # no draw may come from the global generator
    train(resumed, again, 5, start=5)
    for name, value in scene.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_the_coarsest_grid_is_not_finer_than_the_finest() -> None:
    with pytest.raises(ValueError, match="greater than or equal to 8"):
        FieldConfig(finest_resolution=7)


def test_param_groups_cover_every_parameter_with_its_rate() -> None:
    scene = make_scene()
    groups = {group.name: group for group in scene.param_groups()}
    assert {name: group.lr for name, group in groups.items()} == {"table": 0.02, "network": 0.01}
    assert {id(p) for g in groups.values() for p in g.parameters} == {id(p) for p in scene.parameters()}


@pytest.mark.slow
def test_the_mesh_of_a_ball_is_a_ball_with_its_colours() -> None:
    scene = ball_scene()
    options = {"resolution": 48, "faces": 3000, "color_size": 96, "color": "vertex", "level": 200.0}
    mesh = extract_mesh(scene, ExportConfig(**options))
    stats = check_geometry(mesh)
    assert stats.pieces == 1
    assert stats.volume == pytest.approx(4 / 3 * math.pi * 0.5**3, rel=0.08)
    top, bottom = mesh.vertices[:, 2] > 0.1, mesh.vertices[:, 2] < -0.1
    assert mesh.colors[top].mean(axis=0) == pytest.approx([1, 0, 0], abs=0.05)
    assert mesh.colors[bottom].mean(axis=0) == pytest.approx([0, 0, 1], abs=0.05)
