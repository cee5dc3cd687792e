"""The one configuration of a run: typed, documented, on the command line and as JSON beside the model.

Every field below is a flag (``--sh_degree 2``, ``--no-flip``); its docstring is the flag's help.  Presets
change defaults, flags given on the command line win over them.
"""

from __future__ import annotations

import argparse
import ast
import copy
import dataclasses
import inspect
import json
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from utils.io import atomic_write

CONFIG_NAME = "cfg_args.json"


@dataclass
class Data:
    """What is read, and what the spikes are compared with"""

    source_path: str = ""
    """folder of the scene (transforms.json or sparse/0, spike_data/)"""
    model_path: str = ""
    """folder of the results (default: output/<scene>)"""
    transforms: str = "transforms.json"
    """pose file inside the scene folder, e.g. transforms_colmap.json"""
    spike: bool = False
    """learn from spike streams; without it, from the scene's (blurred) images as long exposures"""
    eval: bool = False
    """hold every llffhold-th view out of training"""
    llffhold: int = 8
    """distance of held-out views"""
    targets: Literal["counting", "timing"] = "counting"
    """what spikes are turned into: counts over a window, or intervals between spike times"""
    exposure: int = 97
    """spike frames in the virtual long exposure"""
    short: int = 41
    """spike frames in Recon-Net's short window"""
    subframes: int = 13
    """sub-frames M in the exposure"""
    subframe_width: int = 9
    """spike frames in the window that supervises one sub-frame (L_sub)"""
    window_points: int = 1
    """instants within that window whose renders, averaged, meet it (1: its middle alone)"""
    window_from: int = 0
    """iterations before those instants are more than the middle"""
    fixed_pattern_every: int = 0
    """iterations between estimates of the pixels' own gains from the scene (0: the scene's calibration as it is)"""
    long_grouping: Literal["adjacent", "strided"] = "adjacent"
    """how Recon-Net's long input sums frames in fours: neighbours (paper) or 34 apart (released program)"""


@dataclass
class Scene:
    """Gaussians and their number"""

    sh_degree: int = 3
    """degree of the spherical harmonics"""
    sh_every: int = 1000
    """iterations between raising the active degree by one"""
    low_pass: float = 0.3
    """variance added to every Gaussian on the screen, square pixels (3DGS: 0.3, Mip-Splatting: 0.1)"""
    antialiased: bool = True
    """take from the opacity what that widening adds (Mip-Splatting's 2D filter)"""
    init_points: int = 0
    """fill the first points up to this number, by rays at depths of the given points (0: only the points)"""
    init_opacity: float = 0.1
    """opacity at the start"""
    strategy: Literal["default", "mcmc", "none"] = "default"
    """densification: 3DGS's clone and split, MCMC relocation under a budget, or none"""
    cap: int = 0
    """most Gaussians, more first points are thinned out (0: no limit; mcmc needs one)"""
    densify_from: int = 500
    """densification begins after this iteration"""
    densify_until: int = 15000
    """densification ends before this iteration"""
    densify_every: int = 100
    """iterations between densifications"""
    densify_grad: float = 4e-4
    """threshold on the screen-space gradient of one whole exposure (divided by M for a sub-frame)"""
    densify_subframes: Literal["all", "last"] = "all"
    """sub-frames whose gradients count (the released program: only the last)"""
    opacity_reset_every: int = 3000
    """iterations between opacity resets (strategy default; 0: never)"""
    min_opacity: float = 5e-3
    """Gaussians below this opacity are removed or relocated"""


@dataclass
class Motion:
    """The camera's path inside the exposure"""

    trajectory: Literal["linear", "cubic", "bezier", "spline"] = "linear"
    """each view's curve: linear (2 knots), cubic (a segment of a cubic B-spline, 4 knots) or bezier (cubic, 4 knots);
    spline: one over the whole recording"""
    knot_spacing: float = 0.5
    """distance of the spline's knots, in exposures"""
    optimise_poses: bool = True
    """learn the knots; off: keep the initial poses and their first guess"""
    motion_init: bool = True
    """first guess of a view's motion from its neighbours in the recording; off: start at rest"""
    view_spacing: float = 0.0
    """spike frames from one view's middle to the next in a recording (0: a view's length, or two exposures)"""


