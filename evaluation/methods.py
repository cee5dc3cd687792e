"""What full_eval.py compares: methods by their flags of train.py, images from spikes alone, and initial poses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from arguments import PRESETS
from scene.cameras import View
from scene.dataset import SceneData
from scene.exposure import Exposure, usable_margin
from spike import WindowSpec, tfi

# The paper's losses, window, network and linear motion, scaled to a processor: crops instead of full frames, as
# many steps as take about the time of ours, the schedule shortened alike, and as many first points as ours.
_PAPER = (
    "--preset paper --crop 48 --iterations 900 --init_points 20000 --cap 60000 --densify_from 200 --pose_every 5 "
    "--densify_until 700 --opacity_reset_every 0 --sh_every 500"
).split()

_RATES = [
    word
    for name in ("means_lr", "means_lr_final", "means_unit", "scale_lr", "rotation_lr", "pose_lr_final", "pose_every")
    for word in (f"--{name}", str(PRESETS["cpu"][name]))
]


@dataclass(frozen=True)
class Method:
    """One row: what it is called in tables, and its flags of train.py."""

    title: str
    flags: Sequence[str]


METHODS = {
    "ours": Method("ours", ("--preset", "cpu")),
    "ours-gaussians": Method("ours, no Recon-Net", ("--preset", "cpu", "--no-joint")),
    "ours-counting": Method("ours, counted targets", ("--preset", "cpu", "--targets", "counting", "--no-fuse")),
    "ours-linear": Method("ours, linear motion", ("--preset", "cpu", "--trajectory", "linear")),
    "ours-spline": Method("ours, one spline a recording", ("--preset", "cpu", "--trajectory", "spline")),
    "ours-rest": Method("ours, motion starts at rest", ("--preset", "cpu", "--no-motion_init")),
    "ours-fixed": Method("ours, poses fixed", ("--preset", "cpu", "--no-optimise_poses")),
    "ours-middle": Method("ours, windows' middles alone", ("--preset", "cpu", "--window_points", "1")),
    "ours-no-pattern": Method("ours, no fixed pattern", ("--preset", "cpu", "--fixed_pattern_every", "0")),
    "ours-no-fuse": Method("ours, Recon-Net taught by plain renders", ("--preset", "cpu", "--no-fuse")),
    "ours-default": Method("ours, 3DGS densification", ("--preset", "cpu", "--strategy", "default")),
    "ours-paper-net": Method("ours, the paper's network", ("--preset", "cpu", "--recon_net", "paper")),
    "paper": Method("paper (S)", _PAPER),
    # How much of the difference is the optimizer's.
    "paper-rates": Method("paper (S), our rates", [*_PAPER, *_RATES]),
    # What the schedule converges to.
    "paper-long": Method("paper (S), 6,000 steps", [*_PAPER, "--iterations", "6000", "--densify_until", "4000"]),
    "parity": Method("paper (R parity)", [*_PAPER, "--preset", "parity"]),
    "gs": Method("L_gs alone", [*_PAPER, "--no-rec", "--no-joint"]),
    "rec": Method("L_rec alone", [*_PAPER, "--no-gs", "--no-joint"]),
    "joint-free": Method("paper, no L_joint", [*_PAPER, "--no-joint"]),
    "no-flip": Method("paper, no flip", [*_PAPER, "--no-flip"]),
    "single": Method("paper, one interval", [*_PAPER, "--no-multi_interval"]),
    "fixed": Method("paper, poses fixed", [*_PAPER, "--no-optimise_poses"]),
    "tfp-3dgs": Method(
        "TFP-3DGS",
        [*_PAPER, *"--exposure 41 --subframes 1 --no-rec --no-joint --no-optimise_poses --no-motion_init".split()],
    ),
}
# Images from the spikes of one view alone, at u = 0.5: no network, no scene.
BASELINES = {"tfp": "TFP(41)", "tfp-long": "TFP(97)", "tfi": "TFI", "timing": "spike timing (9 frames)"}
POSES = {"accurate": "transforms.json", "colmap": "transforms_colmap.json", "noisy": "transforms_noisy.json"}
GROUPS = {
    "main": ["tfp", "tfi", "timing", "tfp-3dgs", "paper", "ours"],
    "losses": ["gs", "rec", "joint-free", "no-flip", "single", "fixed", "parity", "paper-rates"],
    "ablations": [
        "ours-gaussians", "ours-counting", "ours-middle", "ours-no-pattern", "ours-linear", "ours-spline", "ours-rest",
        "ours-fixed", "ours-no-fuse", "ours-default",
    ],
}

# Spike frames of a timing image.
_TIMING_WIDTH = 9


def title_of(method: str) -> str:
    """What a row is called in tables."""
    return BASELINES[method] if method in BASELINES else METHODS[method].title


def baseline_image(method: str, scene: SceneData, view: View) -> Tensor:
    """The image [C, H, W] that one of ``BASELINES`` makes of a view's spikes, in color where the sensor is."""
    spec, stream = WindowSpec(), scene.open_stream(view)
    if method == "tfi":
        margin = usable_margin(stream, spec)
        rate = tfi(stream.central(spec, margin), margin + spec.context // 2)
        pixels = scene.sensor.intensity(rate, spurious_left=False)[None]
    else:
        exposure = Exposure.from_spikes(0, view.camera, stream, spec, scene.sensor, "counting", _TIMING_WIDTH, [])
        if method == "tfp-long":
            pixels = exposure.long
        elif method == "timing":
            pixels = exposure.middle_image(scene.sensor, "timing", _TIMING_WIDTH)
        else:
            pixels = exposure.middle_image(scene.sensor, "counting", spec.short)
    return pixels if scene.mosaic is None else scene.mosaic.colors(pixels)
