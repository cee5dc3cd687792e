"""How many steps, initial points and Gaussians ``timing``, ``images`` and ``photos`` use for a scene of some size.

The measurements behind the rule are in docs/time-and-size.md.
"""

from __future__ import annotations

from dataclasses import dataclass

# The scene on which the recipe was developed: 16 views of 200x124 pixels.
_VIEWS, _PIXELS = 16, 200 * 124
_STEPS, _GAUSSIANS = 3600, 60_000
# Exponents for the number of views and pixels, and bounds.
_STEPS_BY_VIEWS = 0.5
_GAUSSIANS_BY_PIXELS = 0.5
_LEAST_STEPS, _MOST_STEPS = 2400, 30_000

# Where the parts of the schedule begin and end, as shares of the steps (found with 3,600).
SCHEDULE = {
    "densify_until_iter": 2900 / 3600,
    "average_from": 2900 / 3600,
    "window_from": 1800 / 3600,
    "fixed_pattern_every": 1100 / 3600,
    "retime_from": 1400 / 3600,
    "retime_every": 750 / 3600,
    "sh_degree_interval": 900 / 3600,
    "recon_from": 2200 / 3600,
}


@dataclass(frozen=True)
class Size:
    """Number of steps, maximum number of Gaussians and number of initial points for a scene."""

    iterations: int
    cap_max: int
    init_num_pts: int


def size_for(views: int, width: int, height: int) -> Size:
    """Scale the steps with the square root of the number of views, and the Gaussians with that of the pixels."""
    by_views, by_pixels = views / _VIEWS, width * height / _PIXELS
    steps = _STEPS * by_views**_STEPS_BY_VIEWS
    budget = _rounded(_GAUSSIANS * by_pixels**_GAUSSIANS_BY_PIXELS)
    return Size(min(max(_rounded(steps), _LEAST_STEPS), _MOST_STEPS), budget, _rounded(budget / 3))


def _rounded(value: float) -> int:
    """Round to two significant digits, for readable sizes."""
    unit = 10 ** (len(str(int(value))) - 2)
    return max(round(value / unit), 1) * unit
