import numpy as np
import torch

from sds3d.export.colors import Projector, field_colors, vertex_colors
from sds3d.export.surface import closed_surface
from sds3d.export.views import views_all_around

from .conftest import cluster, scene_of


def sphere_surface(radius):
    axis = np.linspace(-1, 1, 33)
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    return closed_surface(2 * radius - np.sqrt(x**2 + y**2 + z**2), radius, np.full(3, -1.0), 2 / 32)


def seen_colors(scene, vertices, faces, size):
    surface = (vertices, faces)
    projected = Projector(surface, views_all_around(scene, size))
    return vertex_colors(surface, projected, field_colors(scene, vertices))


def shell(count, radius):
    points = torch.randn(count, 3, generator=torch.Generator().manual_seed(0))
    return radius * torch.nn.functional.normalize(points, dim=-1)


def test_colours_are_those_of_the_outside():
    points = shell(1500, 0.5)
    left = cluster(points[points[:, 1] > 0], (0.9, 0.8, 0.1), opacity=0.9)
    right = cluster(points[points[:, 1] <= 0], (0.1, 0.7, 0.3), opacity=0.9)
    inside = cluster(shell(300, 0.35), (0.5, 0.1, 0.9), opacity=0.9)  # nobody sees this
    scene = scene_of(left, right, inside)
    vertices, faces = sphere_surface(0.52)
    colors = seen_colors(scene, vertices, faces, 96)
    assert np.abs(colors[vertices[:, 1] > 0.1] - [0.9, 0.8, 0.1]).mean() < 0.04
    assert np.abs(colors[vertices[:, 1] < -0.1] - [0.1, 0.7, 0.3]).mean() < 0.04


def test_a_floater_in_front_lends_no_colour():
    ball = cluster(shell(1500, 0.3), (0.9, 0.1, 0.1), opacity=0.9)
    floater = cluster(torch.tensor([[0.85, 0.0, 0.2]]), (0.0001, 0.0001, 0.9999), opacity=0.99)
    vertices, faces = sphere_surface(0.32)
    scene = scene_of(ball, floater)
    colors = seen_colors(scene, vertices, faces, 96)
    assert colors[:, 2].max() < 0.3


def test_hidden_vertices_get_the_scenes_own_colour():
    scene = scene_of(cluster(shell(1500, 0.5), (0.9, 0.1, 0.1)), cluster(torch.zeros(5, 3), (0.1, 0.1, 0.9)))
    outer, inner = sphere_surface(0.52), sphere_surface(0.1)
    vertices = np.vstack([outer[0], inner[0]])
    faces = np.vstack([outer[1], inner[1] + len(outer[0])])
    colors = seen_colors(scene, vertices, faces, 64)
    assert np.abs(colors[len(outer[0]) :] - [0.1, 0.1, 0.9]).max() < 0.05
