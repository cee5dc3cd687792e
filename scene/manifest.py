"""The images that render.py writes into a model's folder, and the manifest that lists them.

    <model>/<split>/ours_<iteration>/manifest.json     a list of ``SavedImage``
    <model>/<split>/ours_<iteration>/<kind's folder>/  the images, 16-bit PNGs

The manifest is written after all of its images, and an old one is removed before the first.  If a manifest exists,
the same run wrote every image that it lists.
"""

from __future__ import annotations

import json
import shlex
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any

import numpy as np
from torch import Tensor

from pictures.kinds import BY_NAME, Kind
from utils.io import save_image, unwritable, write_json
from utils.json_files import (
    Schema,
    Unexpected,
    items,
    nonempty,
    nullable,
    number,
    read_json,
    record,
    shown,
    text,
    whole,
)
from utils.processes import ALONE, Processes

MANIFEST = "manifest.json"
SPLITS = ("train", "test")
# Protocols for comparing images with ground truth; results of different protocols are never mixed.
# Deblurring: training views with spikes, at instants of their exposure.  Training views: the images learned from.
# Held out, novel views: not used in training.
DEBLURRING, TRAINING_VIEWS, HELD_OUT, NOVEL_VIEWS = "deblurring", "training views", "held out", "novel views"
IN_TRAINING = (DEBLURRING, TRAINING_VIEWS)
PROTOCOLS = (DEBLURRING, TRAINING_VIEWS, HELD_OUT, NOVEL_VIEWS)


def images_folder(model: str | Path, split: str, iteration: int) -> Path:
    """Folder of the images of one split and iteration."""
    return Path(model) / split / f"ours_{iteration}"


def image_name(view: str, subframe: int | None) -> str:
    """Name of a view's image without its suffix; the middle of the exposure is named after the view."""
    return view if subframe is None else f"{view}_{subframe:02d}"


@dataclass(frozen=True)
class SavedImage:
    """One entry of a manifest.

    Args:
        file: path relative to the manifest's folder, with forward slashes.
        kind: name of a ``Kind``.
        split: "train" or "test".
        protocol: one of ``PROTOCOLS``.
        view: name of the view in ``cameras.json``.
        subframe: number of the sub-frame, or None for the middle of the exposure.
        u: time in the exposure, 0 to 1.
    """

    file: str
    kind: str
    split: str
    protocol: str
    view: str
    subframe: int | None
    u: float

    @property
    def name(self) -> str:
        """Name of the image without its suffix."""
        return image_name(self.view, self.subframe)


def _file(value: Any) -> str:
    """A path inside the manifest's folder."""
    path = PurePosixPath(text()(value))
    if not path.parts or path.is_absolute() or ".." in path.parts or "\\" in value:
        raise Unexpected(f"is {shown(value)}, expected a path inside the folder")
    return str(value)


def _entries(split: str) -> Schema:
    """The manifest of a split."""
    entry = {
        "file": _file, "kind": text(*BY_NAME), "split": text(split), "protocol": text(*PROTOCOLS), "view": nonempty,
        "subframe": nullable(whole()), "u": number(0, 1),
    }  # fmt: skip
    return items(record(entry, closed=True))


class ImageWriter:
    """Writes the images of one split, then the manifest.

        with ImageWriter(model, "train", 3600) as images:
            images.save(kinds.GAUSSIANS, DEBLURRING, "002", None, 0.5, image)

    If the ``with`` block raises an error, no manifest is written.  Of several processes, each writes its own images,
    and the first writes the manifest after all have called ``gather``.
    """

    def __init__(self, model: str | Path, split: str, iteration: int, processes: Processes = ALONE):
        self._folder, self._split, self._processes = images_folder(model, split, iteration), split, processes
        self._images: dict[str, SavedImage] = {}

    def __enter__(self) -> ImageWriter:
        try:
            # From now on the folder is there without a manifest, so that a reader knows that it is not complete.
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / MANIFEST).unlink(missing_ok=True)
        except OSError as error:
            raise unwritable(self._folder / MANIFEST, error) from error
        return self

    def save(
        self, kind: Kind, protocol: str, view: str, subframe: int | None, u: float, image: Tensor | np.ndarray
    ) -> None:
        """Write ``image`` [C, H, W] of intensities in [0, 1].

        Raises:
            ValueError: the image cannot be written, or another image of this run has the same name.
        """
        name = image_name(view, subframe)
        entry = SavedImage(f"{kind.folder}/{name}.png", kind.name, self._split, protocol, view, subframe, u)
        self._add(entry)
        save_image(self._folder / entry.file, image, bits=16)

    def _add(self, entry: SavedImage) -> None:
        other = self._images.setdefault(entry.file, entry)
        if other is not entry:
            raise ValueError(
                f"{self._folder / entry.file}: an image of view {other.view} and one of {entry.view} have this name; "
                "rename one of the views (a sub-frame is called VIEW_MM)"
            )

    def gather(self) -> None:
        """List the images of all processes, in the order in which a single process writes them.

        Raises:
            ValueError: images of two processes have the same name.
        """
        texts = self._processes.exchange(json.dumps([asdict(image) for image in self._images.values()]))
        images = [SavedImage(**entry) for text in texts for entry in json.loads(text)]
        self._images = {}
        for image in sorted(images, key=lambda image: PROTOCOLS.index(image.protocol)):  # one protocol after the other
            self._add(image)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._processes.first:
            write_manifest(self._folder, list(self._images.values()))


def write_manifest(folder: Path, images: list[SavedImage]) -> None:
    """Write the manifest of the images in ``folder``."""
    write_json(folder / MANIFEST, [asdict(image) for image in images])


def read_manifest(model: str | Path, split: str, iteration: int) -> list[SavedImage]:
    """The images of one split and iteration; whether the files exist is not checked.

    Raises:
        ValueError: the manifest is missing or damaged; the message names it and the command that writes it.
    """
    path = images_folder(model, split, iteration) / MANIFEST
    try:
        images = [SavedImage(**entry) for entry in read_json(path, _entries(split), "list of images")]
        for file, count in Counter(image.file for image in images).items():
            if count > 1:
                raise ValueError(f"expected every file once, but {file} is listed {count} times")
    except ValueError as error:
        raise _not_rendered(path, model, iteration, str(error).removeprefix(f"{path}: ")) from None
    return images


def require_files(model: str | Path, iteration: int, images: list[SavedImage]) -> None:
    """Check that the files of ``images`` exist.

    Raises:
        ValueError: a file is missing; the message names it and the command that writes it.
    """
    for image in images:
        folder = images_folder(model, image.split, iteration)
        if not (folder / image.file).is_file():
            raise _not_rendered(folder / MANIFEST, model, iteration, f"{image.file} is listed but missing")


def _not_rendered(path: Path, model: str | Path, iteration: int, why: str) -> ValueError:
    command = shlex.join(["render.py", "-m", str(model), "--iteration", str(iteration)])
    return ValueError(f"{path}: not a complete list of images ({why}); run {command}")
