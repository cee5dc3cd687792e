"""Every reader of the program with small valid files, for ``fuzzing.py``."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pycolmap
import torch
import trimesh
from PIL import Image

from arguments import TimingSettings, load_settings
from evaluation.jobs import Job
from evaluation.report import Run, compose_report
from evaluation.tables import rows_of
from gaussian_renderer.paths import file_path, read_views
from gaussians.formats import read_gaussians, write_gaussians
from gaussians.ply import read_point_ply, write_point_ply
from recon_net import SlimReconNet
from recon_net.weights import load_network, save_network
from scene.colmap import open_model
from scene.dataset import read_scene
from scene.manifest import ImageWriter, read_manifest
from scene.model_folder import load_trajectory
from scene.trajectory import Timing, Trajectory
from scene.tum import read_tum, write_tum
from simulation.mesh import read_mesh
from simulation.sources import source_pictures
from spike import SensorModel, load_sensor, save_sensor
from spike.formats import open_recording
from spike.stream import SpikeStream, write_array, write_dat
from tests.tiny_model import ITERATION, make_model, tiny_gaussians
from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.io import load_image, save_image

W, H, FRAMES = 64, 32, 48


@dataclass(frozen=True)
class Reader:
    """A reader: ``make`` writes valid files into a folder and returns those to damage, ``read`` reads them."""

    name: str
    make: Callable[[Path], list[Path]]
    read: Callable[[Path], Any]


def _spikes(frames: int = FRAMES, height: int = H, width: int = W) -> np.ndarray:
    """Frames of a striped image whose pixels fire at their own rates."""
    rows, columns = np.mgrid[:height, :width]
    rate = 0.45 + 0.2 * np.sin(columns / 5) + 0.15 * np.cos(rows / 4)
    phase = np.random.default_rng(0).random((height, width))
    ramp = np.floor(np.arange(frames + 1)[:, None, None] * rate + phase)
    return np.diff(ramp, axis=0).astype(np.uint8)


def _pose(i: int) -> np.ndarray:
    pose = np.eye(4)
    pose[0, 3] = 0.5 * i
    return pose


# ---- recordings ------------------------------------------------------------------------------------------


def _recording(name: str) -> Callable[[Path], list[Path]]:
    def make(folder: Path) -> list[Path]:
        path = folder / name
        (write_dat if path.suffix == ".dat" else write_array)(path, _spikes())
        return [path]

    return make


def _spikecv(folder: Path) -> list[Path]:
    write_dat(folder / "spikes.dat", _spikes())
    (folder / "config.yaml").write_text(f"filename: spikes\nspike_w: {W}\nspike_h: {H}\nis_labeled: false\n")
    return [folder / "config.yaml", folder / "spikes.dat"]


def _sensor(folder: Path) -> list[Path]:
    save_sensor(folder / "sensor.json", SensorModel(0.5, 0.01, 0.02, torch.rand(H, W) + 0.5, torch.rand(H, W) / 9))
    return sorted(folder.iterdir())


# ---- scenes ----------------------------------------------------------------------------------------------


def _scene(folder: Path) -> list[Path]:
    for i in range(3):
        write_dat(folder / f"spike_data/{i:03d}.dat", _spikes(8, 8, 16))
    save_image(folder / "novel/0.png", np.zeros((8, 16), np.float32))
    write_point_ply(folder / "sparse_pc.ply", torch.rand(5, 3), torch.rand(5, 3))
    frames = [
        {"file_path": f"sharp_data/{i:03d}.png", "transform_matrix": _pose(i).tolist(), "middle_frame": 100 * i}
        for i in range(3)
    ]
    meta = {"fl_x": "20", "fl_y": 21, "cx": 8, "cy": 4, "w": 16, "h": 8, "k1": 0, "camera_model": "PINHOLE"}
    meta |= {"frames": frames, "ply_file_path": "sparse_pc.ply", "spike_gain": 0.4, "spike": {"bit_order": "little"}}
    (folder / "transforms.json").write_text(json.dumps(meta))
    novel = {"frames": [{"file_path": "novel/0.png", "transform_matrix": _pose(1).tolist()}]}
    (folder / "novel.json").write_text(json.dumps({key: meta[key] for key in ("fl_x", "w", "h")} | novel))
    truth = {"w2c": {f"{i:03d}": np.tile(np.eye(4), (13, 1, 1)).tolist() for i in range(3)}}
    (folder / "trajectory.json").write_text(json.dumps(truth))
    return [folder / name for name in ("transforms.json", "novel.json", "trajectory.json", "sparse_pc.ply")]


def _colmap_scene(folder: Path) -> list[Path]:
    options = pycolmap.SyntheticDatasetOptions()
    options.num_points3D, options.camera_model_id = 12, pycolmap.CameraModelId.PINHOLE
    options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig = 1, 1, 3
    pycolmap.set_random_seed(0)
    model = pycolmap.synthesize_dataset(options)
    (folder / "sparse/0").mkdir(parents=True)
    for camera in model.cameras.values():
        camera.params = [1280.0, 1280.0, 512.0, 384.0]
    model.write_binary(str(folder / "sparse/0"))
    (folder / "spike.json").write_text(json.dumps({"spike_gain": 0.4, "spike": {"flip": True, "bayer": "RGGB"}}))
    return [*sorted((folder / "sparse/0").iterdir()), folder / "spike.json"]


def _colmap_text(folder: Path) -> list[Path]:
    _colmap_scene(folder)
    model = pycolmap.Reconstruction(str(folder / "sparse/0"))
    (folder / "text").mkdir()
    model.write_text(str(folder / "text"))
    return sorted((folder / "text").iterdir())


def _tum(folder: Path) -> list[Path]:
    write_tum(folder / "path.tum", np.arange(5.0), torch.eye(4).expand(5, 4, 4))
    return [folder / "path.tum"]


# ---- models ----------------------------------------------------------------------------------------------


def _model(folder: Path) -> list[Path]:
    make_model(folder, (0.0, 0.3))
    TimingSettings.of(source_path="scene", model_path=str(folder)).save(folder)
    rows = [{"iteration": i, "seconds": i / 2, "loss": 1 / (i + 1), "psnr": 20.0 + i} for i in range(8)]
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = {"command": "train.py -s scene", "versions": {"torch": "2"}, "seconds": 90.0, "peak_memory_bytes": 10**9}
    (folder / "run.json").write_text(json.dumps(made))
    return [folder / name for name in ("log.jsonl", "run.json", "cfg_args.json")]


def _camera_file(folder: Path) -> list[Path]:
    make_model(folder, (0.0, 0.3))
    keys = [{"w2c": np.eye(4).tolist()}, {"position": [0, 0, -4], "look_at": [0, 0, 0], "up": [0, -1, 0]}]
    (folder / "path.json").write_text(json.dumps({"keyframes": keys, "width": 20, "fx": 30}))
    return [folder / "path.json"]


def _manifest(folder: Path) -> list[Path]:
    from pictures.kinds import GAUSSIANS
    from scene.manifest import DEBLURRING

    with ImageWriter(folder, "train", 7) as images:
        for m in (None, 0, 1):
            images.save(GAUSSIANS, DEBLURRING, "a", m, 0.5, np.zeros((4, 4), np.float32))
    return [folder / "train/ours_7/manifest.json"]


_JOB = Job(Path("room"), "ours", "accurate", 0)


def _results(folder: Path) -> list[Path]:
    place = _JOB.folder(folder)
    place.mkdir(parents=True)
    measured = {"gaussians": {"PSNR": 30.0, "SSIM": 0.9, "views": 3}}
    results = {"deblurring": measured, "held out": measured, "trajectory": {"ATE": 0.01, "motion_error": None}}
    (place / "results.json").write_text(json.dumps(results | {"LPIPS": "vgg"}))
    (place / "run.json").write_text(json.dumps({"seconds": 90.0}))
    return [place / "results.json", place / "run.json"]


# ---- files of torch --------------------------------------------------------------------------------------


class _Evil:
    """Makes the folder "ran" when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("ran",)


