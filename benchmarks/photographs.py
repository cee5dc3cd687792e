"""Photographs: train.py and OpenSplat on the same images, for the same processor time, measured on held-out views.

    python benchmarks/photographs.py -s data/photos -r 2 --iterations 1000 --opensplat OpenSplat/build/opensplat

``-s`` is a folder with COLMAP's ``sparse/0`` and ``images/``.  Both programs learn from the same reduced images,
without every eighth view, on as many threads as ``OMP_NUM_THREADS`` says.  Photographs with distortion are resampled
to pinhole images without pixels that the sensor did not see (``scene.lens``).  OpenSplat
(https://github.com/pierotofy/OpenSplat, a CPU build) takes as many steps as fit in the processor time of train.py, on
images of full size (by default it begins with 3,000 steps at a quarter of it).  Each program renders the held-out views
itself: OpenSplat's renders of its own PLY differ from other viewers'.  It renders only while it trains, so its last ten
steps are repeated for every held-out view.  Without ``--opensplat`` only train.py is measured.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import utils  # isort: skip  # noqa: F401  (before torch: see there)

import torch
from torch import Tensor

from arguments.parts import SceneOptions
from gaussian_renderer.backends import get_rasterizer
from gaussian_renderer.drawing import Drawing
from gaussians.model import GaussianModel
from gaussians.ply import read_gaussian_ply
from scene.cameras import View
from scene.colmap import load_pycolmap, open_model, view_names
from scene.dataset import SceneData, scene_of
from scene.views import load_picture
from utils.image_metrics import psnr, ssim
from utils.io import load_image, save_image
from utils.telling import say

ROOT = Path(__file__).resolve().parents[1]
# Steps of the two runs that tell how long a step of OpenSplat takes; steps between two of its renders.
TRIALS, BETWEEN = (5, 25), 10


def image_of(view: View) -> Tensor:
    """The photograph [3, H, W] in [0, 1] as train.py sees it."""
    assert view.image_path is not None
    return load_picture(view, view.image_path, 3)


def write_scene(views: Sequence[View], source: Path, out: Path) -> None:
    """Write some views of a scene, with their reduced images without distortion, as a COLMAP scene."""
    (out / "images").mkdir(parents=True)
    model = open_model(source / "sparse/0")
    pinhole = load_pycolmap().CameraModelId.PINHOLE
    cameras, names = {view.camera.name: view.camera for view in views}, view_names(model)
    for image in list(model.images.values()):
        if (camera := cameras.get(names[image.image_id])) is None:
            model.deregister_frame(image.frame_id)
            continue
        image.name = f"{camera.name}.png"
        written, k = model.cameras[image.camera_id], camera.K
        written.model, written.width, written.height = pinhole, camera.width, camera.height
        written.params = [float(value) for value in (k[0, 0], k[1, 1], k[0, 2], k[1, 2])]
    (out / "sparse/0").mkdir(parents=True)
    model.write_binary(str(out / "sparse/0"))
    for view in views:
        save_image(out / f"images/{view.camera.name}.png", image_of(view))


def processor_seconds(command: Sequence[str | Path]) -> float:
    """Run a command and return the processor time of all its threads, s.

    Raises:
        ValueError: it failed; with its last lines.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = subprocess.run([*map(str, command)], cwd=ROOT, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise ValueError(f"{command[0]} failed: {(ended.stderr or ended.stdout)[-1000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def row(name: str, ply: Path, views: Sequence[View], renders: Sequence[Tensor], steps: int, seconds: float) -> str:
    """One row of the table: the Gaussians in ``ply``, and the renders [1, 3, H, W] of the held-out views."""
    pairs = [(render, image_of(view)[None]) for render, view in zip(renders, views, strict=True)]
    values = torch.tensor([[float(psnr(*pair)), float(ssim(*pair))] for pair in pairs]).mean(0)
    count = len(read_gaussian_ply(ply).means)
    return f"| {name} | {steps} | {count} | {seconds:.0f} | {values[0]:.2f} | {values[1]:.3f} |"


def our_renders(ply: Path, views: Sequence[View]) -> list[Tensor]:
    """Renders [1, 3, H, W] of the views, in [0, 1]."""
    drawing = Drawing(GaussianModel.of(read_gaussian_ply(ply)), get_rasterizer("cpu", torch.device("cpu")))
    cameras = [view.camera for view in views]
    return [drawing(c.w2c[None], c.K, c.width, c.height).images.clamp(0, 1) for c in cameras]


@dataclass(frozen=True)
class OpenSplat:
    """The program, on a scene whose images have their full size from the first step."""

    program: Path
    scene: SceneData
    source: Path
    out: Path

    def train(self, views: Sequence[View], ply: Path, steps: int, flags: Sequence[str | Path] = ()) -> float:
        """Train on some views; processor time, s."""
        folder = self.out / "scene"
        shutil.rmtree(folder, ignore_errors=True)
        write_scene(views, self.source, folder)
        fixed = ["--cpu", "--keep-crs", "--num-downscales", "0", "-n", str(steps), "-o", ply]
        return processor_seconds([self.program, folder, *fixed, *flags])

    def steps_in(self, seconds: float) -> int:
        """Number of steps that take about ``seconds`` of processor time."""
        few, more = (self.train(self.scene.train, self.out / "trial.ply", n) for n in TRIALS)
        steps = TRIALS[0] + int((seconds - few) * (TRIALS[1] - TRIALS[0]) / max(more - few, 1e-3))
        return max(steps // BETWEEN, 2) * BETWEEN

    def renders(self, ply: Path, steps: int) -> list[Tensor]:
        """Train from ``ply`` up to ``steps`` once for every held-out view, and return the renders [1, 3, H, W]."""
        found = []
        for view in self.scene.test:
            name, folder = f"{view.camera.name}.png", self.out / f"renders/{view.camera.name}"
            flags = ["--resume", ply, "--val", "--val-image", name, "--val-render", folder]
            folder.mkdir(parents=True)
            self.train([*self.scene.train, view], self.out / "last.ply", steps, flags)
            found.append(load_image(folder / f"{steps}.png", channels=3)[None])
        return found


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-s", "--scene", type=Path, required=True, help="folder with sparse/0 and images/")
    parser.add_argument("-r", "--resolution", type=int, default=2, help="factor by which images are reduced")
    parser.add_argument("--iterations", type=int, required=True, help="steps of train.py")
    parser.add_argument("--opensplat", type=Path, help="program to compare with")
    parser.add_argument("--out", type=Path, default=Path("output/photographs"), help="folder of the results (new)")
    args = parser.parse_args()
    if args.out.exists():
        parser.error(f"{args.out}: is there already; expected a new folder")
    args.out.mkdir(parents=True)
    out, source = args.out.resolve(), args.scene.resolve()
    scene = scene_of(SceneOptions(source_path=str(source), eval=True, resolution=args.resolution))
    flags = f"--eval --quiet -r {args.resolution} --iterations {args.iterations}".split()
    seconds = processor_seconds([sys.executable, ROOT / "train.py", "-s", source, "-m", out / "ours", *flags])
    say(f"{len(scene.train)} training views, {len(scene.test)} held out, {scene.train[0].camera.width} columns\n")
    say("| program | steps | Gaussians | processor time, s | PSNR, held out | SSIM |")
    say("| --- | --- | --- | --- | --- | --- |")
    ply = out / f"ours/point_cloud/iteration_{args.iterations}/point_cloud.ply"
    say(row("train.py, recipe `photos`", ply, scene.test, our_renders(ply, scene.test), args.iterations, seconds))
    if args.opensplat is not None:
        other, ply = OpenSplat(args.opensplat.resolve(), scene, source, out), out / "opensplat.ply"
        steps = other.steps_in(seconds)
        used = other.train(scene.train, ply, steps - BETWEEN)
        say(row("OpenSplat", ply, scene.test, other.renders(ply, steps), steps, used))
    return 0


if __name__ == "__main__":
    sys.exit(main())
