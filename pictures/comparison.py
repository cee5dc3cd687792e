"""One picture that shows a result: views in rows, methods and errors in columns."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

# Absolute error that is drawn in the brightest colour.
ERROR_TOP = 0.25


def _panel(image: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.uint8]:
    grey = (image.clip(0, 1) * 255).round().astype(np.uint8)
    if grey.ndim == 2:
        grey = cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)
    return np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_CUBIC), np.uint8)


def _error_panel(image: NDArray[np.float32], truth: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.uint8]:
    ours, theirs = (x[..., None] if x.ndim == 2 else x for x in (image, truth))  # either may have one channel
    error = np.abs(ours - theirs).mean(-1)
    level = (error / ERROR_TOP * 255).clip(0, 255).astype(np.uint8)
    colored = cv2.cvtColor(cv2.applyColorMap(level, cv2.COLORMAP_MAGMA), cv2.COLOR_BGR2RGB)
    return np.asarray(cv2.resize(colored, size, interpolation=cv2.INTER_NEAREST), np.uint8)


def compose(
    rows: Sequence[dict[str, NDArray[np.float32] | None]],
    truth: str,
    with_error: Sequence[str],
    notes: Sequence[dict[str, str]] | None = None,
    width: int = 300,
) -> NDArray[np.float32]:
    """Draw the comparison.

    Args:
        rows: for every view, images [H, W] or [H, W, 3] in [0, 1] by column title (None leaves a gap).
        truth: the title that holds the true image; error maps need it.
        with_error: titles that get an error map after the images.
        notes: text written into a panel, by row and title.

    Returns:
        picture [H, W, 3] in [0, 1].

    Raises:
        ValueError: no image at all.
    """
    if not any(image is not None for row in rows for image in row.values()):
        raise ValueError("a comparison needs at least one image")
    first = next(image for row in rows for image in row.values() if image is not None)
    size = (width, round(width * first.shape[0] / first.shape[1]))
    gap, bar = 4, 26
    titles = list(rows[0]) + [f"error of {title}" for title in with_error]
    lines = []
    for i, row in enumerate(rows):
        true = row.get(truth)
        panels = [None if image is None else _panel(image, size) for image in row.values()]
        for title in with_error:
            image = row.get(title)
            panels.append(None if image is None or true is None else _error_panel(image, true, size))
        drawn = [np.full((size[1], size[0], 3), 255, np.uint8) if p is None else p for p in panels]
        for j, title in enumerate(row):
            text = (notes[i] if notes else {}).get(title)
            if text:
                at = (6, size[1] - 8)
                cv2.putText(drawn[j], text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 3, cv2.LINE_AA)
                cv2.putText(drawn[j], text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
        spaced = [np.pad(p, ((0, gap), (0, gap), (0, 0)), constant_values=255) for p in drawn]
        lines.append(np.concatenate(spaced, axis=1))
    header = np.full((bar, lines[0].shape[1], 3), 255, np.uint8)
    for j, title in enumerate(titles):
        at = (j * (size[0] + gap) + 6, bar - 8)
        cv2.putText(header, title, at, cv2.FONT_HERSHEY_SIMPLEX, 0.52, (20, 20, 20), 1, cv2.LINE_AA)
    return (np.concatenate([header, *lines]) / 255).astype(np.float32)
