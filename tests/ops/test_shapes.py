"""torch.compile knows the shapes of the ops of volume rendering; those of splats are checked beside their kernels."""

import pytest
import torch

from sds3d.ops.composite import composite
from sds3d.ops.extension import compiled
from sds3d.ops.hash_encode import HashGrid, hash_encode
from sds3d.ops.march_rays import OccupancyGrid, march_rays

pytestmark = pytest.mark.skipif(not compiled(), reason="sds3d._C is not built")


def numbers(*shape: int, grad: bool = False) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)).requires_grad_(grad)


def test_of_the_hash_encoding() -> None:
    grid = HashGrid(3, 2, 4, 16, 8)
    points, table = numbers(20, 3, grad=True), numbers(grid.entries, 2, grad=True)
    assert hash_encode(points, table, grid).shape == (20, 6)
    sizes = (list(grid.resolutions), list(grid.sizes))
    torch.library.opcheck(torch.ops.sds3d.hash_encode.default, (points, table, *sizes))


def test_of_compositing() -> None:
    starts, offsets = numbers(10), torch.tensor([0, 3, 3, 10])
    inputs = (numbers(10, grad=True), numbers(10, 3, grad=True), starts, starts + 0.1, offsets)
    assert composite(*inputs)[0].shape == (3, 3)
    torch.library.opcheck(torch.ops.sds3d.composite.default, inputs)


def test_of_marching() -> None:
    rays = torch.tensor([[2.0, 0, 0]] * 5), torch.tensor([[-1.0, 0, 0]] * 5), torch.zeros(5)
    full, box, far = torch.ones(4, 4, 4, dtype=torch.bool), torch.tensor([-1.0, -1, -1, 1, 1, 1]), torch.full((5,), 4.0)
    arguments = (*rays, far, full, box, torch.empty(0), 0.1, 100, 1e9)
    torch.library.opcheck(torch.ops.sds3d.march_rays_count.default, arguments)
    counts, kept = torch.ops.sds3d.march_rays_count(*arguments)
    found = march_rays(*rays, far, OccupancyGrid(full, box), 0.1, 100, None)
    assert torch.equal(found.offsets.diff(), counts)
    tail = (kept, found.offsets, 0.1, len(found.points))
    torch.library.opcheck(torch.ops.sds3d.march_rays_fill.default, (*rays, *tail))
