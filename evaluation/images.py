"""Images against ground truth: PSNR, SSIM and LPIPS of the images from render.py, by protocol, kind and image."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evaluation.known import Known
from evaluation.page import Embedded
from pictures.kinds import BASELINES, BY_NAME, GAUSSIANS, KINDS, MEASURED, TRUTH, Kind
from scene.manifest import PROTOCOLS, SavedImage, image_name, images_folder, read_manifest, require_files
from utils.device import on_one_thread
from utils.image_metrics import gain_match, psnr, ssim_map
from utils.io import load_image
from utils.lpips_offline import Lpips, lpips_distances
from utils.processes import ALONE, Processes
from utils.telling import progress

# Measured values by image name, without a suffix.
Rows = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Frame:
    """One instant of a view, and its images by kind; ``subframe`` is None for the middle of the exposure."""

    view: str
    subframe: int | None
    files: dict[Kind, Path]

    @property
    def name(self) -> str:
        """Name of the frame's images, and its key in ``per_view.json``."""
        return image_name(self.view, self.subframe)


@dataclass(frozen=True)
class Measured:
    """The results of one protocol.

    Args:
        table: measured values by kind; empty if the scene has no ground truth.
        means: means of ``table``.
        pictures: by view, the images at the middle of the exposure, for display.
        sheet: those images [C, H, W] of up to three views, for a comparison.
    """

    table: dict[Kind, Rows] = field(default_factory=dict)
    means: dict[Kind, dict[str, float]] = field(default_factory=dict)
    pictures: dict[str, dict[Kind, Embedded]] = field(default_factory=dict)
    sheet: dict[str, dict[Kind, Tensor]] = field(default_factory=dict)


# ---- what there is -------------------------------------------------------------------------------------------


def rendered_images(model: Path, split: str, iteration: int) -> list[SavedImage]:
    """The images of a split; empty if it was never rendered.

    Raises:
        ValueError: rendering was interrupted, or images are missing; the message says what to run.
    """
    if not images_folder(model, split, iteration).is_dir():
        return []
    images = read_manifest(model, split, iteration)
    require_files(model, iteration, images)
    return images


def frames_by_protocol(model: Path, iteration: int, images: Sequence[SavedImage]) -> dict[str, list[Frame]]:
    """The rendered frames of each protocol, sorted by name; only those with ground truth, if any has it."""
    found: dict[str, dict[str, Frame]] = {protocol: {} for protocol in PROTOCOLS}
    for image in images:
        frame = found[image.protocol].setdefault(image.name, Frame(image.view, image.subframe, {}))
        frame.files[BY_NAME[image.kind]] = images_folder(model, image.split, iteration) / image.file
    frames: dict[str, list[Frame]] = {}
    for protocol, named in found.items():
        drawn = [named[name] for name in sorted(named) if GAUSSIANS in named[name].files]
        known = [frame for frame in drawn if TRUTH in frame.files]
        # Without ground truth, nothing can be measured, but the images can still be shown.
        if drawn:
            frames[protocol] = known or drawn
    return frames


# ---- measures ------------------------------------------------------------------------------------------------


def load_like(path: Path, truth: Tensor) -> Tensor:
    """Load the image [C, H, W] at ``path`` with as many channels as ``truth`` [C, H, W].

    Raises:
        ValueError: the image has another size.
    """
    image = load_image(path, channels=len(truth))
    if image.shape != truth.shape:
        (height, width), (h, w) = image.shape[1:], truth.shape[1:]
        raise ValueError(f"{path}: {width}x{height} pixels, expected {w}x{h} as the true image has")
    return image


def measure(images: Sequence[Tensor], truth: Tensor, model: Lpips | None) -> list[dict[str, float]]:
    """PSNR, SSIM and LPIPS of images [C, H, W] against the same truth [C, H, W], raw and after the best single gain.

    LPIPS features of the truth are computed once.  Without ``model``, or if the images are too small for it, LPIPS is
    not measured.  The values do not depend on the number of threads.
    """
    assert all(image.shape == truth.shape for image in images)
    wanted = truth[None]
    with on_one_thread():
        matched, gains = zip(*(gain_match(image[None], wanted) for image in images), strict=True)
        # Each image unchanged, and scaled by its gain.
        both = torch.cat([*(image[None] for image in images), *(image.clamp(0, 1) for image in matched)])
        measured = {
            "PSNR": psnr(both, wanted).tolist(),
            "SSIM": ssim_map(both, wanted).mean((1, 2, 3)).tolist(),
        }
    if model is not None and min(truth.shape[1:]) >= model.smallest:
        measured["LPIPS"] = lpips_distances(model, both.split(1), wanted)
    rows = []
    for i, gain in enumerate(gains):
        row = {name: values[i] for name, values in measured.items()}
        row |= {f"{name}_gain": values[i + len(images)] for name, values in measured.items()}
        rows.append(row | {"gain": gain})
    return rows


def measure_known(
    images: Sequence[Tensor], truth: Tensor, model: Lpips | None, known: Known
) -> list[dict[str, float]]:
    """``measure``, but only of the images that are not in ``known``; the others are added to it."""
    keys = [known.key(image, truth) for image in images]
    new = [i for i, key in enumerate(keys) if known.get(key) is None]
    fresh = dict(zip(new, measure([images[i] for i in new], truth, model), strict=True)) if new else {}
    for i, row in fresh.items():
        known.add(keys[i], row)
    return [fresh[i] if i in fresh else dict(known.get(key) or {}) for i, key in enumerate(keys)]