@dataclass
class Recon:
    """Recon-Net"""

    recon_net: Literal["paper", "slim"] = "paper"
    """the paper's network, or a residual on timing intensities at less than a quarter of the cost"""
    recon_from: int = 0
    """iterations before the network joins"""
    recon_every: int = 1
    """iterations between the network's steps"""
    fuse: bool = False
    """Recon-Net learns from renders that the spikes' residuals have corrected (single instants)"""
    crop: int = 0
    """side of the random crop on which L_rec and L_joint are computed (0: the full frame)"""


@dataclass
class Losses:
    """Weights of the losses (0 or --no-<name> leaves one out) and their variants"""

    lambda_gs: float = 1.0
    """L_gs: mean of the renders against the long exposure"""
    lambda_rec: float = 1.0
    """L_rec: Recon-Net's frames, blurred again, against the spikes' means"""
    lambda_joint: float = 1.0
    """L_joint: renders against Recon-Net's frames"""
    lambda_sub: float = 0.0
    """L_sub: every render against the spikes in a narrow window about its instant"""
    lambda_dssim: float = 0.2
    """share of 1 - SSIM in L_gs"""
    flip: bool = True
    """L_joint takes the smaller of the pairing in order and in reverse"""
    multi_interval: bool = True
    """L_rec over several sub-intervals; off: the whole exposure only"""
    lambda_scale_ratio: float = 0.1
    """penalty on Gaussians more than ten times longer than wide, every tenth iteration"""
    lambda_opacity: float = 0.0
    """mean opacity (MCMC's regulariser)"""
    lambda_scale: float = 0.0
    """mean scale (MCMC's regulariser), in scene extents"""


@dataclass
class Optimisation:
    """Steps and learning rates"""

    iterations: int = 30000
    """training steps"""
    instants: int = 0
    """cameras of a step, drawn over all views and sub-frames (0, or a step with L_rec: one view's exposure); with
    --window_points 3 they are a third as many instants"""
    means_lr: float = 1.6e-4
    """centres, at the start (times means_unit)"""
    means_lr_final: float = 1.6e-6
    """centres, at the end"""
    means_unit: Literal["extent", "depth"] = "extent"
    """what the centres' rates are times: the extent of the cameras (3DGS), or the first points' median depth"""
    sh0_lr: float = 2.5e-3
    """colour"""
    shN_lr: float = 1.25e-4
    """view-dependent colour"""
    opacity_lr: float = 5e-2
    """opacity logits"""
    scale_lr: float = 5e-3
    """log scales"""
    rotation_lr: float = 1e-3
    """quaternions"""
    pose_lr: float = 1e-3
    """knots of the trajectories, at the start"""
    pose_lr_final: float = 1e-5
    """knots, at the end"""
    pose_every: int = 25
    """steps over which gradients of the knots are gathered before one update"""
    recon_lr: float = 1e-3
    """Recon-Net, at the start"""
    recon_lr_final: float = 1e-5
    """Recon-Net, at the end"""


@dataclass
class Run:
    """Where and how it runs, and what it keeps"""

    rasterizer: Literal["auto", "cpu", "gsplat", "inria"] = "auto"
    """backend of the Gaussians; auto: cpu without CUDA, gsplat or inria with it"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """where tensors live"""
    seed: int = 0
    """seed of every random choice"""
    save_iterations: list[int] = field(default_factory=list)
    """iterations whose Gaussians are saved as PLY, beside the last"""
    checkpoint_every: int = 1000
    """iterations between checkpoints (0: only at the end or when interrupted)"""
    resume: bool = False
    """go on from the newest checkpoint with the stored flags; given anew, only this group's but --seed may differ"""
    log_every: int = 50
    """iterations between rows of log.jsonl and updates of the progress bar"""
    viewer: bool = False
    """watch the training in the browser (needs the package viser)"""
    viewer_port: int = 8080
    """port of the viewer on this machine, or the next free one"""
    quiet: bool = False
    """no progress bar"""
    tensorboard: bool = False
    """curves, a render and the opacities for TensorBoard, in the model's folder (needs tensorboard)"""
    json_log: bool = False
    """the rows of log.jsonl on standard output too, for batch jobs"""


GROUPS: dict[str, type] = {
    "data": Data,
    "scene": Scene,
    "motion": Motion,
    "recon": Recon,
    "losses": Losses,
    "optimisation": Optimisation,
    "run": Run,
}

