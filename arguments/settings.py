"""The settings of each recipe: its options and their defaults.

A recipe has only the options that it reads, so most contradictions cannot be expressed.  The remaining ones are
rejected in ``__post_init__``.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_type_hints

from arguments.options import Options, option
from arguments.parts import (
    SUBFRAME_WIDTH,
    BlindSpotOptions,
    DensificationOptions,
    GaussianOptions,
    ImageOptions,
    MotionOptions,
    NetworkOptions,
    RateOptions,
    RegularizationOptions,
    RunOptions,
    SceneOptions,
    SpikeWindowOptions,
    StepOptions,
    WindowOptions,
)
from arguments.renamed import PRESETS, upgraded
from arguments.sizing import SCHEDULE, size_for
from utils.io import write_json
from utils.json_files import as_stored, items, number, read_json, record, table, text
from utils.reading import reason

if TYPE_CHECKING:
    from typing_extensions import Self

CONFIG_NAME = "cfg_args.json"


class Settings:
    """Settings common to all recipes; a recipe's own class is a dataclass of option groups, at least these.

    ``defaults`` holds the values that differ from the defaults of the groups.
    """

    recipe: ClassVar[str]
    summary: ClassVar[str]
    # What is learned and rendered: the label of its images.
    learns: ClassVar[str] = "Gaussians"
    defaults: ClassVar[dict[str, Any]] = {}
    __dataclass_fields__: ClassVar[dict[str, Any]]

    scene: SceneOptions
    window: WindowOptions
    rates: StepOptions
    run: RunOptions

    # Whether targets come from spikes; whether single instants are compared with narrow windows of spike timing.
    from_spikes: ClassVar[bool] = True
    supervises_instants: ClassVar[bool] = False
    # Whether the camera moves during an exposure.
    is_blurred: ClassVar[bool] = True

    @property
    def short(self) -> int:
        """Length of the short window, spike frames."""
        return 41

    @property
    def target_mode(self) -> Literal["counting", "timing"]:
        """How spikes are converted to intensities."""
        return "counting"

    @property
    def subframe_width(self) -> int:
        """Width of the window around a sub-frame, spike frames."""
        return SUBFRAME_WIDTH

    @property
    def window_points(self) -> int:
        """Number of instants rendered to cover that window."""
        return 1

    @property
    def retimes(self) -> bool:
        """Whether the scene shapes the intervals between spikes."""
        return False

    @property
    def grouping(self) -> Literal["adjacent", "strided"]:
        """How Recon-Net's long input groups frames."""
        return "adjacent"

    @property
    def path(self) -> MotionOptions:
        """How the cameras move during an exposure: at rest, if the recipe has no such options."""
        return MotionOptions(pose_opt=False, motion_init=False)

    @classmethod
    def parts(cls) -> dict[str, type[Options]]:
        """The option classes by part name."""
        hints = get_type_hints(cls)
        return {item.name: hints[item.name] for item in dataclasses.fields(cls)}

    @classmethod
    def of(cls, **values: Any) -> Self:
        """The recipe's defaults, overridden by these values (by flag name).

        Raises:
            ValueError: a value that the option does not accept.
            TypeError: an option that the recipe does not have.
        """
        given, chosen = cls.defaults | values, {}
        for name, part in cls.parts().items():
            own = {item.name: given.pop(item.name) for item in dataclasses.fields(part) if item.name in given}
            chosen[name] = part(**own)
        if given:
            raise TypeError(f"the recipe {cls.recipe} has no option {next(iter(given))}")
        return cls(**chosen)  # type: ignore[arg-type]  # parts by their own names

    def values(self) -> dict[str, Any]:
        """All values by flag name."""
        return {name: value for part in dataclasses.asdict(self).values() for name, value in part.items()}

    def replaced(self, **values: Any) -> Self:
        """A copy of the settings with these values (by flag name) replaced."""
        return type(self).of(**(self.values() | values))

    def for_scene(self, views: int, width: int, height: int) -> Self:
        """A copy of the settings in which values that depend on the scene's size are numbers (``arguments.sizing``).

        Raises:
            ValueError: a model is to be saved after the last iteration.
        """
        values, size = self.values(), size_for(views, width, height)
        steps = size.iterations if values["iterations"] is None else values["iterations"]
        if late := [iteration for iteration in values["save_iterations"] if iteration > steps]:
            raise ValueError(f"--save_iterations {late[0]}: training ends after {steps} iterations")
        by_size = {"iterations": steps, "cap_max": size.cap_max, "init_num_pts": size.init_num_pts}
        by_size |= {name: max(round(share * steps), 1) for name, share in SCHEDULE.items()}
        return self.replaced(**{name: value for name, value in by_size.items() if values.get(name, 0) is None})

    def save(self, folder: str | Path) -> None:
        """Write ``cfg_args.json`` into ``folder``."""
        write_json(Path(folder) / CONFIG_NAME, {"recipe": self.recipe} | dataclasses.asdict(self))


