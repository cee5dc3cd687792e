"""Estimates the poses and points of views by structure from motion (pycolmap) on previews."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from conversion.windows import FEWEST, Window
from pictures.colors import stretched
from scene.colmap import load_pycolmap, named_parameters, open_model, pose_of
from scene.lens import FISHEYES, PERSPECTIVE, coefficients_of
from scene.trajectory import interpolate_poses
from spike.preview import Method, despeckled, gray, picture
from spike.sensor import SensorModel
from utils.io import save_image
from utils.telling import progress
from utils.trajectory_metrics import centers, umeyama

Array = NDArray[np.float64]

# Share of the views that must register, and scale of the world afterward.
SHARE = 0.5
DEPTH = 2.0  # median depth of the points in world units; the learning rates of poses are tuned for this
FEATURES = 1500
LEAST_ANGLE = 1.0  # degrees; below this the depths of points are unreliable
# Poses are sure, or likely, if the disagreement of two attempts (relative to the cameras' spread) is below these.
SURE, LIKELY = 0.02, 0.05
# With more images than this, each is matched only with its neighbors in time.
EXHAUSTIVE = 30
# Folder of the helpers' images in a model.
BETWEEN = "between/"
# Image width in pixels at which structure from motion works best.
WIDE = 640


@dataclass(frozen=True)
class Attempt:
    """Settings of one attempt at structure from motion."""

    method: Method
    window: int
    helped: bool = True
    larger: int = 0
    patient: bool = False

    def scale(self, width: int) -> int:
        """Enlargement factor of the previews of a sensor with ``width`` columns."""
        return max(round(WIDE / width), 1) + self.larger

    def __str__(self) -> str:
        notes = ["a size larger"] * bool(self.larger) + ["lower thresholds"] * self.patient
        return ", ".join([f"{self.method}({self.window}) previews", *notes])


# Tried in this order: the most accurate on rendered recordings of hand-held cameras comes first.  Previews are
# enlarged because at native size small sensors give too few and too coarse features.
ATTEMPTS = (
    Attempt("timing", 9),
    Attempt("timing", 25),
    Attempt("timing", 9, helped=False),
    Attempt("timing", 15, larger=1, patient=True),
    Attempt("tfp", 41, patient=True),
)


@dataclass(frozen=True)
class Solution:
    """Poses of views: ``w2c`` by name (OpenCV axes), intrinsics [fx, fy, cx, cy] at native size, and points.

    ``camera_model`` and ``coefficients`` are the lens: a name that ``scene.lens`` knows, and its coefficients but 0.
    ``between`` has the poses of the helpers that registered, by their index in the sequence of helpers.  ``observed``
    is the number of observations of points, in views and helpers.
    """

    w2c: dict[str, Array]
    intrinsics: Array
    xyz: Array
    gray: Array
    error: float  # mean reprojection error, native pixels
    angle: float  # median over points of the largest triangulation angle, degrees
    observations: dict[str, int]
    origin: str
    model: Any = None
    camera_model: str = "PINHOLE"
    coefficients: dict[str, float] = field(default_factory=dict)
    between: dict[int, Array] = field(default_factory=dict)
    observed: int = 0

    @property
    def uncertainty(self) -> float:
        """How far poses and points may be off, up to a factor.

        It is the error of an observation over the root of their number, as of a mean.  The error alone favors
        solutions of few points, which have little to contradict them.
        """
        return self.error / math.sqrt(max(self.observed, 1))


def save_previews(
    windows: Sequence[Window], names: Sequence[str], attempt: Attempt, scale: int, folder: Path, sensor: SensorModel
) -> None:
    """Write the windows' middle images as NAME.png, enlarged by ``scale``, with local contrast equalized."""
    for window, name in progress(zip(windows, names, strict=True), "Making previews", len(windows), within=True):
        image = gray(
            picture(
                window.stream, window.middle_frame, attempt.method, attempt.window, sensor,
                sensor.spurious_rate if attempt.method == "timing" else 0.0,
            )
        )  # fmt: skip
        save_image(folder / f"{name}.png", enlarged(despeckled(image) if window.dim else image, scale) / 255)


def enlarged(image: Tensor, scale: int) -> NDArray[np.uint8]:
    """An image [H, W] with its local contrast equalized, ``scale`` times as large: bytes [scale H, scale W]."""
    height, width = image.shape
    shown = cv2.createCLAHE(2.0, (8, 8)).apply((stretched(image) * 255).astype(np.uint8))
    size = (scale * width, scale * height)
    return np.asarray(cv2.resize(shown, size, interpolation=cv2.INTER_CUBIC), np.uint8)


