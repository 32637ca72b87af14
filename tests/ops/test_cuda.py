"""The CUDA kernels, on a GPU and emulated, where their results must be the CPU's, and what only they can get wrong."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from sds3d.ops.project_gaussians import project_gaussians, project_gaussians_reference
from sds3d.ops.rasterize_gaussians import rasterize_gaussians
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
        "radii": projected.radii,
        "depths": projected.depths,
        "background": torch.rand(views, channels, generator=generator),
    }


def both(arguments: dict[str, Tensor], height: int, width: int, device: str) -> tuple[list[Tensor], list[Tensor]]:
    """All outputs of the CUDA operator and of the CPU's."""
    got = torch.ops.sds3d.rasterize_gaussians(*(t.to(device) for t in arguments.values()), height, width, 0)
    return [t.cpu() for t in got], list(CPU.rasterize_gaussians(*arguments.values(), height, width, 0))


def hits_by_tile(outputs: list[Tensor]) -> list[list[int]]:
    """The splats of each tile, as indices into [B, N], flattened."""
    ends, splats = outputs[LISTS["tile_offsets"]].tolist(), outputs[LISTS["hits"]][:, 0].tolist()
    return [splats[begin:end] for begin, end in pairwise(ends)]


def least_of_the_ellipse(arguments: dict[str, Tensor], splat: int, left: float, top: float) -> float:
    """log2 of the largest alpha over the tile whose first pixel centre is (left, top); float64, by brute force."""
    count = arguments["opacities"].shape[0]
    conic = arguments["conics"].flatten(0, 1)[splat].double()
    steps = torch.linspace(0, 15, 61, dtype=torch.float64)  # four a pixel: between the centres, too
    dx, dy = torch.meshgrid(left + steps, top + steps, indexing="xy")
    mean = arguments["means2d"].flatten(0, 1)[splat].double()
    dx, dy = dx - mean[0], dy - mean[1]
    power = 0.5 * (conic[0] * dx * dx + conic[2] * dy * dy) + conic[1] * dx * dy
    opacity = arguments["opacities"][splat % count].double()
    return float(torch.log2(opacity) - power.min() / math.log(2))