@dataclass(frozen=True)
class GaussianSettings(Settings):
    """Settings of the recipes that learn Gaussians."""

    scene: SceneOptions = field(default_factory=SceneOptions)
    window: WindowOptions = field(default_factory=WindowOptions)
    gaussians: GaussianOptions = field(default_factory=GaussianOptions)
    densification: DensificationOptions = field(default_factory=DensificationOptions)
    motion: MotionOptions = field(default_factory=MotionOptions)
    regularization: RegularizationOptions = field(default_factory=RegularizationOptions)
    rates: RateOptions = field(default_factory=RateOptions)
    run: RunOptions = field(default_factory=RunOptions)

    @property
    def path(self) -> MotionOptions:
        return self.motion


@dataclass(frozen=True)
class TargetOptions(Options):
    """Targets from spikes"""

    targets: Literal["counting", "timing"] = option(
        "counting", "intensity from counts over a window, or from the intervals between spike times"
    )


@dataclass(frozen=True)
class SpikeSettings(GaussianSettings):
    """What the recipes that learn from spikes have in common."""

    window: SpikeWindowOptions = field(default_factory=SpikeWindowOptions)
    targets: TargetOptions = field(default_factory=TargetOptions)
    network: NetworkOptions = field(default_factory=NetworkOptions)

    @property
    def short(self) -> int:
        return self.window.short

    @property
    def target_mode(self) -> Literal["counting", "timing"]:
        return self.targets.targets

    @property
    def grouping(self) -> Literal["adjacent", "strided"]:
        return self.network.long_grouping


@dataclass(frozen=True)
class TimingTargets(TargetOptions):
    """Targets from spikes"""

    subframe_width: int = option(
        SUBFRAME_WIDTH, "window of spikes that supervises one instant, spike frames", odd=True
    )
    window_points: int = option(
        3, "instants across that window whose renders are averaged (1: only its middle)", odd=True
    )
    window_from: int = option(None, "iterations during which only the middle of that window is rendered", by_size=True)
    fixed_pattern_every: int = option(
        None, "iterations between estimates of the pixels' gains from the scene (0: the scene's calibration)",
        by_size=True,
    )  # fmt: skip
    retime_from: int = option(
        None, "iterations before the scene first shapes the spikes' intervals", by_size=True, at_least=1
    )
    retime_every: int = option(
        None, "iterations between updates of their shapes (0: constant light between two spikes)", by_size=True
    )
    instants: int = option(
        6, "rendered cameras per step, drawn from all views and sub-frames (window_points of them per instant)",
        at_least=1,
    )  # fmt: skip


@dataclass(frozen=True)
class TimingNetwork(NetworkOptions):
    """Recon-Net"""

    lambda_joint: float = option(
        0.2, "weight of L_joint: Recon-Net's images against the scene (0: no Recon-Net; with --fuse only Recon-Net "
        "learns from it)", common=True,
    )
    fuse: bool = option(True, "train Recon-Net on renders corrected by the residuals of the spikes")
    recon_from: int = option(None, "iterations before Recon-Net joins", by_size=True)
    recon_every: int = option(1, "iterations between Recon-Net's steps", at_least=1)


# Our own schedule: fewer and faster steps than 3DGS, Gaussians under a budget.
_OURS: dict[str, Any] = {
    "trajectory": "bezier",
    "iterations": None,
    "strategy": "mcmc",
    "cap_max": None,
    "low_pass": 0.1,
    "init_num_pts": None,
    "densify_from_iter": 100,
    "densify_until_iter": None,
    "means_lr": 2e-3,
    "means_lr_final": 6e-5,
    "means_unit": "depth",
    "scales_lr": 2e-2,
    "quats_lr": 3e-3,
    "pose_opt_lr_final": 3e-5,
    "pose_every": 1,
    "length_unit": "depth",
    "average_decay": 0.99,
    "average_from": None,
    "sh_degree_interval": None,
}


