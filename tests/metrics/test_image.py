import numpy as np
import pytest
import torch

from sds3d.metrics.image import diversity, mask_iou, psnr, saturation, translucency
from sds3d.metrics.mesh import enclosed_volume, face_pieces, is_watertight, mesh_statistics

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


def test_iou_is_that_of_each_view():
    first, second = torch.zeros(2, 4, 4, dtype=torch.bool), torch.zeros(2, 4, 4, dtype=torch.bool)
    first[0, :2], second[0, :, :2] = True, True
    assert mask_iou(first, second).tolist() == [4 / 12, 1.0]  # the second view is empty in both
    assert mask_iou(first[0], ~first[0]) == 0


def test_translucent_pixels_are_counted_among_those_that_are_covered():
    opacity = torch.tensor([0.0, 0.05, 0.5, 0.95, 1.0, 0.2])
    assert translucency(opacity) == pytest.approx(2 / 4)
    assert translucency(torch.zeros(5)) == 0


def test_psnr_is_in_decibels_and_ends_at_sixty():
    assert psnr(0.1**2) == pytest.approx(20.0)
    assert psnr(0.0) == 60


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
