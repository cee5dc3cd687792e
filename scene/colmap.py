"""COLMAP models (with pycolmap): reading, poses, and writing in another world frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def open_model(folder: Path) -> Any:
    """Open the reconstruction in a folder, binary or text.

    Raises:
        ValueError: missing, or not readable.
    """
    import pycolmap  # slow to import, and needed only for scenes with COLMAP files

    try:
        return pycolmap.Reconstruction(str(folder))
    except Exception as error:  # pycolmap raises its own exception types
        raise ValueError(f"{folder}: not a readable COLMAP model ({str(error).splitlines()[0]})") from None


def pose_of(image: Any) -> Array:
    """World-to-camera [4, 4] of a pycolmap image."""
    pose = image.cam_from_world  # a method since pycolmap 3.12
    w2c = np.eye(4)
    w2c[:3] = (pose() if callable(pose) else pose).matrix()
    return w2c


def write_model(root: Path, model: Any, scale: float, similarity: Array) -> None:
    """Write COLMAP's files in the scene's world and at the sensor's resolution."""
    import pycolmap

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
