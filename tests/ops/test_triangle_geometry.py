"""Points on a mesh are drawn evenly, each within its face."""

import torch

from sds3d.ops.triangle_geometry import area_vectors, surface_samples


def test_samples_are_uniform_over_faces_of_any_size_and_within_them() -> None:
    """A unit square cut unevenly, of a corner triangle and the rest: means and variances are those of the square."""
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0.2, 0, 0]])
    faces = torch.tensor([[0, 4, 3], [4, 1, 2], [4, 2, 3]]).int()
    face, shares = surface_samples(vertices, faces, 40_000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(shares.sum(1), torch.ones(40_000))
    assert (shares >= 0).all()
    areas = area_vectors(vertices, faces)[:, 2] / 2
    torch.testing.assert_close(torch.bincount(face).float() / 40_000, areas, atol=0.01, rtol=0)
    places = (vertices[faces.long()[face]] * shares[..., None]).sum(1)[:, :2]
    torch.testing.assert_close(places.mean(0), torch.full((2,), 0.5), atol=0.01, rtol=0)
    torch.testing.assert_close(places.var(0), torch.full((2,), 1 / 12), atol=0.003, rtol=0)
    again = surface_samples(vertices, faces, 40_000, torch.Generator().manual_seed(0))
    assert torch.equal(face, again[0])
    assert torch.equal(shares, again[1])
