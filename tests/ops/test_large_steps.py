"""Large steps: the matrix written out, its inverse, gradients, and conjugate gradients against the factorization."""

import pytest
import torch

from sds3d.ops.large_steps import LargeSteps, conjugate_gradients
from tests.ops.mesh_cases import ellipsoid


def dense(faces, vertices, weight):
    """I + lambda L, edge by edge."""
    edges = {tuple(sorted((f[i], f[i - 1]))) for f in faces.tolist() for i in range(3)}
    matrix = torch.eye(vertices, dtype=torch.float64)
    for a, b in edges:
        if a != b:
            matrix[a, a] += weight
            matrix[b, b] += weight
            matrix[a, b] -= weight
            matrix[b, a] -= weight
    return matrix


@pytest.mark.parametrize("weight", [0.0, 1.0, 20.0])
def test_it_is_the_matrix_written_out_and_its_inverse(weight) -> None:
    vertices, faces = ellipsoid(1)
    steps = LargeSteps(faces, len(vertices), weight)
    matrix = dense(faces, len(vertices), weight)
    torch.testing.assert_close(steps.to_u(vertices).double(), matrix @ vertices.double(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(steps.to_v(steps.to_u(vertices)), vertices, rtol=1e-5, atol=1e-5)
    want = torch.linalg.solve(matrix, vertices.double())
    torch.testing.assert_close(steps.to_v(vertices).double(), want, rtol=1e-5, atol=1e-6)
    assert steps.to_v(vertices).is_contiguous()  # column by column, what follows takes three times as long


def test_gradients() -> None:
    vertices, faces = ellipsoid(0)
    steps = LargeSteps(faces, len(vertices), 3.0)
    assert torch.autograd.gradcheck(steps.to_v, (vertices.double().requires_grad_(),))


def test_conjugate_gradients_find_what_the_factorization_finds() -> None:
    vertices, faces = ellipsoid(3)
    steps = LargeSteps(faces, len(vertices), 20.0)
    matrix = torch.tensor(dense(faces, len(vertices), 20.0)).float()
    got = conjugate_gradients(matrix.to_sparse_csr(), matrix.diagonal()[:, None], vertices)
    torch.testing.assert_close(got, steps.to_v(vertices), rtol=1e-4, atol=1e-5)
    nothing = torch.zeros_like(vertices)
    assert torch.equal(conjugate_gradients(matrix.to_sparse_csr(), matrix.diagonal()[:, None], nothing), nothing)
    spoilt = vertices.clone()
    spoilt[3, 1] = torch.nan
    with pytest.raises(RuntimeError, match="not finite"):
        conjugate_gradients(matrix.to_sparse_csr(), matrix.diagonal()[:, None], spoilt)


def test_a_pull_at_one_vertex_moves_its_surroundings() -> None:
    """The further from the pulled vertex, the less; without large steps it would move alone."""
    vertices, faces = ellipsoid(3)
    pull = torch.zeros(len(vertices), 3)
    pull[0, 2] = 1
    moved = LargeSteps(faces, len(vertices), 10.0).to_v(pull)[:, 2]
    distance = (vertices - vertices[0]).norm(dim=1)
    means = [float(moved[(distance >= low) & (distance < low + 0.1)].mean()) for low in (0.0, 0.1, 0.2, 0.3)]
    assert means == sorted(means, reverse=True)
    assert means[1] > 0.02 * float(moved[0])
    assert float(moved.sum()) == pytest.approx(1, rel=1e-4)  # nothing is lost


def test_points_without_faces_stay_as_they_are_and_a_negative_weight_is_refused() -> None:
    points = torch.rand(4, 3)
    torch.testing.assert_close(
        LargeSteps(torch.tensor([[0, 1, 2]], dtype=torch.int32), 4, 5.0).to_v(points)[3], points[3]
    )
    with pytest.raises(ValueError, match="weight: expected 0 or more, got -1"):
        LargeSteps(torch.tensor([[0, 1, 2]], dtype=torch.int32), 4, -1.0)


@pytest.mark.cuda
def test_it_is_the_same_on_cuda() -> None:
    vertices, faces = ellipsoid(3)
    want = LargeSteps(faces, len(vertices), 10.0).to_v(vertices)
    got = LargeSteps(faces.cuda(), len(vertices), 10.0).to_v(vertices.cuda())
    torch.testing.assert_close(got.cpu(), want, rtol=1e-4, atol=1e-5)
