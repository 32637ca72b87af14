"""Steps that move a mesh's vertices together with their neighbours (Nicolet et al. 2021, Large Steps in Inverse
Rendering of Geometry): the optimizer works on u = (I + lambda L) v, and the scene is made of v."""

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import coo_matrix, csr_matrix, diags, identity
from scipy.sparse.linalg import splu
from torch import Tensor

CG_TOLERANCE = 1e-6  # of the residual, relative to the right side
CG_STEPS = 1000
CG_LOOK = 25  # steps between looks at the residual, each of which waits for the device


def graph_laplacian(faces: Int[Tensor, "F 3"], vertices: int) -> csr_matrix:
    """L of a mesh with so many vertices: (L v)_i = sum over neighbours j of (v_i - v_j); float64 [V, V]."""
    corners = faces.detach().cpu().long().numpy()
    ends = np.concatenate([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [2, 0]]])
    ends = np.unique(np.sort(ends[ends[:, 0] != ends[:, 1]], axis=1), axis=0)
    a, b = ends[:, 0], ends[:, 1]
    adjacency = coo_matrix((np.ones(2 * len(a)), (np.r_[a, b], np.r_[b, a])), shape=(vertices, vertices)).tocsr()
    return (diags(np.asarray(adjacency.sum(axis=1)).ravel()) - adjacency).tocsr()


class LargeSteps:
    """u and v of one topology. L is its `graph_laplacian`.

    `weight` is lambda, in [0, inf): the larger, the wider a gradient spreads; 5 to 20 for objects of size 1. Made anew
    when faces change. On the CPU the matrix is factorized once (float64, exact to rounding); on CUDA each solve is
    conjugate gradients to a relative residual of 1e-6.
    """

    def __init__(self, faces: Int[Tensor, "F 3"], vertices: int, weight: float) -> None:
        if weight < 0:
            raise ValueError(f"weight: expected 0 or more, got {weight}")
        laplacian = graph_laplacian(faces, vertices)
        self._matrix = (identity(vertices) + weight * laplacian).tocsc()
        self._device = faces.device
        if faces.device.type == "cpu":
            self._factor = splu(self._matrix, permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True})
        else:
            rows = self._matrix.tocsr()
            pointers, columns, values = (torch.from_numpy(t) for t in (rows.indptr, rows.indices, rows.data))
            self._sparse = torch.sparse_csr_tensor(
                pointers, columns, values.float(), size=(vertices, vertices), device=faces.device
            )
            self._diagonal = torch.from_numpy(self._matrix.diagonal()).to(faces.device, torch.float32)[:, None]

    def to_u(self, v: Float[Tensor, "V K"]) -> Float[Tensor, "V K"]:
        """(I + lambda L) v; no gradient."""
        return torch.from_numpy(self._matrix @ v.detach().cpu().double().numpy()).to(v)

    def to_v(self, u: Float[Tensor, "V K"]) -> Float[Tensor, "V K"]:
        """(I + lambda L)^-1 u. Differentiable: the matrix is symmetric, so a gradient takes the same solve."""
        return _Solve.apply(u, self)

    def solve(self, right: Float[Tensor, "V K"]) -> Float[Tensor, "V K"]:
        """The solution as a tensor without gradient."""
        if self._device.type == "cpu":
            solution = torch.from_numpy(self._factor.solve(right.double().numpy()))
            return solution.to(right).contiguous()  # scipy's lies column by column, which all that follows is slow on
        return conjugate_gradients(self._sparse, self._diagonal, right)


class _Solve(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u: Tensor, steps: LargeSteps) -> Tensor:
        ctx.steps = steps
        return steps.solve(u.detach())

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.steps.solve(grad), None


def conjugate_gradients(
    matrix: Tensor, diagonal: Float[Tensor, "V 1"], right: Float[Tensor, "V K"]
) -> Float[Tensor, "V K"]:
    """The solution for a symmetric positive matrix, column by column at once, preconditioned by its diagonal.

    The device is looked at every CG_LOOK steps. RuntimeError if 1,000 steps do not reach the tolerance.
    """
    x = right / diagonal
    residual = right - matrix @ x
    z = residual / diagonal
    direction, inner = z, (residual * z).sum(0)
    limit = CG_TOLERANCE * right.norm(dim=0).clamp_min(1e-30)
    for step in range(CG_STEPS):
        if step % CG_LOOK == 0 and step > 0 and bool((residual.norm(dim=0) <= limit).all()):
            return x
        image = matrix @ direction
        alpha = inner / (direction * image).sum(0).clamp_min(1e-30)
        x = x + alpha * direction
        residual = residual - alpha * image
        z = residual / diagonal
        before, inner = inner, (residual * z).sum(0)
        direction = z + inner / before.clamp_min(1e-30) * direction
    if bool((residual.norm(dim=0) <= limit).all()):
        return x
    raise RuntimeError(f"large steps: no solution after {CG_STEPS} steps; the vertices are not finite")
