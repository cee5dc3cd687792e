"""Make a scene that train.py reads from spikes alone: choose windows, find poses, write the folder.

    python convert.py -s data/myscene --recording rec.dat
    python convert.py -s data/myscene --clips clips/

One long recording is cut into views where the camera moved enough but not too much; a folder of clips is one
view a clip.  Poses and points come from previews of the views by structure from motion (pycolmap), tried with
several settings until two of them agree; how well they do is how sure the poses are.
"""

from __future__ import annotations

import utils  # isort: skip  # noqa: F401  (before torch: see there)

import argparse
import json
import math
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from arguments.command import guarded
from scene.trajectory import interpolate_poses
from spike import SensorModel, SpikeStream, WindowSpec, estimate_spurious_rate, load_sensor, save_sensor, write_dat
from spike.__main__ import add_recording_arguments, recording_of
from spike.preview import Method, contact_sheet, picture, stretched
from utils.io import atomic_write, save_image
from utils.ply import write_point_ply
from utils.trajectory_metrics import umeyama

Array = NDArray[np.float64]

SPEC = WindowSpec()
SPARE = 20  # frames stored beyond the context at either end: spikes just outside make the ends as exact
STORED = SPEC.context + 2 * SPARE
# Everything that this command writes into the scene folder.
OUTPUTS = (
    "spike_data", "previews", "sparse", "transforms.json", "sparse_pc.ply", "report.md", "report", "sensor.json",
    "sensor_gain_map.npy", "sensor_dark_map.npy",
)  # fmt: skip
SUFFIXES = (".dat", ".npy", ".npz")

# Windows: candidates looked at in a recording, and views by default.
CANDIDATES = 240
VIEWS = (8, 60)
# Image motion from one view to the next, and most motion within an exposure, in widths of the picture.
STEP = 0.05
BLUR = 0.1
# A recording whose pictures move less than this many pixels from end to end stands still.
STANDSTILL = 2.0
TOO_DARK, TOO_BRIGHT = 0.004, 0.9  # spikes a frame and pixel

# Structure from motion: fewest views, share that must register, and how the world is scaled afterwards.
FEWEST = 3
SHARE = 0.5
DEPTH = 2.0  # median depth of the points in world units, the size that the learning rates of poses expect
FEATURES = 1500
LEAST_ANGLE = 1.0  # degrees; below this the points' depths are guesses
# Disagreement of two attempts (relative to the cameras' spread) below which the poses are sure, or likely.
SURE, LIKELY = 0.02, 0.05
# More pictures than this are matched with their neighbours in time only.
EXHAUSTIVE = 30
# Pictures that structure from motion works best with are about this wide.
WIDE = 640
# Image motion from one helper to the next (widths), and most helpers.
HELPER_STEP = 0.03
HELPERS = 100


@dataclass(frozen=True)
class Window:
    """One view: frames [first, first + frames) of a stream, ``middle`` in its recording; what was measured of it."""

    name: str
    stream: SpikeStream = field(repr=False)
    first: int
    frames: int
    recording: str
    middle: float
    blur: float = 0.0  # pixels of image motion within the exposure
    level: float = 0.0  # spikes a frame and pixel
    refused: str = ""

    @property
    def middle_frame(self) -> int:
        """The stream's frame at the middle of the exposure."""
        return self.first + (self.frames - SPEC.context) // 2 + SPEC.context // 2


# ---- windows ---------------------------------------------------------------------------------------------


def quick_look(stream: SpikeStream, frame: int) -> NDArray[np.uint8]:
    """A small counted preview for measuring motion."""
    image = picture(stream, frame, "tfp", 25)
    grey = (stretched(image) * 255).astype(np.uint8)
    scale = min(1.0, 400 / grey.shape[1])
    return np.asarray(cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)


