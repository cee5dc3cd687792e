"""The folder of a trained model, with the layout of 3DGS.

    cfg_args.json  cameras.json  input.ply
    origin.json    where all coordinates of the model are counted from, if that is not the scene's origin
    point_cloud/iteration_N/point_cloud.ply   Gaussians, or
    point_cloud/iteration_N/radiance_field.pth  a radiance field (see gaussian_renderer/radiance.py)
    point_cloud/iteration_N/surroundings.ply  what a block that started from a model of the scene sees of its neighbors
    point_cloud/iteration_N/recon_net.pth     Recon-Net's weights (see recon_net/weights.py)
    point_cloud/iteration_N/trajectory.pth    knots of the trajectories (plain tensors)
    point_cloud/iteration_N/sensor.json       the sensor with the pixel gains estimated in training, and its maps
    <split>/ours_N/                           images (see ``scene.manifest``)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from arguments import CONFIG_NAME
from gaussians.formats import without_equal_channels
from gaussians.model import GaussianModel
from gaussians.ply import read_gaussian_ply, write_gaussian_ply, write_point_ply
from recon_net import SpikeToImage
from recon_net import weights as recon_weights
from scene.cameras import View, rigid_motions
from scene.dataset import CALIBRATION
from scene.trajectory import Trajectory
from spike import SensorModel, WindowSpec, load_sensor, save_sensor
from spike.targets import Grouping
from utils import se3
from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.io import write_json
from utils.json_files import array, as_stored, items, number, read_json, record, text, whole
from utils.locks import LOCK, FolderLock

# Held-out sharp images share a folder with held-out exposures; this prefix keeps their names apart.
NOVEL = "novel_"
# What an iteration holds: one of these.
GAUSSIANS, RADIANCE_FIELD = SCENES = ("point_cloud.ply", "radiance_field.pth")
# Gaussians that a block rendered, but did not train.
SURROUNDINGS = "surroundings.ply"
CAMERAS = "cameras.json"
ORIGIN = "origin.json"
# Programs that reserve the folder; a finished checkpoint can be rendered while training goes on.
TRAINING, RENDERING = "train.py", "render.py"

_SIZE, _FOCAL = whole(1, 65535), number(above=0, most=1e7)
_CAMERA = record(
    {
        "name": text(), "split": text(), "width": _SIZE, "height": _SIZE, "fx": _FOCAL, "fy": _FOCAL, "cx": number(),
        "cy": number(), "time": as_stored(array(None)), "w2c": as_stored(rigid_motions(None)),
    },
    {"iteration": whole()},
)  # fmt: skip


def iteration_folder(model: str | Path, iteration: int) -> Path:
    """Folder of the Gaussians of one iteration."""
    return Path(model) / "point_cloud" / f"iteration_{iteration}"


def find_iteration(model: str | Path, iteration: int | None = None) -> int:
    """The requested iteration if it was saved, or the newest saved iteration of the model."""
    found = sorted(
        int(p.name.removeprefix("iteration_"))
        for p in (Path(model) / "point_cloud").glob("iteration_*")
        if p.name.removeprefix("iteration_").isdigit() and any((p / name).exists() for name in SCENES)
    )
    if not found:
        raise ValueError(f"{model}: no point_cloud/iteration_N/point_cloud.ply; train this model first")
    if iteration is not None and iteration not in found:
        raise ValueError(f"{model}: iteration {iteration} was not saved; there are {', '.join(map(str, found))}")
    return found[-1] if iteration is None else iteration


def claim(model: str | Path) -> tuple[FolderLock, Path | None]:
    """Lock the folder of a new training, and move an earlier run in it to ``<model>.1``, ``.2``, ...

    A new run in the same folder would mix with the old one: the newest iteration, or the checkpoint to
    resume from, could belong to the old run.

    Returns:
        the lock, and the path of the earlier run, if there was one.

    Raises:
        ValueError: another program uses the folder, or it cannot be moved.
    """
    model = Path(os.path.realpath(model))
    lock = FolderLock(model, TRAINING).acquire()
    if not (model / CONFIG_NAME).exists():
        return lock, None
    number = 1
    while (aside := model.with_name(f"{model.name}.{number}")).exists():
        number += 1
    with lock:
        try:
            model.rename(aside)
        except OSError as error:
            raise ValueError(
                f"{model}: contains an earlier run that cannot be moved to {aside.name} ({error.strerror}); "
                "give another folder with -m"
            ) from None
        claimed = FolderLock(model, TRAINING).acquire()
        (aside / LOCK).unlink(missing_ok=True)
    return claimed, aside


def save_input_points(model: str | Path, points: Tensor, colors: Tensor) -> None:
    """Write the initial points of a training as ``input.ply``."""
    write_point_ply(Path(model) / "input.ply", points, colors.expand(-1, 3))


def save_gaussians(folder: Path, gaussians: GaussianModel, surroundings: GaussianModel | None = None) -> None:
    """Write Gaussians into the folder of an iteration, and those around them that were not trained."""
    if surroundings is not None:
        write_gaussian_ply(folder / SURROUNDINGS, surroundings.params)
    write_gaussian_ply(folder / GAUSSIANS, gaussians.params)  # last: a folder that has them is complete


def save_iteration(
    model: str | Path,
    iteration: int,
    save_scene: Callable[[Path], None],
    trajectory: Trajectory,
    network: SpikeToImage | None,
    sensor: SensorModel | None,
) -> Path:
    """Write one iteration's scene, trajectories, network and sensor (if it was learned); returns the folder.

    Args:
        save_scene: writes one of ``SCENES`` into a folder.
    """
    folder = iteration_folder(model, iteration)
    # The scene is written last: a folder that has one is complete.
    save_checkpoint(folder / "trajectory.pth", trajectory.checkpoint())
    if network is not None:
        recon_weights.save_network(folder / recon_weights.WEIGHTS, network)
    if sensor is not None:
        save_sensor(folder / CALIBRATION, sensor)
    save_scene(folder)
    return folder


def gaussians_file(model: str | Path, iteration: int) -> Path:
    """The PLY of an iteration.

    Raises:
        ValueError: the model is a radiance field.
    """
    path = iteration_folder(model, iteration) / GAUSSIANS
    if not path.exists() and (path.parent / RADIANCE_FIELD).exists():
        field = path.parent / RADIANCE_FIELD
        raise ValueError(
            f"{field}: a radiance field, expected Gaussians; only render.py (without --video) and metrics.py take it"
        )
    return path


def load_gaussians(model: str | Path, iteration: int, channels: int | None = None) -> GaussianModel:
    """The saved Gaussians of an iteration, with ``channels`` color channels (None: one if all three are equal)."""
    path = gaussians_file(model, iteration)
    if channels is None:
        return GaussianModel.of(without_equal_channels(read_gaussian_ply(path)))
    return GaussianModel.of(read_gaussian_ply(path, channels))


def load_surroundings(model: str | Path, iteration: int, channels: int) -> GaussianModel | None:
    """The Gaussians around those of a block that started from a model of the whole scene, or None."""
    path = iteration_folder(model, iteration) / SURROUNDINGS
    return GaussianModel.of(read_gaussian_ply(path, channels)) if path.exists() else None


def load_trajectory(model: str | Path, iteration: int) -> Trajectory:
    """The saved trajectories of an iteration."""
    path = iteration_folder(model, iteration) / "trajectory.pth"
    return Trajectory.from_checkpoint(load_checkpoint(path), str(path))


def load_learned_sensor(model: str | Path, iteration: int) -> SensorModel | None:
    """The sensor with the gains that training estimated, or None if it estimated none."""
    path = iteration_folder(model, iteration) / CALIBRATION
    return load_sensor(path) if path.exists() else None


def load_network(model: str | Path, iteration: int, spec: WindowSpec, grouping: Grouping) -> SpikeToImage | None:
    """The saved Recon-Net of an iteration, or None if the model was trained without it."""
    path = iteration_folder(model, iteration) / recon_weights.WEIGHTS
    if not path.exists():
        return None
    return recon_weights.load_network(path, spec.short, spec.long_channels, grouping).eval()


def camera_entry(
    index: int, view: View, split: str, poses: Tensor, times: Tensor, iteration: int
) -> dict[str, Any]:
    """One view's entry in ``cameras.json``: 3DGS's fields for the middle of the exposure, and all sub-frames."""
    camera = view.camera
    to_world = se3.inverse(poses[len(poses) // 2]).tolist()
    return {
        "id": index,
        "img_name": camera.name,
        "name": camera.name,
        "split": split,
        "iteration": iteration,
        "width": camera.width,
        "height": camera.height,
        "position": [row[3] for row in to_world[:3]],
        "rotation": [row[:3] for row in to_world[:3]],
        "fx": float(camera.K[0, 0]),
        "fy": float(camera.K[1, 1]),
        "cx": float(camera.K[0, 2]),
        "cy": float(camera.K[1, 2]),
        "time": times.tolist(),
        "w2c": poses.tolist(),
    }


@torch.no_grad()
def camera_entries(
    views: Sequence[View], trajectory: Trajectory, times: Tensor, iteration: int
) -> list[dict[str, Any]]:
    """Entries of ``cameras.json`` with the corrected poses of every training view's sub-frames."""
    paths = [trajectory.view(i, times).cpu() for i in range(len(views))]
    return [
        camera_entry(i, view, "train", path, times.cpu(), iteration)
        for i, (view, path) in enumerate(zip(views, paths, strict=True))
    ]


