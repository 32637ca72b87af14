"""Compositing: the reference against hand-made numbers and finite differences, the kernels against the reference."""

import math

import pytest
import torch
from torch import Tensor

from sds3d.ops.extension import compiled
from sds3d.ops.project_gaussians import project_gaussians_reference
from sds3d.ops.rasterize_gaussians import rasterize_gaussians, rasterize_gaussians_reference
from tests.ops.splat_cases import assert_agrees, gradients, leaves, on_threshold, random_splats, ring_of_cameras

needs_kernels = pytest.mark.skipif(not compiled(), reason="sds3d._C is not built")
NAMES = ("image", "opacity", "grad_means2d", "grad_conics", "grad_opacities", "grad_features", "grad_background")
BOTH = pytest.mark.parametrize("rasterize", [rasterize_gaussians, rasterize_gaussians_reference])


class Case:
    """Projected float32 splats with features, background and upstream gradients."""

    def __init__(self, seed: int, count: int, views: int, height: int, width: int, channels: int = 3) -> None:
        splats = random_splats(seed, count)
        projected = project_gaussians_reference(*splats, ring_of_cameras(views, height, width))
        generator = torch.Generator().manual_seed(seed)
        self.size = (height, width)
        self.means2d, self.conics, self.depths, self.radii = projected
        self.opacities = splats[3]
        self.features = torch.rand(views, count, channels, generator=generator)
        self.background = torch.rand(views, channels, generator=generator)
        self.upstream = [torch.randn(views, height, width, c, generator=generator) for c in (channels, 1)]

    def keep_off_thresholds(self) -> None:
        """No upstream gradient where float32 and float64 may decide differently; see `compare`."""
        geometry = (self.means2d, self.conics, self.opacities, self.radii, self.depths)
        self.clear = ~on_threshold(*geometry, *self.size)[..., None]
        self.upstream = [u * self.clear for u in self.upstream]

    def run(self, rasterize, dtype: torch.dtype, device: str = "cpu") -> list[Tensor]:
        """Image, opacity and all gradients."""
        differentiable = [self.means2d, self.conics, self.opacities, self.features, self.background]
        radii, depths = self.radii.to(device, dtype), self.depths.to(device, dtype)

        def images(means2d: Tensor, conics: Tensor, opacities: Tensor, features: Tensor, background: Tensor):
            return rasterize(means2d, conics, opacities, features, radii, depths, background, *self.size)

        inputs = [t.detach().to(device, dtype).requires_grad_() for t in differentiable]
        return [t.cpu() for t in gradients(images, inputs, [u.to(device) for u in self.upstream])]


def compare(case: Case, device: str = "cpu") -> None:
    """Compiled float32 against the float64 reference, to 1e-4 relative."""
    case.keep_off_thresholds()
    assert case.clear.float().mean() > 0.9
    got = case.run(rasterize_gaussians, torch.float32, device)
    want = case.run(rasterize_gaussians_reference, torch.float64)
    for name, a, b in zip(NAMES, got, want, strict=True):
        clear = case.clear if name in ("image", "opacity") else torch.tensor(True)
        assert_agrees(a * clear, b * clear, name)


def flat_splats(
    depths: list[float], opacities: list[float], centre: float = 8.5, extent: float = 60.0
) -> dict[str, Tensor]:
    """Splats so wide that they are flat sheets over a small image, the i-th of colour e_i."""
    count = len(depths)
    return {
        "means2d": torch.full((1, count, 2), centre),
        "conics": torch.tensor([1e-8, 0.0, 1e-8]).repeat(1, count, 1),
        "opacities": torch.tensor(opacities),
        "features": torch.eye(3)[torch.arange(count) % 3][None],
        "radii": torch.full((1, count, 2), extent),
        "depths": torch.tensor([depths]),
        "background": torch.tensor([[0.1, 0.2, 0.3]]),
    }


