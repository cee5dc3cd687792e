"""Preview images in any light."""

import numpy as np
import pytest
import torch

from simulation import Simulator
from spike import SpikeStream
from spike.preview import counting_width, despeckled, picture

HEIGHT, WIDTH = 12, 16


def test_intervals_longer_than_the_usual_reach_are_seen():
    """A spike every 100 frames."""
    stream = SpikeStream.from_array(Simulator(0.01)(np.ones((600, HEIGHT, WIDTH))))
    for method in ("timing", "tfi"):
        image = picture(stream, 300, method)
        assert float((image / 0.01 - 1).abs().max()) < 0.02


def test_speckles_are_filled_and_nothing_else():
    y, x = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    image = 0.2 + 0.02 * x + 0.5 * (y > 5)  # a ramp with an edge
    spoiled = image.clone()
    for at, factor in (((3, 4), 2.0), ((8, 11), 0.5), ((0, 0), 2.0), ((6, 9), 2.0)):
        spoiled[at] *= factor
    torch.testing.assert_close(despeckled(image), image)
    assert float((despeckled(spoiled) - image).abs().max()) < 0.03


def test_counting_windows_follow_the_light():
    light = np.full((400, HEIGHT, WIDTH), 1.0)
    for gain, width in ((0.5, 9), (0.23, 9), (0.1, 21), (0.03, 67)):
        stream = SpikeStream.from_array(Simulator(gain)(light))
        assert counting_width(stream, [50, 200, 350]) == pytest.approx(width, abs=2)
    assert counting_width(SpikeStream.from_array(np.zeros((400, 2, 2), np.uint8)), [200]) == 401