@dataclass(frozen=True)
class TimingSettings(SpikeSettings):
    """Our method: single instants supervised by spike timing."""

    recipe = "timing"
    summary = "supervises single instants by spike timing (the default)"
    supervises_instants = True
    defaults: ClassVar[dict[str, Any]] = _OURS | {
        "curve_degree": 7, "pose_precondition": True, "pose_opt_lr": 5e-4, "pose_opt_lr_final": 1e-5,
        "targets": "timing", "recon_net": "slim", "recon_lr_final": 1e-4, "crop": 96
    }  # fmt: skip

    targets: TimingTargets = field(default_factory=TimingTargets)
    network: TimingNetwork = field(default_factory=TimingNetwork)

    def __post_init__(self) -> None:
        if self.network.lambda_joint and self.network.fuse and self.targets.targets != "timing":
            raise ValueError("--fuse takes spikes by their timing, counts are too noisy: --targets timing or --no-fuse")

    @property
    def subframe_width(self) -> int:
        return self.targets.subframe_width

    @property
    def window_points(self) -> int:
        return self.targets.window_points

    @property
    def retimes(self) -> bool:
        return self.targets.targets == "timing" and bool(self.targets.retime_every)


@dataclass(frozen=True)
class PaperLosses(Options):
    """Losses"""

    lambda_gs: float = option(1.0, "weight of L_gs: mean of the renders against the long exposure", common=True)
    lambda_rec: float = option(
        1.0, "weight of L_rec: Recon-Net's images, blurred again, against the spikes' means", common=True
    )
    lambda_joint: float = option(1.0, "weight of L_joint: renders against Recon-Net's images", common=True)
    lambda_dssim: float = option(0.2, "share of 1 - SSIM in L_gs", at_least=0, at_most=1)
    flip: bool = option(True, "L_joint is the smaller loss of two pairings, in order and reversed")
    multi_interval: bool = option(True, "L_rec over several sub-intervals; off: only the whole exposure")


@dataclass(frozen=True)
class PaperSettings(SpikeSettings):
    """USP-Gaussian as described in the supplement."""

    recipe = "paper"
    summary = "USP-Gaussian as published (CVPR 2025, supplement D and E)"

    losses: PaperLosses = field(default_factory=PaperLosses)


@dataclass(frozen=True)
class ReleasedSettings(PaperSettings):
    """USP-Gaussian as in its released program, where that differs from the supplement."""

    recipe = "released"
    summary = "USP-Gaussian as the authors' released program does it"
    defaults: ClassVar[dict[str, Any]] = {
        "long_grouping": "strided", "densify_subframes": "last", "motion_init": False
    }  # fmt: skip


@dataclass(frozen=True)
class ImageLosses(Options):
    """Losses"""

    lambda_dssim: float = option(0.2, "share of 1 - SSIM in the loss", at_least=0, at_most=1)


@dataclass(frozen=True)
class ImageSettings(GaussianSettings):
    """Blurred images only, as in BAD-Gaussians: no spikes, no Recon-Net."""

    recipe = "images"
    summary = "learns from the scene's (blurred) images instead of spikes: BAD-Gaussians' loss on our schedule"
    from_spikes = False
    defaults = _OURS

    losses: ImageLosses = field(default_factory=ImageLosses)


@dataclass(frozen=True)
class CascadeImages(ImageOptions):
    """Images from the spikes of one view"""

    image_method: str = option("tfp", "method that makes the images, such as tfp, tfi or timing", common=True)


@dataclass(frozen=True)
class CascadeSettings(GaussianSettings):
    """Plain 3D Gaussian splatting on one image per view, made from the view's spikes."""

    recipe = "cascade"
    summary = "3DGS on images from another method, such as TFP-3DGS: no motion, poses fixed"
    defaults: ClassVar[dict[str, Any]] = {"subframes": 1, "pose_opt": False, "motion_init": False}

    images: CascadeImages = field(default_factory=CascadeImages)
    losses: ImageLosses = field(default_factory=ImageLosses)


@dataclass(frozen=True)
class PhotoSettings(ImageSettings):
    """Photographs without motion blur, as in 3DGS: one pose per view, which is kept as given."""

    recipe = "photos"
    summary = "learns from sharp photographs with given poses, as 3DGS does; the default of a scene without spikes"
    is_blurred = False
    defaults: ClassVar[dict[str, Any]] = _OURS | {
        "subframes": 1, "trajectory": "linear", "motion_init": False, "pose_opt": False
    }  # fmt: skip


@dataclass(frozen=True)
class SpikeGSLosses(ImageLosses):
    """Losses"""

    lambda_inst: float = option(
        1.0, "weight of L_inst: renders against the blind-spot network's images", common=True
    )
    lambda_exp: float = option(
        1.0, "weight of L_exp: mean of the renders against the long exposure", common=True
    )