def image_motion(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Displacement of features from ``a`` to ``b``, in widths of the picture; nan where none is found.

    Four in five move less: a camera that keeps looking at one thing moves the picture's middle hardly at all.
    """
    corners: Any = cv2.goodFeaturesToTrack(a, 200, 0.01, 6)
    if corners is None or not len(corners):
        return math.nan
    flow: Any = cv2.calcOpticalFlowPyrLK  # its hints do not know that the guess may be left out
    moved, there, _ = flow(a, b, corners, None, winSize=(21, 21), maxLevel=4)
    back, again, _ = flow(b, a, moved, None, winSize=(21, 21), maxLevel=4)
    held = (there[:, 0] == 1) & (again[:, 0] == 1) & (np.linalg.norm(back - corners, axis=-1).ravel() < 1)
    if held.sum() < 8:
        return math.nan
    return float(np.percentile(np.linalg.norm((moved - corners).reshape(-1, 2)[held], axis=-1), 80)) / a.shape[1]


def measured(window: Window, max_blur: float) -> Window:
    """The window with its light and image motion, and a reason where it is of no use."""
    middle, half = window.middle_frame, SPEC.exposure // 2
    spikes = window.stream.unpack(middle - 16, middle + 17)
    level = float(spikes.mean())
    looks = [quick_look(window.stream, middle + offset) for offset in (-half, half)]
    blur = image_motion(*looks) * window.stream.width
    refused = ""
    if level < TOO_DARK or level > TOO_BRIGHT:
        refused = "too dark" if level < TOO_DARK else "saturated"
    elif math.isnan(blur):
        refused = "no features to follow"
    elif blur > max_blur:
        refused = f"blur of {blur:.0f} pixels"
    return replace(window, level=level, blur=blur, refused=refused)


def choose_windows(
    stream: SpikeStream, start: int, stop: int, views: int | None, spacing: str, max_blur: float, quiet: bool
) -> tuple[list[Window], list[Window], list[Window]]:
    """Windows along a recording, all candidates they were chosen from, and helpers.

    Helpers are pictures between the views, close enough to each other that features are followed from one to
    the next; they serve structure from motion alone.

    The candidates are spread evenly.  By ``motion``, as many views are taken as the picture moves by steps of
    ``STEP`` widths, and spread evenly over that motion; ``even`` spreads them over time.

    Raises:
        ValueError: a recording shorter than a view, one that stands still, or too few usable windows.
    """
    frames = stop - start
    if frames < STORED:
        raise ValueError(f"{stream.name}: {frames} frames are fewer than one view needs ({STORED})")
    count = min(frames // STORED, CANDIDATES)
    if count < FEWEST:
        raise ValueError(
            f"{stream.name}: {frames} frames hold {count} views of {STORED}; a reconstruction needs {FEWEST} or more"
        )
    firsts = np.linspace(start, stop - STORED, count).round().astype(int)
    found = [Window("", stream, int(f), STORED, "recording", float(f + STORED // 2)) for f in firsts]
    found = [measured(w, max_blur) for w in tqdm(found, desc="Looking at the recording", disable=quiet)]
    blur = np.array([w.blur for w in found])
    if np.isnan(blur).all():
        raise ValueError(f"{stream.name}: no features to follow anywhere; is it in focus, and lit? try python -m spike")
    # Path of the picture: speed is known at the candidates, and taken as constant in between.
    speed = np.interp(np.arange(count), np.flatnonzero(~np.isnan(blur)), blur[~np.isnan(blur)]) / SPEC.exposure
    path = np.concatenate([[0], np.cumsum((speed[1:] + speed[:-1]) / 2 * np.diff(firsts))])
    if path[-1] < STANDSTILL:
        raise ValueError(
            f"{stream.name}: the picture moves by {path[-1]:.1f} pixels in all, so there is no parallax; "
            "move the camera sideways while recording"
        )
    wanted = views or int(np.clip(round(path[-1] / (STEP * stream.width)) + 1, *VIEWS))
    usable = np.array([i for i, w in enumerate(found) if not w.refused])
    if len(usable) < FEWEST:
        reasons = ", ".join(sorted({w.refused for w in found if w.refused}))
        raise ValueError(
            f"{stream.name}: {len(usable)} of {count} windows are usable, {FEWEST} are needed (the others: {reasons})"
        )
    measure = path if spacing == "motion" else firsts - firsts[0]
    chosen: list[int] = []
    for goal in np.linspace(measure[usable[0]], measure[usable[-1]], min(wanted, len(usable))):
        nearest = int(usable[np.argmin(np.abs(measure[usable] - goal))])
        if nearest not in chosen:
            chosen.append(nearest)
    windows = [replace(found[i], name=f"{n:03d}") for n, i in enumerate(sorted(chosen))]
    steps = int(np.clip(math.ceil(path[-1] / (HELPER_STEP * stream.width)), min(2 * len(windows), HELPERS), HELPERS))
    between = np.interp(np.linspace(0, path[-1], steps + 1), path, firsts).round().astype(int)
    taken = {w.first for w in windows}
    return windows, found, [helper(windows[0], int(f) - windows[0].first) for f in between if f not in taken]


def helper(window: Window, later: int) -> Window:
    """A picture ``later`` frames than a window's middle, without a name: it is no view."""
    return replace(window, name="", first=window.first + later, middle=window.middle + later)


def clip_windows(folder: Path, args: argparse.Namespace, max_blur: float) -> list[Window]:
    """One view a clip, in the order of their names."""
    files = sorted(f for f in folder.iterdir() if f.suffix in SUFFIXES) if folder.is_dir() else []
    if not files:
        raise ValueError(f"{folder}: no clips ({', '.join(SUFFIXES)}) in this folder")
    windows: list[Window] = []
    at = 0
    for file in files:
        stream, guess = recording_of(file, args)
        if guess is not None:  # the first clip speaks for all
            args.height, args.width, args.stored_width = guess.height, guess.width, guess.stored_width
            args.bit_order, args.flip = guess.bit_order, guess.flip
        if len(stream) < SPEC.context:
            raise ValueError(f"{file}: {len(stream)} frames are fewer than one view needs ({SPEC.context})")
        if windows and (stream.height, stream.width) != (windows[0].stream.height, windows[0].stream.width):
            raise ValueError(f"{file}: {stream.width}x{stream.height} pixels, unlike the clips before it")
        middle = at + len(stream) / 2 - 0.5
        recording = "clips" if args.consecutive else file.stem
        windows.append(measured(Window(file.stem, stream, 0, len(stream), recording, middle), max_blur))
        at += len(stream) + args.clip_gap
    if len({w.name for w in windows}) < len(windows):
        raise ValueError(f"{folder}: two clips have one name; views are told apart by it")
    if len(windows) < FEWEST:
        raise ValueError(f"{folder}: {len(windows)} clips; a reconstruction needs {FEWEST} or more")
    return windows


# ---- poses -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Attempt:
    """Settings of one structure from motion."""

    method: Method
    window: int
    helped: bool = True
    larger: int = 0
    patient: bool = False

    def scale(self, width: int) -> int:
        """Enlargement of the previews of a sensor with ``width`` columns."""
        return max(round(WIDE / width), 1) + self.larger

    def __str__(self) -> str:
        notes = ["a size larger"] * bool(self.larger) + ["lower thresholds"] * self.patient
        return ", ".join([f"{self.method}({self.window}) previews", *notes])


# In the order they are tried: what was most exact on rendered recordings of hand-held cameras comes first.
# Previews are enlarged because features of small sensors are too few and too coarse at native size.
ATTEMPTS = (
    Attempt("timing", 9),
    Attempt("timing", 25),
    Attempt("timing", 9, helped=False),
    Attempt("timing", 15, larger=1, patient=True),
    Attempt("tfp", 41, patient=True),
)


@dataclass(frozen=True)
class Solution:
    """Poses of some views: ``w2c`` by name (OpenCV axes), intrinsics [fx, fy, cx, cy] at native size, points."""

    w2c: dict[str, Array]
    intrinsics: Array
    xyz: Array
    grey: Array
    error: float  # mean reprojection error, native pixels
    angle: float  # median over the points of the widest angle they are seen under, degrees
    observations: dict[str, int]
    origin: str
    model: Any = None


def save_previews(
    windows: Sequence[Window], names: Sequence[str], attempt: Attempt, scale: int, folder: Path, sensor: SensorModel
) -> None:
    """Pictures at mid-exposure, enlarged, with local contrast evened out."""
    equalise = cv2.createCLAHE(2.0, (8, 8))
    for window, name in zip(windows, names, strict=True):
        image = picture(
            window.stream, window.middle_frame, attempt.method, attempt.window, sensor,
            sensor.spurious_rate if attempt.method == "timing" else 0.0,
        )  # fmt: skip
        grey = equalise.apply((stretched(image) * 255).astype(np.uint8))
        size = (scale * window.stream.width, scale * window.stream.height)
        save_image(folder / f"{name}.png", cv2.resize(grey, size, interpolation=cv2.INTER_CUBIC) / 255)


def structure_from_motion(
    images: Path, work: Path, patient: bool, exhaustive: bool, intrinsics: Array | None, seed: int
) -> tuple[Any, str]:
    """The reconstruction with the most images (or None), and what is known of the reason where it failed.

    ``intrinsics`` are those of the enlarged pictures.
    """
    import pycolmap

    pycolmap.logging.minloglevel = 3
    database = work / "database.db"
    reader, extraction = pycolmap.ImageReaderOptions(), pycolmap.FeatureExtractionOptions()
    matching, verification = pycolmap.FeatureMatchingOptions(), pycolmap.TwoViewGeometryOptions()
    mapping = pycolmap.IncrementalPipelineOptions()
    reader.camera_model = "SIMPLE_PINHOLE" if intrinsics is None else "PINHOLE"
    if intrinsics is not None:
        reader.camera_params = ",".join(str(v) for v in intrinsics)
        mapping.ba_refine_focal_length = False
    extraction.sift.max_num_features = FEATURES
    matching.use_gpu = extraction.use_gpu = False
    verification.ransac.random_seed = mapping.random_seed = seed
    mapping.min_model_size = FEWEST
    mapping.max_num_models = 5
    # Fewer adjustments of everything on the way: the last one decides, and takes as long as the others together.
    mapping.ba_global_frames_ratio = mapping.ba_global_points_ratio = 1.4
    if patient:
        extraction.sift.peak_threshold *= 0.6
        mapping.min_num_matches = 10
        mapping.mapper.init_min_num_inliers = 40
        mapping.mapper.init_min_tri_angle = 6.0
        mapping.mapper.abs_pose_min_num_inliers = 15
    device = pycolmap.Device.cpu
    pycolmap.extract_features(
        database, images, camera_mode=pycolmap.CameraMode.SINGLE, reader_options=reader,
        extraction_options=extraction, device=device,
    )  # fmt: skip
    match = pycolmap.match_exhaustive if exhaustive else pycolmap.match_sequential
    match(database, matching_options=matching, verification_options=verification, device=device)
    (work / "models").mkdir()
    models = pycolmap.incremental_mapping(database, images, work / "models", mapping)
    if models:
        return max(models.values(), key=lambda m: m.num_reg_images()), ""
    kinds: list[str] = []
    opened = pycolmap.Database.open(database)
    for geometry in opened.read_two_view_geometries()[1]:
        kinds.append(pycolmap.TwoViewGeometryConfiguration(geometry.config).name)
    opened.close()
    if kinds and sum("PANORAMIC" in kind for kind in kinds) > len(kinds) / 2:
        return None, "the camera turns without moving, so there is no parallax"
    return None, "the views have too little in common"


def pose_of(image: Any) -> Array:
    """World-to-camera [4, 4] of a pycolmap image."""
    pose = image.cam_from_world  # a method since pycolmap 3.12
    w2c = np.eye(4)
    w2c[:3] = (pose() if callable(pose) else pose).matrix()
    return w2c


def solution_of(model: Any, scale: float, origin: str) -> Solution:
    """What a reconstruction at ``scale`` times the sensor's size says of the views (helpers lie in a folder)."""
    posed = [i for i in model.images.values() if i.has_pose]
    registered = {Path(i.name).stem: i for i in posed if "/" not in i.name}
    w2c = {name: pose_of(registered[name]) for name in sorted(registered)}
    camera = next(iter(model.cameras.values()))
    k = camera.calibration_matrix()
    points = list(model.points3D.values())
    xyz = np.array([p.xyz for p in points]).reshape(-1, 3)
    centres = {i.image_id: np.linalg.inv(pose_of(i))[:3, 3] for i in posed}
    angles = []
    for point in points[:: max(len(points) // 500, 1)]:
        rays = np.array([centres[e.image_id] for e in point.track.elements]) - point.xyz
        rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
        angles.append(np.degrees(np.arccos((rays @ rays.T).min().clip(-1, 1))))
    return Solution(
        w2c,
        np.array([k[0, 0], k[1, 1], k[0, 2], k[1, 2]]) / scale,
        xyz,
        np.array([p.color for p in points]).reshape(-1, 3) / 255,
        float(model.compute_mean_reprojection_error()) / scale,
        float(np.median(angles)) if angles else 0.0,
        {name: int(image.num_points3D) for name, image in registered.items()},
        origin,
        model,
    )


def centres_of(w2c: Iterable[Array]) -> Array:
    return np.array([np.linalg.inv(pose)[:3, 3] for pose in w2c])


def disagreement(a: Solution, b: Solution) -> float:
    """RMS distance of the cameras that both have after alignment, relative to their spread."""
    shared = [name for name in a.w2c if name in b.w2c]
    if len(shared) < FEWEST:
        return math.inf
    ours, theirs = centres_of(a.w2c[n] for n in shared), centres_of(b.w2c[n] for n in shared)
    scale, rotation, translation = umeyama(theirs, ours)
    distance = np.linalg.norm(scale * theirs @ rotation.T + translation - ours, axis=-1)
    spread = np.linalg.norm(ours - ours.mean(0), axis=-1)
    return float(np.sqrt((distance**2).mean() / max(float((spread**2).mean()), 1e-30)))


def find_poses(
    windows: Sequence[Window], helpers: Sequence[Window], intrinsics: Array | None, sensor: SensorModel, quiet: bool
) -> tuple[Solution, float, list[str]]:
    """Try settings until two agree: the better solution, their disagreement, and what was tried.

    Raises:
        ValueError: no setting registers enough views, or the points are seen under too small angles.
    """
    solutions: list[Solution] = []
    notes, reasons = [], []
    best, least = None, math.inf
    enough = max(FEWEST, math.ceil(SHARE * len(windows)))
    # Clips have no pictures between them.
    attempts = [a for a in ATTEMPTS if helpers or a.helped]
    for attempt in tqdm(attempts, desc="Finding poses", unit="attempt", disable=quiet):
        scale = attempt.scale(windows[0].stream.width)
        shown, label = list(windows), str(attempt)
        if attempt.helped and helpers:  # in order of time, which is what sequential matching goes by
            label += f", {len(helpers)} helpers"
            shown = sorted([*windows, *helpers], key=lambda w: (w.recording, w.middle))
        names = [f"{i:05d}" for i in range(len(shown))]
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            save_previews(shown, names, attempt, scale, work / "images", sensor)
            model, reason = structure_from_motion(
                work / "images", work, attempt.patient, len(shown) <= EXHAUSTIVE or not helpers,
                None if intrinsics is None else scale * intrinsics, seed=0,
            )  # fmt: skip
        if model is not None:
            for image in model.images.values():
                window = shown[int(Path(image.name).stem)]
                image.name = f"{window.name}.png" if window.name else f"between/{image.name}"
        else:
            notes.append(f"{label}: failed, {reason}")
            reasons.append(reason)
            continue
        found = solution_of(model, scale, label)
        notes.append(
            f"{label}: {len(found.w2c)} of {len(windows)} views, {len(found.xyz)} points, "
            f"reprojection error {found.error:.2f} px, points seen under {found.angle:.1f} degrees"
        )
        solutions.append(found)
        best = max(solutions, key=lambda s: (len(s.w2c), -s.error))
        others = [s for s in solutions if s is not best and len(s.w2c) >= enough]
        least = min((disagreement(best, s) for s in others), default=math.inf)
        # The first two are the best; later ones only serve where those fail or contradict each other.
        if len(best.w2c) == len(windows) and least < (SURE if len(solutions) < 3 else LIKELY):
            break
    if best is None or len(best.w2c) < enough:
        count = 0 if best is None else len(best.w2c)
        why = reasons[-1] if reasons else "the views have too little in common"
        raise ValueError(
            f"only {count} of {len(windows)} views could be registered, {enough} are needed: {why}; record more "
            "slowly, with more texture and overlap, or give --fl_x, more --views, or --from_colmap"
        )
    if best.angle < LEAST_ANGLE:
        raise ValueError(
            f"the points are seen under {best.angle:.1f} degrees only: no parallax to tell depth from; "
            "move the camera sideways while recording"
        )
    return best, least, notes


def read_colmap(folder: Path, names: Sequence[str], width: int, height: int) -> Solution:
    """Poses that someone reconstructed; images are named as the views, of the sensor's size or a multiple."""
    import pycolmap

    try:
        model = pycolmap.Reconstruction(str(folder))
    except Exception as error:  # pycolmap raises its own kinds
        raise ValueError(f"{folder}: not a readable COLMAP model ({str(error).splitlines()[0]})") from None
    known = {Path(i.name).stem for i in model.images.values() if i.has_pose}
    if len(known & set(names)) < FEWEST:
        raise ValueError(
            f"{folder}: {len(known & set(names))} of its images are named as views; expected names like "
            f"{names[0]}.png (see previews/)"
        )
    camera = next(iter(model.cameras.values()))
    if len(model.cameras) != 1 or camera.model.name not in ("PINHOLE", "SIMPLE_PINHOLE"):
        raise ValueError(f"{folder}: expected one PINHOLE camera; binary spikes cannot be undistorted")
    if abs(camera.width * height - camera.height * width) > max(camera.width, camera.height):
        raise ValueError(
            f"{folder}: images of {camera.width}x{camera.height}, expected {width}x{height} or a multiple"
        )
    found = solution_of(model, camera.width / width, f"COLMAP model {folder}")
    return replace(found, w2c={n: pose for n, pose in found.w2c.items() if n in names})


def normalised(solution: Solution) -> tuple[Solution, Array]:
    """The world turned upright (z against the cameras' down), scaled to ``DEPTH``, with the points about the origin.

    Returns the solution and the similarity [4, 4] that was applied.
    """
    poses = np.array(list(solution.w2c.values()))
    down = poses[:, 1, :3].mean(0)
    up = -down / np.linalg.norm(down)
    forward = poses[:, 2, :3].mean(0)
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(up, right), up])
    depth = [(solution.xyz @ p[2, :3] + p[2, 3]) for p in poses]
    positive = np.concatenate(depth) if len(solution.xyz) else np.ones(1)
    scale = DEPTH / float(np.median(positive[positive > 0])) if (positive > 0).any() else 1.0
    centre = np.median(solution.xyz, axis=0) if len(solution.xyz) else centres_of(poses).mean(0)
    similarity = np.eye(4)
    similarity[:3, :3], similarity[:3, 3] = scale * rotation, -scale * rotation @ centre

    def moved(pose: Array) -> Array:
        new = np.eye(4)
        new[:3, :3] = pose[:3, :3] @ rotation.T
        new[:3, 3] = scale * pose[:3, 3] - new[:3, :3] @ similarity[:3, 3]
        return new

    xyz = solution.xyz @ similarity[:3, :3].T + similarity[:3, 3]
    return replace(solution, w2c={n: moved(p) for n, p in solution.w2c.items()}, xyz=xyz), similarity


def all_poses(windows: Sequence[Window], solution: Solution) -> dict[str, Array]:
    """Poses of all views; those that did not register lie on the path through the others of their recording."""
    poses = dict(solution.w2c)
    for recording in {w.recording for w in windows}:
        members = [w for w in windows if w.recording == recording]
        anchors = [w for w in members if w.name in solution.w2c]
        missing = [w for w in members if w.name not in solution.w2c]
        if not anchors or not missing:
            continue  # a clip on its own: nothing to interpolate from, so it is left out
        times = np.array([w.middle for w in anchors])
        # Beyond the ends the nearest pose: a curve that goes on would fly away.
        at = np.array([w.middle for w in missing]).clip(times[0], times[-1])
        found = interpolate_poses(times, np.array([solution.w2c[w.name] for w in anchors]), at)
        poses |= dict(zip((w.name for w in missing), found, strict=True))
    return poses


# ---- what is written -------------------------------------------------------------------------------------


def fitted_gain(windows: Sequence[Window], sensor: SensorModel) -> float:
    """A gain that makes the brightest of the views white: spikes a frame, once over all views."""
    rates = [w.stream.count(w.middle_frame - 48, w.middle_frame + 49).ravel() / 97 for w in windows[:24]]
    brightest = float(np.percentile(np.concatenate(rates), 99.5)) - float(sensor.dark_rate)
    return min(max(brightest, 1e-3), 1.0)


def scene_sensor(args: argparse.Namespace, windows: Sequence[Window]) -> SensorModel:
    """The calibration that was given, or a gain and a spurious rate from the recording itself."""
    stream = windows[0].stream
    if args.sensor is not None:
        sensor = load_sensor(args.sensor)
        sensor.check_size(stream.height, stream.width, stream.name)
        return sensor
    middle = windows[len(windows) // 2]
    reach = SPEC.context // 2
    spikes = middle.stream.unpack(middle.middle_frame - reach, middle.middle_frame + reach + 1)
    return SensorModel(fitted_gain(windows, SensorModel()), spurious_rate=estimate_spurious_rate(spikes))


def write_scene(
    root: Path, windows: Sequence[Window], solution: Solution, poses: dict[str, Array], sensor: SensorModel,
    calibrated: bool,
) -> None:  # fmt: skip
    """spike_data, transforms.json, sparse_pc.ply and the sensor: its calibration, or what the spikes themselves say."""
    stream = windows[0].stream
    entries = []
    for window in windows:
        if window.name not in poses:
            continue
        file = f"spike_data/{window.name}.dat"
        cut = window.stream.unpack(window.first, window.first + window.frames)
        write_dat(root / file, cut, stored_width=padded_width(stream))
        to_world = np.linalg.inv(poses[window.name]) @ np.diag([1.0, -1.0, -1.0, 1.0])
        registered = window.name in solution.w2c
        entries.append(
            {
                "spike_path": file, "transform_matrix": to_world.tolist(), "recording": window.recording,
                "middle_frame": window.middle, "registered": registered,
            }
            | ({} if registered else {"pose": "interpolated"})
        )  # fmt: skip
    fx, fy, cx, cy = solution.intrinsics
    spike: dict[str, Any] = {} if calibrated else sensor.to_dict()
    if padded_width(stream) is not None:
        spike["stored_width"] = padded_width(stream)
    content = {
        "fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy, "w": stream.width, "h": stream.height,
        "camera_model": "PINHOLE", "spike": spike, "ply_file_path": "sparse_pc.ply", "frames": entries,
    }  # fmt: skip
    with atomic_write(root / "transforms.json", "w") as file_:
        json.dump(content, file_, indent=1)
    if calibrated:
        save_sensor(root / "sensor.json", sensor)
    xyz = torch.from_numpy(solution.xyz).float()
    write_point_ply(root / "sparse_pc.ply", xyz, torch.from_numpy(solution.grey).float())


def padded_width(stream: SpikeStream) -> int | None:
    """Columns to store where a frame is no whole number of bytes."""
    return None if stream.height * stream.width % 8 == 0 else -(-stream.width // 8) * 8


def write_model(root: Path, model: Any, scale: float, similarity: Array) -> None:
    """COLMAP's files, in the scene's world and at the sensor's size."""
    import pycolmap

    size = float(np.cbrt(np.linalg.det(similarity[:3, :3])))
    turn = pycolmap.Rotation3d(similarity[:3, :3] / size)
    for image in [i for i in model.images.values() if i.has_pose and "/" in i.name]:
        model.deregister_frame(image.frame_id)  # helpers are no views
    model.transform(pycolmap.Sim3d(size, turn, similarity[:3, 3]))
    for camera in model.cameras.values():
        camera.rescale(round(camera.width / scale), round(camera.height / scale))
    for image in model.images.values():
        for point in image.points2D:
            point.xy = point.xy / scale
    (root / "sparse" / "0").mkdir(parents=True)
    model.write(str(root / "sparse" / "0"))


# ---- the report ------------------------------------------------------------------------------------------


def plot(
    lines: Sequence[tuple[Array, Array, tuple[float, float, float], bool]], size: tuple[int, int], square: bool = False
) -> NDArray[np.float32]:
    """Points and lines [n] in one frame of ``size`` (width, height): (x, y, RGB, joined)."""
    width, height = size
    page = np.full((height, width, 3), 255, np.uint8)
    # All of the lines is shown, of loose points all but the far ones.
    ends = np.array([
        [np.nanpercentile(line[axis], p) for axis in (0, 1)]
        for line in lines if len(line[0]) for p in ((0, 100) if line[3] else (4, 96))
    ])  # fmt: skip
    low = ends.min(0)
    scale = np.array([width - 40, height - 40]) / np.maximum(ends.max(0) - low, 1e-9)
    if square:
        scale[:] = scale.min()
    for xs, ys, color, joined in lines:
        at = (np.stack([xs, ys], -1) - low) * scale
        pixels = np.nan_to_num(np.stack([20 + at[:, 0], height - 20 - at[:, 1]], -1)).clip(-9999, 9999).astype(np.int32)
        shade = tuple(int(255 * c) for c in color)
        if joined:
            cv2.polylines(page, [pixels.reshape(-1, 1, 2)], False, shade, 1, cv2.LINE_AA)
        for px in pixels:
            cv2.circle(page, (int(px[0]), int(px[1])), 3 if joined else 1, shade, -1, cv2.LINE_AA)
    return np.asarray(page / np.float32(255), np.float32)


def framed(image: NDArray[np.float32], color: tuple[float, float, float]) -> NDArray[np.float32]:
    out = np.repeat(image[..., None], 3, -1)
    out[:3], out[-3:], out[:, :3], out[:, -3:] = color, color, color, color
    return np.asarray(out, np.float32)


def sureness_of(disagreement_: float) -> str:
    if math.isinf(disagreement_):
        return "a guess: no second attempt to compare with"
    word = "sure" if disagreement_ < SURE else "likely" if disagreement_ < LIKELY else "doubtful"
    return f"{word}: two attempts differ by {disagreement_:.1%} of the cameras' spread"


def write_report(
    root: Path, args: argparse.Namespace, windows: Sequence[Window], candidates: Sequence[Window], solution: Solution,
    poses: dict[str, Array], disagreement_: float, notes: Sequence[str],
) -> None:  # fmt: skip
    """report.md and its pictures: which windows and why, which views registered, how sure it is."""
    green, red, grey = (0.1, 0.6, 0.2), (0.85, 0.1, 0.1), (0.6, 0.6, 0.6)
    shown = {}
    for window in windows:
        image = stretched(picture(window.stream, window.middle_frame, "timing", 9))
        shown[f"{window.name} {window.blur:.0f} px"] = framed(image, green if window.name in solution.w2c else red)
    save_image(root / "report" / "views.png", contact_sheet(shown, columns=6, width=240))
    centres = centres_of(poses[w.name] for w in windows if w.name in poses)
    marks = np.array([w.name in solution.w2c for w in windows if w.name in poses])
    cloud = solution.xyz
    lines = [(cloud[:, 0], cloud[:, 1], grey, False), (centres[:, 0], centres[:, 1], green, True)]
    if not marks.all():
        lines.append((centres[~marks, 0], centres[~marks, 1], red, False))
    save_image(root / "report" / "from_above.png", plot(lines, (640, 640), square=True))
    text = [
        f"# {args.source_path.name}: from spikes to a scene\n",
        f"Poses are {sureness_of(disagreement_)}.  {len(solution.w2c)} of {len(windows)} views registered; "
        f"{len(cloud)} points, seen under {solution.angle:.1f} degrees (median), reprojection error "
        f"{solution.error:.2f} px; focal length {solution.intrinsics[0]:.1f} px "
        f"({'given' if args.fl_x else 'as in the model' if args.from_colmap else 'estimated'}).  "
        "Training corrects the poses further.\n",
        "![views](report/views.png)\n",
        "Green: registered.  Red: not; the pose is interpolated along the recording, or the view left out.\n",
        "![from above](report/from_above.png)\n",
        "Cameras (green) and points from above.\n",
    ]
    if candidates:
        at = np.array([w.middle for w in candidates])
        blur = np.array([w.blur for w in candidates])
        chosen = np.array([w.middle for w in windows]), np.array([w.blur for w in windows])
        save_image(root / "report" / "motion.png", plot([(at, blur, grey, True), (*chosen, green, False)], (900, 260)))
        refused = [w for w in candidates if w.refused]
        text += [
            "![motion](report/motion.png)\n",
            f"Pixels of image motion within an exposure along the recording ({len(candidates)} places looked at); "
            f"views (green) are spread evenly over the {'motion' if args.spacing == 'motion' else 'time'}.\n",
            "".join(f"- frame {w.middle:.0f} not used: {w.refused}\n" for w in refused[:20]),
            f"- and {len(refused) - 20} more\n" if len(refused) > 20 else "",
        ]
    text += ["Tried:\n", "".join(f"- {note}\n" for note in notes)]
    text.append(f"Taken: {solution.origin}.\n")
    text.append("| view | recording | middle frame | blur px | spikes a frame | points | pose |")
    text.append("| --- | --- | --- | --- | --- | --- | --- |")
    for w in windows:
        kind = "registered" if w.name in solution.w2c else "interpolated" if w.name in poses else "left out"
        note = f" ({w.refused})" if w.refused else ""
        points = solution.observations.get(w.name, 0)
        text.append(
            f"| {w.name} | {w.recording} | {w.middle:.0f} | {w.blur:.1f} | {w.level:.3f} | {points} | {kind}{note} |"
        )
    with atomic_write(root / "report.md", "w") as file:
        file.write("\n".join(text) + "\n")


# ---- the command -----------------------------------------------------------------------------------------


def refuse_or_clear(root: Path, force: bool) -> list[Path]:
    """What is in the way in the scene folder; an error unless it may be overwritten."""
    if root.exists() and not root.is_dir():
        raise ValueError(f"{root}: is a file, expected a folder for the scene")
    there = [root / name for name in OUTPUTS if (root / name).exists()]
    if there and not force:
        raise ValueError(f"{there[0]}: is there already; give --force to overwrite the scene's files")
    return there


def given_intrinsics(args: argparse.Namespace, width: int, height: int) -> Array | None:
    """[fx, fy, cx, cy] where --fl_x was given."""
    if args.fl_x is None:
        if any(v is not None for v in (args.fl_y, args.cx, args.cy)):
            raise ValueError("--fl_y, --cx and --cy complete a given focal length: give --fl_x too")
        return None
    fy = args.fl_x if args.fl_y is None else args.fl_y
    if not (args.fl_x > 0 and fy > 0):
        raise ValueError(f"--fl_x and --fl_y must be positive, not {args.fl_x:g} and {fy:g}")
    cx, cy = (half if v is None else v for v, half in ((args.cx, width / 2), (args.cy, height / 2)))
    return np.array([args.fl_x, fy, cx, cy], np.float64)


def convert(args: argparse.Namespace) -> None:
    root: Path = args.source_path
    old = refuse_or_clear(root, args.force)
    candidates: list[Window] = []
    helpers: list[Window] = []
    if args.clips is not None:
        windows = clip_windows(args.clips, args, math.inf)
    else:
        stream, _ = recording_of(args.recording, args)
        limit = args.max_blur or BLUR * stream.width
        stop = len(stream) if args.stop is None else args.stop
        if not 0 <= args.start < stop <= len(stream):
            raise ValueError(f"{stream.name}: has {len(stream)} frames, not those from {args.start} to {stop}")
        windows, candidates, helpers = choose_windows(
            stream, args.start, stop, args.views, args.spacing, limit, args.quiet
        )
    stream = windows[0].stream
    sensor = scene_sensor(args, windows)
    intrinsics = given_intrinsics(args, stream.width, stream.height)
    staging = root.parent / f".{root.name}.{secrets.token_hex(6)}"
    try:
        scale = args.preview_scale or ATTEMPTS[0].scale(stream.width)
        save_previews(windows, [w.name for w in windows], ATTEMPTS[0], scale, staging / "previews", sensor)
        if not args.previews_only:
            notes: list[str] = []
            if args.from_colmap is not None:
                names = [w.name for w in windows]
                solution, spread = read_colmap(args.from_colmap, names, stream.width, stream.height), math.inf
            else:
                solution, spread, notes = find_poses(windows, helpers, intrinsics, sensor, args.quiet)
            model, camera = solution.model, next(iter(solution.model.cameras.values()))
            solution, similarity = normalised(solution)
            poses = all_poses(windows, solution)
            write_scene(staging, windows, solution, poses, sensor, args.sensor is not None)
            write_model(staging, model, camera.width / stream.width, similarity)
            write_report(staging, args, windows, candidates, solution, poses, spread, notes)
        move_in(staging, root, old)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    if args.previews_only:
        print(f"Written: {root}/previews ({len(windows)} views)")
        return
    lost = [w.name for w in windows if w.name not in solution.w2c]
    print(f"{len(windows)} views, {len(solution.w2c)} registered; the poses are {sureness_of(spread)}")
    if lost:
        print(f"Not registered: {', '.join(lost)}; see the report")
    print(f"Written: {root} (report.md). Next: python train.py -s {root} --spike")


def move_in(staging: Path, root: Path, old: Sequence[Path]) -> None:
    """Put the finished files in place of the old ones."""
    root.mkdir(parents=True, exist_ok=True)
    for path in old:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in staging.iterdir():
        os.replace(path, root / path.name)


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description="Make a scene from a spike recording, or from clips, without known poses.")
    p.add_argument("-s", "--source_path", type=Path, required=True, help="folder of the scene to make")
    source = p.add_mutually_exclusive_group(required=True)
    source.add_argument("--recording", type=Path, help="one long recording (.dat, .npy, .npz, or SpikeCV folder)")
    source.add_argument("--clips", type=Path, help="folder of short recordings, one view each")
    p.add_argument("--consecutive", action="store_true", help="the clips are pieces of one recording, in order")
    p.add_argument("--clip_gap", type=int, default=0, help="spike frames between two consecutive clips (default: 0)")
    p.add_argument("--views", type=int, help="views to take (default: by how far the picture moves)")
    p.add_argument("--start", type=int, default=0, help="first frame of the recording to use")
    p.add_argument("--stop", type=int, help="frame to stop before (default: the end)")
    p.add_argument("--spacing", choices=["motion", "even"], default="motion", help="how views are spread")
    p.add_argument("--max_blur", type=float, help="most pixels of motion in an exposure (default: width / 10)")
    p.add_argument("--sensor", type=Path, help="calibration (sensor.json of python -m spike calibrate)")
    for name, text in (("fl_x", "focal length"), ("fl_y", "vertical focal length"), ("cx", "centre"), ("cy", "centre")):
        p.add_argument(f"--{name}", type=float, help=f"{text} in pixels, where it is known")
    p.add_argument("--from_colmap", type=Path, help="use the poses of this COLMAP model (images named as in previews/)")
    p.add_argument("--previews_only", action="store_true", help="write previews/ for a reconstruction of your own")
    p.add_argument("--preview_scale", type=int, help="enlargement of previews/ (default: to about 640 columns)")
    p.add_argument("--force", action="store_true", help="overwrite what an earlier run left in the folder")
    p.add_argument("--quiet", action="store_true", help="no progress bars")
    add_recording_arguments(p)
    return p


def main() -> int:
    args = parser().parse_args()
    for name in ("views", "preview_scale"):
        value = getattr(args, name)
        if value is not None and value < (FEWEST if name == "views" else 1):
            raise ValueError(f"--{name} must be at least {FEWEST if name == 'views' else 1}, not {value}")
    if args.max_blur is not None and not args.max_blur > 0:
        raise ValueError(f"--max_blur must be positive, not {args.max_blur:g}")
    convert(args)
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
