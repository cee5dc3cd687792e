"""The groups of options that make up a recipe's settings."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Literal

from arguments.options import Options, option

QUIET = "print only errors: no messages, no progress bars"
# Random generators take 64 bits, some of them with a sign.
LARGEST_SEED = 2**63 - 1
# Width of the window that supervises one instant, spike frames.
SUBFRAME_WIDTH = 9


@dataclass(frozen=True)
class SceneOptions(Options):
    """Scene and results"""

    source_path: str = option("", "folder of the scene (transforms.json or sparse/0, spike_data/)", common=True)
    model_path: str = option("", "folder of the results; output/<scene> if not given", common=True)
    transforms: str = option("transforms.json", "pose file in the scene's folder", common=True)
    eval: bool = option(False, "hold out every llffhold-th view", common=True)
    llffhold: int = option(8, "distance between held-out views", at_least=1)
    image_folder: str = option("", "folder of the photographs of a scene without spikes (default: as listed)")
    resolution: int = option(
        0, "factor by which photographs are reduced (0: to at most 1,600 columns), or read from images_<factor>",
        at_least=0,
    )  # fmt: skip
    strict: bool = option(False, "refuse a scene in which views or streams have no partner")
    perturb: float = option(
        0.0, "noise on the initial poses: degrees, and percent of the median distance to the points (0: none)"
    )
    perturb_seed: int = option(0, "seed of the noise of --perturb", at_least=0, at_most=LARGEST_SEED)

    @property
    def resuming(self) -> str:
        """The command that continues a training of this scene, for a shell."""
        return shlex.join(["python", "train.py", "-s", self.source_path, "-m", self.model_path, "--resume"])


@dataclass(frozen=True)
class WindowOptions(Options):
    """Exposure"""

    exposure: int = option(97, "length of the virtual long exposure, spike frames")
    subframes: int = option(13, "number M of sub-frames in the exposure")


@dataclass(frozen=True)
class SpikeWindowOptions(WindowOptions):
    """Exposure"""

    short: int = option(41, "length of the short window of Recon-Net and TFP, spike frames")


@dataclass(frozen=True)
class GaussianOptions(Options):
    """Gaussians"""

    sh_degree: int = option(3, "degree of the spherical harmonics", common=True, at_least=0, at_most=3)
    sh_degree_interval: int = option(
        1000, "iterations between increments of the active degree", at_least=1, by_size=True
    )
    low_pass: float = option(0.3, "variance added to each projected Gaussian, square pixels (3DGS: 0.3)")
    antialiased: bool = option(True, "compensate the opacity for the low-pass (Mip-Splatting)", names=("antialiasing",))
    init_num_pts: int = option(
        0, "number of initial points; missing ones are sampled along the views' rays (0: only the given points)",
        common=True, by_size=True,
    )  # fmt: skip
    init_opa: float = option(0.1, "initial opacity", above=0, below=1)
    start_from: str = option(
        "", "folder of a model whose Gaussians, trajectories and pixel gains training starts from; a block of a scene "
        "trains only the Gaussians in its core"
    )  # fmt: skip


@dataclass(frozen=True)
class DensificationOptions(Options):
    """Densification"""

    strategy: Literal["default", "mcmc", "none"] = option(
        "default", "3DGS's clone and split, MCMC relocation under a budget, or none"
    )
    cap_max: int = option(
        0, "maximum number of Gaussians; extra initial points are dropped (0: no limit; mcmc needs one)", common=True,
        by_size=True,
    )  # fmt: skip
    densify_from_iter: int = option(500, "last iteration before densification")
    densify_until_iter: int = option(15000, "first iteration after densification", by_size=True)
    densification_interval: int = option(100, "iterations between densifications", at_least=1)
    densify_grad_threshold: float = option(
        4e-4, "threshold on the screen-space gradient of one exposure, divided by M for a sub-frame"
    )
    densify_subframes: Literal["all", "last"] = option(
        "all", "sub-frames whose gradients count; last: as the released program"
    )
    opacity_reset_interval: int = option(3000, "iterations between opacity resets, strategy default (0: never)")
    min_opacity: float = option(
        5e-3, "opacity below which Gaussians are removed or relocated", above=0, below=0.5
    )  # a reset sets opacities to twice this value

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.strategy == "mcmc" and self.cap_max == 0:
            raise ValueError("--strategy mcmc needs a number of Gaussians: give --cap_max")


@dataclass(frozen=True)
class MotionOptions(Options):
    """Camera motion during the exposure"""

    trajectory: Literal["linear", "cubic", "bezier", "spline"] = option(
        "linear",
        "motion curve of a view: linear (2 knots), cubic (one segment of a B-spline), bezier, or one B-spline over "
        "the whole recording (spline)",
        common=True,
    )
    curve_degree: int = option(
        3, "degree of the Bezier curve (--trajectory bezier only): the higher, the faster the motion that it can "
        "follow", at_least=1, at_most=15,
    )  # fmt: skip
    knot_spacing: float = option(0.5, "distance between the knots (--trajectory spline only), exposures", above=0)
    pose_opt: bool = option(True, "optimize the poses", common=True)
    pose_precondition: bool = option(
        False, "optimize the poses (--pose_opt) in coordinates that move the image alike in size and nearly "
        "independently (CamP): a turn and a sideways step are told apart, and the scale of the scene does not matter"
    )  # fmt: skip
    motion_init: bool = option(True, "initial motion from the neighboring views; off: at rest")
    view_spacing: float = option(
        0.0, "spike frames between the middles of two views (0: the length of a view, or two exposures)"
    )


@dataclass(frozen=True)
class NetworkOptions(Options):
    """Recon-Net"""

    recon_net: Literal["paper", "slim"] = option(
        "paper", "the paper's network, or a residual on timing images at a quarter of its cost", common=True
    )
    long_grouping: Literal["adjacent", "strided"] = option(
        "adjacent", "frames summed in fours for the long input: neighbors (paper) or 34 apart (released program)"
    )
    crop: int = option(0, "side of the random crop that Recon-Net is trained on, pixels (0: the full frame)")
    recon_lr: float = option(1e-3, "initial rate of Recon-Net")
    recon_lr_final: float = option(1e-5, "final rate of Recon-Net", above=0)


@dataclass(frozen=True)
class BlindSpotOptions(Options):
    """Blind-spot network (SpikeGS's images)"""

    bsn_width: int = option(24, "features of the blind-spot network (published: 48)", at_least=1)
    bsn_steps: int = option(1000, "training steps of the blind-spot network, on the scene's short exposures")
    bsn_weights: str = option("", "file of the blind-spot network: read if it exists, otherwise written after training")


@dataclass(frozen=True)
class ImageOptions(BlindSpotOptions):
    """Images from the spikes of one view"""

    spk2imgnet_weights: str = option("", "file of Spk2ImgNet's published weights", common=True)


@dataclass(frozen=True)
class RegularizationOptions(Options):
    """Regularization of the Gaussians"""

    lambda_scale_ratio: float = option(
        0.1, "weight of the penalty on Gaussians more than ten times longer than wide, every tenth iteration"
    )
    opacity_reg: float = option(0.0, "weight of the mean opacity (MCMC)")
    scale_reg: float = option(0.0, "weight of the mean scale in units of the scene's extent (MCMC)")


@dataclass(frozen=True)
class StepOptions(Options):
    """Steps and learning rates"""

    iterations: int = option(
        30000, "number of training steps", common=True, at_least=1, by_size=True, names=("max_steps",)
    )  # fmt: skip
    shards: int = option(1, "parts of a step that processes share, each summed on its own (power of two)", at_least=1)


@dataclass(frozen=True)
class RateOptions(StepOptions):
    """Steps and learning rates"""

    means_lr: float = option(1.6e-4, "initial rate of the means, in means_unit", names=("position_lr_init",))
    means_lr_final: float = option(1.6e-6, "final rate of the means", above=0, names=("position_lr_final",))
    means_unit: Literal["extent", "depth"] = option(
        "extent", "unit of that rate: extent of the cameras (3DGS) or median depth of the initial points"
    )
    sh0_lr: float = option(2.5e-3, "rate of the color", names=("feature_lr",))
    shN_lr: float = option(1.25e-4, "rate of the view-dependent color")
    opacities_lr: float = option(5e-2, "rate of the opacity logits", names=("opacity_lr",))
    scales_lr: float = option(5e-3, "rate of the log scales", names=("scaling_lr",))
    quats_lr: float = option(1e-3, "rate of the quaternions", names=("rotation_lr",))
    pose_opt_lr: float = option(
        1e-3, "initial rate of the knots: with --pose_precondition radians of the image's motion, else radians and "
        "units of length"
    )  # fmt: skip
    pose_opt_lr_final: float = option(1e-5, "final rate of the knots", above=0)
    length_unit: Literal["world", "depth"] = option(
        "world", "unit of length of MCMC's noise and, without --pose_precondition, of the rate of the positions: the "
        "world's unit, or a third of the median depth of the initial points, so that the scale does not matter"
    )  # fmt: skip
    pose_every: int = option(25, "iterations over which gradients of the knots are summed", at_least=1)
    average_decay: float = option(
        0.0, "decay of the exponential moving average over the last steps, which replaces the Gaussians and the poses "
        "at the end (0: no average)", at_least=0, below=1,
    )  # fmt: skip
    average_from: int = option(
        0, "iterations before that average begins, at the earliest after densification", by_size=True
    )


@dataclass(frozen=True)
class RunOptions(Options):
    """Run"""

    rasterizer: Literal["auto", "cpu", "gsplat", "inria"] = option(
        "auto", "backend of the Gaussians; auto: cpu without CUDA, gsplat or inria with it", common=True
    )
    device: Literal["auto", "cpu", "cuda"] = option("auto", "device of the tensors", common=True)
    targets_memory: float = option(
        0.0, "memory for the targets of all views, GB; if they need more, they are kept in files in the results folder "
        "(0: no limit; on the CPU only)", at_least=0,
    )  # fmt: skip
    threads: int = option(0, "number of threads of this process (0: its share of the processors)")
    seed: int = option(0, "seed of every random choice", common=True, at_least=0, at_most=LARGEST_SEED)
    save_iterations: list[int] = option(  # noqa: RUF009
        [], "iterations at which the model is saved, in addition to the last", common=True
    )
    checkpoint_every: int = option(1000, "iterations between checkpoints (0: only at the end or when interrupted)")
    resume: bool = option(
        False, "continue from the newest checkpoint with its stored flags; only flags of this group may differ",
        common=True,
    )  # fmt: skip
    log_every: int = option(50, "iterations between rows of log.jsonl", at_least=1)
    viewer: bool = option(False, "show the training in the browser", common=True)
    viewer_host: str = option(
        "127.0.0.1",
        "address that the viewer listens on; dangerous if it is not this machine's own: the connection is not "
        "encrypted, and everybody who sees the traffic can watch and stop the training",
    )
    viewer_port: int = option(8080, "port of the viewer, or the next free one", at_least=1, at_most=65535)
    quiet: bool = option(False, QUIET, common=True)
    tensorboard: bool = option(False, "write curves and images for TensorBoard into the model's folder")
    json_log: bool = option(False, "print the rows of log.jsonl on standard output")


@dataclass(frozen=True)
class Video(Options):
    """Video of the Gaussians, instead of images of the views"""

    video: str = option(
        "", "camera path: trajectory (all views), exposure (slow motion), orbit, or a camera file (.json)"
    )
    video_view: str = option("", "name of the view whose exposure is shown (default: the middle view)")
    video_frames: int = option(120, "number of frames; for an exposure, its sub-frames", at_least=1)
    video_fps: float = option(24.0, "frames per second", above=0, at_most=1000)
    video_of: Literal["gaussians", "depth", "side"] = option(
        "gaussians", "content: the Gaussians, their depth, or Recon-Net beside the Gaussians"
    )
    video_out: str = option("", "file ending in .mp4, or folder of numbered PNGs (default: <model>/video_<path>.mp4)")
    video_bits: int = option(8, "bits per channel, 8 or 16 (16: PNGs only; depth is gray, its scale in depth.json)")