@pytest.mark.parametrize(("views", "height", "width"), [(1, 1, 1), (2, 16, 17), (4, 100, 70)])
def test_tile_lists_are_those_of_the_cpu_without_tiles_that_a_splat_does_not_reach(cuda_kernels, views, height, width):
    arguments = splat_arguments(views, height, width)
    got, want = both(arguments, height, width, cuda_kernels)
    assert_agrees(got[LISTS["splats"]], want[LISTS["splats"]], "splats", relative=1e-6)  # logarithms round differently
    tiles_x = -(-width // 16)
    per_view = tiles_x * -(-height // 16)
    left_out = 0
    for tile, (ours, boxes) in enumerate(zip(hits_by_tile(got), hits_by_tile(want), strict=True)):
        kept = set(ours)
        assert ours == [splat for splat in boxes if splat in kept]
        x, y = tile % per_view % tiles_x * 16 + 0.5, tile % per_view // tiles_x * 16 + 0.5
        for splat in set(boxes) - kept:
            assert least_of_the_ellipse(arguments, splat, x, y) < math.log2(1 / 255)
            left_out += 1
        for splat in ours:
            assert least_of_the_ellipse(arguments, splat, x, y) > math.log2(1 / 255) - 0.3  # 1/4 pixel off the least
    assert left_out > 0 or height < 100
    records = got[LISTS["record_offsets"]].long()
    hits = got[LISTS["hits"]].long()
    assert records[-1] == len(hits)
    assert ((hits[:, 1] >= records[hits[:, 0]]) & (hits[:, 1] < records[hits[:, 0] + 1])).all()
    assert hits[:, 1].unique().numel() == len(hits)


def test_equal_depths_go_by_index(cuda_kernels):
    arguments = splat_arguments(2, 40, 40)
    arguments["depths"] = torch.ones_like(arguments["depths"])
    got, _ = both(arguments, 40, 40, cuda_kernels)
    assert all(splats == sorted(splats) for splats in hits_by_tile(got))


def outputs_and_gradients(arguments: dict[str, Tensor], device: str, max_intersections: int) -> list[Tensor]:
    """Image, opacity, and the gradients of their sums over random weights."""
    on_device = {name: t.to(device) for name, t in arguments.items()}
    inputs = [on_device[name].requires_grad_() for name in ("means2d", "conics", "opacities", "features")]
    images = rasterize_gaussians(**on_device, height=40, width=36, max_intersections=max_intersections)
    generator = torch.Generator().manual_seed(5)
    upstream = [torch.randn(image.shape, generator=generator).to(device) for image in images]
    return [t.cpu() for t in (*images, *torch.autograd.grad(images, inputs, upstream))]


@pytest.mark.parametrize("deterministic", [False, True])
def test_room_for_so_many_hits_changes_nothing_where_it_is_enough(cuda_kernels, deterministic):
    arguments = splat_arguments(2, 40, 36)
    needed = both(arguments, 40, 36, cuda_kernels)[0][LISTS["hits"]].shape[0]
    torch.use_deterministic_algorithms(deterministic)
    try:
        want, *others = (outputs_and_gradients(arguments, cuda_kernels, room) for room in (0, needed, 3 * needed))
    finally:
        torch.use_deterministic_algorithms(False)
    for got in others:
        for a, b in zip(got, want, strict=True):
            assert torch.equal(a, b) if deterministic else torch.allclose(a, b, rtol=1e-4, atol=1e-4)


def test_an_image_that_there_was_no_room_for_is_nan(cuda_kernels):
    arguments = splat_arguments(2, 40, 36)
    needed = both(arguments, 40, 36, cuda_kernels)[0][LISTS["hits"]].shape[0]
    for room in (needed - 1, 1):
        image, opacity, *_ = outputs_and_gradients(arguments, cuda_kernels, room)
        assert image.isnan().all()
        assert opacity.isnan().all()


@pytest.mark.parametrize("channels", [3, 8])
def test_colours_in_half_precision_are_the_same_numbers(cuda_kernels, channels):
    arguments = splat_arguments(1, 24, 24, count=60, channels=channels)
    halves = {**arguments, "features": arguments["features"].half()}
    floats = {**arguments, "features": halves["features"].float()}
    images, gradients = [], []
    for inputs in ({name: t.to(cuda_kernels) for name, t in a.items()} for a in (halves, floats)):
        outputs = torch.ops.sds3d.rasterize_gaussians(*inputs.values(), 24, 24, 0)
        upstream = [torch.ones_like(t) for t in outputs[:2]]
        read = [inputs[name] for name in ("conics", "opacities", "features")]
        gradients.append(torch.ops.sds3d.rasterize_gaussians_backward(*read, *outputs, *upstream, True))
        images.append(outputs[0])
    assert torch.equal(*images)
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_every_kind_of_half_is_read_right(cuda_kernels):
    """Zero, the least and largest numbers below and above the normal ones, infinities, and random bits."""
    special = torch.tensor([0.0, -0.0, 6e-8, -6e-8, 6.09e-5, 6.11e-5, 1.0, 65504.0, -65504.0, math.inf, -math.inf])
    bits = torch.randint(-(2**15), 2**15, (49,), generator=torch.Generator().manual_seed(0)).to(torch.int16)
    values = torch.cat([special.half(), bits.view(torch.half)]).view(20, 1, 3)
    values[values.isnan()] = 0.5
    views = len(values)
    arguments = [
        torch.full((views, 1, 2), 0.5), torch.tensor([1.0, 0.0, 1.0]).repeat(views, 1, 1), torch.tensor([0.5]), values,
        torch.full((views, 1, 2), 2.0), torch.ones(views, 1), torch.zeros(views, 3),
    ]  # fmt: skip
    image = torch.ops.sds3d.rasterize_gaussians(*(t.to(cuda_kernels) for t in arguments), 1, 1, 0)[0]
    assert torch.equal(image.cpu().view(views, 1, 3), 0.5 * values.float())


def test_halves_on_the_cpu_are_computed_in_single_precision():
    arguments = splat_arguments(1, 24, 24, count=60)
    halves = arguments["features"].half().requires_grad_()
    image, _ = rasterize_gaussians(**{**arguments, "features": halves}, height=24, width=24)
    want, _ = rasterize_gaussians(**{**arguments, "features": halves.detach().float()}, height=24, width=24)
    assert torch.equal(image, want)
    image.sum().backward()
    assert halves.grad is not None
    assert halves.grad.dtype == torch.half


@pytest.mark.cuda
def test_with_room_given_a_step_can_be_captured_in_a_graph():
    arguments = {name: t.to("cuda") for name, t in splat_arguments(2, 64, 64).items()}
    inputs = [arguments[name].requires_grad_() for name in ("means2d", "conics", "opacities", "features")]

    def step() -> list[Tensor]:
        image, opacity = rasterize_gaussians(**arguments, height=64, width=64, max_intersections=1 << 16)
        return [image.detach(), opacity.detach(), *torch.autograd.grad(image.square().sum() + opacity.sum(), inputs)]

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        step()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        arguments["means2d"] += 0.7
    graph.replay()
    for got, want in zip(captured, step(), strict=True):
        assert_agrees(got, want, "replayed")


def test_tiles_with_more_splats_than_a_batch_agree(cuda_kernels):
    arguments = splat_arguments(1, 24, 24, count=1500)
    arguments["opacities"] = arguments["opacities"] * 0.05
    got, want = both(arguments, 24, 24, cuda_kernels)
    assert got[LISTS["tile_offsets"]].diff().max() > 512
    assert_agrees(got[0], want[0], "image", relative=1e-4)


@pytest.mark.parametrize("count", [0, 5])
def test_nothing_visible_gives_the_background_and_zero_gradients(cuda_kernels, count):
    arguments = {name: t.to(cuda_kernels) for name, t in splat_arguments(2, 20, 20, count=count).items()}
    arguments["radii"] = torch.zeros_like(arguments["radii"])
    inputs = [arguments[name].requires_grad_() for name in ("means2d", "conics", "opacities", "features")]
    image, opacity = rasterize_gaussians(**arguments, height=20, width=20)
    assert torch.equal(image, arguments["background"][:, None, None].expand_as(image))
    (image.sum() + opacity.sum()).backward()
    assert all((t.grad == 0).all() for t in inputs)


@pytest.mark.parametrize("name", ["means2d", "conics", "opacities", "radii", "depths"])
def test_a_broken_splat_leaves_the_others_alone(cuda_kernels, name):
    arguments, without = splat_arguments(1, 24, 20, count=30), splat_arguments(1, 24, 20, count=30)
    arguments[name][(..., 7, 0) if arguments[name].dim() == 3 else (..., 7)] = math.nan
    without["radii"][:, 7] = 0
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
    arguments["radii"] = torch.full_like(arguments["radii"], 5000.0)
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
