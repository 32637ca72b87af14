"""Random scenes: 200 against the float64 reference, and many with values that no scene should have."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from sds3d.ops.extension import compiled
from sds3d.ops.project_gaussians import ProjectedGaussians, project_gaussians
from sds3d.ops.rasterize_gaussians import rasterize_gaussians
from sds3d.ops.spherical_harmonics import spherical_harmonics
from sds3d.types import Cameras
from tests.ops.splat_cases import random_splats, ring_of_cameras
from tests.ops.test_rasterize_gaussians import Case, compare

pytestmark = pytest.mark.skipif(not compiled(), reason="sds3d._C is not built")
ODD = torch.tensor([0.0, -0.0, 1e-45, 1e-38, -1e-20, 1e-9, 1.0, -1.0, 1e9, -1e18, 3e38, math.inf, -math.inf, math.nan])
KINDS = ("plain", "opaque", "needles", "one depth", "specks", "sheets", "broken", "faint", "at the camera", "one row")


def scene(seed: int) -> Case:
    """A random scene, of each of KINDS in turn."""
    generator = torch.Generator().manual_seed(1000 + seed)
    height, width = torch.randint(1, 50, (2,), generator=generator).tolist()
    count = int(torch.randint(1, 200, (), generator=generator))
    kind = KINDS[seed % len(KINDS)]
    case = Case(seed, count, 1 + seed % 2, 1 if kind == "one row" else height, width, (3, 4, 5, 8)[seed % 4])
    some = torch.rand(case.radii.shape[:2], generator=generator) < 0.3
    if kind == "opaque":
        case.opacities = case.opacities.clamp(min=0.97)
        case.radii = torch.where(case.radii > 0, 80.0, 0.0)
    elif kind == "needles":
        angle = math.pi * torch.rand(case.radii.shape[:2], generator=generator)
        thin, long = torch.tensor(3.0), torch.tensor(0.002)
        mixed = [thin * angle.cos() ** 2 + long * angle.sin() ** 2, (thin - long) * angle.cos() * angle.sin()]
        case.conics = torch.stack([*mixed, thin + long - mixed[0]], dim=-1)
        case.radii = torch.where(case.radii > 0, 80.0, 0.0)
    elif kind == "one depth":
        case.depths = torch.ones_like(case.depths)
    elif kind == "specks":  # smaller than a pixel
        case.conics = case.conics * 40
    elif kind == "sheets":  # larger than the image
        case.conics = case.conics * 1e-4
        case.radii = case.radii * 100
    elif kind == "broken":
        case.means2d = torch.where(some[..., None], math.nan, case.means2d)
    elif kind == "faint":
        case.opacities = case.opacities * 0.02
    elif kind == "at the camera":
        case.depths = torch.where(some, case.depths * 1e-6, case.depths)
    return case


@pytest.mark.parametrize("seed", range(200))
def test_random_scenes_agree_with_the_float64_reference(seed):
    compare(scene(seed))


def odd_numbers(generator: torch.Generator, *shape: int) -> Tensor:
    """Mostly ordinary numbers, some of ODD."""
    ordinary = torch.randn(shape, generator=generator)
    odd = ODD[torch.randint(len(ODD), shape, generator=generator)]
    return torch.where(torch.rand(shape, generator=generator) < 0.08, odd, ordinary)


def render(
    splats: list[Tensor], harmonics: Tensor, cameras: Cameras, background: Tensor
) -> tuple[Tensor, Tensor, ProjectedGaussians]:
    """The whole way from splats to image and opacity, and what lies between."""
    projected = project_gaussians(*splats, cameras)
    colors = spherical_harmonics(harmonics, splats[0], cameras.camera_to_world)
    image, opacity = rasterize_gaussians(
        projected.means2d, projected.conics, splats[3], colors, projected.radii, projected.depths, background,
        cameras.height, cameras.width,
    )  # fmt: skip
    return image, opacity, projected


@pytest.mark.parametrize("seed", range(60))
def test_no_input_gives_an_image_that_is_not_finite(instruction_set, seed):
    generator = torch.Generator().manual_seed(seed)
    count = int(torch.randint(1, 400, (), generator=generator))
    height, width = torch.randint(1, 70, (2,), generator=generator).tolist()
    splats = [
        odd_numbers(generator, count, 3),
        odd_numbers(generator, count, 4),
        odd_numbers(generator, count, 3).abs() * 0.1,
        odd_numbers(generator, count),
    ]
    harmonics = torch.rand(count, 4, 3, generator=generator)
    inputs = [t.requires_grad_() for t in (*splats, harmonics)]
    cameras = ring_of_cameras(2, height, width)
    image, opacity, projected = render(inputs[:4], inputs[4], cameras, torch.rand(2, 3, generator=generator))
    assert torch.isfinite(image).all()
    assert all(torch.isfinite(output).all() for output in projected)
    assert (opacity >= 0).all()
    assert (opacity <= 1).all()
    grads = torch.autograd.grad([image.sum(), opacity.sum()], inputs)
    # gradients may overflow where a splat is as large as the world, but what cannot be drawn has none
    finite = torch.isfinite(torch.cat([t.detach().reshape(count, -1) for t in splats], dim=1)).all(dim=1)
    drawable = finite & (splats[1].detach().square().sum(dim=1) > 1e-20) & (splats[3].detach() > 1 / 255)
    assert 0 < drawable.sum() < count, "both kinds are to be seen"
    by_splat = torch.cat([grad.reshape(count, -1) for grad in grads], dim=1)
    assert (by_splat[~drawable] == 0).all()
    assert (by_splat[drawable] != 0).any()


@pytest.mark.parametrize("name", ["camera_to_world", "intrinsics"])
@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0, 1e30])
def test_broken_cameras_do_not_crash(name, value):
    cameras = ring_of_cameras(2, 30, 40)
    getattr(cameras, name)[1] = value
    image, opacity, projected = render(random_splats(0, 50), torch.rand(50, 1, 3), cameras, torch.rand(2, 3))
    assert torch.isfinite(image).all()
    assert all(torch.isfinite(output).all() for output in projected)
    assert opacity[0].max() > 0


@pytest.mark.parametrize(("count", "tiles"), [(300_000, 4_915_200_000), (2_100, 34_406_400)])
def test_billions_of_tile_hits_are_counted_in_64_bits_and_refused(count, tiles):
    """More than 2^32: a count in 32 bits would come out small and write far outside."""
    size, one = 2048, torch.ones(1, count)
    arguments = (
        torch.full((1, count, 2), size / 2),
        torch.tensor([1e-8, 0.0, 1e-8]).repeat(1, count, 1),
        torch.full((count,), 0.5),
        torch.ones(1, count, 3),
        torch.full((1, count, 2), 5000.0),
        one,
        torch.zeros(1, 3),
    )
    with pytest.raises(RuntimeError, match=f"the splats meet {tiles} tiles"):
        rasterize_gaussians(*arguments, size, size)


@pytest.mark.parametrize(("height", "width"), [(0, 8), (8, 0), (40_000, 8), (-1, 8)])
def test_impossible_image_sizes_are_refused(height, width):
    case = Case(0, 3, 1, 8, 8)
    arguments = (case.means2d, case.conics, case.opacities, case.features, case.radii, case.depths, case.background)
    with pytest.raises(RuntimeError, match="height and width must be"):
        rasterize_gaussians(*arguments, height, width)


def test_the_whole_way_is_the_same_again_and_with_two_threads(instruction_set):
    splats, harmonics = random_splats(5, 5000), torch.randn(5000, 16, 3, generator=torch.Generator().manual_seed(5))
    for views, size in itertools.product((1, 3), (40, 100)):
        cameras, background = ring_of_cameras(views, size, size + 7), torch.rand(views, 3)
        results = []
        for threads in (1, 1, 2):
            torch.set_num_threads(threads)
            inputs = [t.detach().clone().requires_grad_() for t in (*splats, harmonics)]
            image, opacity, _ = render(inputs[:4], inputs[4], cameras, background)
            results.append([image, opacity, *torch.autograd.grad([image.square().sum(), opacity.sum()], inputs)])
        torch.set_num_threads(1)
        for one, again, two in zip(*results, strict=True):
            assert torch.equal(one, again)
            assert torch.equal(one, two)