@BOTH
def test_two_sheets_composite_nearest_first(rasterize):
    image, opacity = rasterize(**flat_splats([2.0, 1.0], [0.5, 0.25]), height=5, width=7)
    want = 0.25 * torch.tensor([0.0, 1, 0]) + 0.75 * 0.5 * torch.tensor([1.0, 0, 0])
    want = want + 0.375 * torch.tensor([0.1, 0.2, 0.3])
    assert torch.allclose(image, want.expand(1, 5, 7, 3), atol=1e-5)
    assert torch.allclose(opacity, torch.tensor(0.625), atol=1e-5)


@BOTH
def test_equal_depths_go_by_index(rasterize):
    image, _ = rasterize(**flat_splats([1.0, 1.0, 1.0], [0.5, 0.5, 0.5]), height=4, width=4)
    want = torch.tensor([0.5, 0.25, 0.125]) + 0.125 * torch.tensor([0.1, 0.2, 0.3])
    assert torch.allclose(image, want.expand(1, 4, 4, 3), atol=1e-5)


@BOTH
def test_the_splat_that_would_use_up_the_light_is_not_composited(rasterize):
    # T after two sheets of 0.99 is 1e-4, which is not above the stop: only the first one counts, and the third, though
    # faint, comes after the end.
    _, opacity = rasterize(**flat_splats([1.0, 2.0, 3.0], [0.99, 0.991, 0.2]), height=3, width=3)
    assert torch.allclose(opacity, torch.tensor(0.99), atol=1e-6)


@BOTH
def test_alpha_at_the_clamp_has_no_gradient(rasterize):
    sheets = flat_splats([1.0], [1.0])
    inputs = {**sheets, "opacities": sheets["opacities"].requires_grad_(), "means2d": sheets["means2d"] + 3.0}
    inputs["means2d"].requires_grad_()
    image, opacity = rasterize(**inputs, height=3, width=3)
    assert torch.allclose(opacity, torch.tensor(0.999))
    image.sum().backward()
    assert inputs["opacities"].grad.item() == 0
    assert (inputs["means2d"].grad == 0).all()


@BOTH
def test_nothing_visible_gives_the_background_and_zero_gradients(rasterize):
    case = Case(0, 5, 2, 20, 20)
    case.radii = torch.zeros_like(case.radii)
    image, opacity, *grads = case.run(rasterize, torch.float32)
    assert torch.equal(image, case.background[:, None, None].expand_as(image))
    assert (opacity == 0).all()
    assert all((grad == 0).all() for grad in grads[:4])


@BOTH
def test_no_splats_at_all(rasterize):
    case = Case(0, 5, 1, 9, 9)
    for name in ("means2d", "conics", "features", "radii", "depths"):
        setattr(case, name, getattr(case, name)[:, :0])
    case.opacities = case.opacities[:0]
    image, *_ = case.run(rasterize, torch.float32)
    assert torch.equal(image, case.background[:, None, None].expand_as(image))


@BOTH
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 3e38, -3e38])
@pytest.mark.parametrize("name", ["means2d", "conics", "opacities", "radii", "depths"])
def test_a_broken_splat_leaves_the_others_alone(rasterize, name, value):
    case = Case(2, 30, 1, 24, 20)
    without, broken = Case(2, 30, 1, 24, 20), getattr(case, name)
    broken[(..., 7, 0) if broken.dim() == 3 else (..., 7)] = value
    if name == "radii" and value > 0 and math.isfinite(value):
        pytest.skip("a large box is no fault")
    if name == "depths" and math.isfinite(value):
        pytest.skip("a far splat is no fault")
    if name in ("opacities", "conics") and value == 3e38:
        pytest.skip("an opaque splat or a point is no fault")
    without.radii[:, 7] = 0
    got, want = case.run(rasterize, torch.float32), without.run(rasterize, torch.float32)
    for index, (a, b) in enumerate(zip(got, want, strict=True)):
        assert torch.equal(a, b), NAMES[index]


