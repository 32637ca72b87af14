"""A reference image of the object: read safely, compared from its own camera, and matched by a run."""

import math
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from sds3d.cameras import orbit_cameras
from sds3d.config.run_config import load_config
from sds3d.errors import ConfigError
from sds3d.picture_files import read_picture
from sds3d.reference_image import ReferenceImage, ReferenceImageConfig, correlation
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
    depth = read_picture(str(tmp_path / "depth.png"), "depth").pixels
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
    colors = np.repeat(grey[..., None].astype(">u2") * 257, 3, axis=2)
    png_of_16(folder / "rgb-16.png", colors, 2)
    deep = np.asarray(alpha)[..., None].astype(">u2") * 257
    png_of_16(folder / "transparent-rgb-16.png", np.concatenate([colors, deep], axis=2), 6)
    png_of_16(folder / "transparent-grey-alpha-16.png", np.concatenate([colors[..., :1], deep], axis=2), 4)
    return grey / 255.0


def png_of_16(path, pixels, kind):
    """Pillow writes no such files. The kind is PNG's: 2 colours, 4 grey with alpha, 6 colours with alpha."""
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)),
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
        *("transparent-rgb-16.png", "transparent-grey-alpha-16.png"),
    ],
)
def test_every_kind_of_file_is_read_to_the_same_values(tmp_path, name):
    grey = files_of_one_ramp(tmp_path)
    image = read_picture(str(tmp_path / name), "path").pixels
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
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "moving.webp", save_all=True, append_images=frames[1:])
    for name, data in {
        "empty.jpg": b"",
        "heic.jpg": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
        "photoshop.png": b"8BPS\0\1",
        "page.png": b"\xef\xbb\xbf<!DOCTYPE html><html></html>",
        "drawing.png": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    }.items():
        (tmp_path / name).write_bytes(data)
    Image.new("F", (8, 8)).save(tmp_path / "real.tif")
    Image.new("LAB", (8, 8)).save(tmp_path / "lab.tif")
    return {
        "absent": ("nowhere.png", "there is no file nowhere.png"),
        "opaque": (opaque, "no transparent background"),
        "empty": (empty, "covers 0.0%"),
        "text": (str(tmp_path / "text.png"), "is no picture of a known kind"),
        "cut": (str(cut), "is damaged"),
        "moving gif": (str(tmp_path / "moving.gif"), "is moving, or holds several: 2 pictures"),
        "moving webp": (str(tmp_path / "moving.webp"), "is moving, or holds several: 2 pictures"),
        "folder": (str(tmp_path), "there is no file"),
        "no bytes": (str(tmp_path / "empty.jpg"), "is an empty file"),
        "heic": (str(tmp_path / "heic.jpg"), "is a HEIC picture"),
        "photoshop": (str(tmp_path / "photoshop.png"), "is a Photoshop file"),
        "page": (str(tmp_path / "page.png"), "is a web page"),
        "drawing": (str(tmp_path / "drawing.png"), "is an SVG drawing"),
        "32 bits": (str(tmp_path / "real.tif"), "has numbers of 32 bits"),
        "lab": (str(tmp_path / "lab.tif"), "has pixels of the kind LAB"),
    }


KINDS = ("absent", "opaque", "empty", "text", "cut", "moving gif", "moving webp", "folder", "no bytes", "heic")
KINDS += ("photoshop", "page", "drawing", "32 bits", "lab")


@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_used_is_one_line_that_names_the_option(tmp_path, kind):
    name, message = bad_files(tmp_path)[kind]
    with pytest.raises(ConfigError, match=message) as caught:
        ReferenceImage(ReferenceImageConfig(path=name), CPU)
    assert "reference_image." in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).count(name) <= 1


def test_a_picture_with_too_many_pixels_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for size in ((40, 40), (80, 80)):  # Pillow warns of the first and refuses the second
        Image.new("RGB", size).save(tmp_path / "large.png")
        with pytest.raises(ConfigError, match=r"large\.png is too large"):
            read_picture(str(tmp_path / "large.png"), "reference_image.path")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "I;16", "P", "L"])
def test_a_large_picture_is_reduced_on_reading(tmp_path, mode, monkeypatch):
    monkeypatch.setattr("sds3d.picture_files.MOST_SIDE", 32)
    ramp = np.tile(np.linspace(0, 255, 96).astype(np.uint8), (48, 1))
    image = Image.fromarray(ramp).convert(mode) if mode != "I;16" else Image.fromarray(ramp.astype(np.uint16) * 257)
    for name in ["a.png", "a.tif", *(["a.jpg"] if mode in ("RGB", "L") else [])]:
        image.save(tmp_path / name)
        picture = read_picture(str(tmp_path / name), "path")
        assert picture.size == (96, 48)
        assert picture.pixels.shape[1:] == (16, 32)
        np.testing.assert_allclose(picture.pixels[0, 8], np.linspace(0.01, 0.99, 32), atol=0.03)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tif", "a.avif"])