def _checkpoint(folder: Path) -> list[Path]:
    adam = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.rand(4, 3)}}, "param_groups": [{"params": [0]}]}
    state = {"field": {"means": torch.rand(4, 3)}, "optimizers": {"field": adam}, "iteration": 3, "name": "x"}
    save_checkpoint(folder / "chkpnt3.pth", state)
    torch.save(state | {"version": 1, "evil": _Evil()}, folder / "evil.pth")
    return [folder / "chkpnt3.pth"]


def _trajectory(folder: Path) -> list[Path]:
    path = folder / "point_cloud/iteration_3/trajectory.pth"
    timing = Timing(np.arange(3.0) * 2, np.zeros(3, np.int64))
    save_checkpoint(path, Trajectory(torch.eye(4).expand(3, 4, 4), "spline", timing).checkpoint())
    return [path]


def _read_trajectory(folder: Path) -> Any:
    trajectory = load_trajectory(folder, 3)
    last = len(trajectory.first) - 1
    return trajectory.view(last, torch.linspace(0, 1, 3)) if last >= 0 else None


def _weights(folder: Path) -> list[Path]:
    save_network(folder / "recon_net.pth", SlimReconNet())
    return [folder / "recon_net.pth"]


def _evil(folder: Path) -> list[Path]:
    _checkpoint(folder)
    (folder / "plain.pth").write_bytes(pickle.dumps(_Evil()))
    np.save(folder / "evil.npy", np.array([_Evil()]), allow_pickle=True)
    np.savez(folder / "evil.npz", spikes=np.array([_Evil()]))
    return [folder / name for name in ("evil.pth", "plain.pth", "evil.npy", "evil.npz")]


