"""Chooses parts of a long recording as views: those with light, texture and the right amount of image motion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pictures.colors import stretched
from spike.inspection import refuse_constant
from spike.preview import gray, picture
from spike.stream import SpikeStream
from spike.window import PAPER, STORED
from utils.telling import counted, progress

# Maximum number of candidates in a recording, and range of the default number of views.
CANDIDATES = 240
VIEWS = (8, 60)
# Image motion from one view to the next, and maximum motion within an exposure, in image widths.
STEP = 0.05
BLUR = 0.1
# A recording whose image moves less than this many pixels from end to end counts as static.
STANDSTILL = 2.0
TOO_DARK, TOO_BRIGHT = 0.004, 0.9  # spikes per frame and pixel
# Below this many spikes per frame and pixel, previews for structure from motion are without speckles, and more.
LITTLE_LIGHT = 0.1
# Minimum number of views for a reconstruction.
FEWEST = 3
# Image motion from one helper to the next (widths), in good and in little light, where features survive less of it, and
# maximum number of helpers.  On a simulated walk with 0.03 spikes per frame and pixel, 10 of 16 views registered with
# the wider step and all with the narrower one.
HELPER_STEP, DIM_HELPER_STEP = 0.03, 0.015
HELPERS = 100


@dataclass(frozen=True)
class Window:
    """One view: frames [first, first + frames) of a stream, its ``middle`` in the recording, and measurements."""

    name: str
    stream: SpikeStream = field(repr=False)
    first: int
    frames: int
    recording: str
    middle: float
    blur: float = 0.0  # pixels of image motion within the exposure
    level: float = 0.0  # spikes per frame and pixel
    refused: str = ""

    @property
    def dim(self) -> bool:
        """Whether windows of a few tens of frames hold few spikes, or none."""
        return self.level < LITTLE_LIGHT

    @property
    def middle_frame(self) -> int:
        """Frame of the stream at the middle of the exposure."""
        return self.first + (self.frames - PAPER.context) // 2 + PAPER.context // 2


def quick_look(stream: SpikeStream, frame: int) -> NDArray[np.uint8]:
    """Small preview by counting, for measuring motion; even with less than one spike per pixel it shows enough."""
    shown = (stretched(gray(picture(stream, frame, "tfp", 25))) * 255).astype(np.uint8)
    scale = min(1.0, 400 / shown.shape[1])
    return np.asarray(cv2.resize(shown, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)


def image_motion(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Displacement of features from ``a`` to ``b``, in image widths; NaN if too few are tracked.

    Uses the 80th percentile: if the camera keeps looking at one object, the middle of the image hardly moves.
    """
    corners: Any = cv2.goodFeaturesToTrack(a, 200, 0.01, 6)
    if corners is None or not len(corners):
        return math.nan
    flow: Any = cv2.calcOpticalFlowPyrLK  # its type hints do not allow None for the initial guess
    moved, there, _ = flow(a, b, corners, None, winSize=(21, 21), maxLevel=4)
    back, again, _ = flow(b, a, moved, None, winSize=(21, 21), maxLevel=4)
    held = (there[:, 0] == 1) & (again[:, 0] == 1) & (np.linalg.norm(back - corners, axis=-1).ravel() < 1)
    if held.sum() < 8:
        return math.nan
    return float(np.percentile(np.linalg.norm((moved - corners).reshape(-1, 2)[held], axis=-1), 80)) / a.shape[1]


def measured(window: Window, max_blur: float) -> Window:
    """The window with its measured light and image motion, and a reason if it is unusable."""
    middle, half = window.middle_frame, PAPER.exposure // 2
    spikes = window.stream.unpack(middle - 16, middle + 17)
    level = float(spikes.mean())
    looks = [quick_look(window.stream, middle + offset) for offset in (-half, half)]
    blur = image_motion(*looks) * window.stream.width
    refused = ""
    if level < TOO_DARK or level > TOO_BRIGHT:
        refused = "too dark" if level < TOO_DARK else "saturated"
    elif math.isnan(blur):
        refused = "no features to follow"
    elif blur > max_blur:
        refused = f"blur of {blur:.0f} pixels"
    return replace(window, level=level, blur=blur, refused=refused)