@pytest.mark.parametrize("option", ["path", "mask", "depth", "normal"])
def test_pictures_and_maps_are_turned_as_their_metadata_say(tmp_path, name, option):
    """Taken with the phone on its side: the file has the top of the object at its left."""
    top_left = np.zeros((40, 80, 3), np.uint8)
    top_left[:, :20] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter to the right
    Image.fromarray(top_left).save(tmp_path / name, exif=exif)
    picture = read_picture(str(tmp_path / name), option)
    assert picture.size == (40, 80)
    assert picture.pixels.shape[1:] == (80, 40)
    assert picture.pixels[:, 2:18].min() > 0.9
    assert picture.pixels[:, 25:].max() < 0.1


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_shown_as_it_was_seen(tmp_path, name, orientation):
    """What was seen has one bright corner, top left; the file has it where the camera was held to put it."""
    seen = np.zeros((24, 48), np.uint8)
    seen[:8, :16] = 255
    turned = {1: seen, 2: seen[:, ::-1], 3: seen[::-1, ::-1], 4: seen[::-1], 5: seen.T}
    turned |= {6: np.rot90(seen), 7: seen[::-1, ::-1].T, 8: np.rot90(seen, -1)}
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(turned[orientation])).save(tmp_path / name, exif=exif)
    picture = read_picture(str(tmp_path / name), "path")
    assert picture.size == (48, 24)
    np.testing.assert_allclose(picture.pixels[0], seen / 255, atol=0.1)


@pytest.mark.parametrize(
    "name", ["cmyk.jpg", "cmyk.tif", "one-bit.png", "one-bit.tif", "grey.bmp", "palette.gif", "ramp.avif"]
)
def test_modes_and_formats_of_other_programs(tmp_path, name):
    grey = Image.fromarray(np.tile(np.where(np.arange(16) < 8, 0, 255).astype(np.uint8), (16, 1)))
    mode = {"cmyk": "CMYK", "one-bit": "1", "palette": "P"}.get(name.split(".")[0], "L")
    grey.convert("RGB").convert(mode).save(tmp_path / name)
    image = read_picture(str(tmp_path / name), "path").pixels
    assert image.shape == (3, 16, 16)
    assert image[..., :7].max() < 0.1
    assert image[..., 9:].min() > 0.9


def test_colours_are_those_that_the_profile_means(tmp_path):
    """A profile that turns the channels round would be seen at once; linear light is what many renderers write."""
    lab, swapped = ImageCms.createProfile("LAB"), Image.new("RGB", (8, 8), (200, 40, 40))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    swapped.save(tmp_path / "srgb.png", icc_profile=srgb.tobytes())
    swapped.save(tmp_path / "unfit.png", icc_profile=ImageCms.ImageCmsProfile(lab).tobytes())
    swapped.save(tmp_path / "damaged.png", icc_profile=b"nothing")
    wide = bytearray(srgb.tobytes())  # the same with the columns of red and blue exchanged
    red, blue = wide.find(b"rXYZ"), wide.find(b"bXYZ")
    wide[red : red + 4], wide[blue : blue + 4] = b"bXYZ", b"rXYZ"
    swapped.save(tmp_path / "exchanged.jpg", icc_profile=bytes(wide), quality=100)
    read = {path.name: read_picture(str(path), "path", is_color=True).pixels[:, 4, 4] for path in tmp_path.iterdir()}
    for name in ("srgb.png", "unfit.png", "damaged.png"):
        torch.testing.assert_close(read[name], T([200.0, 40.0, 40.0]) / 255, atol=0.01, rtol=0)
    torch.testing.assert_close(read["exchanged.jpg"], T([40.0, 40.0, 200.0]) / 255, atol=0.02, rtol=0)
    as_map = read_picture(str(tmp_path / "exchanged.jpg"), "depth").pixels[:, 4, 4]
    torch.testing.assert_close(as_map, T([200.0, 40.0, 40.0]) / 255, atol=0.02, rtol=0)


