"""A reference image of the object: read safely, compared from its own camera, and matched by a run."""

import math
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from sds3d.cameras import orbit_cameras
from sds3d.config.run_config import load_config
from sds3d.errors import ConfigError
from sds3d.reference_image import ReferenceImage, ReferenceImageConfig, correlation, read_image
from sds3d.training.trainer import Trainer
from sds3d.types import RenderOutput

CPU, T = torch.device("cpu"), torch.tensor


def save(path, pixels, mode="RGBA"):
    Image.fromarray((255 * pixels + 0.5).byte().numpy(), mode).save(path)
    return str(path)


def disc(size=64, radius=0.6):
    """Red on the left, blue on the right."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, size), torch.linspace(-1, 1, size), indexing="ij")
    rgba = torch.zeros(size, size, 4)
    rgba[..., 0], rgba[..., 2] = (x < 0).float(), (x >= 0).float()
    rgba[..., 3] = ((x.square() + y.square()).sqrt() < radius).float()
    return rgba


@pytest.fixture
def path(tmp_path):
    return save(tmp_path / "disc.png", disc())


def test_a_render_of_the_picture_itself_has_no_loss_and_others_have(path):
    picture = ReferenceImage(ReferenceImageConfig(path=path, size=32), CPU)
    background = T([0.2, 0.5, 0.9])
    same = picture.over(background)[None].permute(0, 2, 3, 1)
    opacity = picture.mask[None].permute(0, 2, 3, 1)
    right = RenderOutput(rgb=same, opacity=opacity, depth=opacity)
    assert all(float(loss) < 1e-10 for loss in picture.losses(right, background).values())
    mirrored = RenderOutput(rgb=same.flip(2), opacity=opacity, depth=opacity)
    empty = RenderOutput(rgb=background.expand_as(same), opacity=torch.zeros_like(opacity), depth=opacity)
    assert float(picture.losses(mirrored, background)["reference_image"]) > 0.05
    assert float(picture.losses(empty, background)["reference_mask"]) > 0.1


def test_the_picture_is_upright_and_not_mirrored(path):
    picture = ReferenceImage(ReferenceImageConfig(path=path, size=64), CPU)
    left, right = picture.rgb[:, 32, 24], picture.rgb[:, 32, 40]
    assert left[0] > 0.9 > right[0]
    assert right[2] > 0.9 > left[2]


def test_a_wide_picture_is_padded_not_squeezed(tmp_path):
    wide = torch.zeros(32, 96, 4)
    wide[8:24, 40:56] = 1.0
    picture = ReferenceImage(ReferenceImageConfig(path=save(tmp_path / "wide.png", wide), size=96), CPU)
    rows, columns = picture.mask[0].nonzero(as_tuple=True)
    assert int(rows.max() - rows.min()) == pytest.approx(int(columns.max() - columns.min()), abs=1)


def test_depth_fits_at_any_scale_and_normals_are_in_the_cameras_axes(tmp_path, path):
    ramp = torch.linspace(0, 1, 64).expand(64, 64)
    facing = torch.zeros(64, 64, 3)
    facing[..., 2] = 1.0  # to the viewer
    depth = save(tmp_path / "depth.png", ramp[..., None].expand(-1, -1, 3), "RGB")
    normal = save(tmp_path / "normal.png", (facing + 1) / 2, "RGB")
    config = ReferenceImageConfig(path=path, depth=depth, normal=normal, size=64, azimuth_deg=70.0, elevation_deg=25.0)
    picture, background = ReferenceImage(config, CPU), torch.zeros(3)
    to_viewer = -picture.cameras.camera_to_world[0, :3, 2]
    rgb, opacity = torch.zeros(1, 64, 64, 3), torch.ones(1, 64, 64, 1)
    right = RenderOutput(rgb=rgb, opacity=opacity, depth=7.0 * ramp[None, ..., None] + 3.0,
                         normal=to_viewer.expand(1, 64, 64, 3))  # fmt: skip
    losses = picture.losses(right, background)
    assert float(losses["reference_depth"]) < 1e-4
    assert float(losses["reference_normal"]) < 1e-3
    wrong = RenderOutput(rgb=rgb, opacity=opacity, depth=-right.depth, normal=-right.normal)
    assert float(picture.losses(wrong, background)["reference_depth"]) == pytest.approx(2.0, abs=1e-3)
    assert float(picture.losses(wrong, background)["reference_normal"]) == pytest.approx(2.0, abs=1e-2)


def test_depth_is_compared_as_the_mean_of_what_a_pixel_sees(tmp_path, path):
    """The opacity of a soft object varies; sum w z would vary with it, and be correlated with the opacity instead."""
    ramp = torch.linspace(0.2, 0.8, 64)[None, :].expand(64, 64)
    depth = save(tmp_path / "depth.png", ramp[..., None].expand(-1, -1, 3), "RGB")
    image = ReferenceImage(ReferenceImageConfig(path=path, depth=depth, size=64), CPU)
    opacity = torch.linspace(1.0, 0.55, 64)[None, None, :, None].expand(1, 64, 64, 1)  # falls as the depth rises
    out = RenderOutput(torch.zeros(1, 64, 64, 3), opacity, opacity * (2.0 + ramp[None, ..., None]))
    assert float(image.losses(out, torch.zeros(3))["reference_depth"]) < 1e-3


def test_the_mean_depth_is_infinite_where_nothing_is_seen_and_has_a_finite_gradient():
    sums = torch.tensor([[0.0, 1.5]]).view(1, 1, 2, 1).requires_grad_()
    opacity = torch.tensor([[0.0, 0.5]]).view(1, 1, 2, 1).requires_grad_()
    depth = RenderOutput(torch.zeros(1, 1, 2, 3), opacity, sums).mean_depth()
    assert depth.flatten().tolist() == [math.inf, 3.0]
    depth[0, 0, 1].sum().backward()
    assert sums.grad.flatten().tolist() == [0.0, 2.0]
    assert opacity.grad.flatten().tolist() == [0.0, -6.0]


GREY_16 = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)


def test_a_depth_file_keeps_its_sixteen_bits(tmp_path):
    Image.fromarray(GREY_16).save(tmp_path / "depth.png")
    depth = read_image(str(tmp_path / "depth.png"), "depth")
    assert depth.shape == (3, 64, 64)
    np.testing.assert_allclose(depth[0].numpy(), GREY_16 / 65535.0, atol=1e-6)
    assert len(depth[0].unique()) == 64 * 64


def files_of_one_ramp(folder):
    """The same greys, 0 to 1 from left to right, in every kind of file; some with a transparent left column."""
    grey = np.tile(np.linspace(0, 255, 16).astype(np.uint8), (16, 1))
    image = Image.fromarray(grey)
    alpha = Image.fromarray(np.where(np.arange(16) == 0, 0, 255).astype(np.uint8)[None].repeat(16, 0))
    palette = image.convert("RGB").quantize(16)
    first = palette.getpixel((0, 0))
    sixteen = Image.fromarray(grey.astype(np.uint16) * 257)
    image.save(folder / "grey.png")
    sixteen.save(folder / "grey-16.png")
    image.convert("RGB").save(folder / "rgb.png")
    palette.save(folder / "palette.png")
    image.convert("RGB").save(folder / "lossless.webp", lossless=True)
    Image.merge("LA", (image, alpha)).save(folder / "transparent-grey.png")
    Image.merge("RGBA", (*[image] * 3, alpha)).save(folder / "transparent-rgb.png")
    palette.save(folder / "transparent-palette.png", transparency=first)
    sixteen.save(folder / "transparent-grey-16.png", transparency=0)
    png_of_rgb_16(folder / "rgb-16.png", np.repeat(grey[..., None].astype(">u2") * 257, 3, axis=2))
    return grey / 255.0


def png_of_rgb_16(path, pixels):
    """Pillow writes no such files."""
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    )


@pytest.mark.parametrize(
    "name",
    [
        *("grey.png", "grey-16.png", "rgb.png", "rgb-16.png", "palette.png", "lossless.webp", "transparent-grey.png"),
        *("transparent-grey-16.png", "transparent-rgb.png", "transparent-palette.png"),
    ],
)
def test_every_kind_of_file_is_read_to_the_same_values(tmp_path, name):
    grey = files_of_one_ramp(tmp_path)
    image = read_image(str(tmp_path / name), "path")
    transparent = name.startswith("transparent")
    assert len(image) == (4 if transparent else 3)
    np.testing.assert_allclose(image[:3].numpy(), np.stack([grey] * 3), atol=0.5 / 255)
    if transparent:
        assert image[3, 0].tolist() == [0.0] + [1.0] * 15


def test_a_mask_of_sixteen_bits_is_no_whiter_than_one_of_eight(tmp_path):
    opaque = save(tmp_path / "opaque.png", disc()[..., :3], "RGB")
    dark_outside = np.where(disc()[..., 3].numpy() > 0.5, 65535, 300).astype(np.uint16)
    Image.fromarray(dark_outside).save(tmp_path / "mask.png")
    image = ReferenceImage(ReferenceImageConfig(path=opaque, mask=str(tmp_path / "mask.png"), size=64), CPU)
    assert torch.equal(image.mask > 0.5, (disc()[..., 3] > 0.5)[None])


def test_its_camera_is_where_it_says():
    config = ReferenceImageConfig(path="-", azimuth_deg=90.0, elevation_deg=0.0, distance=2.0, size=64)
    place = config.cameras().camera_to_world[0, :3, 3]
    torch.testing.assert_close(place, T([0.0, 2.0, 0.0]), rtol=0, atol=1e-6)
    same = orbit_cameras(T([math.pi / 2]), T([0.0]), T([2.0]), T([math.radians(40.0)]), 64)
    torch.testing.assert_close(config.cameras().intrinsics, same.intrinsics)


def test_correlation_of_a_constant_is_nothing():
    assert float(correlation(torch.ones(5), torch.rand(5))) == 0.0


def bad_files(tmp_path):
    opaque = save(tmp_path / "opaque.png", torch.rand(16, 16, 3), "RGB")
    empty = save(tmp_path / "empty.png", torch.zeros(16, 16, 4))
    (tmp_path / "text.png").write_text("hello")
    good = (tmp_path / "good.png", disc(16))
    cut = tmp_path / "cut.png"
    save(*good)
    cut.write_bytes(good[0].read_bytes()[:60])
    huge = tmp_path / "huge.png"
    Image.new("RGBA", (4097, 8)).save(huge)
    gif = tmp_path / "moving.gif"
    Image.new("RGB", (8, 8)).save(gif)
    return {
        "absent": ("nowhere.png", "there is no file nowhere.png"),
        "opaque": (opaque, "no transparent background"),
        "empty": (empty, "covers 0.0%"),
        "text": (str(tmp_path / "text.png"), "is no PNG"),
        "cut": (str(cut), "is no PNG"),
        "huge": (str(huge), "4097 x 8 pixels"),
        "gif": (str(gif), "is no PNG"),
        "folder": (str(tmp_path), "there is no file"),
    }


@pytest.mark.parametrize("kind", ["absent", "opaque", "empty", "text", "cut", "huge", "gif", "folder"])
def test_what_cannot_be_used_is_one_line_that_names_the_option(tmp_path, kind):
    name, message = bad_files(tmp_path)[kind]
    with pytest.raises(ConfigError, match=message) as caught:
        ReferenceImage(ReferenceImageConfig(path=name), CPU)
    assert "reference_image." in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_mask_stands_for_transparency(tmp_path):
    opaque = save(tmp_path / "opaque.png", disc()[..., :3], "RGB")
    mask = save(tmp_path / "mask.png", disc()[..., 3:].expand(-1, -1, 3), "RGB")
    picture = ReferenceImage(ReferenceImageConfig(path=opaque, mask=mask, size=64), CPU)
    assert torch.equal(picture.mask > 0.5, (disc()[..., 3] > 0.5)[None])


@pytest.mark.slow
@pytest.mark.parametrize("scene", ["gaussians", "nerf"])
def test_a_run_comes_to_look_like_the_picture_from_its_side(small_config, path, scene):
    """With no guidance to speak of, the picture alone shapes the view."""
    config = small_config(
        **{
            "reference_image.path": path,
            "reference_image.size": 24,
            "reference_image.azimuth_deg": 90.0,
            "reference_image.elevation_deg": 0.0,
        },
        scene={"name": scene, **({"count": 400} if scene == "gaussians" else {})},
        loss_weights={"guidance": 0.0},
        steps=80,
    )
    generator = torch.Generator().manual_seed(0)
    run = Trainer(config, config.scene.build(generator), config.prior.build("cpu"), generator, CPU)

    def loss():
        out = run.scene.render(run.reference_image.cameras, torch.full((1, 3), 0.5))
        return float(run.reference_image.losses(out, torch.full((3,), 0.5))["reference_image"])

    before = loss()
    for _ in run.run():
        pass
    assert loss() < 0.3 * before


def built(config):
    generator = torch.Generator().manual_seed(0)
    return Trainer(config, config.scene.build(generator), config.prior.build("cpu"), generator, CPU)


def normal_map(tmp_path, towards):
    """One normal everywhere, in the camera's frame (x right, y up, z to the viewer)."""
    return save(tmp_path / "normal.png", ((T(towards) + 1) / 2).expand(64, 64, 3), "RGB")