def _read_evil(folder: Path) -> None:
    """Read all; the first error is raised at the end, so that each is read."""
    errors = []
    for path in sorted(folder.glob("*.*")):
        try:
            SpikeStream.open(path, H, W) if path.suffix in (".npy", ".npz") else load_checkpoint(path)
        except ValueError as error:
            errors.append(error)
    if errors:
        raise errors[-1]


# ---- Gaussians, meshes, images ---------------------------------------------------------------------------


def _gaussians(suffix: str) -> Callable[[Path], list[Path]]:
    def make(folder: Path) -> list[Path]:
        write_gaussians(folder / f"g{suffix}", tiny_gaussians(9, 3).params)
        return [folder / f"g{suffix}"]

    return make


def _points_as_text(folder: Path) -> list[Path]:
    names = "".join(f"property float {n}\n" for n in "xyz") + "".join(
        f"property uchar {n}\n" for n in ("red", "green", "blue")
    )
    rows = "".join(f"{i} {i / 3:.4f} -1e-3 {i} 20 255\n" for i in range(5))
    (folder / "p.ply").write_text(f"ply\nformat ascii 1.0\ncomment points\nelement vertex 5\n{names}end_header\n{rows}")
    return [folder / "p.ply"]


def _mesh(suffix: str) -> Callable[[Path], list[Path]]:
    def make(folder: Path) -> list[Path]:
        mesh = trimesh.creation.box()
        if suffix in (".obj", ".glb"):
            uv = np.random.default_rng(0).random((len(mesh.vertices), 2))
            image = Image.fromarray(np.full((4, 4, 3), 90, np.uint8))
            mesh.visual = trimesh.visual.TextureVisuals(uv=uv, image=image)
        if suffix == ".gltf":  # trimesh does not close these files when it writes them itself
            for name, content in trimesh.exchange.gltf.export_gltf(mesh.scene()).items():
                (folder / name.replace("model", "mesh")).write_bytes(content)
        else:
            mesh.export(folder / f"mesh{suffix}")
        return [file for file in sorted(folder.iterdir()) if file.suffix != ".png"]

    return make