@pytest.mark.parametrize("around", [0.0, 1.0])
def test_what_is_around_the_object_has_no_part_in_its_colour_depth_or_normals(tmp_path, around):
    """As rembg and GIMP write it: transparent black. The object has one colour, to its very rim."""
    inside = disc(96)[..., 3:]
    colors = 0.9 * inside + around * (1 - inside)
    ramp = torch.linspace(0.4, 0.6, 96).expand(96, 96)[..., None]
    path = save(tmp_path / "cut.png", torch.cat([colors.expand(-1, -1, 3), inside], dim=-1))
    depth = save(tmp_path / "depth.png", (ramp * inside + around * (1 - inside)).expand(-1, -1, 3), "RGB")
    normal = save(tmp_path / "normal.png", T([0.5, 0.5, 1.0]) * inside + around * (1 - inside), "RGB")
    image = ReferenceImage(ReferenceImageConfig(path=path, depth=depth, normal=normal, size=20), CPU)
    seen = image.mask[0] > 0.02
    assert (image.mask[0] < 0.98)[seen].any()
    assert (image.rgb[:, seen] - 0.9).abs().max() < 0.01
    assert image.depth[:, seen].min() > 0.38
    assert image.depth[:, seen].max() < 0.62
    assert image.normal[2, seen].min() > 0.99
    over = image.over(T([0.9, 0.9, 0.9]))
    assert (over - 0.9).abs().max() < 0.01  # as zero123 is shown it, over another colour


def test_an_object_that_touches_the_edge_of_its_picture_ends_there(tmp_path):
    """A tight crop is padded with nothing, not with what its edge shows."""
    path = save(tmp_path / "tight.png", torch.ones(20, 60, 4) * T([1, 1, 1, 1.0]))
    image = ReferenceImage(ReferenceImageConfig(path=path, mask=path, size=60), CPU)
    assert image.mask[0, 20:40].min() > 0.99
    assert image.mask[0, :19].max() == 0.0


@pytest.mark.parametrize("option", ["mask", "depth", "normal"])
def test_a_map_of_another_shape_is_refused_with_both_sizes_and_one_of_another_scale_fits(tmp_path, option):
    wide = torch.zeros(60, 40, 4)
    wide[10:50, 10:30] = 1.0
    path = save(tmp_path / "picture.png", wide)
    ramp = torch.linspace(0, 1, 40).expand(60, 40)
    shown = torch.stack([wide[..., 3] if option == "mask" else ramp] * 3, dim=-1)
    whole = Image.open(save(tmp_path / "map.png", shown, "RGB"))
    for size in ((40, 60), (80, 120), (20, 30), (27, 40), (133, 200)):  # the last two rounded
        whole.resize(size).save(tmp_path / "map.png")
        image = ReferenceImage(ReferenceImageConfig(path=path, size=64, **{option: str(tmp_path / "map.png")}), CPU)
        assert 0.1 < float(image.mask.mean()) < 0.4
    for size in ((51, 51), (60, 40), (40, 56)):
        whole.resize(size).save(tmp_path / "map.png")
        message = rf"reference_image.{option} is {size[0]} x {size[1]} pixels, the picture 40 x 60"
        with pytest.raises(ConfigError, match=message):
            ReferenceImage(ReferenceImageConfig(path=path, **{option: str(tmp_path / "map.png")}), CPU)


@pytest.mark.parametrize("kind", ["8 bits", "16 bits", "real numbers", "white"])
def test_a_depth_that_is_the_same_all_over_the_object_is_refused(tmp_path, path, kind):
    outside = np.linspace(0, 1, 64)[None].repeat(64, 0)
    values = np.where(disc()[..., 3].numpy() > 0.5, 1.0 if kind == "white" else 0.4, outside)
    kinds = {"16 bits": (values * 65535).astype(np.uint16), "real numbers": values.astype(np.float32)}
    depth = tmp_path / ("depth.tif" if kind == "real numbers" else "depth.png")
    Image.fromarray(kinds.get(kind, (values * 255).astype(np.uint8))).save(depth)
    with pytest.raises(ConfigError, match=r"reference_image.depth = .* is the same all over the object"):
        ReferenceImage(ReferenceImageConfig(path=path, depth=str(depth), size=32), CPU)


def test_depth_in_metres_is_read_whatever_is_around_the_object(tmp_path, path):
    ramp = np.linspace(2.0, 3.0, 64)[None].repeat(64, 0).astype(np.float32)
    for around in (np.inf, np.nan, 1000.0):
        Image.fromarray(np.where(disc()[..., 3].numpy() > 0.5, ramp, np.float32(around))).save(tmp_path / "depth.tif")
        image = ReferenceImage(ReferenceImageConfig(path=path, depth=str(tmp_path / "depth.tif"), size=64), CPU)
        inside = image.mask[0] > 0.5
        assert correlation(image.depth[0][inside], T(ramp)[inside]) > 0.999
    Image.fromarray(np.full((64, 64), np.nan, np.float32)).save(tmp_path / "depth.tif")
    with pytest.raises(ConfigError, match="no numbers"):
        ReferenceImage(ReferenceImageConfig(path=path, depth=str(tmp_path / "depth.tif"), size=64), CPU)


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
