"""What is exported of a mesh scene is its own surface and its own colours, without the light."""

import numpy as np
import pytest
import torch
import trimesh

from sds3d.cameras import orbit
from sds3d.export.extract import ExportConfig, extract_mesh
from sds3d.export.formats import verification_views
from sds3d.export.views import render_views
from sds3d.metrics.image import psnr
from sds3d.scenes import MeshConfig
from sds3d.scenes.shading import Sun


class Stripes(torch.nn.Module):
    """Red and blue by height."""

    def forward(self, points):
        red, blue = points.new_tensor([0.8, 0.1, 0.1]), points.new_tensor([0.1, 0.2, 0.8])
        return torch.where((points[:, 2:] * 5).floor() % 2 == 0, red, blue)

    finished = forward


@pytest.fixture(scope="module")
def scene():
    sun = Sun(direction=(0, 0, 1), ambient=0.4, diffuse=0.6)
    mesh = MeshConfig(light=sun).build(torch.Generator().manual_seed(0))
    box = trimesh.creation.box((0.9, 0.7, 0.8)).subdivide_to_size(0.2)
    mesh.set_surface(torch.tensor(box.vertices, dtype=torch.float32), torch.tensor(box.faces).int())
    mesh.color_field = Stripes()
    return mesh


def test_the_surface_is_the_scene_s(scene) -> None:
    mesh = extract_mesh(scene, ExportConfig(color="vertex"))
    vertices, faces = scene.surface()
    assert np.array_equal(mesh.faces, faces.numpy())
    np.testing.assert_allclose(mesh.vertices, vertices.numpy(), atol=1e-5)
    assert mesh.surface == "mesh"
    assert np.allclose(mesh.colors, Stripes()(torch.tensor(mesh.vertices)).numpy())


def test_it_has_at_most_the_faces_that_were_asked_for(scene) -> None:
    mesh = extract_mesh(scene, ExportConfig(color="vertex", faces=150))
    assert len(mesh.faces) <= 150
    assert trimesh.Trimesh(mesh.vertices, mesh.faces).volume == pytest.approx(0.9 * 0.7 * 0.8, rel=1e-3)


def test_the_texture_has_the_colours_without_light_and_hard_borders(scene) -> None:
    mesh = extract_mesh(scene, ExportConfig(texture_size=256))
    image, texture = mesh.texture.image.astype(float) / 255, mesh.texture
    shares = np.random.default_rng(0).dirichlet([1, 1, 1], len(mesh.faces))
    points = np.einsum("fk,fkc->fc", shares, mesh.vertices[mesh.faces])
    uvs = np.einsum("fk,fkc->fc", shares, texture.uvs[texture.faces])
    place = np.clip((uvs * image.shape[1::-1]).astype(int), 0, np.array(image.shape[1::-1]) - 1)
    found = image[place[:, 1], place[:, 0]]
    want = Stripes()(torch.tensor(points)).numpy()
    inside = np.abs((points[:, 2] * 5) % 1 - 0.5) < 0.42  # not on a border, where a texel holds one colour or the other
    assert psnr(float(np.square(found - want)[inside].mean())) > 40


def test_texels_on_a_border_have_the_part_of_both_colours_that_they_show(scene, monkeypatch) -> None:
    """A border that crosses texels is straight on the texture, and does not go by steps of a texel."""
    slant = torch.tensor([[1.0, 0.0, 0.3], [0.0, 1.0, 0.2], [0.0, 0.0, 1.0]])
    monkeypatch.setattr(scene.color_field, "finished", lambda points: Stripes()(points @ slant))
    texture = extract_mesh(scene, ExportConfig(texture_size=128)).texture
    image = texture.image.astype(float) / 255
    red, blue = np.array([0.8, 0.1, 0.1]), np.array([0.1, 0.2, 0.8])
    share = ((image - red) @ (blue - red)) / ((blue - red) @ (blue - red))
    np.testing.assert_allclose(image, red + share[..., None] * (blue - red), atol=0.01)
    between = (share > 0.03) & (share < 0.97)
    assert 0.005 < between.mean() < 0.25
    # of the texels that a border crosses all parts are as common
    assert np.histogram(share[between], bins=3, range=(0.03, 0.97))[0].min() > 0.15 * between.sum()


def test_pictures_are_lit_and_what_exports_are_compared_with_is_not(scene) -> None:
    above = orbit(1, elevation_deg=80, size=48)
    side = orbit(1, elevation_deg=0, size=48)
    lit, unlit = (render_views(scene, above, lit=lit).rgb[0, 24, 24] for lit in (True, False))
    np.testing.assert_allclose(lit, unlit, atol=0.01)  # 0.4 + 0.6 from straight above
    lit, unlit = (render_views(scene, side, lit=lit).rgb[0, 24, 24] for lit in (True, False))
    np.testing.assert_allclose(lit, 0.4 * unlit, atol=0.01)
    truth = verification_views(scene)
    np.testing.assert_array_equal(truth.rgb, render_views(scene, truth.cameras, lit=False).rgb)
