"""The triangle rasterizer and interpolation: written-out cases, random meshes against float64, CUDA, bad values."""

import math

import numpy as np
import pytest
import torch
import trimesh

from sds3d.cameras import orbit, pixel_directions, project
from sds3d.ops.extension import INSTRUCTION_SETS, compiled
from sds3d.ops.rasterize_triangles import (
    interpolate,
    interpolate_reference,
    rasterize_triangles,
    rasterize_triangles_reference,
)
from tests.ops.mesh_cases import KERNELS, REFERENCES, drawn, ellipsoid, random_mesh, tensors, undecided
from tests.ops.splat_cases import assert_agrees
from tests.sizes import FULL

needs_kernels = pytest.mark.skipif(not compiled(), reason="sds3d._C is not built")
BOTH = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])  # the kernels, the reference
SIZE = (20, 24)


def faces_of(rows) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.int32)


@BOTH
def test_a_triangle_by_hand(dtype) -> None:
    """Corners at depths 1, 2 and 4: 1/depth, and attribute/depth, are linear on the screen."""
    points = torch.tensor([[[0.0, 0.0, 1.0], [8.0, 0.0, 2.0], [0.0, 8.0, 4.0]]], dtype=dtype)
    image = rasterize_triangles(points, faces_of([[0, 1, 2]]), 8, 8)
    for y in range(8):
        for x in range(8):
            share = 1 - (x + 0.5) / 8 - (y + 0.5) / 8, (x + 0.5) / 8, (y + 0.5) / 8
            if share[0] < 0:
                assert image.face[0, y, x] == -1
                assert math.isinf(image.depth[0, y, x])
                assert image.barycentric[0, y, x].tolist() == [0, 0, 0]
                continue
            weights = [share[0] / 1, share[1] / 2, share[2] / 4]
            assert image.face[0, y, x] == 0
            assert float(image.depth[0, y, x]) == pytest.approx(1 / sum(weights), rel=1e-5)
            want = [w / sum(weights) for w in weights]
            assert image.barycentric[0, y, x].tolist() == pytest.approx(want, abs=1e-6)


@BOTH
def test_the_nearest_face_is_seen_and_of_equally_near_ones_the_first(dtype) -> None:
    square = [[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]]
    points = torch.tensor([[[*p, z] for z in (2.0, 1.0, 1.0) for p in square]], dtype=dtype)
    image = rasterize_triangles(points, faces_of([[0, 1, 2], [3, 4, 5], [6, 8, 7]]), 4, 4)
    assert (image.face == 1).all()


@BOTH
def test_no_pixel_falls_between_faces_that_share_an_edge(dtype) -> None:
    """Many corners lie right on pixels' centres, many edges pass through them."""
    generator = torch.Generator().manual_seed(0)
    grid = torch.stack(torch.meshgrid(torch.arange(13) - 0.5, torch.arange(13) - 0.5, indexing="xy"), -1).reshape(-1, 2)
    inner = (grid > 0).all(1) & (grid < 11).all(1)
    moved = torch.rand(len(grid), 2, generator=generator).sub(0.5) * (
        torch.rand(len(grid), 1, generator=generator) < 0.5
    )
    grid = grid + 0.9 * moved * inner[:, None]
    corner = torch.arange(12)[:, None] * 13 + torch.arange(12)
    a, b, c, d = (corner + k for k in (0, 1, 13, 14))
    faces = torch.cat([torch.stack(f, -1).reshape(-1, 3) for f in ((a, b, c), (b, d, c))]).int()
    points = torch.cat([grid, torch.ones(len(grid), 1)], 1)[None].to(dtype)
    assert (rasterize_triangles(points, faces, 11, 11).face >= 0).all()


@pytest.mark.slow
@needs_kernels
def test_random_meshes_agree_with_the_reference_in_float64() -> None:
    compared = 0
    for seed in range(200 if FULL else 50):
        points, faces = random_mesh(seed, *SIZE)
        got = rasterize_triangles(points, faces, *SIZE)
        want = rasterize_triangles_reference(points.double(), faces, *SIZE)
        sure = ~undecided(points, faces, *SIZE)
        assert torch.equal(got.face[sure], want.face[sure]), seed
        seen = sure & (want.face >= 0)
        compared += int(seen.sum())
        torch.testing.assert_close(got.depth[seen].double(), want.depth[seen], rtol=1e-4, atol=0)
        torch.testing.assert_close(got.barycentric[seen].double(), want.barycentric[seen], rtol=0, atol=2e-3)
    assert compared > (50_000 if FULL else 12_500)


def gradients_of(ops, points, faces, attributes, upstream, dtype):
    """The image, and the gradients to points and attributes; slivers' faces are drawn and get no upstream gradient."""
    p, a = points.to(dtype).clone().requires_grad_(), attributes.to(dtype).clone().requires_grad_()
    image = drawn(ops, p, faces, a, SIZE)
    image.backward(upstream.to(dtype))
    return [t.detach().cpu().double() for t in (image, p.grad, a.grad)]


