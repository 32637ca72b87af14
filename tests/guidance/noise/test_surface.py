"""Surface noise on spheres, whose depth is known, and on a real render."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sds3d.cameras import orbit_cameras
from sds3d.guidance.noise import NoiseRequest, Surface
from sds3d.guidance.noise.surface import SHELLS, Atlas, surface_points
from sds3d.scenes.gaussians import GaussiansConfig
from sds3d.types import Cameras, RenderOutput

SHAPE = (3, 64, 64)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def views(*azimuth_deg: float, size: int = 64) -> Cameras:
    count = len(azimuth_deg)
    elevation, distance, fov = (torch.full((count,), value) for value in (0.3, 2.85, 0.7))
    return orbit_cameras(torch.deg2rad(torch.tensor(azimuth_deg)), elevation, distance, fov, size)


def rays(cameras: Cameras) -> tuple[Tensor, Tensor]:
    """Origins and directions [B, H, W, 3] of the pixels' centres; a direction's length along the camera's z is 1."""
    place = torch.arange(cameras.height) + 0.5
    v, u = torch.meshgrid(place, place, indexing="ij")
    pixels = torch.stack([u, v, torch.ones_like(u)], dim=-1)
    local = torch.einsum("bij,hwj->bhwi", torch.linalg.inv(cameras.intrinsics), pixels)
    directions = torch.einsum("bij,bhwj->bhwi", cameras.camera_to_world[:, :3, :3], local)
    return cameras.camera_to_world[:, None, None, :3, 3].expand_as(directions), directions


def sphere(cameras: Cameras, radius: float, center: tuple[float, float, float] = (0, 0, 0)) -> RenderOutput:
    origins, directions = rays(cameras)
    origins = origins - torch.tensor(center)
    a, b = directions.square().sum(-1), (directions * origins).sum(-1)
    root = b.square() - a * (origins.square().sum(-1) - radius**2)
    hit = (root > 0).float()[..., None]
    depth = hit * ((-b - root.clamp_min(0).sqrt()) / a)[..., None]
    return RenderOutput(torch.zeros(*hit.shape[:3], 3), hit, depth)


def picture(cameras: Cameras) -> RenderOutput:
    """A flat image through the origin, on which all texels along a ray from the origin are one but for their shells."""
    depth = cameras.distance[:, None, None, None].expand(-1, cameras.height, cameras.width, 1)
    return RenderOutput(torch.zeros(*depth.shape[:3], 3), torch.ones_like(depth), depth)


def fog(cameras: Cameras) -> RenderOutput:
    """The splats that every run starts from."""
    return GaussiansConfig(count=2000).build(seeded(0)).render(cameras, torch.zeros(len(cameras), 3))


def noises(cameras: Cameras, out: RenderOutput, shape=SHAPE, count: int = 6) -> Tensor:
    """Noise of `count` runs [N, B, C, h, w], each with an atlas and a background of its own."""
    method = Surface(background="fresh")
    draws = [NoiseRequest(cameras, out, shape, seeded(number)) for number in range(count)]
    return torch.stack([method.sample(request, method.init(shape, request.generator)) for request in draws])


def same_place(cameras: Cameras, out: RenderOutput) -> tuple[Tensor, Tensor]:
    """Pixels of view 0, and those of view 1 that see the same place on the surface, as flat indices."""
    origins, directions = rays(cameras)
    depth = (out.depth / out.opacity.clamp_min(1e-6)).detach()[..., 0]
    world = origins[0] + directions[0] * depth[0, ..., None]
    local = (world - cameras.camera_to_world[1, :3, 3]) @ cameras.camera_to_world[1, :3, :3]
    image = local @ cameras.intrinsics[1].T
    column, row = (image[..., :2] / image[..., 2:]).floor().long().clamp(0, cameras.width - 1).unbind(-1)
    there = row * cameras.width + column
    solid = out.opacity[..., 0] > 0.5
    seen = solid[0] & solid[1].take(there) & ((depth[1].take(there) - local[..., 2]).abs() < 0.05)
    return seen.flatten().nonzero()[:, 0], there[seen]


def agreement(cameras: Cameras, out: RenderOutput) -> tuple[float, float]:
    """Correlation of the noise at the same place in two views, and at unrelated places."""
    eps = noises(cameras, out).flatten(3)
    here, there = same_place(cameras, out)
    assert len(here) > 300
    shuffled = there[torch.randperm(len(there), generator=seeded(0))]
    first = eps[:, 0, :, here]
    return (first * eps[:, 1, :, there]).mean().item(), (first * eps[:, 1, :, shuffled]).mean().item()


