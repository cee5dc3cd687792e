"""Pairs the views of a pose file with the files of the scene's folder, and says what has no partner.

Names decide, never the order.  Endings are compared without case, a backslash separates folders as a slash does, and an
image may be listed without its ending, as in NeRF's synthetic scenes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path, PurePosixPath

from torch import Tensor
from torch.nn import functional as F

from scene.cameras import Camera, View
from spike.stream import SUFFIXES
from utils.io import IMAGE_SUFFIXES, image_size

STREAMS = "spike_data"
# Folders of images that are tried, in this order, for the images of a COLMAP model.
IMAGE_FOLDERS = ("images", "input", "sharp_data")
# Wider photographs are reduced unless the user says otherwise, as in 3DGS.
_WIDEST = 1600


def listed_path(text: str) -> PurePosixPath:
    """A path as written in a pose file, on any system."""
    return PurePosixPath(text.replace("\\", "/"))


@lru_cache(maxsize=64)
def _names(folder: Path, changed: int) -> dict[str, str]:
    """The names of a folder's files by their names with the ending in lower case.  ``changed``: time of the folder."""
    return {_lowered(p.name): p.name for p in sorted(folder.iterdir()) if p.is_file()}


def _lowered(name: str) -> str:
    stem, dot, ending = name.rpartition(".")
    return f"{stem}{dot}{ending.lower()}"


def _find(folder: Path, name: str, endings: Sequence[str]) -> Path | None:
    """The file ``name`` of a folder, with its own ending in any case, or with one of ``endings``."""
    ending = PurePosixPath(name).suffix.lower()
    if ending in (*SUFFIXES, *IMAGE_SUFFIXES) and ending not in endings:
        return None  # a file of the other kind: spikes for an image
    if (folder / name).is_file():
        return folder / name
    if not folder.is_dir():
        return None
    names = _names(folder, folder.stat().st_mtime_ns)
    wanted = [name] if ending in endings else [name + ending for ending in endings]
    return next((folder / names[_lowered(w)] for w in wanted if _lowered(w) in names), None)


def find_image(root: Path, listed: str | PurePosixPath, view: str = "") -> Path | None:
    """The image that a pose file lists; ``sharp_data/VIEW.png`` if it has no image in its own place.

    ``view`` is the view's name if that is not the name of its file.
    """
    path = listed_path(str(listed))
    found = _find(root / path.parent, path.name, IMAGE_SUFFIXES)
    return found or _find(root / "sharp_data", view or path.stem, IMAGE_SUFFIXES)


def find_stream(root: Path, view: str) -> Path | None:
    """The spikes of a view, by name."""
    return _find(root / STREAMS, view, SUFFIXES)


# ---- streams ---------------------------------------------------------------------------------------------


def with_streams(root: Path, poses: Path, views: list[View]) -> tuple[list[View], list[str]]:
    """The views that have spikes, and a sentence for each kind of file without a partner.

    Without any stream the views are returned as they are.

    Raises:
        ValueError: there are streams, but none is named like a view.
    """
    folder = root / STREAMS
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES) if folder.is_dir() else []
    found = [view for view in views if view.has_spikes]
    if not found:
        if files:
            raise ValueError(
                f"{poses}: none of its {len(views)} views ({views[0].camera.name}, ...) is named like one of the "
                f"{len(files)} streams in {folder} ({files[0].name}, ...); rename the streams like the views, or give "
                f'every frame of a transforms.json its "spike_path": "{STREAMS}/{files[0].name}" (--images learns from '
                "the images instead)"
            )
        return views, []
    notes, used = [], {view.spike_path for view in found}
    lacking = [view.camera.name for view in views if not view.has_spikes]
    unposed = [file.name for file in files if file not in used]
    if lacking:
        notes.append(
            f"{len(lacking)} of {len(views)} views in {poses} have no stream in {folder} and are left out "
            f"({_few(lacking)})"
        )
    if unposed:
        notes.append(
            f"{len(unposed)} of {len(files)} streams in {folder} have no pose in {poses} and are not used "
            f"({_few(unposed)})"
        )
    return found, notes


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


