"""COLMAP models (with pycolmap): reading, poses, and writing in another world frame."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scene.colmap_files import check_model
from utils.reading import reading
from utils.signals import handlers_kept

Array = NDArray[np.float64]


# Where scenes have their COLMAP model: COLMAP and 3DGS, nerfstudio, and 3DGS before images are undistorted.
MODEL_FOLDERS = ("sparse/0", "sparse", "colmap/sparse/0", "distorted/sparse/0")


def find_model(root: Path) -> Path | None:
    """The folder of the COLMAP model of the scene in ``root``, or None if there is none."""
    folders = (root / name for name in MODEL_FOLDERS)
    return next((f for f in folders if any((f / f"images.{kind}").is_file() for kind in ("bin", "txt"))), None)


def other_models(folder: Path) -> list[str]:
    """A sentence for each larger model beside the one in ``folder``: the mapper numbers the parts that it finds."""
    own, found = _image_count(folder), []
    siblings = sorted(folder.parent.iterdir()) if folder.name.isdigit() else []
    for other in (path for path in siblings if path.name.isdigit() and path != folder):
        if (count := _image_count(other)) > own:
            found.append(f"{other} has {count} images, {folder} only {own}; the latter is used")
    return found


def _image_count(folder: Path) -> int:
    """The number of images of a model."""
    binary, text = folder / "images.bin", folder / "images.txt"
    if binary.is_file():
        with binary.open("rb") as file:
            return int.from_bytes(file.read(8), "little")
    if not text.is_file():
        return 0
    return sum(_is_image(line) for line in text.read_text(encoding="utf-8", errors="replace").splitlines())


def load_pycolmap() -> Any:
    """The module pycolmap, which is slow to import and needed for few scenes.

    Its logging library answers SIGTERM with a stack trace and ends the program; the handlers from before stay.
    """
    with handlers_kept():
        import pycolmap
    return pycolmap


def open_model(folder: Path) -> Any:
    """Open the reconstruction in a folder, binary or text.

    The file of the points may be missing: poses are enough.  An ``images.txt`` whose lines of image points are missing,
    as programs other than COLMAP write it, is read as if they were empty.

    Raises:
        ValueError: missing, or not readable.
    """
    with reading(folder, "a readable COLMAP model"), _complete(folder) as whole:
        check_model(whole, folder)
        return load_pycolmap().Reconstruction(str(whole))


@contextmanager
def _complete(folder: Path) -> Iterator[Path]:
    """The folder itself or, if something is missing that COLMAP always writes, a temporary copy that has it."""
    kind = "bin" if (folder / "images.bin").is_file() else "txt"
    lacks_points = (folder / f"images.{kind}").is_file() and not (folder / f"points3D.{kind}").is_file()
    lines = [] if kind == "bin" else _with_image_points(folder / "images.txt")
    if not lacks_points and not lines:
        yield folder
        return
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name)
        for file in folder.glob(f"*.{kind}"):
            shutil.copy(file, copy / file.name)
        if lacks_points:
            (copy / f"points3D.{kind}").write_bytes(bytes(8) if kind == "bin" else b"")  # a count of 0, or no lines
        if lines:
            (copy / "images.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        yield copy


def _with_image_points(file: Path) -> list[str]:
    """The lines of an ``images.txt`` with the empty lines that it lacks between images; nothing if it lacks none."""
    if not file.is_file():
        return []
    text = file.read_text(encoding="utf-8", errors="replace")
    lines = [line.strip() for line in text.splitlines() if not line.lstrip().startswith("#")]
    images = [*(_is_image(line) for line in lines), True]
    if not any(first and second for first, second in pairwise(images[:-1])):
        return []
    return [line for i, own in enumerate(lines) for line in ([own, ""] if images[i] and images[i + 1] else [own])]


def _is_image(line: str) -> bool:
    """Whether a line of ``images.txt`` has an id, a pose, a camera and a name; image points come in threes."""
    words = line.split(maxsplit=9)
    try:
        [float(word) for word in words[:9]]
    except ValueError:
        return False
    if len(words) < 10:
        return False
    try:
        return len([float(word) for word in words[9].split()]) == 1
    except ValueError:
        return True


def view_names(model: Any) -> dict[int, str]:
    """The view's name of each image of a model, by id: the file's without its ending.

    Where files in several folders have the same one, those in folders are called like their folders, too.
    """
    paths = {image.image_id: PurePosixPath(image.name) for image in model.images.values()}
    count = Counter(path.stem for path in paths.values())
    return {
        image: path.stem if count[path.stem] == 1 else "_".join(path.with_suffix("").parts)
        for image, path in paths.items()
    }


def pose_of(image: Any) -> Array:
    """World-to-camera [4, 4] of a pycolmap image."""
    w2c = np.eye(4)
    w2c[:3] = image.cam_from_world().matrix()
    return w2c


def named_parameters(camera: Any) -> dict[str, float]:
    """The parameters of a pycolmap camera by name; the only coefficient of SIMPLE_RADIAL is called k1, as elsewhere."""
    names = camera.params_info.replace(" ", "").split(",")
    return {"k1" if n == "k" else n: float(value) for n, value in zip(names, camera.params, strict=True)}


def write_model(root: Path, model: Any, scale: float, similarity: Array) -> None:
    """Write COLMAP's files in the scene's world and at the sensor's resolution."""
    pycolmap = load_pycolmap()
    size = float(np.cbrt(np.linalg.det(similarity[:3, :3])))
    turn = pycolmap.Rotation3d(similarity[:3, :3] / size)
    for image in [i for i in model.images.values() if i.has_pose and "/" in i.name]:
        model.deregister_frame(image.frame_id)  # helper images are not views
    model.transform(pycolmap.Sim3d(size, turn, similarity[:3, 3]))
    for camera in model.cameras.values():
        camera.rescale(round(camera.width / scale), round(camera.height / scale))
    for image in model.images.values():
        for point in image.points2D:
            point.xy = point.xy / scale
    (root / "sparse" / "0").mkdir(parents=True)
    model.write(str(root / "sparse" / "0"))
