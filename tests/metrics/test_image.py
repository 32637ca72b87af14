import numpy as np
import pytest
import torch

from sds3d.metrics.image import diversity, mask_iou, psnr, saturation, silhouette_iou, soft_fraction
from sds3d.metrics.mesh import enclosed_volume, face_pieces, is_watertight, mesh_statistics  # fmt: skip

VERTICES = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 2]])
FACES = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])


def test_statistics_of_two_tetrahedra():
    vertices = np.vstack([VERTICES, VERTICES + np.array([3.0, 0.0, 0.0])])
    stats = mesh_statistics(vertices, np.vstack([FACES, FACES + 4]), np.tile([0.2, 0.4, 0.6], (8, 1)))
    assert (stats.vertices, stats.faces, stats.pieces, stats.watertight) == (8, 8, 2, True)
    assert stats.extent == (4.0, 1.0, 2.0)
    assert stats.radius == pytest.approx(4.0)
    assert stats.volume == pytest.approx(2 * 2 / 6)
    assert stats.mean_color == pytest.approx((0.2, 0.4, 0.6))


def test_statistics_of_nothing():
    stats = mesh_statistics(np.zeros((0, 3)), np.zeros((0, 3), dtype=np.int64), np.zeros((0, 3)))
    assert (stats.vertices, stats.faces, stats.pieces, stats.watertight, stats.volume) == (0, 0, 0, False, 0.0)


def test_watertight_means_closed_and_consistently_wound():
    assert is_watertight(FACES)
    assert not is_watertight(FACES[:3])
    flipped = FACES.copy()
    flipped[0] = flipped[0][::-1]
    assert not is_watertight(flipped)
    assert not is_watertight(np.vstack([FACES, FACES]))
    assert not is_watertight(np.array([[0, 0, 1], [1, 0, 0]]))


def test_inside_out_has_negative_volume():
    assert enclosed_volume(VERTICES, FACES[:, ::-1]) == pytest.approx(-2 / 6)


def test_pieces_are_told_apart():
    assert face_pieces(np.array([[0, 1, 2], [5, 6, 7], [2, 3, 4]]), 8).tolist() == [0, 1, 0]


def test_iou():
    first, second = torch.zeros(4, 4), torch.zeros(4, 4)
    first[:2], second[:, :2] = 0.8, 0.6
    assert silhouette_iou(first, second) == pytest.approx(4 / 12)
    assert silhouette_iou(first, second, threshold=0.7) == 0
    assert silhouette_iou(first * 0, second * 0) == 1
    assert mask_iou(first > 0, first > 0) == 1


def test_soft_fraction_counts_fog_among_what_is_covered():
    opacity = torch.tensor([0.0, 0.05, 0.5, 0.95, 1.0, 0.2])
    assert soft_fraction(opacity) == pytest.approx(2 / 4)
    assert soft_fraction(torch.zeros(5)) == 0


def test_psnr():
    assert psnr(torch.full((2, 2), 0.6), torch.full((2, 2), 0.5)) == pytest.approx(20.0, abs=1e-3)


def test_saturation_is_that_of_the_object_whatever_its_share_of_the_view() -> None:
    opacity = torch.zeros(1, 4, 4, 1)
    opacity[:, :2] = 0.5
    red, grey = torch.tensor([0.8, 0.2, 0.2]), torch.tensor([0.4, 0.4, 0.4])
    assert saturation(red * opacity, opacity).item() == pytest.approx(0.75, abs=1e-4)
    assert saturation(grey * opacity, opacity).item() == pytest.approx(0, abs=1e-4)
    assert saturation(torch.zeros(1, 4, 4, 3), torch.zeros(1, 4, 4, 1)) == 0


def test_diversity_is_the_mean_square_over_pairs() -> None:
    images = torch.zeros(3, 1, 2, 2, 3)
    images[1] = 0.3
    assert diversity(images).item() == pytest.approx((2 * 0.09 / 3) ** 0.5)
    assert diversity(images[:1]) == 0