# ---- photographs -----------------------------------------------------------------------------------------


def with_images(root: Path, poses: Path, views: list[View]) -> tuple[list[View], list[str]]:
    """The views that have an image, and a sentence about the others; without any image, the views as they are."""
    lacking = [view.camera.name for view in views if view.image_path is None]
    if not lacking or len(lacking) == len(views):
        return views, []
    note = f"{len(lacking)} of {len(views)} views in {poses} have no image in {root} and are left out ({_few(lacking)})"
    return [view for view in views if view.image_path is not None], [note]


def with_photographs(root: Path, views: list[View], folder: str, reduction: int) -> tuple[list[View], list[str]]:
    """The views with cameras of the size of their images, which are reduced if they are large.

    Args:
        folder: folder of the images instead of the listed one, for example ``images_4``; empty: the listed one.
        reduction: factor by which width and height are reduced; 0: the smallest that leaves at most 1,600 columns.
            A folder of reduced images, ``images_<factor>``, is used if there is one.

    Returns:
        the views, and a sentence if the images are not as large as the poses' cameras say.

    Raises:
        ValueError: no such folder, or an image of another shape than its camera.
    """
    if folder and not (root / folder).is_dir():
        raise ValueError(f"{root / folder}: no such folder of images")
    fitted: list[View] = []
    notes: list[str] = []
    for view in views:
        if view.image_path is None:
            fitted.append(view)
            continue
        path, factor = view.image_path, reduction
        if folder:
            path = _moved(root, path, folder)
        width, height = image_size(path)
        if not factor:
            factor = -(-width // _WIDEST)
        small = _moved(root, path, f"{_folder_of(root, path)}_{factor}") if factor > 1 else path
        if small != path and small.is_file():
            path, factor = small, 1
            width, height = image_size(path)
        size = max(round(width / factor), 1), max(round(height / factor), 1)
        camera = view.camera
        if abs(width * camera.height - height * camera.width) > max(width, height, camera.width, camera.height):
            raise ValueError(f"{path}: {width}x{height} pixels, expected the shape of {camera.width}x{camera.height}")
        if size != (camera.width, camera.height) and not notes:
            notes.append(
                f"images of {size[0]}x{size[1]} pixels, cameras of {camera.width}x{camera.height}: the intrinsics are "
                "scaled (-r and -i choose other images)"
            )
        fitted.append(replace(view, camera=resized(camera, *size), image_path=path, reduced=factor))
    return fitted, notes


def _folder_of(root: Path, file: Path) -> str:
    """The first folder in a file's path within the scene; its own folder if it is elsewhere."""
    return file.relative_to(root).parts[0] if file.is_relative_to(root) else file.parent.name


def _moved(root: Path, file: Path, folder: str) -> Path:
    """The file of the same name in another folder of the scene, with any ending."""
    own = file.relative_to(root) if file.is_relative_to(root) else Path(file.name)
    place = root / folder / Path(*own.parts[1:-1])
    return _find(place, file.name, IMAGE_SUFFIXES) or _find(place, file.stem, IMAGE_SUFFIXES) or place / file.name


def resized(camera: Camera, width: int, height: int) -> Camera:
    """The camera with another number of pixels on the same sensor."""
    if camera.lens is not None:
        lens = camera.lens.resized(width, height)
        return replace(camera, width=width, height=height, K=lens.matrix, lens=lens)
    k = camera.K.clone()
    k[0] *= width / camera.width
    k[1] *= height / camera.height
    return replace(camera, width=width, height=height, K=k)


def reduced(image: Tensor, factor: int) -> Tensor:
    """An image [C, H, W] averaged over blocks of ``factor`` x ``factor`` pixels (about, at a size with a rest)."""
    height, width = (max(round(size / factor), 1) for size in image.shape[1:])
    return F.adaptive_avg_pool2d(image[None], (height, width))[0] if factor > 1 else image