@dataclass(frozen=True)
class SpikeGSSettings(GaussianSettings):
    """SpikeGS: images of a self-supervised network at single instants, on fixed poses."""

    recipe = "spikegs"
    summary = "SpikeGS (arXiv 2407.10062): instants from a blind-spot network trained on the scene, poses fixed"
    defaults: ClassVar[dict[str, Any]] = {"trajectory": "bezier", "pose_opt": False}

    images: BlindSpotOptions = field(default_factory=BlindSpotOptions)
    losses: SpikeGSLosses = field(default_factory=SpikeGSLosses)


@dataclass(frozen=True)
class RadianceOptions(Options):
    """Radiance field"""

    field: Literal["grid", "mlp"] = option(
        "grid", "a grid in the cameras' common frustum, or NeRF's two networks (for GPUs)", common=True
    )
    cells: float = option(0.4, "final number of the grid's cells per pixel, in each direction of the image", above=0)
    samples: int = option(64, "samples per ray, and final number of the grid's cells in depth", at_least=4)
    rays: int = option(1024, "rays per step, from all views", at_least=1)


@dataclass(frozen=True)
class SensorLayerOptions(Options):
    """Sensor in the loss"""

    fire: Literal["soft", "hard"] = option(
        "soft", "reset of a pixel that fires: to the excess, with a random start; or to 0, as the released program"
    )
    gamma: float = option(2.2, "rates are compared after the power of 1/gamma (1: linearly)", above=0)
    lambda_gain: float = option(1e-5, "weight of the pixels' squared log gains, in units of 3% (scenes without gains)")
    lambda_tv: float = option(1e-3, "weight of the differences of neighboring cells, every tenth iteration")


@dataclass(frozen=True)
class RadianceRates(StepOptions):
    """Steps and learning rates"""

    values_lr: float = option(0.1, "initial rate of the grid's values")
    values_lr_final: float = option(0.01, "final rate of the grid's values", above=0)
    nets_lr: float = option(5e-4, "rate of NeRF's networks")
    gain_lr: float = option(1e-3, "rate of the pixels' log gains")


@dataclass(frozen=True)
class SpikeNerfSettings(Settings):
    """SpikeNeRF on a CPU: a radiance field that a model of the sensor turns into spikes."""

    recipe = "spikenerf"
    learns = "radiance field"
    summary = "SpikeNeRF (Zhu et al., CVPR 2024) on a grid: a radiance field seen by a firing sensor; poses fixed"
    defaults: ClassVar[dict[str, Any]] = {"exposure": 41, "subframes": 1, "iterations": 2500, "log_every": 250}

    scene: SceneOptions = field(default_factory=SceneOptions)
    window: WindowOptions = field(default_factory=WindowOptions)
    radiance: RadianceOptions = field(default_factory=RadianceOptions)
    sensor: SensorLayerOptions = field(default_factory=SensorLayerOptions)
    rates: RadianceRates = field(default_factory=RadianceRates)
    run: RunOptions = field(default_factory=RunOptions)

    def __post_init__(self) -> None:
        if self.run.viewer:
            raise ValueError("--viewer shows Gaussians, but --recipe spikenerf learns a radiance field")


RECIPES: dict[str, type[Settings]] = {
    kind.recipe: kind
    for kind in (
        TimingSettings, PaperSettings, ReleasedSettings, ImageSettings, PhotoSettings, CascadeSettings, SpikeGSSettings,
        SpikeNerfSettings,
    )
}  # fmt: skip


def load_settings(folder: str | Path) -> Settings:
    """The settings of the model in ``folder``; models of version 0.1.0 are supported.

    Raises:
        ValueError: no ``cfg_args.json``, not JSON, or options that this version does not know.
    """
    path = Path(folder) / CONFIG_NAME
    if not path.exists():
        raise ValueError(f"{path}: not found; is {folder} the folder of a trained model?")
    try:
        recipe, values = upgraded(read_json(path, _stored))
        return RECIPES[recipe].of(**values)
    except (ValueError, TypeError, KeyError) as error:
        why = reason(error).removeprefix(f"{path}: ")
        raise ValueError(f"{path}: not a configuration of this version ({why})") from None


def _stored(value: Any) -> Any:
    """The contents of ``cfg_args.json``."""
    known = {"recipe": text(*RECIPES), "preset": text(*PRESETS)}
    found: dict[str, Any] = record({}, known)(value)
    # The options check their own values.
    parts = table(table(_value))({name: part for name, part in found.items() if name not in known})
    return {name: found[name] for name in known if name in found} | parts


def _value(value: Any) -> Any:
    """A value that an option could have."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, list):
        return items(_value)(value)
    return text()(value) if isinstance(value, str) else as_stored(number(-1e300, 1e300))(value)
