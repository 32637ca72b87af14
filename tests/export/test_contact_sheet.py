import numpy as np
import pytest

from sds3d.export.contact_sheet import BACKGROUND, arrange, azimuth_label, render_sheet, to_uint8
from sds3d.export.png import write_png


def test_shows_every_view_on_a_light_ground(scene):
    sheet = render_sheet(scene, views=8, size=64)
    assert sheet.dtype == np.uint8
    assert sheet.shape[1] > 4 * 64
    assert sheet.shape[0] > 2 * 64
    assert (sheet[0] == 255).all()  # the margin
    gray = round(BACKGROUND[0] * 255)
    assert 0.3 < (sheet == gray).all(axis=-1).mean() < 0.9
    red = (sheet[..., 0] > 150) & (sheet[..., 1] < 80)
    columns = [red[:, k * 66 + 4 : k * 66 + 68].any() for k in range(4)]
    assert all(columns)


def test_pictures_start_at_the_front_and_go_counter_clockwise(scene):
    """The ball sits at x = +0.1, y = -0.05: seen from the left (+y), the front (+x) is on the picture's left."""
    sheet = render_sheet(scene, views=4, size=64, columns=4)
    middles = []
    for k in range(4):
        picture = sheet[4:68, 4 + 68 * k : 68 + 68 * k].astype(int)
        blue = np.argwhere((picture[..., 2] > 150) & (picture[..., 0] < 100))
        middles.append(blue[:, 1].mean() - 31.5)
    front, left, back, right = middles
    assert left < -1 < 1 < right
    assert front < 0 < back  # from the front (+x), -y is on the picture's left


def test_labels_name_the_quarter_turns():
    assert [azimuth_label(degrees) for degrees in (0, 45, 90, 180, 270)] == [
        "0° front", "45°", "90° left", "180° back", "270° right",
    ]  # fmt: skip


def test_previews_are_small(scene):
    assert render_sheet(scene, views=4, size=48).shape[0] < 80


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 4, 1), (5, 4, 2), (4, 4, 1)])
def test_pictures_are_placed_whole(count, columns, rows):
    images = np.stack([np.full((32, 48, 3), 10 * k, dtype=np.uint8) for k in range(count)])
    sheet = arrange(images, [str(k) for k in range(count)], columns)
    for k in range(count):
        assert ((sheet == 10 * k).all(axis=-1)).sum() >= 32 * 48
    assert sheet.shape[0] < rows * 64
    assert (sheet[32 + 6 :, :] != 255).any()  # the labels


def test_rounding_and_clamping():
    assert to_uint8(np.array([-1.0, 0.0, 0.5, 1.0, 2.0])).tolist() == [0, 0, 128, 255, 255]


def test_png_holds_the_same_pixels(tmp_path):
    from PIL import Image

    image = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    write_png(image, tmp_path / "image.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "image.png")), image)
    assert [file.name for file in tmp_path.iterdir()] == ["image.png"]
