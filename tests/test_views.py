"""The truth of a scene, at the sub-frames of whatever window a model has."""

from pathlib import Path

import pytest
import torch

from scene.cameras import Camera, View
from scene.views import Quadrature, TargetSpec, true_images, true_poses
from spike import WindowSpec, window_quadrature

STORED = 13
POSES = torch.arange(STORED).reshape(-1, 1, 1).expand(-1, 4, 4).float()


def images(spec: WindowSpec) -> dict[int, int]:
    """Which stored image [0..12] shows which sub-frame."""
    camera = Camera("0", 8, 8, torch.eye(3), torch.eye(4))
    view = View(camera, sequence_paths={m: Path(str(m)) for m in range(STORED)})
    return {m: int(path.name) for m, path in true_images(view, spec).items()}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (WindowSpec(), {m: m for m in range(13)}),
        (WindowSpec(subframes=7), {m: 2 * m for m in range(7)}),
        (WindowSpec(exposure=41, subframes=1), {0: 6}),
        # Half the exposure: the stored images 3 to 9 are every other sub-frame.
        (WindowSpec(exposure=49), {2 * i: i + 3 for i in range(7)}),
        # Twice as many sub-frames: half of them have none.
        (WindowSpec(subframes=25), {2 * m: m for m in range(13)}),
        # Longer than the truth, which is all within it.
        (WindowSpec(exposure=193, subframes=25), {m + 6: m for m in range(13)}),
    ],
)
def test_truth_is_paired_by_spike_frame(spec, expected):
    assert images(spec) == expected
    poses = true_poses(POSES, spec)
    if len(expected) == spec.subframes:
        assert poses[:, 0, 0].tolist() == [expected[m] for m in range(spec.subframes)]
    else:
        assert poses is None


def test_another_number_of_true_poses_lies_over_the_same_exposure():
    assert true_poses(POSES[:7], WindowSpec()) is None
    assert true_poses(POSES[:7], WindowSpec(subframes=7))[:, 0, 0].tolist() == list(range(7))
    assert true_poses(POSES[:1], WindowSpec(subframes=1)).shape == (1, 4, 4)


def test_a_window_s_instants_are_in_exposures():
    """Gauss's rule of three points for a box of 9 frames softened by ten frames on either side."""
    window = TargetSpec(WindowSpec(), "timing", 9).quadrature(3)
    frames, weights = window_quadrature(9, "timing", 3)
    assert (96 * window.offsets).tolist() == pytest.approx(frames.tolist(), abs=1e-4)
    assert window.weights.tolist() == pytest.approx(weights.tolist())
    assert window.reach == pytest.approx(frames.max() / 96) and Quadrature.middle().reach == 0
    assert TargetSpec(WindowSpec(), "counting", 9).quadrature(1).offsets.tolist() == [0]
