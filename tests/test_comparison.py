"""The comparison picture: every panel where it belongs, errors on one scale."""

import numpy as np
import pytest

from pictures.colors import ERROR_TOP
from pictures.sheets import compose

BAR, GAP = 26, 4


def panel(picture, row, column, width, height):
    top, left = BAR + row * (height + GAP), column * (width + GAP)
    return picture[top : top + height, left : left + width]


def gray(value, shape=(20, 40)):
    return np.full(shape, value, np.float32)


def test_panels_stand_in_rows_and_columns():
    rows = [{"a": gray(0.2), "truth": gray(0.6)}, {"a": gray(0.4), "truth": gray(0.8)}]
    picture = compose(rows, "truth", ["a"], width=80)
    assert picture.shape == (BAR + 2 * (40 + GAP), 3 * (80 + GAP), 3)
    for row, values in enumerate(((0.2, 0.6), (0.4, 0.8))):
        for column, value in enumerate(values):
            assert np.allclose(panel(picture, row, column, 80, 40), value, atol=1 / 255)
    assert 0 <= picture.min() and picture.max() <= 1


def test_errors_are_dark_at_zero_and_bright_at_the_top_of_the_scale():
    none, half, top, past = (
        panel(compose([{"a": gray(0.3 + e), "truth": gray(0.3)}], "truth", ["a"], width=40), 0, 2, 40, 20).mean()
        for e in (0, ERROR_TOP / 2, ERROR_TOP, 2 * ERROR_TOP)
    )
    assert none < 0.02 < half < top
    assert top == pytest.approx(past, abs=0.01)


def test_what_is_missing_leaves_a_gap():
    picture = compose([{"a": None, "truth": gray(0.5)}], "truth", ["a"], width=40)
    assert (panel(picture, 0, 0, 40, 20) == 1).all()
    assert (panel(picture, 0, 2, 40, 20) == 1).all()
    picture = compose([{"a": gray(0.5), "truth": None}], "truth", ["a"], width=40)
    assert (panel(picture, 0, 2, 40, 20) == 1).all(), "no truth, no error"


def test_notes_are_written_into_their_panel_and_titles_above():
    rows = [{"a": gray(0.5, (40, 80)), "truth": gray(0.5, (40, 80))}]
    picture = compose(rows, "truth", [], [{"a": "30.0 dB"}], width=160)
    assert panel(picture, 0, 0, 160, 80).std() > 0.01
    assert panel(picture, 0, 1, 160, 80).std() == 0
    assert picture[:BAR].min() < 0.5


def test_color_beside_gray():
    color = np.stack([gray(0.9), gray(0.5), gray(0.1)], -1)
    picture = compose([{"a": gray(0.5), "truth": color}], "truth", ["a"], width=40)
    assert np.allclose(panel(picture, 0, 1, 40, 20), [0.9, 0.5, 0.1], atol=1 / 255)
    assert panel(picture, 0, 2, 40, 20).mean() > 0.3


def test_no_image_is_refused():
    with pytest.raises(ValueError, match="at least one image"):
        compose([{"a": None}], "truth", [])
