"""gsplat as a backend: what it is handed on the CPU, that it agrees on CUDA, and who refuses what."""

import gsplat
import pytest
import torch
from gsplat.cuda import _torch_impl
from torch import Tensor

from sds3d.errors import ConfigError, ExtensionUnavailable
from sds3d.ops.extension import backend_info, choose_rasterizer, compiled
from sds3d.ops.project_gaussians import project_gaussians
from sds3d.ops.rasterize_gaussians import (
    TILE,
    composite,
    rasterize_gaussians,
    rasterize_gaussians_reference,
    rasterize_with_gsplat,
    splat_alphas,
)
from tests.ops.splat_cases import assert_agrees, random_splats, ring_of_cameras
from tests.ops.test_rasterize_gaussians import NAMES, Case

GSPLAT_TOLERANCE = 1e-3  # of the largest entry: its exponential is the fast one of the device


def rasterize_listed(
    means2d: Tensor, conics: Tensor, colors: Tensor, opacities: Tensor, width: int, height: int, tile_size: int,
    offsets: Tensor, hits: Tensor, backgrounds: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Stands in for gsplat.rasterize_to_pixels, which has no CPU kernels: composites what the tile lists name."""
    views, count = means2d.shape[:2]
    ends = torch.cat([offsets.flatten()[1:], torch.tensor([len(hits)])]).view_as(offsets)
    image = torch.zeros(views, height, width, colors.shape[-1] + 1)
    for view, row, column in torch.cartesian_prod(*(torch.arange(size) for size in offsets.shape)).tolist():
        listed = hits[offsets[view, row, column] : ends[view, row, column]].long() - view * count
        tops, lefts = torch.meshgrid(
            torch.arange(row * TILE, min(row * TILE + TILE, height)),
            torch.arange(column * TILE, min(column * TILE + TILE, width)),
            indexing="ij",
        )
        pixels = torch.stack([lefts, tops], dim=-1).view(-1, 2) + 0.5
        alphas = splat_alphas(pixels, means2d[view, listed], conics[view, listed], opacities[view, listed])
        found = composite(alphas, colors[view, listed], backgrounds[view])
        image[view, tops.flatten(), lefts.flatten()] = found
    return image[..., :-1], 1 - image[..., -1:]


@pytest.fixture
def gsplat_on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gsplat, "isect_tiles", _torch_impl._isect_tiles)
    monkeypatch.setattr(gsplat, "isect_offset_encode", _torch_impl._isect_offset_encode)
    monkeypatch.setattr(gsplat, "rasterize_to_pixels", rasterize_listed)


@pytest.mark.parametrize("channels", [3, 8])
def test_it_is_handed_the_lists_and_tensors_of_our_op(gsplat_on_cpu, channels):
    case = Case(7, 60, 2, 33, 47, channels)
    case.means2d[0, 3, 0] = torch.nan
    case.radii[1, 5] = 0
    got = case.run(rasterize_with_gsplat, torch.float32)
    want = case.run(rasterize_gaussians_reference, torch.float32)
    for name, a, b in zip(NAMES, got, want, strict=True):
        assert_agrees(a, b, name)


@pytest.mark.cuda
@pytest.mark.parametrize("channels", [3, 4, 5, 8])
def test_gsplat_agrees_with_the_reference(channels):
    case = Case(7, 300, 3, 65, 47, channels)
    case.keep_off_thresholds()

    def by_gsplat(*arguments) -> tuple[Tensor, Tensor]:
        return rasterize_gaussians(*arguments, rasterizer="gsplat")

    got = case.run(by_gsplat, torch.float32, "cuda")
    want = case.run(rasterize_gaussians_reference, torch.float64)
    for name, a, b in zip(NAMES, got, want, strict=True):
        clear = case.clear if name in ("image", "opacity") else torch.tensor(True)
        assert_agrees(a * clear, b * clear, name, relative=GSPLAT_TOLERANCE)


def test_gsplat_on_the_cpu_is_refused_before_its_kernels_are_touched():
    with pytest.raises(ConfigError, match="'gsplat' does not go with cpu") as caught:
        project_gaussians(*random_splats(0, 5), ring_of_cameras(1, 8, 8), rasterizer="gsplat")
    assert "auto, native or torch" in caught.value.hint


@pytest.mark.skipif(not compiled(), reason="sds3d._C is not built")
def test_what_is_asked_for_is_what_computes(monkeypatch):
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert choose_rasterizer("auto", cpu, "op") == choose_rasterizer("native", cpu, "op") == "native"
    assert choose_rasterizer("torch", cpu, "op") == "torch"
    assert choose_rasterizer("gsplat", cuda, "op") == "gsplat"
    if not backend_info().cuda:
        assert choose_rasterizer("auto", cuda, "op") == "gsplat"
        with pytest.raises(ExtensionUnavailable, match="op has no CUDA kernels"):
            choose_rasterizer("native", cuda, "op")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ExtensionUnavailable, match="gsplat is not installed"):
        choose_rasterizer("gsplat", cuda, "op")
    if not backend_info().cuda:
        with pytest.raises(ExtensionUnavailable, match="op has no CUDA kernels"):
            choose_rasterizer("auto", cuda, "op")


@pytest.mark.skipif(not compiled(), reason="sds3d._C is not built")
def test_torch_and_native_are_two_computations_of_the_same_image():
    case = Case(3, 50, 1, 20, 24)
    images = []
    for rasterizer in ("native", "torch"):
        arguments = (case.means2d, case.conics, case.opacities, case.features, case.radii, case.depths)
        images.append(rasterize_gaussians(*arguments, case.background, *case.size, rasterizer=rasterizer)[0])
    assert torch.allclose(*images, atol=1e-5)
    assert not torch.equal(*images)
