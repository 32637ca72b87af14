"""The mesh as a scene: what it renders is the surface, its gradients move the surface to what pictures show."""

import copy
import math

import pytest
import torch
import trimesh
from torch import nn

from sds3d.cameras import CamerasConfig, orbit, sample_cameras
from sds3d.errors import ConfigError
from sds3d.ops.triangle_geometry import face_normals, vertex_normals
from sds3d.scenes import SCENES, MeshConfig, Scene
from sds3d.scenes import mesh as module
from sds3d.scenes.base import RenderContext
from sds3d.scenes.mesh import BOUND_RADIUS, PALETTE_AT, Mesh
from sds3d.scenes.optimizer import OptimConfig, build_optimizer
from sds3d.scenes.shading import ShadingConfig, Sun
from sds3d.scenes.surface_color import PaletteField

SUN = Sun(direction=(0.0, 0.0, 2.0), ambient=0.5, diffuse=0.25)


def make_scene(seed=0, **options) -> Mesh:
    return MeshConfig(**options).build(torch.Generator().manual_seed(seed))


def of_mesh(mesh: trimesh.Trimesh, **options) -> Mesh:
    scene = make_scene(**options)
    scene.set_surface(torch.tensor(mesh.vertices, dtype=torch.float32), torch.tensor(mesh.faces).int())
    return scene


def training(progress=0.0, seed=0) -> RenderContext:
    return RenderContext(progress, frozenset(), torch.Generator().manual_seed(seed))


class HalfRed(nn.Module):
    """Red above, white below."""

    def forward(self, points):
        red, white = points.new_tensor([0.9, 0.1, 0.1]), points.new_tensor([0.9, 0.9, 0.9])
        return torch.where(points[:, 2:] > 0.1, red, white)

    finished = forward


def target(**options) -> Mesh:
    """A box of two colours."""
    scene = of_mesh(trimesh.creation.box((0.9, 0.7, 0.8)).subdivide_to_size(0.15), **options)
    scene.color_field = HalfRed()
    return scene


def test_it_is_a_scene_of_that_name() -> None:
    assert SCENES["mesh"] is MeshConfig
    assert isinstance(make_scene(), Scene)


def test_a_ball_looks_like_a_ball() -> None:
    """A sphere of radius r at distance d covers a disc of radius f r / sqrt(d^2 - r^2) pixels."""
    scene, cameras = make_scene(), orbit(2, size=64)
    with torch.no_grad():
        out = scene.render(cameras, torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]), RenderContext(normals=True))
    distance, focal = 2.9, float(cameras.intrinsics[0, 0, 0])
    area = math.pi * (focal * 0.5) ** 2 / (distance**2 - 0.5**2)
    assert float(out.opacity[0].sum()) == pytest.approx(area, rel=0.01)  # the faces lie inside the sphere
    middle = (slice(None), 32, 32)
    assert out.depth[middle].flatten().tolist() == pytest.approx([distance - 0.5] * 2, abs=0.01)
    towards = cameras.camera_to_world[:, :3, 3] / distance
    assert torch.allclose(out.normal[middle], towards, atol=0.06)
    corner = (slice(None), 0, 0)
    assert out.rgb[corner].tolist() == [[0, 0, 0], [1, 1, 1]]
    assert out.opacity[corner].flatten().tolist() == [0, 0]


def test_the_sun_falls_on_normals_and_stays_out_of_the_colours() -> None:
    normals = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.6, 0.0, 0.8]])
    assert SUN.on(normals).tolist() == pytest.approx([0.75, 0.5, 0.5, 0.5 + 0.25 * 0.8])
    with pytest.raises(ValueError, match="must not be 0"):
        Sun(direction=(0, 0, 0), ambient=0.5, diffuse=0.5)
    plain, lit = target(), target(light=SUN)
    cameras = orbit(1, elevation_deg=89, size=32)
    with torch.no_grad():
        above = [scene.render(cameras, torch.zeros(1, 3)).rgb[0, 16, 16] for scene in (plain, lit)]
    torch.testing.assert_close(above[1], 0.75 * above[0], rtol=1e-3, atol=1e-3)
    points = torch.tensor([[0.0, 0.0, 0.4]])
    assert torch.equal(plain.color(points), lit.color(points))