SURFACES = {
    "small": lambda cameras: sphere(cameras, 0.3),
    "large": lambda cameras: sphere(cameras, 0.8),
    "aside": lambda cameras: sphere(cameras, 0.4, (0.3, 0.2, 0.3)),
    "picture": picture,
    "translucency": fog,
}


@pytest.mark.parametrize("name", SURFACES)
def test_a_view_is_white_on_every_surface(name: str) -> None:  # T19
    cameras = views(0.0, 50.0, 140.0)
    out = SURFACES[name](cameras)
    eps = noises(cameras, out)
    solid = (out.opacity[..., 0] > 0.1)[None, :, None].expand_as(eps)
    assert 0.95 < eps[solid].var() < 1.05
    assert eps[solid].pow(4).mean() == pytest.approx(3, abs=0.25)
    height, width = SHAPE[1:]
    for down, right in ((0, 1), (1, 0), (1, 1)):
        here, there = (slice(height - down), slice(width - right)), (slice(down, None), slice(right, None))
        both = solid[(..., *here)] & solid[(..., *there)]
        assert abs((eps[(..., *here)] * eps[(..., *there)])[both].mean()) < 0.05


@pytest.mark.parametrize("size", [64, 160])
def test_the_points_lie_on_the_surface_and_in_their_pixels(size: int) -> None:
    cameras = views(0.0, 70.0, size=size)
    points, pixel = surface_points(NoiseRequest(cameras, sphere(cameras, 0.6, (0.1, 0.2, 0.1)), SHAPE, seeded(0)))
    off = (points - torch.tensor([0.1, 0.2, 0.1])).norm(dim=1) - 0.6
    assert off.abs().median() < 1e-3  # not 0, as depth is interpolated
    view, place = pixel // 64**2, pixel % 64**2
    pose = cameras.camera_to_world[view]
    local = torch.einsum("pji,pj->pi", pose[:, :3, :3], points - pose[:, :3, 3])
    image = torch.einsum("pij,pj->pi", cameras.intrinsics[view], local / local[:, 2:]) * (64 / size)
    inside = torch.stack([image[:, 0] - place % 64, image[:, 1] - place // 64], dim=1)
    assert inside.min() > 0
    assert inside.max() < 1
    assert (inside.mean(dim=0) - 0.5).abs().max() < 0.01


def test_a_texel_belongs_to_one_pixel_of_a_view() -> None:
    """With texels of 1, eps is the root of their number: the numbers add up to the texels that are seen at all."""
    cameras, method = views(0.0, 90.0), Surface()
    request = NoiseRequest(cameras, sphere(cameras, 0.6), SHAPE, seeded(0))
    atlas = method.init(SHAPE, request.generator)
    atlas.texels.fill_(1)
    atlas.background.fill_(0)
    counts = method.sample(request, atlas)[:, 0].square().sum(dim=(1, 2))
    points, pixel = surface_points(request)
    for view in range(2):
        seen = atlas.texel_at(points[pixel // 64**2 == view]).unique()
        assert counts[view] == pytest.approx(len(seen), rel=1e-4)
        assert len(seen) > 5000


@pytest.mark.parametrize(("shift", "low", "high"), [(0.25, 0.62, 0.8), (0.5, 0.4, 0.6)])
def test_a_shift_by_part_of_a_pixel_keeps_the_part_that_overlaps(shift: float, low: float, high: float) -> None:
    cameras = views(0.0, 0.0)
    intrinsics = cameras.intrinsics.clone()
    intrinsics[1, 0, 2] += shift
    cameras = replace(cameras, intrinsics=intrinsics)
    out = sphere(cameras, 0.6)
    eps, solid = noises(cameras, out), (out.opacity > 0).all(dim=0)[..., 0]
    assert low < (eps[:, 0] * eps[:, 1])[..., solid].mean() < high


def test_a_shift_by_a_pixel_shifts_the_noise() -> None:
    cameras = views(0.0, 0.0)
    intrinsics = cameras.intrinsics.clone()
    intrinsics[1, 0, 2] += 1
    cameras = replace(cameras, intrinsics=intrinsics)
    out = sphere(cameras, 0.6)
    eps, solid = noises(cameras, out), out.opacity[0, :, :-1, 0] > 0
    assert (eps[:, 0, :, :, :-1] * eps[:, 1, :, :, 1:])[..., solid].mean() > 0.95


@pytest.mark.parametrize(
    ("name", "degrees", "least"),
    [("large", 3.0, 0.5), ("aside", 3.0, 0.5), ("large", 30.0, 0.4), ("translucency", 3.0, 0.3)],
)
def test_two_views_agree_at_the_same_place_of_the_surface(name: str, degrees: float, least: float) -> None:  # T19
    """0.56 would be the mean for flat pixels at random offsets, (3/4)^2; fog has no one depth, and loses more."""
    cameras = views(20.0, 20.0 + degrees)
    same, other = agreement(cameras, SURFACES[name](cameras))
    assert same > least
    assert abs(other) < 0.04


def test_the_size_of_the_render_does_not_matter() -> None:
    shape = (4, 32, 32)
    small, large = (noises(views(0.0, size=size), sphere(views(0.0, size=size), 0.6), shape) for size in (32, 160))
    inside = sphere(views(0.0, size=32), 0.5).opacity[0, ..., 0] > 0
    assert (small * large)[..., inside].mean() > 0.7
    assert large.shape == (6, 1, *shape)


def test_without_a_surface_there_is_background_noise() -> None:
    cameras, generator = views(0.0, 90.0), seeded(0)
    nothing = torch.full((2, 64, 64, 1), 0.09)
    request = NoiseRequest(cameras, RenderOutput(torch.zeros(2, 64, 64, 3), nothing, 0.28 * nothing), SHAPE, generator)
    fixed, fresh = Surface(), Surface(background="fresh")
    atlas, before = fixed.init(SHAPE, seeded(1)), generator.get_state()
    eps = fixed.sample(request, atlas)
    assert torch.equal(eps[0], eps[1])
    assert torch.equal(eps, fixed.sample(request, atlas))
    assert torch.equal(generator.get_state(), before)
    assert abs(eps.var() - 1) < 0.05
    eps = fresh.sample(request, atlas)
    assert not torch.equal(eps[0], eps[1])
    assert not torch.equal(eps, fresh.sample(request, atlas))


def test_sampling_keeps_nothing_of_the_scene_s_graph() -> None:
    cameras, saved = views(0.0), []
    out = fog(cameras)
    assert out.depth.requires_grad
    atlas = Surface().init(SHAPE, seeded(0))
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor) or tensor, lambda tensor: tensor):
        eps = Surface().sample(NoiseRequest(cameras, out, SHAPE, seeded(0)), atlas)
    assert not eps.requires_grad
    assert not saved


def test_texels_are_of_about_the_same_size_and_each_is_one_place() -> None:
    atlas = Atlas((1, 8, 8), torch.tensor(0))
    directions = torch.nn.functional.normalize(torch.randn(400_000, 3, generator=seeded(0)), dim=1)
    texel = atlas.texel_at(0.99 * directions)
    side = int(atlas.sides[-1])
    assert side == 16
    counts = texel.bincount(minlength=atlas.texels.shape[1])
    assert counts[: -6 * side**2].sum() == 0  # all in the outermost shell
    counts = counts[-6 * side**2 :] / (400_000 / (6 * side**2))
    assert 0.7 < counts.min() < counts.max() < 1.35  # equal within 20%, and five times their sampling error
    centers = torch.zeros(atlas.texels.shape[1], 3).index_add_(0, texel, directions)
    centers = torch.nn.functional.normalize(centers, dim=1)
    assert (directions * centers[texel]).sum(dim=1).min() > 0.99
    shells = [set(atlas.texel_at((number + 0.5) / SHELLS * directions).tolist()) for number in range(SHELLS)]
    assert sum(map(len, shells)) == len(set().union(*shells)) == atlas.texels.shape[1]
    assert atlas.texel_at(torch.zeros(1, 3)).item() < 6 * int(atlas.sides[0]) ** 2


def test_a_resumed_run_sees_the_same_noise_bit_for_bit() -> None:
    """Only the seed is saved, 8 bytes, and the noise is drawn again."""
    cameras, method = views(0.0, 90.0), Surface()
    request = NoiseRequest(cameras, sphere(cameras, 0.6), SHAPE, seeded(0))
    first, second = method.init(SHAPE, seeded(1)), method.init(SHAPE, seeded(9))
    assert not torch.equal(method.sample(request, first), method.sample(request, second))
    assert set(first.state_dict()) == {"seed"}
    second.load_state_dict(first.state_dict())
    assert torch.equal(method.sample(request, first), method.sample(request, second))


def test_each_run_has_noise_of_its_own() -> None:
    assert not torch.equal(Surface().init(SHAPE, seeded(0)).texels, Surface().init(SHAPE, seeded(1)).texels)