@pytest.mark.parametrize("scene", ["gaussians", "nerf"])
def test_a_reference_normal_acts_on_the_scene(small_config, tmp_path, path, scene, monkeypatch):
    """With all other weights at 0 it is what moves the scene, and its loss is reported."""
    monkeypatch.setattr("sds3d.training.trainer.LOG_EVERY", 1)
    weights = {"guidance": 0.0, "reference_image": 0.0, "reference_mask": 0.0, "sparsity": 0.0}
    config = small_config(
        **{"reference_image.path": path, "reference_image.size": 24, "steps": 30},
        **{"reference_image.normal": normal_map(tmp_path, [0.6, 0.0, 0.8])},
        scene={"name": scene, **({"count": 400, "init_opacity": 0.5} if scene == "gaussians" else {})},
        loss_weights={**weights, "z_variance": 0.0, "opaque": 0.0},
    )
    losses = [event.losses["reference_normal"] for event in built(config).run()]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("option", ["depth", "normal"])
def test_a_flat_scene_has_no_depth_and_no_normals_to_compare(small_config, path, option):
    options = {"scene": "image", "reference_image.path": path, "loss_weights": {}}
    built(small_config(**options)).advance()
    with pytest.raises(
        ConfigError, match=r"reference_image\.(depth|normal) = .* does not go with the scene image, which is flat"
    ):
        small_config(**options, **{f"reference_image.{option}": path})


