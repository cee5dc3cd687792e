"""What was found on the way from a recording to a scene, as report.md with pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from conversion.structure_from_motion import LIKELY, SURE, Solution
from conversion.windows import Window
from spike.preview import contact_sheet, picture, stretched, three_channels
from utils.io import atomic_write, save_image
from utils.trajectory_metrics import centres

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Conversion:
    """What the report tells of.

    Args:
        name: of the scene.
        windows: its views; ``candidates`` are the places of the recording they were chosen from.
        solution, poses: what structure from motion found, and what every view got.
        disagreement: of two attempts, relative to the cameras' spread (infinite: there was one).
        notes: a sentence for every attempt.
        focal_origin: where the focal length comes from.
        spread_over: what the views are spread evenly over.
    """

    name: str
    windows: Sequence[Window]
    candidates: Sequence[Window]
    solution: Solution
    poses: dict[str, NDArray[np.float64]]
    disagreement: float
    notes: Sequence[str]
    focal_origin: str
    spread_over: str


def plot(
    lines: Sequence[tuple[Floats, Floats, tuple[float, float, float], bool]],
    size: tuple[int, int],
    square: bool = False,
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
    """A picture [H, W] or [H, W, 3] with a coloured border [H, W, 3]."""
    out = three_channels(image).copy()
    out[:3], out[-3:], out[:, :3], out[:, -3:] = color, color, color, color
    return np.asarray(out, np.float32)


def sureness_of(disagreement: float) -> str:
    """How sure poses are, in words, of the disagreement of two attempts."""
    if math.isinf(disagreement):
        return "a guess: no second attempt to compare with"
    word = "sure" if disagreement < SURE else "likely" if disagreement < LIKELY else "doubtful"
    return f"{word}: two attempts differ by {disagreement:.1%} of the cameras' spread"


def write_report(root: Path, found: Conversion) -> None:
    """report.md and its pictures: which windows and why, which views registered, how sure it is."""
    windows, solution, poses = found.windows, found.solution, found.poses
    green, red, grey = (0.1, 0.6, 0.2), (0.85, 0.1, 0.1), (0.6, 0.6, 0.6)
    shown = {}
    for window in windows:
        image = stretched(picture(window.stream, window.middle_frame, "timing", 9))
        shown[f"{window.name} {window.blur:.0f} px"] = framed(image, green if window.name in solution.w2c else red)
    save_image(root / "report" / "views.png", contact_sheet(shown, columns=6, width=240))
    eyes = centres(np.array([poses[w.name] for w in windows if w.name in poses]))
    marks = np.array([w.name in solution.w2c for w in windows if w.name in poses])
    cloud = solution.xyz
    lines = [(cloud[:, 0], cloud[:, 1], grey, False), (eyes[:, 0], eyes[:, 1], green, True)]
    if not marks.all():
        lines.append((eyes[~marks, 0], eyes[~marks, 1], red, False))
    save_image(root / "report" / "from_above.png", plot(lines, (640, 640), square=True))
    text = [
        f"# {found.name}: from spikes to a scene\n",
        f"Poses are {sureness_of(found.disagreement)}.  {len(solution.w2c)} of {len(windows)} views registered; "
        f"{len(cloud)} points, seen under {solution.angle:.1f} degrees (median), reprojection error "
        f"{solution.error:.2f} px; focal length {solution.intrinsics[0]:.1f} px "
        f"({found.focal_origin}).  "
        "Training corrects the poses further.\n",
        "![views](report/views.png)\n",
        "Green: registered.  Red: not; the pose is interpolated along the recording, or the view left out.\n",
        "![from above](report/from_above.png)\n",
        "Cameras (green) and points from above.\n",
    ]
    if found.candidates:
        at = np.array([w.middle for w in found.candidates])
        blur = np.array([w.blur for w in found.candidates])
        chosen = np.array([w.middle for w in windows]), np.array([w.blur for w in windows])
        save_image(root / "report" / "motion.png", plot([(at, blur, grey, True), (*chosen, green, False)], (900, 260)))
        refused = [w for w in found.candidates if w.refused]
        text += [
            "![motion](report/motion.png)\n",
            f"Pixels of image motion within an exposure at {len(found.candidates)} places along the recording; "
            f"views (green) are spread evenly over the {found.spread_over}.\n",
            "".join(f"- frame {w.middle:.0f} not used: {w.refused}\n" for w in refused[:20]),
            f"- and {len(refused) - 20} more\n" if len(refused) > 20 else "",
        ]
    text += ["Tried:\n", "".join(f"- {note}\n" for note in found.notes)]
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