def choose_windows(
    stream: SpikeStream, start: int, stop: int, views: int | None, spacing: str, max_blur: float
) -> tuple[list[Window], list[Window], list[Window]]:
    """Choose windows along a recording; returns the windows, all candidates, and helpers.

    Helpers are images between the views, close enough to each other that features can be tracked from one to the
    next.  They are used by structure from motion only.

    Candidates are spread evenly over time.  By default there is one view per ``STEP`` widths of image motion.
    With ``spacing`` "motion", views are spread evenly over image motion; with "even", over time.

    Raises:
        ValueError: the recording is too short or static, or there are too few usable windows.
    """
    frames = stop - start
    if frames < STORED:
        raise ValueError(f"{stream.name}: {frames} frames are fewer than one view needs ({STORED})")
    count = min(frames // STORED, CANDIDATES)
    if count < FEWEST:
        raise ValueError(
            f"{stream.name}: {frames} frames hold {counted(count, 'view')} of {STORED}; "
            f"a reconstruction needs {FEWEST} or more"
        )
    firsts = np.linspace(start, stop - STORED, count).round().astype(int)
    found = [Window("", stream, int(f), STORED, "recording", float(f + STORED // 2)) for f in firsts]
    found = [measured(w, max_blur) for w in progress(found, "Looking at the recording")]
    blur = np.array([w.blur for w in found])
    refuse_constant(np.array([w.level for w in found]), stream.name)
    if np.isnan(blur).all():
        raise ValueError(f"{stream.name}: no features to follow; check focus and light with python -m spike preview")
    # Path of the image: integrates the speed, which is measured at the candidates.
    speed = np.interp(np.arange(count), np.flatnonzero(~np.isnan(blur)), blur[~np.isnan(blur)]) / PAPER.exposure
    path = np.concatenate([[0], np.cumsum((speed[1:] + speed[:-1]) / 2 * np.diff(firsts))])
    if path[-1] < STANDSTILL:
        raise ValueError(
            f"{stream.name}: the image moves by only {path[-1]:.1f} pixels in total, so there is no parallax; "
            "move the camera sideways while recording"
        )
    wanted = views or int(np.clip(round(path[-1] / (STEP * stream.width)) + 1, *VIEWS))
    usable = np.array([i for i, w in enumerate(found) if not w.refused])
    if len(usable) < FEWEST:
        reasons = ", ".join(sorted({w.refused for w in found if w.refused}))
        raise ValueError(
            f"{stream.name}: {len(usable)} of {count} windows are usable, {FEWEST} are needed (the others: {reasons})"
        )
    measure = path if spacing == "motion" else firsts - firsts[0]
    chosen: list[int] = []
    for goal in np.linspace(measure[usable[0]], measure[usable[-1]], min(wanted, len(usable))):
        nearest = int(usable[np.argmin(np.abs(measure[usable] - goal))])
        if nearest not in chosen:
            chosen.append(nearest)
    windows = [replace(found[i], name=f"{n:03d}") for n, i in enumerate(sorted(chosen))]
    step = DIM_HELPER_STEP if windows[0].dim else HELPER_STEP
    steps = int(np.clip(math.ceil(path[-1] / (step * stream.width)), min(2 * len(windows), HELPERS), HELPERS))
    between = np.interp(np.linspace(0, path[-1], steps + 1), path, firsts).round().astype(int)
    taken = {w.first for w in windows}
    return windows, found, [helper(windows[0], int(f) - windows[0].first) for f in between if f not in taken]


def helper(window: Window, later: int) -> Window:
    """A helper image ``later`` frames after a window's middle; it has no name because it is not a view."""
    return replace(window, name="", first=window.first + later, middle=window.middle + later)


def clip_windows(clips: Sequence[SpikeStream], names: Sequence[str], consecutive: bool, gap: int) -> list[Window]:
    """Make one view from each whole clip.

    Args:
        clips, names: the clips in order, and a name for each.
        consecutive: the clips are pieces of one recording, ``gap`` frames apart.

    Raises:
        ValueError: a clip is shorter than a view, sizes differ, a name occurs twice, or there are too few clips.
    """
    windows: list[Window] = []
    at = 0
    for clip, name in zip(clips, names, strict=True):
        if len(clip) < PAPER.context:
            raise ValueError(f"{clip.name}: {len(clip)} frames are fewer than one view needs ({PAPER.context})")
        if (clip.height, clip.width) != (clips[0].height, clips[0].width):
            raise ValueError(f"{clip.name}: {clip.width}x{clip.height} pixels, unlike the clips before it")
        recording = "clips" if consecutive else name
        windows.append(measured(Window(name, clip, 0, len(clip), recording, at + len(clip) / 2 - 0.5), math.inf))
        at += len(clip) + gap
    if len(set(names)) < len(windows):
        raise ValueError(f"{clips[0].name}: two clips have the same name; views need unique names")
    if len(windows) < FEWEST:
        raise ValueError(f"{len(windows)} clips; a reconstruction needs {FEWEST} or more")
    return windows