def structure_from_motion(
    images: Path, work: Path, patient: bool, exhaustive: bool, intrinsics: Array | None, seed: int, radial: bool = False
) -> tuple[Any, str]:
    """Return the reconstruction with the most images (None if it failed), and the likely reason for the failure.

    ``intrinsics`` are those of the enlarged images.  ``radial``: estimate the lens's distortion, too.
    """
    pycolmap = load_pycolmap()
    pycolmap.logging.minloglevel = 3
    database = work / "database.db"
    reader, extraction = pycolmap.ImageReaderOptions(), pycolmap.FeatureExtractionOptions()
    matching, verification = pycolmap.FeatureMatchingOptions(), pycolmap.TwoViewGeometryOptions()
    mapping = pycolmap.IncrementalPipelineOptions()
    if intrinsics is None:
        reader.camera_model = "RADIAL" if radial else "SIMPLE_PINHOLE"
    else:  # only OpenCV's model has two focal lengths
        reader.camera_model = "OPENCV" if radial else "PINHOLE"
        reader.camera_params = ",".join(str(v) for v in [*intrinsics, *[0.0] * 4 * radial])
        mapping.ba_refine_focal_length = False
    extraction.sift.max_num_features = FEATURES
    matching.use_gpu = extraction.use_gpu = False
    verification.ransac.random_seed = mapping.random_seed = seed
    mapping.min_model_size = FEWEST
    mapping.max_num_models = 5
    # Less frequent global bundle adjustment: the final one decides, and takes as long as the others together.
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


