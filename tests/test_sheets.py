"""Images laid out for people: captions, borders, plots, and the range that is shown."""

import numpy as np
import pytest

from pictures.colors import ERROR_TOP, error_colors, limits, three_channels
from pictures.plots import plot
from pictures.sheets import contact_sheet, detailed_region, framed, labeled, outlined

RED, GREEN = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)


def gray(value, height=60, width=120):
    return np.full((height, width, 3), value, np.float32)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_a_caption_is_readable_on_anything(value):
    image = labeled(gray(value), "Recon-Net")
    assert image.shape == (60, 120, 3) and image.dtype == np.float32
    assert image.min() < 0.05 and image.max() > 0.95  # white letters in a black rim
    assert (np.abs(image[:25] - value) < 1 / 255).all(), "the caption stays in the corner"
    assert np.ptp(image[:, :100], axis=-1).max() == 0


def inked(image, size=None):
    """Pixels that a caption changes."""
    return int((labeled(image, "W", size) != image).any(-1).sum())


def test_captions_grow_with_the_image_or_as_told():
    assert inked(gray(1.0, 700, 700)) > 2 * inked(gray(1.0))
    assert inked(gray(1.0, 700, 700), 0.5) == inked(gray(1.0), 0.5)


def test_a_border_leaves_the_middle():
    image = framed(np.full((20, 30), 0.25, np.float32), RED)
    assert (image[3:-3, 3:-3] == 0.25).all()
    for side in (image[:3], image[-3:], image[:, :3], image[:, -3:]):
        assert (side == RED).all()


def test_titles_stand_above_their_panels():
    page = contact_sheet({"a": gray(0.3), "": gray(0.6), "c": gray(0.9)}, columns=2, width=120)
    assert page.shape == (2 * 84, 240, 3)
    for (top, left), value in (((24, 0), 0.3), ((24, 120), 0.6), ((108, 0), 0.9), ((84, 120), 1.0)):
        np.testing.assert_allclose(page[top : top + 60, left : left + 120], value, atol=1e-6)
    assert page[:24, :120].min() < 0.5 and page[:24, 120:].min() == 1


def where(page, color):
    return np.argwhere((page == np.array(color, np.float32)).all(-1)).mean(0)


def test_plots_have_y_upwards_and_their_ends_at_the_border():
    x, y = np.array([0.0, 1.0]), np.array([0.0, 1.0])
    page = plot([(x[:1], y[:1], RED, True), (x[1:], y[1:], GREEN, True)], (200, 100))
    assert page.shape == (100, 200, 3)
    np.testing.assert_allclose(where(page, RED), (80, 20), atol=1)
    np.testing.assert_allclose(where(page, GREEN), (20, 180), atol=1)
    square = plot([(x[:1], y[:1], RED, True), (x[1:], y[1:], GREEN, True)], (200, 100), square=True)
    np.testing.assert_allclose(where(square, GREEN), (20, 80), atol=1)


def test_gray_and_color_are_compared():
    color = np.stack([np.full((4, 6), v, np.float32) for v in (0.9, 0.5, 0.1)], -1)
    assert three_channels(color) is color
    assert three_channels(color[..., 0]).shape == three_channels(color[..., :1]).shape == (4, 6, 3)
    same = error_colors(color, color)
    off = error_colors(np.full((4, 6), 0.5, np.float32), color)
    assert same.max() < 0.05 < off.mean()
    assert (error_colors(gray(0.0), gray(ERROR_TOP)) == error_colors(gray(0.0), gray(1.0))).all()


def test_outliers_do_not_set_the_range():
    values = np.linspace(0.2, 0.4, 1000)
    values[[0, -1]] = -50, 50
    low, high = limits(values)
    assert low == pytest.approx(0.2, abs=0.01) and high == pytest.approx(0.4, abs=0.01)


def test_the_most_detailed_part_is_found_and_outlined():
    image = np.full((50, 80), 0.5, np.float32)
    image[12:22, 40:60] = np.indices((10, 20)).sum(0) % 2
    rows, columns = detailed_region(image, 0.3)
    assert (rows.stop - rows.start, columns.stop - columns.start) == (15, 24)
    assert rows.start <= 12 and rows.stop >= 22 and columns.start <= 40 and columns.stop >= 60
    drawn = outlined(image, (slice(2, 6), slice(3, 9)))
    changed = (drawn != image[..., None]).any(-1)
    assert changed.sum() == 2 * (4 + 6) - 4 and changed[2, 3:9].all() and not changed[3:5, 4:8].any()