# Differences from the defaults above, which are the paper's (supplement).
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    # The released program where it differs from the supplement.
    "parity": {"long_grouping": "strided", "densify_subframes": "last", "motion_init": False},
    # Few cores, minutes instead of hours.
    "cpu": {
        "targets": "timing",
        "window_points": 3,
        "window_from": 1800,
        "fixed_pattern_every": 1100,
        "trajectory": "bezier",
        "iterations": 3600,
        "strategy": "mcmc",
        "cap": 60000,
        "low_pass": 0.1,
        "init_points": 20000,
        "densify_from": 100,
        "densify_until": 2900,
        "means_lr": 2e-3,
        "means_lr_final": 6e-5,
        "means_unit": "depth",
        "scale_lr": 2e-2,
        "rotation_lr": 3e-3,
        "lambda_sub": 1.0,
        "lambda_gs": 0.0,
        "instants": 6,
        "pose_lr": 1e-3,
        "pose_lr_final": 3e-5,
        "pose_every": 1,
        "recon_net": "slim",
        "lambda_rec": 0.0,
        "lambda_joint": 0.2,
        "recon_from": 2200,
        "recon_lr": 1e-3,
        "recon_lr_final": 1e-4,
        "fuse": True,
        "crop": 96,
        "sh_every": 900,
    },
}

# Without spikes the long exposures are all there is: changes to every preset.
WITHOUT_SPIKES: dict[str, Any] = {
    "lambda_gs": 1.0,
    "lambda_sub": 0.0,
    "lambda_rec": 0.0,
    "lambda_joint": 0.0,
    "instants": 0,
    "window_points": 1,
    "fuse": False,
}