def _image(name: str, bits: int = 8, channels: int = 3) -> Callable[[Path], list[Path]]:
    def make(folder: Path) -> list[Path]:
        image = np.random.default_rng(0).random((9, 13, channels)).astype(np.float32)
        save_image(folder / name, image, bits)
        return [folder / name]

    return make


def _video(folder: Path) -> list[Path]:
    with av.open(str(folder / "v.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
        for i in range(3):
            frame = av.VideoFrame.from_ndarray(np.full((16, 32, 3), 40 * i, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return [folder / "v.mp4"]


READERS = (
    Reader("recording .dat", _recording("a.dat"), lambda f: SpikeStream.open(f / "a.dat", H, W).count()),
    Reader("recording .dat, guessed", _recording("a.dat"), lambda f: open_recording(f / "a.dat")[0].count()),
    Reader("recording .npy", _recording("a.npy"), lambda f: SpikeStream.open(f / "a.npy").count()),
    Reader("recording .npz", _recording("a.npz"), lambda f: SpikeStream.open(f / "a.npz").count()),
    Reader("recording of SpikeCV", _spikecv, lambda f: open_recording(f)[0].count()),
    Reader("sensor.json and its maps", _sensor, lambda f: load_sensor(f / "sensor.json")),
    Reader("transforms.json, novel.json, ...", _scene, read_scene),
    Reader("COLMAP, binary", _colmap_scene, read_scene),
    Reader("COLMAP, text", _colmap_text, lambda f: open_model(f / "text")),
    Reader("TUM trajectory", _tum, lambda f: read_tum(f / "path.tum")),
    Reader("cfg_args.json", lambda f: [_model(f)[2]], load_settings),
    Reader("log.jsonl, run.json", _model, lambda f: compose_report(Run(f, ITERATION, {}, {}))),
    Reader("cameras.json", lambda f: [make_model(f, (0.0, 0.3)) / "cameras.json"], read_views),
    Reader("camera file", _camera_file, lambda f: file_path(f / "path.json", read_views(f), 5)),
    Reader("manifest.json", _manifest, lambda f: read_manifest(f, "train", 7)),
    Reader("results.json", _results, lambda f: rows_of(_JOB, f)),
    Reader("checkpoint", _checkpoint, lambda f: load_checkpoint(f / "chkpnt3.pth")),
    Reader("trajectory.pth", _trajectory, _read_trajectory),
    Reader("recon_net.pth", _weights, lambda f: load_network(f / "recon_net.pth")),
    Reader("files with code in them", _evil, _read_evil),
    Reader("points .ply, text", _points_as_text, lambda f: read_point_ply(f / "p.ply")),
    Reader("Gaussians .ply", _gaussians(".ply"), lambda f: read_gaussians(f / "g.ply")),
    Reader("Gaussians .splat", _gaussians(".splat"), lambda f: read_gaussians(f / "g.splat")),
    Reader("Gaussians .spz", _gaussians(".spz"), lambda f: read_gaussians(f / "g.spz")),
    *(
        Reader(f"mesh {suffix}", _mesh(suffix), lambda f, suffix=suffix: read_mesh(f / f"mesh{suffix}"))
        for suffix in (".obj", ".ply", ".glb", ".gltf", ".stl")
    ),
    Reader("image .png", _image("a.png"), lambda f: load_image(f / "a.png")),
    Reader("image .png, 16 bits", _image("a.png", 16, 1), lambda f: load_image(f / "a.png")),
    Reader("image .jpg", _image("a.jpg"), lambda f: load_image(f / "a.jpg")),
    Reader("video", _video, lambda f: sum(1 for _ in source_pictures(f / "v.mp4", 1))),
)
BY_NAME = {reader.name: reader for reader in READERS}
