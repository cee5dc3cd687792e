"""The moving image of the README: a long exposure beside the slow motion that was recovered inside it.

    python docs/animation.py -m output/demo --view 007 --out docs/images/exposure.webp

Reads the images that render.py wrote.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np

from pictures.colors import Image, three_channels
from pictures.kinds import GAUSSIANS, LONG
from pictures.sheets import labeled
from scene.manifest import images_folder, read_manifest
from scene.model_folder import find_iteration
from utils.io import load_image

# Milliseconds per frame, pixels of the image per pixel of the sensor, pixels between the two.
_PAUSE, _ZOOM, _GAP = 110, 2, 8


def animation(model: Path, view: str) -> list[Image]:
    """Frames [H, W, 3]: the long exposure on the left, the renders at the sub-frames, forth and back, on the right.

    Raises:
        ValueError: the model was not rendered, or has no such view or no images of its sub-frames.
    """
    iteration = find_iteration(model)
    folder = images_folder(model, "train", iteration)
    saved = [image for image in read_manifest(model, "train", iteration) if image.view == view]
    [*long] = (folder / image.file for image in saved if image.kind == LONG.name)
    moments = sorted((i for i in saved if i.kind == GAUSSIANS.name and i.subframe is not None), key=lambda i: i.u)
    if not long or not moments:
        raise ValueError(f"{model}: view {view} has no long exposure, or no images of its sub-frames")
    still = labeled(_enlarged(long[0]), "long exposure: what an ordinary camera sees")
    gap = np.ones((still.shape[0], _GAP, 3), np.float32)
    right = [labeled(_enlarged(folder / m.file), f"recovered inside it: u = {m.u:.2f}") for m in moments]
    return [np.concatenate([still, gap, frame], axis=1) for frame in [*right, *right[-2:0:-1]]]


def _enlarged(path: Path) -> Image:
    image = load_image(path, None).permute(1, 2, 0).squeeze(-1).numpy()
    return three_channels(cv2.resize(image, None, fx=_ZOOM, fy=_ZOOM, interpolation=cv2.INTER_CUBIC).clip(0, 1))


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the README's moving image.")
    parser.add_argument("-m", "--model", type=Path, default=Path("output/demo"), help="rendered model")
    parser.add_argument("--view", default="007", help="name of a training view (default: 007)")
    parser.add_argument("--out", type=Path, default=Path("docs/images/exposure.webp"), help="WebP or GIF to write")
    args = parser.parse_args()
    moving = cv2.Animation()
    moving.frames = [(frame[..., ::-1] * 255).round().astype(np.uint8) for frame in animation(args.model, args.view)]
    moving.durations = [_PAUSE] * len(moving.frames)
    if not cv2.imwriteanimation(str(args.out), moving):
        raise ValueError(f"{args.out}: could not be written")
    print(f"{args.out}: {len(moving.frames)} frames, {args.out.stat().st_size / 2**20:.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