@dataclass
class Config:
    """All groups of one run, as they are saved and read back."""

    data: Data = field(default_factory=Data)
    scene: Scene = field(default_factory=Scene)
    motion: Motion = field(default_factory=Motion)
    recon: Recon = field(default_factory=Recon)
    losses: Losses = field(default_factory=Losses)
    optimisation: Optimisation = field(default_factory=Optimisation)
    run: Run = field(default_factory=Run)
    preset: str = "paper"

    def save(self, folder: str | Path) -> None:
        """Write ``cfg_args.json`` into ``folder``."""
        with atomic_write(Path(folder) / CONFIG_NAME, "w") as file:
            json.dump(dataclasses.asdict(self), file, indent=1)

    @classmethod
    def load(cls, folder: str | Path) -> Config:
        """Read ``cfg_args.json`` of the model in ``folder``.

        Raises:
            ValueError: no such file, not JSON, or fields that this version does not know.
        """
        path = Path(folder) / CONFIG_NAME
        try:
            text = path.read_text()
        except OSError:
            raise ValueError(f"{path}: not found; is {folder} the folder of a trained model?") from None
        try:
            stored = json.loads(text)
            config = cls(preset=stored.pop("preset"))
            for name, group in GROUPS.items():
                setattr(config, name, group(**stored.pop(name)))
        except (json.JSONDecodeError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{path}: not a configuration of this version ({error})") from None
        return config


def _field_docs(group: type) -> dict[str, str]:
    """The string below each field of a dataclass (the interpreter does not keep it)."""
    body = ast.parse(textwrap.dedent(inspect.getsource(group))).body[0]
    assert isinstance(body, ast.ClassDef)
    docs: dict[str, str] = {}
    for statement, after in zip(body.body, body.body[1:], strict=False):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                docs[statement.target.id] = " ".join(str(after.value.value).split())
    return docs


def _add_group(parser: argparse.ArgumentParser, group: type, only: Sequence[str] | None = None) -> None:
    title = (group.__doc__ or group.__name__).strip()
    section = parser.add_argument_group(title)
    hints = get_type_hints(group)
    docs = _field_docs(group)
    for item in dataclasses.fields(group):
        if only is not None and item.name not in only:
            continue
        hint = hints[item.name]
        names = [f"--{item.name}"]
        if "_" in item.name:
            names.append(f"--{item.name.replace('_', '-')}")
        names += {"source_path": ["-s"], "model_path": ["-m"]}.get(item.name, [])
        default = item.default_factory() if callable(item.default_factory) else item.default  # type: ignore[misc]
        text = docs[item.name].replace("%", "%%")
        if default not in ("", []):
            text += f" (default: {default})"
        options: dict[str, Any] = {"dest": item.name, "default": argparse.SUPPRESS, "help": text}
        if hint is bool:
            section.add_argument(*names, action=argparse.BooleanOptionalAction, **options)
        elif get_origin(hint) is Literal:
            section.add_argument(*names, choices=get_args(hint), **options)
        elif get_origin(hint) is list:
            section.add_argument(*names, nargs="*", type=int, **options)
        else:
            section.add_argument(*names, type=hint, metavar=hint.__name__.upper(), **options)
        if item.name.startswith("lambda_"):
            short = item.name.removeprefix("lambda_").replace("_", "-")
            section.add_argument(
                f"--no-{short}",
                dest=item.name,
                action="store_const",
                const=0.0,
                default=argparse.SUPPRESS,
                help=f"the same as --{item.name} 0",
            )


def training_parser() -> argparse.ArgumentParser:
    """The command line of ``train.py``."""
    parser = argparse.ArgumentParser(
        description="Learn Gaussians, camera trajectories and Recon-Net from spike streams. The defaults shown are "
        "those of --preset paper; without CUDA the preset is cpu, which changes many of them (docs/flags.md)."
    )
    parser.add_argument(
        "--preset",
        choices=["auto", *PRESETS],
        default=argparse.SUPPRESS,
        help="paper: the published schedule; parity: the released program's variants; cpu: minutes on two "
        "cores, spike timing and Bézier curves; auto: paper on CUDA, cpu elsewhere (default)",
    )
    for group in GROUPS.values():
        _add_group(parser, group)
    return parser


def given_flags(argv: Sequence[str] | None) -> dict[str, Any]:
    """The flags on the command line of ``train.py`` by name, and no others."""
    return vars(training_parser().parse_args(argv))


def as_flag(name: str, value: Any) -> str:
    """A field's value as it is written on the command line."""
    return f"--{name} {value}" if not isinstance(value, bool) else f"--{name}" if value else f"--no-{name}"


def parse_training(argv: Sequence[str] | None, cuda: bool) -> Config:
    """The configuration of ``train.py``: defaults, then the preset, then the flags given.

    Args:
        cuda: whether this machine has a CUDA device.

    Raises:
        ValueError: flags that contradict each other or have impossible values.
    """
    given = given_flags(argv)
    preset = given.get("preset", "auto")
    if preset == "auto":
        preset = "paper" if cuda and given.get("device") != "cpu" else "cpu"
    values = PRESETS[preset] | ({} if given.get("spike") else WITHOUT_SPIKES) | given
    config = Config(preset=preset)
    for name in GROUPS:
        group = getattr(config, name)
        for item in dataclasses.fields(group):
            if item.name in values:
                setattr(group, item.name, values[item.name])
    if not config.data.source_path:
        raise ValueError("no scene given: say which folder with -s, for example -s data/tanabata")
    if not config.data.model_path:
        config.data.model_path = str(Path("output") / Path(config.data.source_path).resolve().name)
    source, model = (Path(path).resolve() for path in (config.data.source_path, config.data.model_path))
    if model == source or model in source.parents:
        raise ValueError(
            f"-m {config.data.model_path} holds the scene {config.data.source_path}, which would be moved away with "
            "an earlier run's results: expected a folder of its own"
        )
    if not config.run.resume:  # which has the stored configuration instead
        check(config)
    return config


def resumed_config(stored: Config, given: dict[str, Any]) -> Config:
    """The configuration that a run goes on with: the ``stored`` one, and what of ``Run`` is ``given`` but the seed.

    Raises:
        ValueError: another flag is given and differs from the stored one.
    """
    config = copy.deepcopy(stored)
    owners = {item.name: getattr(config, name) for name, group in GROUPS.items() for item in dataclasses.fields(group)}
    for name, value in given.items():
        if name in ("source_path", "model_path") or (name, value) == ("preset", "auto"):
            continue  # folders may have been moved
        owner = owners.get(name, config)
        if owner is config.run and name != "seed":
            setattr(owner, name, value)
        elif value != getattr(owner, name):
            before = as_flag(name, getattr(owner, name))
            raise ValueError(f"--resume goes on with the stored {before}, not {as_flag(name, value)}")
    check(config)
    return config


def check(config: Config) -> None:
    """Refuse values that contradict each other, in one sentence."""
    data, losses, recon = config.data, config.losses, config.recon
    for name in GROUPS:
        for item in dataclasses.fields(getattr(config, name)):
            value = getattr(getattr(config, name), item.name)
            if isinstance(value, float) and not (math.isfinite(value) and value >= 0):
                raise ValueError(f"--{item.name} must be a finite number of at least 0, not {value}")
            if isinstance(value, int) and value < 0:
                raise ValueError(f"--{item.name} must be at least 0, not {value}")
    for name, most in (("min_opacity", 0.5), ("init_opacity", 1)):  # a reset leaves twice the least opacity
        opacity = getattr(config.scene, name)
        if not 0 < opacity < most:
            raise ValueError(f"--{name} must be more than 0 and less than {most}, not {opacity}")
    if config.motion.knot_spacing == 0:
        raise ValueError("--knot_spacing must be more than 0")
    for name in ("means_lr", "pose_lr", "recon_lr"):
        if getattr(config.optimisation, name) and not getattr(config.optimisation, f"{name}_final"):
            raise ValueError(f"--{name}_final must be more than 0: the rate falls to it by a constant factor a step")
    if config.optimisation.iterations < 1:
        raise ValueError("--iterations must be at least 1, not 0")
    if not 0 <= config.scene.sh_degree <= 3:
        raise ValueError(f"--sh_degree must be 0 to 3, not {config.scene.sh_degree}")
    if config.scene.strategy == "mcmc" and config.scene.cap < 1:
        raise ValueError("--strategy mcmc needs a number of Gaussians: give --cap")
    if not data.spike:
        if not losses.lambda_gs:
            raise ValueError("without --spike only L_gs has a target: give --lambda_gs 1")
        if losses.lambda_rec or losses.lambda_joint:
            raise ValueError("without --spike Recon-Net has no input: give --spike, or --no-rec --no-joint")
        if losses.lambda_sub or config.optimisation.instants:
            raise ValueError("without --spike there are no sub-frame targets: give --no-sub --instants 0")
    if config.optimisation.instants and (losses.lambda_gs or not losses.lambda_sub):
        raise ValueError(
            "--instants draws single sub-frames, which L_sub compares and L_gs cannot: "
            "give --lambda_sub 1 --no-gs, or --instants 0 for whole exposures"
        )
    if data.window_points > 1 and not config.optimisation.instants:
        raise ValueError("--window_points spreads single instants: give --instants, or --window_points 1")
    if not (losses.lambda_gs or losses.lambda_sub or losses.lambda_rec):
        raise ValueError("nothing to learn from: lambda_gs, lambda_sub and lambda_rec are all 0")
    if not (losses.lambda_gs or losses.lambda_sub) and (recon.recon_from or recon.recon_every > 1):
        raise ValueError(
            "without L_gs and L_sub a step without Recon-Net has no loss: give --recon_from 0 --recon_every 1, "
            f"not {recon.recon_from} and {recon.recon_every}"
        )
    if recon.fuse and (losses.lambda_rec or not config.optimisation.instants):
        raise ValueError("--fuse corrects single instants: give --instants and --no-rec, or --no-fuse")
    if recon.fuse and data.targets != "timing":
        raise ValueError("--fuse takes spikes by their timing, counts are too noisy: --targets timing or --no-fuse")
    if data.subframe_width % 2 == 0:
        raise ValueError(f"--subframe_width must be odd (centred on a frame), not {data.subframe_width}")
    if data.window_points % 2 == 0:
        raise ValueError(f"--window_points must be odd (one of them the middle), not {data.window_points}")
    for positive in ("sh_every", "densify_every"):
        if getattr(config.scene, positive) < 1:
            raise ValueError(f"--{positive} must be at least 1, not 0")
    for group, name in ((config.optimisation, "pose_every"), (recon, "recon_every"), (config.run, "log_every")):
        if getattr(group, name) < 1:
            raise ValueError(f"--{name} must be at least 1, not 0")


def add_model_arguments(parser: argparse.ArgumentParser, is_drawn: bool = True) -> None:
    """Flags shared by the commands that read a trained model, those that draw it among them (``is_drawn``)."""
    shared = ["rasterizer", "device", "quiet"] if is_drawn else ["quiet"]
    _add_group(parser, Data, only=["model_path"])
    _add_group(parser, Run, only=shared)
    run = Run()
    parser.set_defaults(model_path="", **{name: getattr(run, name) for name in shared})