def assert_gradients_agree(device: str, seeds, many: bool) -> None:
    for seed in seeds:
        points, faces = random_mesh(seed, *SIZE)
        generator = torch.Generator().manual_seed(seed)
        attributes = torch.rand(*((2,) if many else ()), points.shape[1], 3, generator=generator)
        image = rasterize_triangles_reference(points.double(), faces, *SIZE)
        # Where float32 decides otherwise, and on slivers, whose gradients are without bounds, nothing flows back.
        sure = ~undecided(points, faces, *SIZE) & (image.face < len(faces) - 2)
        sure &= ~torch.nn.functional.max_pool2d((~sure).float(), 3, 1, 1).bool()  # outlines read their neighbours
        upstream = torch.randn(2, *SIZE, 4, generator=generator) * sure[..., None]
        given = [t.to(device) for t in (points, faces, attributes, upstream)]
        got = gradients_of(KERNELS, *given, torch.float32)
        want = gradients_of(REFERENCES, *given, torch.float64)
        assert_agrees(got[0] * sure[..., None], want[0] * sure[..., None], f"image {seed}", relative=1e-3)
        assert_agrees(got[1], want[1], f"grad_points {seed}", relative=1e-3)
        assert_agrees(got[2], want[2], f"grad_attributes {seed}", relative=1e-4)


@pytest.mark.slow
@needs_kernels
@pytest.mark.parametrize("many", [False, True])
def test_gradients_of_random_meshes_agree_with_the_reference(many) -> None:
    count = 100 if FULL else 25
    assert_gradients_agree("cpu", range(count * many, count * many + count), many)


def test_every_instruction_set_computes_the_same_bits(instruction_set) -> None:
    """Nothing is contracted or estimated, so an edge's two faces agree on it whatever the processor."""
    size, found = (40, 70), []
    for level in (INSTRUCTION_SETS.index(instruction_set), 0):
        torch.ops.sds3d.limit_instruction_set(level)
        for seed in range(5):
            points, faces = random_mesh(seed, *size)
            image = rasterize_triangles(points.requires_grad_(), faces, *size)
            upstream = torch.randn(image.barycentric.shape, generator=torch.Generator().manual_seed(seed))
            found.append([*image, *torch.autograd.grad(image.barycentric, [points], upstream)])
    for one, other in zip(found[:5], found[5:], strict=True):
        assert all(torch.equal(x, y) for x, y in zip(one, other, strict=True))


def test_boxes_of_every_width_are_covered_once(instruction_set) -> None:
    """The kernels look at 16 pixels together, of one row or of several."""
    for width in range(1, 51):
        corners = [[2.0, 1.0], [2.0 + width, 1.0], [2.0, 4.0], [2.0 + width, 4.0]]
        points = torch.tensor([[[*p, 1.0] for p in corners]])
        face = rasterize_triangles(points, faces_of([[0, 1, 2], [1, 3, 2]]), 6, 60).face[0]
        want = torch.zeros(6, 60, dtype=torch.bool)
        want[1:4, 2 : 2 + width] = True
        assert torch.equal(face >= 0, want), width


@pytest.mark.parametrize("many", [False, True])
def test_the_cuda_kernels_agree_with_the_reference(cuda_kernels, many) -> None:
    assert_gradients_agree(cuda_kernels, range(6), many)


def test_the_cuda_kernels_see_the_faces_that_the_cpu_sees(cuda_kernels) -> None:
    cpu = rasterize_triangles_reference
    vertices, faces = ellipsoid(2)
    points = project(vertices, orbit(2, size=48))
    got = rasterize_triangles(points.to(cuda_kernels), faces.to(cuda_kernels), 48, 48)
    want = cpu(points.double(), faces, 48, 48)
    assert torch.equal(got.face.cpu(), want.face)
    torch.testing.assert_close(got.depth.cpu().double(), want.depth, rtol=1e-5, atol=0)


def test_deterministic_gradients_repeat_in_any_order(cuda_kernels) -> None:
    """Faces in another order, and on the emulated device threads in another order too, add up to the same bits."""
    points, faces = random_mesh(3, *SIZE)
    attributes = torch.rand(points.shape[1], 3, generator=torch.Generator().manual_seed(0))
    upstream = torch.randn(2, *SIZE, 4, generator=torch.Generator().manual_seed(1))
    torch.use_deterministic_algorithms(True)
    try:
        found = [
            gradients_of(KERNELS, *(t.to(cuda_kernels) for t in (points, faces, attributes, upstream)), torch.float32)
            for _ in range(2)
        ]
    finally:
        torch.use_deterministic_algorithms(False)
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)
    want = gradients_of(REFERENCES, points, faces, attributes, upstream, torch.float32)
    assert_agrees(found[0][2], want[2], "grad_attributes", relative=1e-4)


