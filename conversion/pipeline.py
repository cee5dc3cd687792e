"""Converts views cut out of recordings to a scene folder, which is put in place only when it is complete."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from conversion.placing import OUTPUTS, PREVIEWS, staged
from conversion.report import Conversion, write_report
from conversion.structure_from_motion import (
    ATTEMPTS,
    Solution,
    all_poses,
    find_poses,
    normalized,
    read_colmap,
    save_previews,
)
from conversion.windows import Window
from conversion.writing import write_scene, write_truth
from scene.colmap import write_model
from scene.lens import lens_of
from spike import SensorModel, SpikeStream
from spike.calibration import assumed_sensor
from spike.window import PAPER


def sensor_of(windows: Sequence[Window]) -> SensorModel:
    """Estimate gain and spurious rate from the recording itself, for a sensor without calibration.

    Raises:
        ValueError: the recording is all zeros or all ones.
    """
    reach = PAPER.context // 2
    return assumed_sensor([(w.stream, w.middle_frame - reach, w.middle_frame + reach + 1) for w in windows])


def preview(
    folder: Path, windows: Sequence[Window], sensor: SensorModel, scale: int | None = None
) -> None:
    """Write ``previews/`` into ``folder``: the images that the first structure-from-motion attempt uses.

    Args:
        scale: enlargement factor (default: to about 640 columns).
    """
    names = [w.name for w in windows]
    scale = scale or ATTEMPTS[0].scale(windows[0].stream.width)
    save_previews(windows, names, ATTEMPTS[0], scale, folder / PREVIEWS, sensor)


def check_lens(solution: Solution, stream: SpikeStream, origin: str) -> None:
    """Raise a ``ValueError`` if a scene of ``stream`` cannot have the lens of ``solution``; ``origin``: its source."""
    fx, fy, cx, cy = solution.intrinsics
    k = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    lens = lens_of(origin, solution.camera_model, solution.coefficients, k, stream.width, stream.height)
    if lens is not None and stream.bayer is not None:
        raise ValueError(f"{origin} has distortion, which a color sensor's filters keep from being undone")


def convert(
    root: Path,
    windows: Sequence[Window],
    candidates: Sequence[Window],
    helpers: Sequence[Window],
    sensor: SensorModel,
    *,
    calibrated: bool,
    intrinsics: NDArray[np.float64] | None = None,
    colmap: Path | None = None,
    truth: Path | None = None,
    preview_scale: int | None = None,
    spread_over: str = "motion",
    radial: bool = False,
) -> Conversion:
    """Find the poses of ``windows`` and write the scene into ``root``, replacing an earlier one there.

    Args:
        windows, candidates, helpers: see ``choose_windows``; clips have neither candidates nor helpers.
        calibrated: the sensor was calibrated, so that its maps are written.
        intrinsics: [fx, fy, cx, cy] in pixels; None: the focal length is estimated.
        colmap: COLMAP model whose poses are used; None: poses are estimated.
        truth: folder of ground truth that ``python -m spike simulate`` wrote for the recording.
        preview_scale: enlargement factor of ``previews/``.
        spread_over: what the views are spread evenly over, for the report.
        radial: whether the lens's distortion is estimated along with the poses.

    Raises:
        ValueError: the poses cannot be found, or a file does not fit; ``root`` is then left unchanged.
    """
    stream = windows[0].stream
    with staged(root, OUTPUTS) as staging:
        preview(staging, windows, sensor, preview_scale)
        if colmap is not None:
            solution = read_colmap(colmap, [w.name for w in windows], stream.width, stream.height)
            spread, notes = math.inf, list[str]()
        else:
            solution, spread, notes = find_poses(windows, helpers, intrinsics, sensor, radial)
        check_lens(solution, stream, str(colmap) if colmap is not None else "the lens that was estimated")
        model, camera = solution.model, next(iter(solution.model.cameras.values()))
        solution, similarity = normalized(solution)
        poses = all_poses(windows, helpers, solution)
        focal = "given" if intrinsics is not None else "as in the model" if colmap is not None else "estimated"
        write_scene(staging, windows, solution, poses, sensor, calibrated)
        if truth is not None:
            write_truth(staging, [w for w in windows if w.name in poses], truth)
        write_model(staging, model, camera.width / stream.width, similarity)
        found = Conversion(root.name, windows, candidates, solution, poses, spread, notes, focal, spread_over)
        write_report(staging, found)
    return found
