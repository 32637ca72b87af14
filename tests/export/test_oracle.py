"""A known body as splats goes scene -> mesh -> file -> reader, and comes back in its place, size, shape and colours."""

import math

import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial import cKDTree

from sds3d.export.extract import ExportConfig, extract_mesh
from sds3d.export.formats import MESH_FORMATS, verification_views, write_verified

from .body import paint, solid
from .conftest import cluster, scene_of

CONFIG = ExportConfig(resolution=72, faces=6000, color_size=128, texture_size=256)
COUNT, SIZE = 14_000, 0.012  # of the splats; those of conftest are larger
SKIN = 0.04  # splats on the body's surface are seen this far outside it: 2.5 sizes, and half a pixel


@pytest.fixture(scope="module")
def body():
    return solid()


@pytest.fixture(scope="module")
def splats(body):
    points, _ = trimesh.sample.sample_surface(body, COUNT, seed=0)
    places = torch.from_numpy(np.asarray(points)).float()
    red = places[:, 2] > 0
    parts = [
        cluster(places[red], tuple(paint(np.array([[0, 0, 1.0]]))[0]), opacity=0.8),
        cluster(places[~red], tuple(paint(np.array([[0, 0, -1.0]]))[0]), opacity=0.8),
    ]
    for part in parts:
        part["raw_scales"].fill_(math.log(SIZE))
    return scene_of(*parts)


@pytest.fixture(scope="module")
def written(splats, tmp_path_factory):
    path = tmp_path_factory.mktemp("oracle") / "mesh.glb"
    mesh, truth = extract_mesh(splats, CONFIG), verification_views(splats)
    stats, figures = write_verified(mesh, "glb", path, {}, truth)
    return MESH_FORMATS["glb"].read(path), stats, figures


def test_it_looks_like_the_scene(written):
    _, stats, figures = written
    assert figures.silhouette_iou > 0.95
    assert figures.psnr > 22
    assert (stats.pieces, stats.watertight) == (1, True)
    assert stats.faces <= 1.05 * CONFIG.faces


def test_its_surface_is_the_bodys(written, body):
    mesh = written[0]
    mine = trimesh.sample.sample_surface(trimesh.Trimesh(mesh.vertices, mesh.faces, process=False), 4000, seed=1)[0]
    true = trimesh.sample.sample_surface(body, 4000, seed=2)[0]
    there, back = cKDTree(true).query(mine)[0], cKDTree(mine).query(true)[0]
    chamfer = 0.5 * (there.mean() + back.mean())
    assert chamfer < SKIN
    turned = true * [-1, -1, 1]
    assert 0.5 * (cKDTree(turned).query(mine)[0].mean() + cKDTree(mine).query(turned)[0].mean()) > 2.5 * chamfer


def test_its_place_and_size_are_the_bodys(written, body):
    vertices = written[0].vertices
    assert vertices.min(axis=0) == pytest.approx(body.bounds[0], abs=1.25 * SKIN)
    assert vertices.max(axis=0) == pytest.approx(body.bounds[1], abs=1.25 * SKIN)


def test_its_colours_are_the_bodys(written):
    mesh = written[0]
    away = np.abs(mesh.vertices[:, 2]) > 0.08
    error = np.abs(mesh.colors - paint(mesh.vertices))[away]
    assert error.mean() < 0.03
    assert np.percentile(error, 99) < 0.2
