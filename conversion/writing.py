"""Writes scenes to disk in the layout that ``scene.dataset`` reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from conversion.structure_from_motion import Solution
from conversion.windows import Window
from gaussians.ply import write_point_ply
from scene.cameras import opengl
from scene.dataset import CALIBRATION, POINTS, TRAJECTORY
from scene.lens import FISHEYES
from scene.tum import read_tum
from spike import Layout, SensorModel, SpikeStream, save_sensor, write_dat
from spike.window import PAPER
from utils.io import load_image, save_image, write_json
from utils.telling import progress

Array = NDArray[np.float64]


def write_scene(
    root: Path, windows: Sequence[Window], solution: Solution, poses: dict[str, Array], sensor: SensorModel,
    calibrated: bool,
) -> None:  # fmt: skip
    """Write spike_data, transforms.json, sparse_pc.ply and the sensor.

    Args:
        windows: the views; those without a pose in ``poses`` are left out.
        solution: intrinsics, points and registered views.
        sensor: written as sensor.json with its maps if ``calibrated``, else into transforms.json.
    """
    stream = windows[0].stream
    entries = []
    for window in progress(windows, "Writing the scene", within=True):
        if window.name not in poses:
            continue
        file = f"spike_data/{window.name}.dat"
        cut = window.stream.mended(None).unpack(window.first, window.first + window.frames)  # as recorded
        write_dat(root / file, cut, Layout(stored_width=padded_width(stream)))
        registered = window.name in solution.w2c
        entries.append(
            {
                "spike_path": file, "transform_matrix": opengl(poses[window.name]), "recording": window.recording,
                "middle_frame": window.middle, "registered": registered,
            }
            | ({} if registered else {"pose": "interpolated"})
        )  # fmt: skip
    fx, fy, cx, cy = solution.intrinsics
    spike: dict[str, Any] = {} if calibrated else sensor.to_dict()
    if padded_width(stream) is not None:
        spike["stored_width"] = padded_width(stream)
    if stream.bayer is not None:
        spike["bayer"] = stream.bayer
    lens, kind = solution.coefficients, "PINHOLE"
    if solution.camera_model in FISHEYES:  # without coefficients, too, it is no pinhole
        kind = "OPENCV_FISHEYE"
    elif lens:
        kind = "OPENCV"
    write_json(
        root / "transforms.json",
        {
            "fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy, "w": stream.width, "h": stream.height,
            "camera_model": kind, **lens, "spike": spike, "ply_file_path": POINTS,
            "frames": entries,
        },
    )  # fmt: skip
    if calibrated:
        save_sensor(root / CALIBRATION, sensor)
    xyz = torch.from_numpy(solution.xyz).float()
    write_point_ply(root / POINTS, xyz, torch.from_numpy(solution.gray).float())


def padded_width(stream: SpikeStream) -> int | None:
    """Columns to store per row if a frame does not fill whole bytes, else None."""
    return None if stream.height * stream.width % 8 == 0 else -(-stream.width // 8) * 8


def write_truth(root: Path, windows: Sequence[Window], folder: Path) -> None:
    """Write the ground truth of the views from what ``python -m spike simulate`` kept of their recording.

    Writes poses of all sub-frames (``trajectory.json``) if ``folder`` has poses, and sharp images (``sequence``,
    ``sharp_data``) for sub-frames whose spike frame has an image.

    Raises:
        ValueError: the folder holds neither, or the poses belong to another recording.
    """
    pictures = {int(f.stem): f for f in folder.glob("*.png") if f.stem.isdigit()}
    has_poses = (folder / TRAJECTORY).is_file()
    if not pictures and not has_poses:
        raise ValueError(f"{folder}: holds no truth of a simulation ({TRAJECTORY}, or images named by spike frame)")
    instants = {w.name: [round(w.middle) - PAPER.context // 2 + center for center in PAPER.centers] for w in windows}
    for name, frames in instants.items():
        for m, frame in enumerate(frames):
            if frame in pictures:
                image = load_image(pictures[frame], channels=None)
                save_image(root / "sequence" / f"{name}_{m:02d}.png", image)
                if m == PAPER.middle:
                    save_image(root / "sharp_data" / f"{name}.png", image)
    if not has_poses:
        return
    times, poses = read_tum(folder / TRAJECTORY)
    known = dict(zip(times.tolist(), poses.tolist(), strict=True))
    missing = sorted({frame for frames in instants.values() for frame in frames} - set(known))
    if missing:
        raise ValueError(f"{folder / TRAJECTORY}: has no pose of spike frame {missing[0]}; is this another recording?")
    table = {name: [known[frame] for frame in frames] for name, frames in instants.items()}
    write_json(root / "trajectory.json", {"w2c": table})
