"""Lays out images for display: captions, side-by-side and wiped images, contact sheets, the comparison sheet.

Images are float32 arrays [H, W, 3] in [0, 1] unless stated otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from pictures.colors import Image, error_colors, three_channels

Bytes = NDArray[np.uint8]


def _write(page: Bytes, text: str, at: tuple[int, int], size: float, level: int = 0, outlined: bool = False) -> None:
    """Write a line of text into ``page`` [H, W, 3], with its lower-left corner ``at`` (x, y).

    Args:
        size: font size in OpenCV's units (about 22 pixels).
        level: gray level of the text, 0 to 255.
        outlined: add a black outline, readable on any background.
    """
    # The outline is shifted text: thicker text would have different letter positions.
    rim = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)] if outlined else []
    for (i, j), gray in [(shift, 0) for shift in rim] + [((0, 0), level)]:
        where, color = (at[0] + i, at[1] + j), (gray, gray, gray)
        cv2.putText(page, text, where, cv2.FONT_HERSHEY_SIMPLEX, size, color, 1, cv2.LINE_AA)


def _bytes(image: NDArray[np.floating]) -> Bytes:
    return np.asarray((image.clip(0, 1) * 255).round(), np.uint8)


def _floats(page: Bytes) -> Image:
    return (page / np.float32(255)).astype(np.float32)


def labeled(image: Image, text: str, size: float | None = None) -> Image:
    """The image with a caption in its lower-left corner; the font scales with the image unless ``size`` is given."""
    drawn = _bytes(image)
    size = max(0.35, image.shape[0] / 700) if size is None else size
    _write(drawn, text, (7, image.shape[0] - 8), size, 255, outlined=True)
    return _floats(drawn)


def framed(image: NDArray[np.float32], color: tuple[float, float, float]) -> Image:
    """An image [H, W] or [H, W, 3] with a colored border."""
    out = three_channels(image).copy()
    out[:3], out[-3:], out[:, :3], out[:, -3:] = color, color, color, color
    return np.asarray(out, np.float32)


def resized(image: Image, width: int, height: int) -> Image:
    """The image at another size."""
    if image.shape[:2] == (height, width):
        return image
    shrinks = width < image.shape[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (width, height), interpolation=how), np.float32).clip(0, 1)


def side_by_side(images: Sequence[Image]) -> Image:
    """Images of equal height in a row, separated by thin lines."""
    line = np.ones((images[0].shape[0], 2, 3), np.float32)
    parts: list[Image] = [images[0]]
    for image in images[1:]:
        parts += [line, image]
    return np.concatenate(parts, axis=1)


def wipe(left: Image, right: Image, at: float) -> Image:
    """``left`` up to the fraction ``at`` (0..1) of the width, ``right`` beyond it, with a line on the border."""
    border = round(at * left.shape[1])
    mixed = np.concatenate([left[:, :border], right[:, border:]], axis=1)
    if 0 < border < left.shape[1]:
        mixed[:, border] = (1.0, 0.6, 0.1)
    return mixed


def letterboxed(image: Image, aspect: float, fill: float = 0.05) -> Image:
    """The image centered in a frame with the aspect ratio ``aspect`` = width / height."""
    height, width = image.shape[:2]
    new_width, new_height = max(width, round(height * aspect)), max(height, round(width / aspect))
    framed = np.full((new_height, new_width, 3), fill, np.float32)
    top, left = (new_height - height) // 2, (new_width - width) // 2
    framed[top : top + height, left : left + width] = image
    return framed


def contact_sheet(images: Mapping[str, NDArray[np.floating]], columns: int = 4, width: int = 320) -> Image:
    """Titled images [H, W] or [H, W, 3] in [0, 1] of one shape, ``width`` pixels wide each, row by row.

    Raises:
        ValueError: no image.
    """
    if not images:
        raise ValueError("a contact sheet needs at least one image")
    panels = []
    for title, image in images.items():
        shown = np.ascontiguousarray(three_channels(image), np.float32)
        head = np.full((24, width, 3), 255, np.uint8)
        _write(head, title, (4, 17), 0.45)
        height = round(width * image.shape[0] / image.shape[1])
        panels.append(np.concatenate([_floats(head), resized(shown, width, height)]))
    columns = min(columns, len(panels))
    panels += [np.ones_like(panels[0])] * (-len(panels) % columns)
    rows = [np.concatenate(panels[i : i + columns], axis=1) for i in range(0, len(panels), columns)]
    return np.asarray(np.concatenate(rows).clip(0, 1), np.float32)


def detailed_region(image: NDArray[np.floating], share: float = 0.3) -> tuple[slice, slice]:
    """Rows and columns of the part, ``share`` of each side, in which an image [H, W] or [H, W, 3] has most detail."""
    gray = np.ascontiguousarray(three_channels(image).mean(-1), np.float32)
    slopes = np.abs(cv2.Sobel(gray, cv2.CV_32F, 1, 0)) + np.abs(cv2.Sobel(gray, cv2.CV_32F, 0, 1))
    height, width = (max(round(share * size), 1) for size in gray.shape)
    sums = np.pad(slopes.astype(np.float64), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    inside = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    top, left = np.unravel_index(inside.argmax(), inside.shape)
    return slice(int(top), int(top) + height), slice(int(left), int(left) + width)


def outlined(image: NDArray[np.floating], region: tuple[slice, slice]) -> Image:
    """The image [H, W] or [H, W, 3] with a line around a region."""
    out = np.asarray(three_channels(image), np.float32).copy()
    rows, columns = region
    for where in (rows.start, rows.stop - 1):
        out[where, columns] = (1.0, 0.6, 0.1)
    for where in (columns.start, columns.stop - 1):
        out[rows, where] = (1.0, 0.6, 0.1)
    return out


def compose(
    rows: Sequence[dict[str, NDArray[np.float32] | None]],
    truth: str,
    with_error: Sequence[str],
    notes: Sequence[dict[str, str]] | None = None,
    width: int = 300,
) -> Image:
    """Compose a sheet with views in rows, and methods and their errors in columns.

    Args:
        rows: for each view, images [H, W] or [H, W, 3] in [0, 1] by column title (None leaves a gap).
        truth: title of the true image, which error maps need.
        with_error: titles that get an error map after the images.
        notes: text written into a panel, by row and title.

    Returns:
        image [H, W, 3] in [0, 1].

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
        true, written = row.get(truth), notes[i] if notes else {}
        drawn = []
        for title, image in row.items():
            panel = _blank(size) if image is None else _panel(image, size)
            drawn.append(labeled(panel, written[title], 0.5) if written.get(title) else panel)
        for title in with_error:
            image = row.get(title)
            if image is None or true is None:
                drawn.append(_blank(size))
            else:
                error = cv2.resize(error_colors(image, true), size, interpolation=cv2.INTER_NEAREST)
                drawn.append(np.asarray(error, np.float32))
        spaced = [np.pad(panel, ((0, gap), (0, gap), (0, 0)), constant_values=1) for panel in drawn]
        lines.append(np.concatenate(spaced, axis=1))
    header = np.full((bar, lines[0].shape[1], 3), 255, np.uint8)
    for j, title in enumerate(titles):
        _write(header, title, (j * (size[0] + gap) + 6, bar - 8), 0.52, 20)
    return np.concatenate([_floats(header), *lines])


def _blank(size: tuple[int, int]) -> Image:
    return np.ones((size[1], size[0], 3), np.float32)


def _panel(image: NDArray[np.float32], size: tuple[int, int]) -> Image:
    return resized(np.ascontiguousarray(three_channels(image).clip(0, 1), np.float32), *size)