def why_stale(entries: list[dict[str, Any]], iteration: int) -> str | None:
    """Why entries of ``cameras.json`` have poses of another iteration than ``iteration``; None if they do not."""
    others = {entry.get("iteration", iteration) for entry in entries} - {iteration}
    if not others:
        return None
    return f"cameras.json has the poses of iteration {others.pop()}, not {iteration}; run render.py again"


def write_origin(model: str | Path, origin: Tensor) -> None:
    """Write ``origin.json``: add its three numbers to the model's coordinates for those of the scene's files."""
    if origin.any():
        write_json(Path(model) / ORIGIN, {"origin": origin.tolist()})


def write_cameras(model: str | Path, entries: list[dict[str, Any]]) -> None:
    """Write ``cameras.json``."""
    write_json(Path(model) / CAMERAS, entries)


def read_cameras(model: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Read ``cameras.json``.

    Raises:
        ValueError: missing, or not such a list.
    """
    path = Path(model) / CAMERAS
    if not path.exists():
        raise ValueError(f"{path}: there are no cameras; train this model first")
    entries: list[dict[str, Any]] = read_json(path, items(_CAMERA), "list of cameras")
    for entry in entries:
        if not 0 < len(entry["w2c"]) == len(entry["time"]):
            poses, times = len(entry["w2c"]), len(entry["time"])
            raise ValueError(f"{path}: view {entry['name']} has {poses} poses and {times} times, expected one for each")
    return entries