def solution_of(model: Any, scale: float, origin: str) -> Solution:
    """Convert a reconstruction at ``scale`` times the sensor's size to a solution.

    Images of views are named like them, in any folder; images of helpers are ``between/INDEX.png``.
    """
    posed = [i for i in model.images.values() if i.has_pose]
    registered = {Path(i.name).stem: i for i in posed if not i.name.startswith(BETWEEN)}
    between = {int(Path(i.name).stem): pose_of(i) for i in posed if i.name.startswith(BETWEEN)}
    w2c = {name: pose_of(registered[name]) for name in sorted(registered)}
    camera = next(iter(model.cameras.values()))
    k = camera.calibration_matrix()
    points = list(model.points3D.values())
    xyz = np.array([p.xyz for p in points]).reshape(-1, 3)
    eyes = {i.image_id: centers(pose_of(i)) for i in posed}
    angles = []
    for point in points[:: max(len(points) // 500, 1)]:
        seen = [eyes[e.image_id] for e in point.track.elements if e.image_id in eyes]
        if len(seen) < 2:
            continue  # points of another program, without tracks
        rays = np.array(seen) - point.xyz
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
        camera.model.name,
        coefficients_of(named_parameters(camera)),
        between,
        int(model.compute_num_observations()),
    )


def disagreement(a: Solution, b: Solution) -> float:
    """RMS distance between the cameras of both solutions after alignment, relative to their spread."""
    shared = [name for name in a.w2c if name in b.w2c]
    if len(shared) < FEWEST:
        return math.inf
    ours, theirs = (centers(np.array([s.w2c[n] for n in shared])) for s in (a, b))
    scale, rotation, translation = umeyama(theirs, ours)
    distance = np.linalg.norm(scale * theirs @ rotation.T + translation - ours, axis=-1)
    spread = np.linalg.norm(ours - ours.mean(0), axis=-1)
    return float(np.sqrt((distance**2).mean() / max(float((spread**2).mean()), 1e-30)))


def find_poses(
    windows: Sequence[Window], helpers: Sequence[Window], intrinsics: Array | None, sensor: SensorModel,
    radial: bool = False,
) -> tuple[Solution, float, list[str]]:  # fmt: skip
    """Try settings until two agree; return the better solution, their disagreement, and notes on the attempts.

    Args:
        radial: whether the lens's distortion is estimated, too.

    Raises:
        ValueError: no setting registers enough views, or triangulation angles are too small.
    """
    solutions: list[Solution] = []
    notes, reasons = [], []
    best, least = None, math.inf
    index = {id(helper): i for i, helper in enumerate(helpers)}
    enough = max(FEWEST, math.ceil(SHARE * len(windows)))
    # Clips have no helper images between them, and counts are too few in little light.
    attempts = [a for a in ATTEMPTS if (helpers or a.helped) and not (a.method == "tfp" and windows[0].dim)]
    for attempt in progress(attempts, "Finding poses", unit="attempt"):
        scale = attempt.scale(windows[0].stream.width)
        shown, label = list(windows), str(attempt)
        if attempt.helped and helpers:  # in order of time, as sequential matching needs
            label += f", {len(helpers)} helpers"
            shown = sorted([*windows, *helpers], key=lambda w: (w.recording, w.middle))
        names = [f"{i:05d}" for i in range(len(shown))]
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            save_previews(shown, names, attempt, scale, work / "images", sensor)
            model, reason = structure_from_motion(
                work / "images", work, attempt.patient, len(shown) <= EXHAUSTIVE or not helpers,
                None if intrinsics is None else scale * intrinsics, seed=0, radial=radial,
            )  # fmt: skip
        if model is not None:
            for image in model.images.values():
                window = shown[int(Path(image.name).stem)]
                image.name = f"{window.name}.png" if window.name else f"{BETWEEN}{index[id(window)]}.png"
        else:
            notes.append(f"{label}: failed, {reason}")
            reasons.append(reason)
            continue
        found = solution_of(model, scale, label)
        notes.append(
            f"{label}: {len(found.w2c)} of {len(windows)} views, {len(found.xyz)} points in {found.observed} "
            f"observations, reprojection error {found.error:.2f} px, points seen under {found.angle:.1f} degrees"
        )
        solutions.append(found)
        best = max(solutions, key=lambda s: (len(s.w2c), -s.uncertainty))
        others = [s for s in solutions if s is not best and len(s.w2c) >= enough]
        least = min((disagreement(best, s) for s in others), default=math.inf)
        # The first two are the best; later ones are needed only if those fail or disagree.
        if len(best.w2c) == len(windows) and least < (SURE if len(solutions) < 3 else LIKELY):
            break
    if best is None or len(best.w2c) < enough:
        count = 0 if best is None else len(best.w2c)
        why = reasons[-1] if reasons else "the views have too little in common"
        raise ValueError(
            f"only {count} of {len(windows)} views could be registered, {enough} are needed: {why}; move more "
            "slowly, record more texture and overlap, or give --fl_x, more --views, or --from_colmap"
        )
    if best.angle < LEAST_ANGLE:
        raise ValueError(
            f"the points are seen under {best.angle:.1f} degrees only: no parallax to determine depth; "
            "move the camera sideways while recording"
        )
    return best, least, notes


def read_colmap(folder: Path, names: Sequence[str], width: int, height: int) -> Solution:
    """Read poses from a COLMAP model; its images are named like the views and have the sensor's size or a multiple.

    Raises:
        ValueError: not readable, too few images named like views, not a single camera of a known model, or wrong image
            size.
    """
    model = open_model(folder)
    known = {Path(i.name).stem for i in model.images.values() if i.has_pose and not i.name.startswith(BETWEEN)}
    if len(known & set(names)) < FEWEST:
        raise ValueError(
            f"{folder}: {len(known & set(names))} of its images are named like views; expected names like "
            f"{names[0]}.png (see previews/)"
        )
    camera = next(iter(model.cameras.values()))
    kinds = PERSPECTIVE + FISHEYES
    if len(model.cameras) != 1 or camera.model.name not in kinds:
        names = ", ".join(sorted({c.model.name for c in model.cameras.values()}))
        raise ValueError(
            f"{folder}: has {len(model.cameras)} cameras ({names}), expected one of the models {', '.join(kinds)}"
        )
    if abs(camera.width * height - camera.height * width) > max(camera.width, camera.height):
        raise ValueError(
            f"{folder}: images of {camera.width}x{camera.height}, expected {width}x{height} or a multiple"
        )
    found = solution_of(model, camera.width / width, f"COLMAP model {folder}")
    return replace(found, w2c={n: pose for n, pose in found.w2c.items() if n in names})


def normalized(solution: Solution) -> tuple[Solution, Array]:
    """Rotate the world upright (z opposite to the cameras' down), scale it to ``DEPTH`` and center the points.

    Returns:
        the solution and the similarity [4, 4] that was applied.
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
    center = np.median(solution.xyz, axis=0) if len(solution.xyz) else centers(poses).mean(0)
    similarity = np.eye(4)
    similarity[:3, :3], similarity[:3, 3] = scale * rotation, -scale * rotation @ center

    def moved(pose: Array) -> Array:
        new = np.eye(4)
        new[:3, :3] = pose[:3, :3] @ rotation.T
        new[:3, 3] = scale * pose[:3, 3] - new[:3, :3] @ similarity[:3, 3]
        return new

    xyz = solution.xyz @ similarity[:3, :3].T + similarity[:3, 3]
    views = {name: moved(pose) for name, pose in solution.w2c.items()}
    between = {index: moved(pose) for index, pose in solution.between.items()}
    return replace(solution, w2c=views, xyz=xyz, between=between), similarity


def all_poses(windows: Sequence[Window], helpers: Sequence[Window], solution: Solution) -> dict[str, Array]:
    """Poses of the views that registered, and interpolated ones of those between registered instants.

    A view before the first or after the last registered instant of its recording (view or helper) gets none: a pose
    that is guessed there can be wrong by more than training can correct.
    """
    poses = dict(solution.w2c)
    known = [(w.recording, w.middle, poses[w.name]) for w in windows if w.name in poses]
    known += [(helpers[i].recording, helpers[i].middle, pose) for i, pose in solution.between.items()]
    for recording in {w.recording for w in windows}:
        path = {middle: pose for name, middle, pose in known if name == recording}
        times = sorted(path)
        missing = [w for w in windows if w.recording == recording and w.name not in poses]
        missing = [w for w in missing if times and times[0] <= w.middle <= times[-1]]
        if missing:
            at = np.array([w.middle for w in missing])
            found = interpolate_poses(np.array(times), np.array([path[t] for t in times]), at)
            poses |= dict(zip((w.name for w in missing), found, strict=True))
    return poses
