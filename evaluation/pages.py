"""Pages of images that correspond to figures of the paper's supplement: scenes by methods, with enlarged details."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from evaluation.jobs import Job
from evaluation.methods import BASELINES, GROUPS, METHODS, learned_by, title_of
from pictures.kinds import GAUSSIANS, IMAGE, RECON_NET, TRUTH, Kind, label_of
from pictures.sheets import compose, detailed_region, outlined
from utils.image_metrics import psnr
from utils.io import load_image, save_image

Column = tuple[str, Kind]


@dataclass(frozen=True)
class Page:
    """One page.

    Args:
        name: name of its file.
        columns: methods and their outputs.
        accurate: whether its rows are scenes with accurate poses, or with other poses.
    """

    name: str
    columns: Sequence[Column]
    accurate: bool = True


_SCENES = [(method, GAUSSIANS) for method in GROUPS["tables"] if method in METHODS]
PAGES = (
    # What joint training changes in the scene and in Recon-Net.
    Page("figure_9", [("gs", GAUSSIANS), ("paper", GAUSSIANS), ("rec", RECON_NET), ("paper", RECON_NET)]),
    Page("figure_11", _SCENES, accurate=False),
    Page("figure_12", _SCENES),
    Page("figure_13", [*[(m, IMAGE) for m in BASELINES], ("paper", RECON_NET), ("ours", RECON_NET)]),
)


def write_pages(jobs: Sequence[Job], out: Path) -> list[Path]:
    """Write the pages that there are images for into ``out/pages``; returns their files."""
    written = []
    for page in PAGES:
        sheet = page_of(page, jobs, out)
        if sheet is not None:
            written.append(out / "pages" / f"{page.name}.png")
            save_image(written[-1], sheet)
    return written


def page_of(page: Page, jobs: Sequence[Job], out: Path) -> np.ndarray | None:
    """A page [H, W, 3], or None if there are no images for it.

    Each row of a scene is followed by one with its most detailed part, and shows the view in the middle of the scene.
    """
    rows: list[dict[str, np.ndarray | None]] = []
    notes: list[dict[str, str]] = []
    titles = {column: _title(*column) for column in page.columns}
    shown: set[Column] = set()
    for scene, poses in dict.fromkeys((job.scene, job.poses) for job in jobs):
        if (poses == "accurate") != page.accurate:
            continue
        truths = sorted((scene / "sharp_data").glob("*.png"))
        if not truths:
            continue
        file = truths[len(truths) // 2]
        truth = _array(file)
        found = {column: _image(column, jobs, out, scene, poses, file.name) for column in page.columns}
        if not any(image is not None and image.shape[:2] == truth.shape[:2] for image in found.values()):
            continue
        shown |= {column for column, image in found.items() if image is not None}
        region = detailed_region(truth)
        images = {titles[column]: image for column, image in found.items()} | {TRUTH.label: truth}
        rows.append({title: None if image is None else outlined(image, region) for title, image in images.items()})
        notes.append({title: _decibels(image, truth) for title, image in images.items() if image is not None})
        notes[-1][TRUTH.label] = f"{scene.name}, {poses} poses, view {file.stem}"
        rows.append({title: None if image is None else image[region] for title, image in images.items()})
        notes.append({})
    if not shown:
        return None
    empty = [titles[column] for column in page.columns if column not in shown]
    rows = [{title: image for title, image in row.items() if title not in empty} for row in rows]
    return compose(rows, TRUTH.label, [], notes)


def _title(method: str, kind: Kind) -> str:
    title = title_of(method)
    return title if kind is IMAGE or method.endswith("3dgs") else f"{title}, {label_of(kind, learned_by(method))}"


def _image(column: Column, jobs: Sequence[Job], out: Path, scene: Path, poses: str, name: str) -> np.ndarray | None:
    """The first seed's image of a column, or None."""
    method, kind = column
    wanted = "accurate" if method in BASELINES else poses
    for job in sorted(jobs, key=lambda job: job.seed):
        if (job.scene, job.method, job.poses) != (scene, method, wanted):
            continue
        for folder in sorted(job.folder(out).glob("train/ours_*"))[-1:]:
            path = folder / kind.folder / name
            if path.exists():
                return _array(path)
    return None


def _array(path: Path) -> np.ndarray:
    image = load_image(path, channels=None)
    return np.asarray(image[0] if len(image) == 1 else image.permute(1, 2, 0), np.float32)


def _decibels(image: np.ndarray, truth: np.ndarray) -> str:
    if image.shape != truth.shape:
        return ""
    return f"{float(psnr(torch.as_tensor(image)[None, None], torch.as_tensor(truth)[None, None])):.1f} dB"
