"""Borders between colours on surfaces of known shape: short, without islands, and small parts stay."""

import math

import numpy as np
import pytest
import trimesh

from sds3d.scenes.borders import PLACES, even_places, settle

RADIUS = 0.5


@pytest.fixture(scope="module")
def ball():
    body = trimesh.creation.icosphere(4, RADIUS)
    return even_places(body.vertices, body.faces)


def waves(places, seed=0, length=0.06):
    """Noise about as fine as a grid of colours, of standard deviation 1."""
    generator = np.random.default_rng(seed)
    directions = generator.normal(size=(3, 60))
    directions *= 2 * math.pi / length / np.linalg.norm(directions, axis=0)
    return math.sqrt(2 / 60) * np.cos(places @ directions + generator.uniform(0, 7, 60)).sum(axis=1)


def border_length(places, areas, is_one, width=0.03):
    """By Cauchy and Crofton: of short steps in the surface, the share that crosses the border."""
    from scipy.spatial import cKDTree

    generator = np.random.default_rng(0)
    step = np.cross(places, generator.normal(size=places.shape))
    step *= width / np.linalg.norm(step, axis=1, keepdims=True)
    other = cKDTree(places).query(places + step)[1]
    return math.pi / 2 * (areas * (is_one != is_one[other])).sum() / width


@pytest.mark.parametrize("kind", ["box", "plate"])
def test_places_are_even_whatever_the_triangles_are(kind) -> None:
    from scipy.spatial import cKDTree

    if kind == "box":
        body = trimesh.creation.box((1.0, 0.7, 0.3))
        vertices, faces, area = body.vertices, body.faces, body.area
    else:  # long thin triangles around a middle
        turns = np.linspace(0, 2 * np.pi, 201)[:-1]
        rim = np.stack([np.cos(turns), np.sin(turns), 0 * turns], axis=1)
        vertices, faces = np.vstack([rim, np.zeros(3)]), [[i, (i + 1) % 200, 200] for i in range(200)]
        area = 100 * math.sin(2 * math.pi / 200)
    places, areas = even_places(vertices, np.array(faces))
    assert areas.sum() == pytest.approx(area)
    assert PLACES / 1.5 < len(places) < 2 * PLACES
    nearest = cKDTree(places).query(places, 2)[0][:, 1] / math.sqrt(area / len(places))
    assert nearest.max() < 2
    assert areas.max() < 2 * area / len(places)


@pytest.mark.parametrize("height", [0.0, 0.2])
def test_a_border_is_as_long_as_it_is_meant(ball, height) -> None:
    """A plane through a ball, lost in noise where the two colours are even."""
    places, areas = ball
    margin = 20 * (places[:, 2] - height) + waves(places) / 2
    before = margin < 0
    labels, around = settle(places, areas, np.stack([margin, -margin], axis=1) / 2)
    true = 2 * math.pi * math.sqrt(RADIUS**2 - height**2)
    assert border_length(places, areas, before) > 1.7 * true
    assert border_length(places, areas, labels == 1) == pytest.approx(true, rel=0.06)
    assert (areas * labels).sum() == pytest.approx(2 * math.pi * RADIUS * (RADIUS + height), rel=0.02)
    close = np.abs(np.diff(around, axis=1)[:, 0]) < 0.3
    assert np.abs(places[close, 2] - height).max() < 0.035
    assert np.allclose(around.sum(axis=1), 1)


def test_islands_that_are_hardly_meant_go_and_small_parts_that_are_stay(ball) -> None:
    """Eyes of the size that the prior draws, doors, and stains as large as both."""
    places, areas = ball
    parts = np.stack([np.zeros(len(places)), np.full(len(places), -3.0), np.full(len(places), -3.0)], axis=1)

    def disc(middle, radius):
        middle = RADIUS * np.array(middle) / np.linalg.norm(middle)
        return np.linalg.norm(places - middle, axis=1) < radius

    eye, door = disc((1, 0.3, 0.2), 0.045), disc((1, -0.3, -0.5), 0.12)
    weak, speck = disc((-1, 0, 0), 0.1), disc((0, 0, 1), 0.02)
    parts[eye | speck, 1] = 4.0
    parts[door, 2] = 4.0
    parts[weak, 2] = 0.5
    labels, around = settle(places, areas, parts)
    assert not labels[weak | speck].any()
    for where, kind, shrinks in ((eye, 1, 0.3), (door, 2, 0.03)):
        for found in (labels, around.argmax(axis=1)):
            assert (areas * (found == kind)).sum() == pytest.approx(areas[where].sum(), rel=shrinks)


def test_what_is_certain_stays_as_it_is_and_what_is_open_becomes_its_surroundings(ball) -> None:
    places, areas = ball
    high = places[:, 2] > 0.1
    parts = 4.0 * np.stack([high, ~high], axis=1)
    open_ = np.linalg.norm(places - [RADIUS, 0, -0.1], axis=1) < 0.15  # most of it below the border
    parts[open_] = 0
    labels, _ = settle(places, areas, parts)
    clear = ~open_ & (np.abs(places[:, 2] - 0.1) > 0.02)
    assert (labels[clear] == ~high[clear]).all()
    assert (areas * (labels == 0))[open_].sum() < 0.35 * areas[open_].sum()


def test_one_colour_and_few_places() -> None:
    places = np.random.default_rng(0).normal(size=(5, 3))
    labels, around = settle(places, np.ones(5), np.zeros((5, 1)))
    assert not labels.any()
    assert (around == 1).all()