def summarize(rows: Rows, frames: Sequence[Frame]) -> dict[str, float]:
    """Means over views at u = 0.5, and PSNR over all sub-frames that have ground truth."""
    middle = [rows[f.name] for f in frames if f.subframe is None and f.name in rows]
    subframes = [rows[f.name] for f in frames if f.subframe is not None and f.name in rows]
    means = {key: float(np.mean([row[key] for row in middle])) for key in (middle[0] if middle else {})}
    if subframes:
        means["PSNR_all_subframes"] = float(np.mean([row["PSNR"] for row in subframes]))
        if any("PSNR_as_recovered" in row for row in subframes):
            as_recovered = [row.get("PSNR_as_recovered", row["PSNR"]) for row in subframes]
            means["PSNR_all_subframes_as_recovered"] = float(np.mean(as_recovered))
    means["views"] = len(middle)
    return means


# ---- a protocol ----------------------------------------------------------------------------------------------


def decoded(frames: Sequence[Frame]) -> Iterator[tuple[Frame, dict[Kind, Tensor]]]:
    """Each frame with its images [C, H, W], in the order of ``KINDS``; every file is decoded once.

    Raises:
        ValueError: an image has another size than the truth.
    """
    for frame in frames:
        truth = load_image(frame.files[TRUTH], channels=None) if TRUTH in frame.files else None
        images: dict[Kind, Tensor] = {}
        for kind in KINDS:
            if kind is TRUTH and truth is not None:
                images[kind] = truth
            elif kind in frame.files:
                path = frame.files[kind]
                images[kind] = load_image(path, channels=None) if truth is None else load_like(path, truth)
        yield frame, images


def measure_frames(
    frames: Sequence[Frame],
    model: Lpips | None,
    reversed_views: dict[str, int] | None = None,
    label: str = "",
    known: Known | None = None,
    processes: Processes = ALONE,
) -> Measured:
    """Measure the frames of one protocol, and keep images for display.

    Of several processes, each measures some of the frames, and all know the results.

    Args:
        model: LPIPS's network; it is slow, so it is applied only to the middle of each exposure.
        reversed_views: views whose recovered trajectory runs backwards in time, with their number of
            sub-frames.  Their renders are compared with the truth in reverse order (``PSNR``), and in the
            recovered order (``PSNR_as_recovered``); the middle of an exposure is the same in both.
            Recon-Net's frames always follow the time of the spikes.
        label: label of the progress bar.
        known: values of images that stay the same from run to run: those from the spikes alone.
    """
    found = Measured(table={kind: {} for kind in MEASURED})
    middles = [frame for frame in frames if frame.subframe is None]
    shown = [middles[i] for i in sorted({0, len(middles) // 2, len(middles) - 1})] if middles else []
    own, kept = processes.together(
        lambda: _measured(frames, processes, model, reversed_views or {}, label, known, shown)
    )
    for part in map(json.loads, processes.exchange(json.dumps(own))):
        for kind, rows in part["table"].items():
            found.table[BY_NAME[kind]].update(rows)
        for name, pictures in part["pictures"].items():
            found.pictures[name] = {BY_NAME[kind]: Embedded(**picture) for kind, picture in pictures.items()}
        for key, row in part["known"].items():
            if known is not None:
                known.add(key, row)
    for kind in MEASURED:
        if found.table[kind]:
            found.means[kind] = summarize(found.table[kind], frames)
        else:
            del found.table[kind]
    kept |= {frame.name: images for frame, images in decoded([f for f in shown if f.name not in kept])}
    found.sheet.update({frame.name: kept[frame.name] for frame in shown})
    return found


def _measured(
    frames: Sequence[Frame], processes: Processes, model: Lpips | None, reversed_views: dict[str, int], label: str,
    known: Known | None, shown: Sequence[Frame],
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[Kind, Tensor]]]:  # fmt: skip
    """What this process adds to ``measure_frames``, as JSON: a table, pictures, and known values.

    Returns:
        also the images of those of the frames ``shown`` that it has measured.
    """
    files = {frame.name: frame.files for frame in frames}
    table: dict[str, Rows] = {}
    pictures: dict[str, dict[str, Any]] = {}
    kept: dict[str, dict[Kind, Tensor]] = {}
    own = frames[processes.part(len(frames))]
    for frame, images in progress(decoded(own), f"Measuring {label}", len(own)):
        if frame.subframe is None:
            pictures[frame.name] = {kind.name: asdict(Embedded.of(image)) for kind, image in images.items()}
        if frame in shown:
            kept[frame.name] = images
        if TRUTH not in images:
            continue
        truth, measured = images[TRUTH], {kind: images[kind] for kind in MEASURED if kind in images}
        as_recovered = None
        if frame.subframe is not None and frame.view in reversed_views:
            with on_one_thread():
                as_recovered = float(psnr(measured.pop(GAUSSIANS)[None], truth[None]))
            opposite = image_name(frame.view, reversed_views[frame.view] - 1 - frame.subframe)
            if GAUSSIANS in files.get(opposite, {}):
                measured[GAUSSIANS] = load_like(files[opposite][GAUSSIANS], truth)
        if not measured:
            continue
        fixed = [kind for kind in measured if kind in BASELINES] if known is not None else []
        learned = [kind for kind in measured if kind not in fixed]
        network = model if frame.subframe is None else None
        rows = measure([measured[kind] for kind in learned], truth, network) if learned else []
        if known is not None:
            rows += measure_known([measured[kind] for kind in fixed], truth, network, known)
        for kind, row in zip([*learned, *fixed], rows, strict=True):
            table.setdefault(kind.name, {})[frame.name] = row
        if as_recovered is not None and GAUSSIANS in measured:
            table[GAUSSIANS.name][frame.name]["PSNR_as_recovered"] = as_recovered
    return {"table": table, "pictures": pictures, "known": {} if known is None else known.new}, kept