def test_random_light_is_for_training_only() -> None:
    scene, cameras, black = (
        target(shading=ShadingConfig(begin_at=0.0, albedo_share=0.0)),
        orbit(2, size=16),
        torch.zeros(2, 3),
    )
    with torch.no_grad():
        plain = target().render(cameras, black, training()).rgb
        assert torch.equal(scene.render(cameras, black).rgb, target().render(cameras, black).rgb)
        assert not torch.allclose(scene.render(cameras, black, training(0.5)).rgb, plain, atol=0.02)
        unlit = RenderContext(0.5, (), torch.Generator().manual_seed(0), lit=False)
        assert torch.equal(scene.render(cameras, black, unlit).rgb, plain)


def fitted(scene: Mesh, steps: int, seed=0, start=0, optimizer=None):
    """Trained on pictures of the target, as the trainer trains it."""
    goal = target(light=scene.config.light)
    optimizer = optimizer or build_optimizer(OptimConfig(), scene, None)
    for step in range(start, start + steps):
        generator = torch.Generator().manual_seed(1000 * seed + step)
        cameras = sample_cameras(CamerasConfig(size=32), generator)
        background = torch.rand(4, 3, generator=generator)
        with torch.no_grad():
            want = goal.render(cameras, background, training())
        out = scene.render(cameras, background, training())
        (out.rgb - want.rgb).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        scene.after_step(step, 100, out, optimizer)
    return optimizer


def likeness(scene: Mesh) -> tuple[float, float]:
    """Silhouette IoU and mean colour error to the target, from other views."""
    cameras, white = orbit(6, elevation_deg=25, size=64), torch.ones(6, 3)
    with torch.no_grad():
        got, want = scene.render(cameras, white), target(light=scene.config.light).render(cameras, white)
    a, b = got.opacity > 0.5, want.opacity > 0.5
    return float((a & b).sum() / (a | b).sum()), float((got.rgb - want.rgb).abs()[b.expand_as(got.rgb)].mean())


@pytest.mark.slow
def test_a_ball_becomes_the_box_that_pictures_show() -> None:
    scene = make_scene(light=SUN)
    before = likeness(scene)
    fitted(scene, 120)
    iou, error = likeness(scene)
    assert before[0] < 0.8
    assert iou > 0.95
    assert error < 0.06 < before[1]
    # the light was not painted on: the top and a side of the lower half have the colours that they have
    colors = scene.color(torch.tensor([[0.0, 0.0, 0.4], [0.45, 0.0, -0.2]]))
    assert torch.allclose(colors, HalfRed()(torch.tensor([[0.0, 0.0, 0.4], [0.45, 0.0, -0.2]])), atol=0.15)


def test_a_run_that_is_loaded_goes_on_as_if_it_had_not_stopped() -> None:
    """Another topology than that of a fresh scene, and with the moments of the optimizer."""
    scene = of_mesh(trimesh.creation.box((0.8, 0.8, 0.8)).subdivide_to_size(0.3))
    optimizer = fitted(scene, 3)
    state, moments = copy.deepcopy(scene.state_dict()), copy.deepcopy(optimizer.state_dict())
    fitted(scene, 2, start=3, optimizer=optimizer)

    other = make_scene(seed=5)
    again = build_optimizer(OptimConfig(), other, None)
    other.load_state_dict(state)
    again.load_state_dict(moments)
    assert torch.equal(other.faces, scene.faces)
    fitted(other, 2, start=3, optimizer=again)
    for name, value in scene.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_inside_and_outside() -> None:
    scene = target()
    points = torch.tensor([[0.0, 0.0, 0.0], [0.43, 0.33, 0.38], [0.47, 0.0, 0.0], [0.0, 0.0, 0.9], [5.0, 5.0, 5.0]])
    assert scene.density(points).tolist() == [1, 1, 0, 0, 0]


