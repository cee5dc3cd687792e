"""How often is the size of a ``.dat`` guessed right?  Recordings of a camera that moves past a picture.

    python benchmarks/guess.py --picture data/demo/sharp_data/000.png

Every row is one size of sensor, every column one condition: a still or a fast camera, an even sky, light that flickers,
little light, or no more frames than one view needs.  A guess is right (``+``) if rows, columns and bit order are;
``?`` is a wrong one that the program calls "a guess", and ``-`` a wrong one that it is sure of.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from commands.guard import guarded
from simulation import Simulator
from spike.guess import guess_layout, sureness
from spike.stream import Layout, write_dat
from utils.io import load_image
from utils.telling import be_quiet

SIZES = ((200, 124, 0), (100, 62, 0), (128, 96, 0), (320, 240, 0), (346, 260, 6), (400, 250, 16), (96, 160, 0))
# Pixels that the image moves in a frame, and what else is different.
CONDITIONS = {"plain": 0.2, "still": 0.0, "fast": 0.9, "sky": 0.2, "flicker": 0.2, "dim": 0.2, "short": 0.2}
GAIN = 0.4964
# Frames of a recording, and of a short one; frames of a period of the light: 100 Hz at 20 kHz.
FRAMES, SHORT, PERIOD = 600, 177, 200
# A sky that fires every fourth frame, and the part of the light that is left where there is little.
SKY, LITTLE = 0.25 / GAIN, 0.1

Image = NDArray[np.float32]


def light(picture: Image, width: int, height: int, condition: str) -> Iterator[Image]:
    """Light [H, W] of every frame."""
    frames, speed = SHORT if condition == "short" else FRAMES, CONDITIONS[condition]
    shift = speed * frames
    scale = max((width + shift + 8) / picture.shape[1], (height + 0.3 * shift + 8) / picture.shape[0])
    large = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC).clip(0, 1)
    bright = float(np.median(large))
    for t in range(frames):
        moved = np.array([[1, 0, speed * t], [0, 1, 0.3 * speed * t]], np.float32)
        image = cv2.warpAffine(large, moved, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        if condition == "sky":
            image = np.where(image > bright, np.float32(SKY), image)
        if condition == "flicker":
            image = image * np.float32(1 + 0.4 * np.sin(2 * np.pi * t / PERIOD))
        yield image * np.float32(LITTLE if condition == "dim" else 1)


def outcome(path: Path, width: int, height: int) -> str:
    """The guess of a file, as one sign."""
    try:
        guess = guess_layout(path)
    except ValueError:
        return "?"
    if (guess.width, guess.height, guess.layout.bit_order) == (width, height, "little"):
        return "+"
    return "?" if sureness(guess.size_sure) == "a guess" else "-"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--picture", type=Path, required=True, help="image that the camera moves past")
    args = parser.parse_args()
    be_quiet(True)
    picture = load_image(args.picture).mean(0).numpy()
    print("\t".join(["size", *CONDITIONS]))
    counts = dict.fromkeys("+?-", 0)
    for seed, (width, height, padding) in enumerate(SIZES):
        signs = []
        for condition in CONDITIONS:
            spikes = Simulator(gain=GAIN)(light(picture, width, height, condition), seed)
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "recording.dat"
                write_dat(path, spikes, Layout(stored_width=width + padding if padding else None))
                signs.append(outcome(path, width, height))
            counts[signs[-1]] += 1
        print("\t".join([f"{width}x{height}", *signs]), flush=True)
    print(f"{counts['+']} right, {counts['?']} wrong and called a guess, {counts['-']} wrong and called likely or sure")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