@pytest.mark.slow
def test_the_reference_passes_gradcheck():
    case = Case(4, 4, 2, 2, 18)  # two tiles; each output is a backward pass, each input two forwards

    def images(*inputs: Tensor) -> tuple[Tensor, ...]:
        *rest, background = inputs
        tail = (case.radii.double(), case.depths.double(), background, *case.size)
        return rasterize_gaussians_reference(*rest, *tail)

    inputs = leaves([case.means2d, case.conics, case.opacities, case.features, case.background], torch.float64)
    assert torch.autograd.gradcheck(images, inputs, atol=1e-4)


@needs_kernels
@pytest.mark.parametrize("channels", [3, 4, 5, 8])
def test_every_instruction_set_agrees_with_the_reference(instruction_set, channels):
    compare(Case(7, 150, 2, 33, 47, channels))


@needs_kernels
def test_saturated_pixels_agree(instruction_set):
    case = Case(8, 120, 1, 24, 24)
    case.opacities = case.opacities.clamp(min=0.95)
    case.conics = case.conics * 0.05
    case.radii = case.radii * 6
    compare(case)
    assert (case.run(rasterize_gaussians, torch.float32)[1] > 0.999).float().mean() > 0.3


@needs_kernels
@pytest.mark.parametrize(("height", "width"), [(1, 1), (16, 16), (17, 15), (5, 64), (31, 100)])
def test_odd_sizes_agree(height, width):
    compare(Case(9, 40, 1, height, width))


@needs_kernels
def test_long_thin_splats_agree(instruction_set):
    case = Case(10, 20, 1, 40, 40)
    angle = torch.linspace(0, math.pi, 20)
    across, along = torch.tensor(2.0), torch.tensor(0.003)
    cos, sin = angle.cos(), angle.sin()
    entries = [across * cos**2 + along * sin**2, (across - along) * cos * sin, across * sin**2 + along * cos**2]
    case.conics = torch.stack(entries, dim=-1)[None]
    case.radii = torch.full_like(case.radii, 60.0)
    compare(case)


@needs_kernels
def test_results_do_not_depend_on_the_number_of_threads():
    case = Case(11, 400, 2, 70, 90)
    want = case.run(rasterize_gaussians, torch.float32)
    again = case.run(rasterize_gaussians, torch.float32)
    torch.set_num_threads(2)
    try:
        threaded = case.run(rasterize_gaussians, torch.float32)
    finally:
        torch.set_num_threads(1)
    for name, a, b, c in zip(NAMES, want, again, threaded, strict=True):
        assert torch.equal(a, b), name
        assert torch.equal(a, c), name


@needs_kernels
def test_operator_is_registered_consistently():
    case = Case(12, 20, 2, 20, 24)
    inputs = leaves([case.means2d, case.conics, case.opacities, case.features], torch.float32)
    tail = (case.radii, case.depths, case.background, *case.size, 0)
    torch.library.opcheck(torch.ops.sds3d.rasterize_gaussians.default, (*inputs, *tail))


@needs_kernels
def test_unsupported_channel_count_is_named():
    with pytest.raises(RuntimeError, match="C must be 3"):
        Case(0, 5, 1, 9, 9, channels=6).run(rasterize_gaussians, torch.float32)


@pytest.mark.parametrize("channels", [3, 4, 5, 8])
def test_cuda_agrees_with_the_reference(cuda_kernels, channels):
    compare(Case(7, 300, 2, 32, 29, channels), device=cuda_kernels)


@pytest.mark.parametrize("channels", [3, 8])
def test_deterministic_cuda_gradients_agree_and_are_the_same_again(cuda_kernels, channels):
    case = Case(13, 300, 2, 24, 21, channels)
    torch.use_deterministic_algorithms(True)
    try:
        compare(case, device=cuda_kernels)
        runs = [case.run(rasterize_gaussians, torch.float32, cuda_kernels) for _ in range(2)]
    finally:
        torch.use_deterministic_algorithms(False)
    for name, first, second in zip(NAMES, *runs, strict=True):
        assert torch.equal(first, second), name