def test_regularizers_by_hand() -> None:
    box = of_mesh(trimesh.creation.box((0.8, 0.8, 0.8)))
    losses = box.regularizers(box.render(orbit(1, size=8), torch.zeros(1, 3)))
    # border costs more, and was not asked for; the anchors are of files
    assert set(losses) == set(MeshConfig.losses) - {"border", "anchor", "anchor_color"}
    assert float(losses["normal_consistency"]) == pytest.approx(12 / 18, abs=1e-5)  # 6 diagonals are flat
    lengths = torch.tensor([0.8] * 12 + [0.8 * math.sqrt(2)] * 6)
    assert float(losses["edge_length"]) == pytest.approx(
        float(lengths.var(correction=0) / lengths.mean() ** 2), rel=1e-4
    )
    tetrahedron = of_mesh(
        trimesh.Trimesh(
            [[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], [[0, 1, 2], [0, 2, 3], [0, 3, 1], [1, 3, 2]]
        )
    )
    losses = tetrahedron.regularizers(tetrahedron.render(orbit(1, size=8), torch.zeros(1, 3)))
    assert float(losses["edge_length"]) == pytest.approx(0, abs=1e-6)
    # the mean of the three others is opposite: v - (-v / 3), of length 4/3 sqrt(3); edges are 2 sqrt(2) long
    assert float(losses["laplacian"]) == pytest.approx((16 / 9) * 3 / 8, rel=1e-4)


def test_vertices_stay_within_the_bounds() -> None:
    scene = make_scene()
    with torch.no_grad():
        scene.raw_vertices.mul_(3)
    out = scene.render(orbit(1, size=8), torch.zeros(1, 3))
    scene.after_step(0, 10, out, build_optimizer(OptimConfig(), scene, None))
    norm = scene.vertices().norm(dim=-1)
    assert float(norm.max()) <= BOUND_RADIUS + 1e-4
    assert float(norm.min()) > 1.0  # scaled back, and not away


def test_normals_of_a_ball() -> None:
    ball = trimesh.creation.icosphere(3, 0.7)
    vertices, faces = torch.tensor(ball.vertices).float(), torch.tensor(ball.faces).int()
    assert float((vertex_normals(vertices, faces) * vertices / 0.7).sum(-1).min()) > 0.999
    torch.testing.assert_close(
        face_normals(vertices, faces), torch.tensor(ball.face_normals.copy()).float(), atol=1e-4, rtol=0
    )


def test_colours_have_no_gradient_to_places_but_light_and_outlines_have() -> None:
    scene, dark = make_scene(light=SUN), make_scene()
    for each, moved in ((scene, True), (dark, False)):
        out = each.render(orbit(1, size=16), torch.zeros(1, 3), training())
        inner = out.rgb[0, 6:10, 6:10].sum()  # no outline here
        (grad,) = torch.autograd.grad(inner, each.raw_vertices, allow_unused=True, retain_graph=True)
        assert (grad is not None and bool(grad.abs().max() > 0)) == moved
        (grad,) = torch.autograd.grad(out.opacity.sum(), each.raw_vertices)
        assert grad.abs().max() > 0


@pytest.mark.slow
def test_a_rough_box_is_finished_once_until_it_moves_again() -> None:
    """It comes out with flat sides; that it did is part of its state."""
    box = trimesh.creation.box((0.9, 0.7, 0.8)).subdivide_to_size(0.06)
    box.merge_vertices()
    rough = torch.tensor(box.vertices, dtype=torch.float32)
    rough = rough + 0.008 * torch.randn(rough.shape, generator=torch.Generator().manual_seed(0))
    scene = make_scene()
    scene.set_surface(rough, torch.tensor(box.faces).int())

    def off_the_axes():  # mean angle between faces' normals and the nearest axis
        cosine = face_normals(*scene.surface()).abs().amax(1).clamp(max=1)
        return float(cosine.arccos().rad2deg().mean())

    before = off_the_axes()
    assert not scene.is_finished
    assert scene.finish() is None
    assert scene.is_finished
    assert off_the_axes() < 0.3 * before
    again, kept = make_scene(), scene.raw_vertices
    again.load_state_dict(scene.state_dict())
    assert again.is_finished
    assert scene.finish() is None
    assert scene.raw_vertices is kept
    out = again.render(orbit(1, size=16), torch.zeros(1, 3), training())
    again.after_step(10, 20, out, build_optimizer(OptimConfig(), again, None))
    assert not again.is_finished


@pytest.mark.slow
def test_a_finish_that_changes_what_is_seen_is_left_out(monkeypatch) -> None:
    scene, rounds = target(finish=2), []

    def shrunk(vertices, faces, count, number):
        rounds.append(number)
        return 0.7 * vertices, faces

    monkeypatch.setattr(module, "finish", shrunk)
    before = scene.vertices().detach()
    assert "outlines would change too much" in scene.finish()
    assert rounds == [2, 1]
    assert scene.is_finished  # it would come out the same again
    torch.testing.assert_close(scene.vertices(), before, atol=1e-5, rtol=0)


def test_a_surface_that_cannot_be_finished_stays_and_says_why() -> None:
    scene = target()
    vertices, faces = scene.surface()
    scene.set_surface(vertices, torch.cat([faces, faces[:1]]))  # an edge of three faces
    assert "the surface is not finished: " in scene.finish()
    torch.testing.assert_close(scene.vertices().detach(), vertices, atol=1e-5, rtol=0)


@pytest.mark.parametrize("outcome", ["fits", "shrunk", "none", "refused"])
def test_exact_shapes_are_taken_where_outlines_allow_it(monkeypatch, outcome) -> None:
    """The smallest of changes is taken, what outlines forbid is not, and what is not possible is told."""

    def exact(vertices, faces):
        if outcome == "refused":
            raise ConfigError("an edge has 3 faces")
        return vertices * (0.8 if outcome == "shrunk" else 0.99), faces, [] if outcome == "none" else ["a plane"]

    monkeypatch.setattr(module, "with_primitives", exact)
    monkeypatch.setattr(module, "finish", lambda vertices, faces, *_: (vertices, faces))
    scene = target(finish=1, primitives=True)
    before = scene.vertices().detach()
    said = scene.finish()
    assert said == (
        "planes, spheres and cones are not made exact: an edge has 3 faces" if outcome == "refused" else None
    )
    factor = 0.99 if outcome == "fits" else 1.0
    torch.testing.assert_close(scene.vertices().detach(), factor * before, atol=1e-5, rtol=0)
    assert scene.is_finished


def test_what_needs_no_finish_is_finished() -> None:
    scene = make_scene(finish=0)
    assert scene.is_finished
    assert scene.finish() is None


def test_kernels_that_are_missing_are_named_before_a_run(monkeypatch) -> None:
    monkeypatch.setattr(module, "compiled", lambda: False)
    with pytest.raises(ConfigError, match=r"scene.finish = 3 needs sds3d's compiled kernels.*build them with"):
        MeshConfig().check(torch.device("cpu"))
    MeshConfig(finish=0).check(torch.device("cpu"))
    MeshConfig(geometry="fixed", source={"path": "a.glb"}).check(torch.device("cpu"))  # it is never finished


def test_one_second_moment_for_all_vertices_and_adam_for_the_rest() -> None:
    """Against the formula for `uniform` groups, against torch.optim.Adam bit for bit for the others."""
    scene = make_scene()
    optimizer = build_optimizer(OptimConfig(), scene, None)
    twin = copy.deepcopy(list(scene.color_field.parameters()))
    adam = torch.optim.Adam([{"params": twin, "lr": 0.01, "eps": 1e-15}], betas=(0.9, 0.99), foreach=False)
    start, m, v = scene.raw_vertices.detach().clone(), 0.0, 0.0
    for step in range(1, 4):
        generator = torch.Generator().manual_seed(step)
        grad = torch.randn(scene.raw_vertices.shape, generator=generator)
        scene.raw_vertices.grad = grad.clone()
        for own, other in zip(scene.color_field.parameters(), twin, strict=True):
            own.grad = torch.randn(own.shape, generator=generator)
            other.grad = own.grad.clone()
        optimizer.step()
        adam.step()
        m, v = 0.9 * m + 0.1 * grad, 0.99 * v + 0.01 * float(grad.square().max())
        start = start - 0.03 * m / (1 - 0.9**step) / math.sqrt(v / (1 - 0.99**step))
    torch.testing.assert_close(scene.raw_vertices.detach(), start, rtol=1e-5, atol=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(scene.color_field.parameters(), twin, strict=True))


def painted(scene: Mesh) -> Mesh:
    """With a red half and a white one, as soft as a field has them, before there is a palette."""
    points = torch.rand(4000, 3, generator=torch.Generator().manual_seed(0)) * 1.2 - 0.6
    PaletteField.fit(scene.color_field, points, HalfRed()(points), torch.Generator().manual_seed(0))
    return scene


def with_palette(seed=0, **options) -> Mesh:
    colors = {"palette": True, "finest_resolution": 32, "log2_table": 10, "hidden": 8}
    scene = of_mesh(trimesh.creation.box((0.8, 0.8, 0.8)).subdivide_to_size(0.3), colors=colors, finish=0, **options)
    scene.color_field.table.data += 1e-5 * seed
    return scene


def step_of(scene: Mesh, optimizer, step: int, steps: int) -> None:
    """One step of a run towards the target."""
    context = RenderContext(step / steps, ("border",), torch.Generator().manual_seed(step))
    cameras = sample_cameras(CamerasConfig(size=16), context.generator)
    background = torch.zeros(4, 3)
    with torch.no_grad():
        want = target().render(cameras, background, training())
    out = scene.render(cameras, background, context)
    ((out.rgb - want.rgb).square().mean() + scene.regularizers(out)["border"]).backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    scene.after_step(step, steps, out, optimizer)


@pytest.mark.slow
def test_a_palette_is_found_on_the_way_and_a_resume_changes_nothing() -> None:
    """Before it and after it: a fresh scene has another number of colours than the saved one."""
    scene = painted(with_palette())
    optimizer = build_optimizer(OptimConfig(), scene, None)
    saved = {}
    steps = 8
    for step in range(steps):
        step_of(scene, optimizer, step, steps)
        saved[step] = copy.deepcopy(scene.state_dict()), copy.deepcopy(optimizer.state_dict())
        assert scene.color_field.has_palette == ((step + 1) / steps >= PALETTE_AT)
    palette = scene.color_field.palette.detach()
    assert len(palette) == 2
    assert float(torch.cdist(torch.tensor([[0.9, 0.1, 0.1], [0.9, 0.9, 0.9]]), palette).amin(1).max()) < 0.15
    for stopped in (1, 5):
        again = with_palette(seed=7)
        other = build_optimizer(OptimConfig(), again, None)
        again.load_state_dict(saved[stopped][0])
        other.load_state_dict(saved[stopped][1])
        for step in range(stopped + 1, steps):
            step_of(again, other, step, steps)
        for name, value in scene.state_dict().items():
            assert torch.equal(value, again.state_dict()[name]), (stopped, name)


def test_borders_are_measured_where_they_are_asked_for() -> None:
    scene = with_palette()
    cameras, black = orbit(1, size=8), torch.zeros(1, 3)

    def losses(*names):
        return scene.regularizers(scene.render(cameras, black, RenderContext(0.5, names, torch.Generator())))

    assert losses("border")["border"] == 0  # there is no palette yet
    scene.color_field.choose(torch.tensor([[0.9, 0.1, 0.1], [0.9, 0.9, 0.9]]), torch.Generator())
    assert "border" not in losses()
    border = losses("border")["border"]
    assert border > 0
    border.backward()
    assert scene.color_field.table.grad.abs().max() > 0
    assert [group.name for group in scene.param_groups()] == ["vertices", "colors", "palette"]
    assert [group.name for group in make_scene().param_groups()] == ["vertices", "colors"]


def test_pictures_and_exports_have_harder_borders_than_training() -> None:
    scene = with_palette()
    places = scene.surface()[0].repeat(20, 1)
    scene.take_on_colors(places, HalfRed()(places), torch.Generator())
    cameras, black = orbit(2, size=32), torch.zeros(2, 3)
    with torch.no_grad():
        soft, hard = (scene.render(cameras, black, context).rgb for context in (training(), RenderContext()))
        assert torch.equal(scene.color(places), scene.color_field.finished(places))
    assert not torch.allclose(soft, hard, atol=0.02)


@pytest.mark.parametrize("fixed", [False, True])
def test_a_finish_settles_the_borders_of_a_palette(tmp_path, fixed) -> None:
    """Red above, white below, and noise where they meet; the shape of a file stays."""
    if fixed:
        trimesh.creation.box((0.8, 0.8, 0.8)).export(tmp_path / "box.ply")
        source = {"path": str(tmp_path / "box.ply"), "up": "z", "front": "x"}
        colors = {"palette": True, "finest_resolution": 64, "log2_table": 14}
        scene = MeshConfig(geometry="fixed", source=source, colors=colors).build(torch.Generator())
    else:
        scene = with_palette()
    assert scene.is_finished  # there is nothing to finish yet
    field, generator = scene.color_field, torch.Generator().manual_seed(0)
    field.choose(torch.tensor([[0.9, 0.1, 0.1], [0.9, 0.9, 0.9]]), generator)
    before = scene.vertices().detach().clone()
    places = module.surface_points(*scene.surface(), 20_000, generator)
    noisy = places[:, 2:] + 0.08 * torch.randn(len(places), 1, generator=generator)
    field.fit(places, torch.where(noisy > 0, field.palette[0], field.palette[1]).detach(), generator)
    assert not scene.is_finished
    field.sharpness.fill_(1e4)
    ragged = float(field.border(places, generator))
    field.sharpness.fill_(10.0)
    assert scene.finish() is None
    assert scene.is_finished
    torch.testing.assert_close(scene.vertices().detach(), before)
    clear = places[:, 2].abs() > 0.04
    right = (scene.color(places)[:, 1] < 0.5) == (places[:, 2] > 0)
    assert right[clear].float().mean() > 0.995
    field.sharpness.fill_(1e4)
    assert float(field.border(places, generator)) < ragged
