"""The sensor's fixed pattern from a scene: found where there is one, not invented where there is none."""

import pytest
import torch

from spike import FixedPattern, SensorModel

VIEWS, SUBFRAMES, SIZE = 12, 3, (40, 50)


def gathered(true_gain, error=0.03, views=VIEWS, seed=0):
    """Views of random light, measured with ``true_gain`` and rendered with errors that differ between views."""
    random = torch.Generator().manual_seed(seed)
    pattern = FixedPattern(views)
    for _ in range(views):
        light = 0.1 + 0.8 * torch.rand(1, 1, *SIZE, generator=random).expand(SUBFRAMES, -1, -1, -1)
        render = light + error * torch.randn(1, 1, *SIZE, generator=random)
        pattern.add(light * true_gain + 0.01 * torch.randn(light.shape, generator=random), render)
    return pattern


def true_pattern(sigma=0.03):
    return 1 + sigma * torch.randn(SIZE, generator=torch.Generator().manual_seed(9))


def test_a_pattern_is_found():
    true = true_pattern()
    gain, deviation = gathered(true).gain()
    assert deviation == pytest.approx(0.03, rel=0.2)
    assert float((gain / gain.mean() - true).std()) < 0.55 * 0.03


def test_gains_of_many_views_are_nearly_exact():
    true = true_pattern()
    gain, _ = gathered(true, error=0.01, views=60).gain()
    assert float((gain / gain.mean() - true).std()) < 0.15 * 0.03


def test_no_pattern_is_invented():
    for seed in range(3):
        gain, deviation = gathered(torch.ones(SIZE), seed=seed).gain()
        assert deviation < 0.004
        assert float((gain - 1).std()) < 0.003


def test_the_scene_s_brightness_stays():
    """What all pixels share is the scene's brightness or the sensor's gain, not a pattern."""
    gain, _ = gathered(1.2 * true_pattern()).gain()
    assert float(gain.median()) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("sigma", [0.0, 0.03])
def test_smooth_errors_of_the_scene_are_no_pattern(sigma):
    """A scene that is brighter on the left than what was seen, in all views."""
    true = true_pattern(sigma)
    slope = torch.linspace(1.03, 0.97, SIZE[1]).expand(SIZE)
    gain, deviation = gathered(true * slope).gain()
    columns = gain.mean(0)
    assert float((columns[:10].mean() - columns[-10:].mean()).abs()) < 0.004
    assert deviation == pytest.approx(sigma, rel=0.2, abs=0.004)
    assert float((gain - true).std()) < max(0.55 * sigma, 0.003)


def test_a_pattern_of_columns_is_found():
    """Of the columns' amplifiers, for example."""
    true = 1 + 0.03 * torch.randn(SIZE[1], generator=torch.Generator().manual_seed(9)).expand(SIZE)
    gain, _ = gathered(true, error=0.01, views=60).gain()
    assert float((gain - true).std()) < 0.4 * 0.03


def test_dark_pixels_and_few_views_say_nothing():
    pattern = gathered(true_pattern())
    for half in pattern._halves:
        half[:, 0, 0] = 1e-6
    gain, _ = pattern.gain()
    assert float(gain[0, 0]) == 1 and bool(gain.isfinite().all())
    gain, deviation = gathered(true_pattern(), views=3).gain()
    assert deviation == 0 and bool((gain == 1).all())


def test_a_scene_too_dark_to_tell_has_no_pattern():
    pattern = gathered(true_pattern())
    pattern._halves = [half * 1e-6 for half in pattern._halves]
    gain, deviation = pattern.gain()
    assert deviation == 0 and bool((gain == 1).all())
    assert pattern.applied_to(SensorModel(0.4)).gain == 0.4


def test_dead_pixels_keep_the_sensor_s_gain():
    true = true_pattern()
    true[5, 6] = 0
    gain, deviation = gathered(true).gain()
    assert float(gain[5, 6]) == 1 and deviation == pytest.approx(0.03, rel=0.2)


def test_it_comes_on_top_of_the_calibration():
    own = true_pattern()
    sensor = gathered(true_pattern()).applied_to(SensorModel(0.4, gain_map=own))
    assert sensor.gain == 0.4 and sensor.gain_map is not None
    assert torch.allclose(sensor.gain_map, own * gathered(true_pattern()).gain()[0])


def test_all_the_views_that_were_announced_are_added():
    pattern = gathered(true_pattern())
    pattern.views += 1
    with pytest.raises(ValueError, match="12 of 13 views were added"):
        pattern.gain()