def test_the_reference_view_is_never_lit(small_config, path):
    """Training light would make its colours others than those of the image."""
    shading = {"begin_at": 0.0, "albedo_share": 0.0, "textureless_share": 1.0}
    config = small_config(
        **{
            "reference_image.path": path,
            "reference_image.size": 24,
            "scene.background": {"name": "solid", "color": (0, 0, 0)},
        },
        scene={"name": "nerf", "shading": shading},
    )
    run, renders = built(config), []
    forward, render = run.scene.field.forward, run.scene.render
    run.scene.field.forward = lambda points: (forward(points)[0], T([1.0, 0.0, 0.0]).expand(len(points), 3))  # red
    run.scene.render = lambda *inputs: renders.append(render(*inputs)) or renders[-1]
    run.advance()
    views, reference = (out.rgb.detach() for out in renders)
    torch.testing.assert_close(views[..., 0], views[..., 1])  # a white object in white light
    assert reference[..., 0].max() > 0.8
    assert reference[..., 1].max() == 0


def test_particles_are_refused(small_config, path):
    with pytest.raises(ConfigError, match="particles = 2 does not go with reference_image"):
        small_config(**{"reference_image.path": path, "particles": 2, "cameras.views": 2})


def test_the_option_on_the_command_line(path, capsys):
    import json

    from sds3d_app.cli import invoke

    assert invoke(["generate", "a red mug", "--image", path, "--print-config", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["values"]["reference_image"]["path"] == path
    assert load_config(overrides={"prompt": "a mug"}).reference_image is None
