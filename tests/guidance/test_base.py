import pytest
import torch

from sds3d.guidance.base import weight


@pytest.mark.parametrize(
    ("name", "expected"),
    [("sigma_squared", 0.36), ("uniform", 1.0), ("alpha_sigma_squared", 0.8 * 0.36), ("sigma_over_alpha", 0.75)],
)
def test_weightings(name: str, expected: float) -> None:
    alpha, sigma = torch.full((2, 1, 1, 1), 0.8), torch.full((2, 1, 1, 1), 0.6)
    torch.testing.assert_close(weight(name, alpha, sigma), torch.full((2, 1, 1, 1), expected))
