"""What full_eval.py compares: recipes with certain flags, images from spikes alone, and initial poses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from arguments import RECIPES, ImageSettings, TimingSettings
from arguments.parser import given_recipe
from baselines.providers import PROVIDERS
from scene.perturbation import LEVELS


@dataclass(frozen=True)
class Method:
    """One method.

    Args:
        title: title in tables.
        flags: flags for train.py.
        poses_from: image method on whose images structure from motion runs for ``--poses sfm``.
        image: image method whose image is this method's, in the table of images.
    """

    title: str
    flags: Sequence[str] = ()
    poses_from: str = "tfp"
    image: str = ""


@dataclass(frozen=True)
class Poses:
    """Initial poses: a pose file of the scene with noise of some level, or found on a method's images."""

    transforms: str = "transforms.json"
    level: float = 0.0
    found: bool = False


# The paper's losses, window, network and linear motion, scaled to a CPU: crops instead of full frames, a number of
# steps that takes about as long as our method, a proportionally shorter schedule, and the same number of initial points
# as our method.
_SHORT = (
    "--iterations 900 --init_num_pts 20000 --cap_max 60000 --densify_from_iter 200 --densify_until_iter 700 "
    "--opacity_reset_interval 0 --sh_degree_interval 500"
).split()
# Cascades render one image a step, so they can take more of them.
_LONGER = "--iterations 3000 --densify_until_iter 1500".split()
_SCALED = [*_SHORT, "--crop", "48", "--pose_every", "5"]
_PAPER = ["--recipe", "paper", *_SCALED]
_SPIKEGS = ["--recipe", "spikegs", *_SHORT]

_RATES = [
    word
    for name in ("means_lr", "means_lr_final", "means_unit", "scales_lr", "quats_lr", "pose_opt_lr_final", "pose_every")
    for word in (f"--{name}", str(ImageSettings.defaults[name]))
]


def _cascade(image: str) -> Method:
    """3DGS on the images of an image method, with the shortened schedule."""
    flags = ["--recipe", "cascade", "--image_method", image, *_SHORT, *_LONGER]
    return Method(f"{PROVIDERS[image].title}-3DGS", flags, poses_from=image)


METHODS = {
    # Structure from motion sees what convert.py shows it.
    "ours": Method("ours", poses_from="timing"),
    "ours-gaussians": Method("ours, no Recon-Net", ["--lambda_joint", "0"]),
    "ours-counting": Method("ours, counted targets", "--targets counting --no-fuse".split()),
    "ours-linear": Method("ours, linear motion", "--trajectory linear".split()),
    "ours-spline": Method("ours, one spline per recording", "--trajectory spline".split()),
    "ours-rest": Method("ours, motion starts at rest", ["--no-motion_init"]),
    "ours-fixed": Method("ours, poses fixed", ["--no-pose_opt"]),
    "ours-middle": Method("ours, windows' middles alone", "--window_points 1".split()),
    "ours-no-pattern": Method("ours, no fixed pattern", "--fixed_pattern_every 0".split()),
    "ours-no-fuse": Method("ours, Recon-Net distilled from plain renders", ["--no-fuse"]),
    "ours-adc": Method("ours, 3DGS densification", "--strategy default".split()),
    "ours-paper-net": Method("ours, the paper's network", "--recon_net paper".split()),
    "paper": Method("paper (S)", _PAPER),
    # How much of the difference is due to the optimizer.
    "paper-rates": Method("paper (S), our rates", [*_PAPER, *_RATES]),
    # The result after a longer schedule.
    "paper-long": Method("paper (S), 6,000 steps", [*_PAPER, *"--iterations 6000 --densify_until_iter 4000".split()]),
    "released": Method("paper (released program)", ["--recipe", "released", *_SCALED]),
    "gs": Method("L_gs alone", [*_PAPER, "--no-rec", "--no-joint"]),
    "rec": Method("L_rec alone", [*_PAPER, "--no-gs", "--no-joint"]),
    "joint-free": Method("paper, no L_joint", [*_PAPER, "--no-joint"]),
    "no-flip": Method("paper, no flip", [*_PAPER, "--no-flip"]),
    "single": Method("paper, one interval", [*_PAPER, "--no-multi_interval"]),
    "fixed": Method("paper, poses fixed", [*_PAPER, "--no-pose_opt"]),
    **{f"{image}-3dgs": _cascade(image) for image in PROVIDERS},
    "spikegs": Method("SpikeGS", _SPIKEGS, poses_from="bsn", image="bsn"),
    "spikegs-instants": Method("SpikeGS, instants alone", [*_SPIKEGS, "--no-exp"], poses_from="bsn"),
    "spikegs-exposures": Method("SpikeGS, exposures alone", [*_SPIKEGS, "--no-inst"], poses_from="bsn"),
    "spikenerf": Method("SpikeNeRF", ["--recipe", "spikenerf"], image="tfp"),
}
# Images from the spikes of one view alone, at u = 0.5.
BASELINES = {name: method.title for name, method in PROVIDERS.items()}
POSES = {
    "accurate": Poses(),
    "colmap": Poses("transforms_colmap.json"),
    "noisy": Poses("transforms_noisy.json"),
    **{f"perturbed-{level:g}": Poses(level=level) for level in LEVELS},
    # Structure from motion on the images that the method itself starts from.
    "sfm": Poses(found=True),
}
GROUPS = {
    # The rows of the paper's two tables: images, then scenes.
    "tables": [
        "tfp", "tfi", "spk2imgnet-s", "bsn", "tfp-3dgs", "tfi-3dgs", "spk2imgnet-s-3dgs", "spikenerf", "spikegs",
        "paper", "ours",
    ],
    "main": ["tfp", "tfi", "timing", "tfp-3dgs", "paper", "ours"],
    "losses": ["gs", "rec", "joint-free", "no-flip", "single", "fixed", "released", "paper-rates"],
    "ablations": [
        "ours-gaussians", "ours-counting", "ours-middle", "ours-no-pattern", "ours-linear", "ours-spline", "ours-rest",
        "ours-fixed", "ours-no-fuse", "ours-adc",
    ],
}  # fmt: skip


def learned_by(method: str) -> str:
    """What a method learns and renders, as a label; empty for methods that only make images."""
    if method in BASELINES:
        return ""
    return RECIPES[given_recipe(METHODS[method].flags) or TimingSettings.recipe].learns


def title_of(method: str) -> str:
    """The title of a method or baseline in tables."""
    return BASELINES[method] if method in BASELINES else METHODS[method].title