@needs_kernels
def test_results_do_not_depend_on_threads() -> None:
    vertices, faces = ellipsoid(4)
    generator = torch.Generator().manual_seed(0)
    attributes, upstream = torch.rand(len(vertices), 3, generator=generator), None
    found, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            v = vertices.clone().requires_grad_()
            a = attributes.clone().requires_grad_()
            for views in (1, 4):
                image = drawn(KERNELS, project(v, orbit(views, size=64)), faces, a, (64, 64))
                upstream = torch.ones_like(image)
                found.append([image, *torch.autograd.grad(image.square().sum(), [v, a], retain_graph=True)])
    finally:
        torch.set_num_threads(before)
    assert upstream is not None
    for k in (2, 4):
        for views in (0, 1):
            assert all(torch.equal(x, y) for x, y in zip(found[views], found[k + views], strict=True))


@BOTH
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e30, -1e30])
@pytest.mark.parametrize("axis", [0, 2])
def test_a_corner_that_is_no_place_harms_no_other_face(dtype, value, axis) -> None:
    points, faces = random_mesh(1, *SIZE)
    spoilt = points.clone().to(dtype)
    spoilt[:, 0, axis] = value
    kept = faces[(faces != 0).all(1)]
    without = rasterize_triangles(points.to(dtype), kept, *SIZE)
    image = rasterize_triangles(spoilt, torch.cat([kept, faces[(faces == 0).any(1)]]), *SIZE)
    own = image.face >= len(kept)
    if not math.isfinite(value):
        assert not own.any()
    assert torch.equal(image.face[~own], without.face[~own])
    assert torch.isfinite(image.barycentric).all()


@BOTH
def test_nothing_to_draw(dtype) -> None:
    points, none = torch.rand(2, 5, 3, dtype=dtype) + 1, faces_of([]).reshape(0, 3)
    image = rasterize_triangles(points, none, 4, 6)
    assert (image.face == -1).all()
    assert interpolate(torch.rand(5, 3, dtype=dtype), none, image).abs().sum() == 0
    assert rasterize_triangles(points[:0], faces_of([[0, 1, 2]]), 4, 6).face.shape == (0, 4, 6)


def test_it_sees_what_another_renderer_sees() -> None:
    """Rays through the pixels' centres by trimesh, against all faces."""
    mesh = trimesh.creation.torus(0.5, 0.2, major_sections=12, minor_sections=8)
    vertices, faces = tensors(mesh)
    cameras = orbit(1, elevation_deg=50, size=24)
    image = rasterize_triangles(project(vertices, cameras), faces, 24, 24)
    eye = cameras.camera_to_world[0, :3, 3].double().numpy()
    ways = (pixel_directions(cameras)[0] @ cameras.camera_to_world[0, :3, :3].T).double().numpy()
    nearest = np.full(len(ways), np.inf)
    for triangle in mesh.triangles:
        at = triangle[None].repeat(len(ways), 0)
        normal = np.cross(triangle[1] - triangle[0], triangle[2] - triangle[0])
        along = ((triangle[0] - eye) @ normal) / (ways @ normal)  # z of a direction is 1, so this is depth
        share = trimesh.triangles.points_to_barycentric(at, eye + along[:, None] * ways)
        nearest = np.where((share >= 0).all(1) & (along < nearest), along, nearest)
    depth = image.depth[0].double().numpy().ravel()
    assert (np.isfinite(depth) == np.isfinite(nearest)).mean() > 0.995
    both = np.isfinite(depth) & np.isfinite(nearest)
    assert both.sum() > 100
    assert np.mean(np.abs(depth - nearest)[both] < 1e-4) > 0.99


@needs_kernels
def test_the_operators_keep_torch_s_rules() -> None:
    points, faces = random_mesh(0, 6, 6)
    attributes = torch.rand(points.shape[1], 2)
    image = rasterize_triangles(points, faces, 6, 6)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")  # the others add up whole numbers and inf
    given = (points.requires_grad_(), faces, 6, 6)
    torch.library.opcheck(torch.ops.sds3d.rasterize_triangles.default, given, test_utils=checks)
    given = (attributes.requires_grad_(), faces, image.face, image.barycentric.detach().requires_grad_())
    torch.library.opcheck(torch.ops.sds3d.interpolate.default, given)


def test_arguments_that_do_not_fit_are_refused() -> None:
    points, faces = random_mesh(0, *SIZE)
    with pytest.raises(IndexError, match=r"faces: expected indices in \[0, 24\), got 0 to 24"):
        rasterize_triangles(points, faces_of([[0, 1, 24]]), *SIZE)
    with pytest.raises(IndexError, match="got -1 to 2"):
        rasterize_triangles(points, faces_of([[-1, 1, 2]]), *SIZE)
    with pytest.raises(TypeError, match=r"expected int32, got torch\.int64"):
        rasterize_triangles(points, faces.long(), *SIZE)


def test_the_reference_interpolates_what_is_linear_exactly() -> None:
    points, faces = random_mesh(5, *SIZE)
    image = rasterize_triangles_reference(points.double(), faces, *SIZE)
    ones = interpolate_reference(torch.ones(24, 1, dtype=torch.float64), faces, image)
    torch.testing.assert_close(ones[..., 0], (image.face >= 0).double())
    depth = interpolate_reference(points[..., 2:].double(), faces, image)[..., 0]
    seen = image.face >= 0
    torch.testing.assert_close(depth[seen], image.depth[seen], rtol=1e-6, atol=0)
