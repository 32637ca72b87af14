"""The CUDA kernels, on a GPU and emulated, where their results must be the CPU's, and what only they can get wrong."""

import math

import pytest
import torch
from torch import Tensor

from sds3d.ops import project_gaussians, project_gaussians_reference, rasterize_gaussians
from tests.ops.splat_cases import assert_agrees, random_splats, ring_of_cameras

CPU = torch.ops.sds3d  # while a test's kernels are emulated, torch.ops.sds3d names those
LISTS = {"splats": 2, "tile_offsets": 3, "record_offsets": 4, "hits": 5}


def splat_arguments(views: int, height: int, width: int, count: int = 500, channels: int = 3) -> dict[str, Tensor]:
    """What the compositing operator takes, in its order, on the CPU."""
    splats = random_splats(3, count)
    projected = project_gaussians_reference(*splats, ring_of_cameras(views, height, width))
    generator = torch.Generator().manual_seed(3)
    return {
        "means2d": projected.means2d,
        "conics": projected.conics,
        "opacities": splats[3],
        "features": torch.rand(views, count, channels, generator=generator),
        "extents": projected.extents,
        "depths": projected.depths,
        "background": torch.rand(views, channels, generator=generator),
    }


def both(arguments: dict[str, Tensor], height: int, width: int, device: str) -> tuple[list[Tensor], list[Tensor]]:
    """All outputs of the CUDA operator and of the CPU's."""
    got = torch.ops.sds3d.rasterize_gaussians(*(t.to(device) for t in arguments.values()), height, width)
    return [t.cpu() for t in got], list(CPU.rasterize_gaussians(*arguments.values(), height, width))


@pytest.mark.parametrize(("views", "height", "width"), [(1, 1, 1), (2, 16, 17), (4, 100, 70)])
def test_tile_lists_are_those_of_the_cpu(cuda_kernels, views, height, width):
    got, want = both(splat_arguments(views, height, width), height, width, cuda_kernels)
    for name, index in LISTS.items():
        if name == "splats":  # square roots and logarithms may round differently
            assert_agrees(got[index], want[index], name, relative=1e-6)
        else:
            assert torch.equal(got[index], want[index]), name


def test_equal_depths_go_by_index(cuda_kernels):
    arguments = splat_arguments(2, 40, 40)
    arguments["depths"] = torch.ones_like(arguments["depths"])
    got, want = both(arguments, 40, 40, cuda_kernels)
    assert torch.equal(got[LISTS["hits"]], want[LISTS["hits"]])


def test_tiles_with_more_splats_than_a_batch_agree(cuda_kernels):
    arguments = splat_arguments(1, 24, 24, count=1500)
    arguments["opacities"] = arguments["opacities"] * 0.05
    got, want = both(arguments, 24, 24, cuda_kernels)
    assert got[LISTS["tile_offsets"]].diff().max() > 512
    assert_agrees(got[0], want[0], "image", relative=1e-4)


@pytest.mark.parametrize("count", [0, 5])
def test_nothing_visible_gives_the_background_and_zero_gradients(cuda_kernels, count):
    arguments = {name: t.to(cuda_kernels) for name, t in splat_arguments(2, 20, 20, count=count).items()}
    arguments["extents"] = torch.zeros_like(arguments["extents"])
    inputs = [arguments[name].requires_grad_() for name in ("means2d", "conics", "opacities", "features")]
    image, opacity = rasterize_gaussians(**arguments, height=20, width=20)
    assert torch.equal(image, arguments["background"][:, None, None].expand_as(image))
    (image.sum() + opacity.sum()).backward()
    assert all((t.grad == 0).all() for t in inputs)


@pytest.mark.parametrize("name", ["means2d", "conics", "opacities", "extents", "depths"])
def test_a_broken_splat_leaves_the_others_alone(cuda_kernels, name):
    arguments, without = splat_arguments(1, 24, 20, count=30), splat_arguments(1, 24, 20, count=30)
    arguments[name][(..., 7, 0) if arguments[name].dim() == 3 else (..., 7)] = math.nan
    without["extents"][:, 7] = 0
    got, want = (
        rasterize_gaussians(**{k: t.to(cuda_kernels) for k, t in a.items()}, height=24, width=20)
        for a in (arguments, without)
    )
    assert torch.equal(got[0], want[0])
    assert torch.equal(got[1], want[1])


def test_too_many_tile_hits_are_refused_before_anything_is_allocated(cuda_kernels):
    count, size = 2100, 2048
    arguments = {name: t.to(cuda_kernels) for name, t in splat_arguments(1, 16, 16, count=count).items()}
    arguments["means2d"] = torch.full_like(arguments["means2d"], size / 2)
    arguments["conics"] = torch.tensor([1e-8, 0.0, 1e-8], device=cuda_kernels).repeat(1, count, 1)
    arguments["opacities"] = torch.full_like(arguments["opacities"], 0.5)
    arguments["depths"] = torch.ones_like(arguments["depths"])
    arguments["extents"] = torch.full_like(arguments["extents"], 5000.0)
    with pytest.raises(RuntimeError, match="the splats meet 34406400 tiles"):
        rasterize_gaussians(**arguments, height=size, width=size)


@pytest.mark.cuda
def test_tensors_on_two_devices_are_named():
    means, quats, scales, opacities = (t.to("cuda") for t in random_splats(1, 7))
    cameras = ring_of_cameras(1, 20, 24).to("cuda")
    with pytest.raises(RuntimeError, match=r"scales: expected a float32 tensor \[ 7 3 \] on cuda:0, got .* on cpu"):
        project_gaussians(means, quats, scales.cpu(), opacities, cameras)


@pytest.mark.cuda
def test_work_is_queued_on_the_current_stream():
    arguments = {name: t.to("cuda") for name, t in splat_arguments(1, 64, 64).items()}
    want, _ = rasterize_gaussians(**arguments, height=64, width=64)
    late = {name: torch.zeros_like(t) for name, t in arguments.items()}
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)  # cycles: work on any other stream would see the zeros
        for name, t in late.items():
            t.copy_(arguments[name])
        got, _ = rasterize_gaussians(**late, height=64, width=64)
    stream.synchronize()
    assert torch.equal(got, want)
