"""Writes the results of a conversion as report.md with its images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from conversion.structure_from_motion import LIKELY, SURE, Solution
from conversion.windows import Window
from pictures.colors import stretched
from pictures.plots import plot
from pictures.sheets import contact_sheet, framed
from spike.preview import picture
from utils.io import atomic_write, save_image
from utils.trajectory_metrics import centers


@dataclass(frozen=True)
class Conversion:
    """The results of a conversion.

    Args:
        name: name of the scene.
        windows: its views; ``candidates`` are the windows of the recording they were chosen from.
        solution, poses: result of structure from motion, and the final pose of each view.
        disagreement: between two attempts, relative to the cameras' spread (infinite if there was only one).
        notes: one sentence per attempt.
        focal_origin: source of the focal length.
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


def confidence_of(disagreement: float) -> str:
    """Confidence in the poses, in words, from the ``disagreement`` of two attempts relative to the cameras' spread."""
    if math.isinf(disagreement):
        return "a guess: no second attempt to compare with"
    word = "sure" if disagreement < SURE else "likely" if disagreement < LIKELY else "doubtful"
    return f"{word}: two attempts differ by {disagreement:.1%} of the cameras' spread"


def write_report(root: Path, found: Conversion) -> None:
    """Write report.md and its images: chosen windows and reasons, registered views, confidence in the poses."""
    windows, solution, poses = found.windows, found.solution, found.poses
    green, red, gray = (0.1, 0.6, 0.2), (0.85, 0.1, 0.1), (0.6, 0.6, 0.6)
    shown = {}
    for window in windows:
        image = stretched(picture(window.stream, window.middle_frame, "timing", 9))
        shown[f"{window.name} {window.blur:.0f} px"] = framed(image, green if window.name in solution.w2c else red)
    save_image(root / "report" / "views.png", contact_sheet(shown, columns=6, width=240))
    eyes = centers(np.array([poses[w.name] for w in windows if w.name in poses]))
    marks = np.array([w.name in solution.w2c for w in windows if w.name in poses])
    cloud = solution.xyz
    lines = [(cloud[:, 0], cloud[:, 1], gray, False), (eyes[:, 0], eyes[:, 1], green, True)]
    if not marks.all():
        lines.append((eyes[~marks, 0], eyes[~marks, 1], red, False))
    save_image(root / "report" / "from_above.png", plot(lines, (640, 640), square=True))
    listed = ", ".join(f"{name} = {value:.4f}" for name, value in solution.coefficients.items())
    lens = f", lens distortion {listed}" if listed else ""
    text = [
        f"# {found.name}: from spikes to a scene\n",
        f"Poses are {confidence_of(found.disagreement)}.  {len(solution.w2c)} of {len(windows)} views registered; "
        f"{len(cloud)} points, seen under {solution.angle:.1f} degrees (median), reprojection error "
        f"{solution.error:.2f} px; focal length {solution.intrinsics[0]:.1f} px "
        f"({found.focal_origin}){lens}.  "
        "Training corrects the poses further.\n",
        "![views](report/views.png)\n",
        "Green: registered.  Red: not registered; the pose is interpolated between registered instants, and a view "
        "beyond them is left out.\n",
        "![from above](report/from_above.png)\n",
        "Cameras (green) and points, seen from above.\n",
    ]
    if found.candidates:
        at = np.array([w.middle for w in found.candidates])
        blur = np.array([w.blur for w in found.candidates])
        chosen = np.array([w.middle for w in windows]), np.array([w.blur for w in windows])
        save_image(root / "report" / "motion.png", plot([(at, blur, gray, True), (*chosen, green, False)], (900, 260)))
        refused = [w for w in found.candidates if w.refused]
        text += [
            "![motion](report/motion.png)\n",
            f"Image motion within an exposure, in pixels, at {len(found.candidates)} places along the recording; "
            f"views (green) are spread evenly over the {found.spread_over}.\n",
            "".join(f"- frame {w.middle:.0f} not used: {w.refused}\n" for w in refused[:20]),
            f"- and {len(refused) - 20} more\n" if len(refused) > 20 else "",
        ]
    text += ["Tried:\n", "".join(f"- {note}\n" for note in found.notes)]
    text.append(f"Used: {solution.origin}.\n")
    text.append("| view | recording | middle frame | blur px | spikes per frame | points | pose |")
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
