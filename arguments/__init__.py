"""The settings of a run: typed and documented, read from the command line, stored as JSON beside the model."""

from arguments.parts import Video
from arguments.settings import (
    CONFIG_NAME,
    RECIPES,
    CascadeSettings,
    GaussianSettings,
    ImageSettings,
    PaperSettings,
    PhotoSettings,
    ReleasedSettings,
    Settings,
    SpikeGSSettings,
    SpikeNerfSettings,
    TimingSettings,
    load_settings,
)

__all__ = [
    "CONFIG_NAME",
    "RECIPES",
    "CascadeSettings",
    "GaussianSettings",
    "ImageSettings",
    "PaperSettings",
    "PhotoSettings",
    "ReleasedSettings",
    "Settings",
    "SpikeGSSettings",
    "SpikeNerfSettings",
    "TimingSettings",
    "Video",
    "load_settings",
]
