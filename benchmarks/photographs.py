"""Photographs: train.py and OpenSplat on the same images, for the same processor time, measured on held-out views.

    python benchmarks/photographs.py -s data/photos -r 2 --iterations 1000 --opensplat OpenSplat/build/opensplat

``-s`` is a folder with COLMAP's ``sparse/0`` and ``images/``, of one camera without distortion.  Both programs learn
from the same reduced images, without every eighth view, on as many threads as ``OMP_NUM_THREADS`` says.  OpenSplat
(https://github.com/pierotofy/OpenSplat, a CPU build) takes as many steps as fit in the processor time of train.py.  The
scenes of both are rendered here, at the held-out views.  Without ``--opensplat`` only train.py is measured.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import utils  # isort: skip  # noqa: F401  (before torch: see there)

import pycolmap
import torch

from arguments.parts import SceneOptions
from gaussian_renderer.backends import get_rasterizer
from gaussian_renderer.drawing import Drawing
from gaussians.model import GaussianModel
from gaussians.ply import read_gaussian_ply
from scene.cameras import View
from scene.dataset import SceneData, scene_of
from scene.views import load_picture
from utils.image_metrics import psnr, ssim
from utils.io import save_image
from utils.telling import say

ROOT = Path(__file__).resolve().parents[1]
# Steps of the two runs that tell how long a step of OpenSplat takes.
TRIALS = (5, 25)


def image_of(view: View) -> torch.Tensor:
    """The photograph [3, H, W] in [0, 1] as train.py sees it."""
    assert view.image_path is not None
    return load_picture(view, view.image_path, 3)


def write_scene(scene: SceneData, source: Path, out: Path) -> None:
    """Write the training views with their reduced images as a COLMAP scene."""
    (out / "images").mkdir(parents=True)
    model = pycolmap.Reconstruction(str(source / "sparse/0"))
    names = {view.camera.name for view in scene.train}
    for image in list(model.images.values()):
        if Path(image.name).stem in names:
            image.name = f"{Path(image.name).stem}.png"
        else:
            model.deregister_frame(image.frame_id)
    size = scene.train[0].camera
    for camera in model.cameras.values():
        camera.rescale(size.width, size.height)
    (out / "sparse/0").mkdir(parents=True)
    model.write_binary(str(out / "sparse/0"))
    for view in scene.train:
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


def row(name: str, ply: Path, views: Sequence[View], steps: int, seconds: float) -> str:
    """Render the held-out views from ``ply``: one row of the table."""
    gaussians = GaussianModel.of(read_gaussian_ply(ply))
    drawing = Drawing(gaussians, get_rasterizer("cpu", torch.device("cpu")))
    values = []
    for view in views:
        camera, truth = view.camera, image_of(view)[None]
        render = drawing(camera.w2c[None], camera.K, camera.width, camera.height).images.clamp(0, 1)
        values.append([float(psnr(render, truth)), float(ssim(render, truth))])
    mean = torch.tensor(values).mean(0)
    return f"| {name} | {steps} | {len(gaussians.means)} | {seconds:.0f} | {mean[0]:.2f} | {mean[1]:.3f} |"


def opensplat(program: Path, scene: Path, ply: Path, steps: int, flags: Sequence[str]) -> float:
    """Train with OpenSplat; processor time, s."""
    return processor_seconds([program, scene, "--cpu", "--keep-crs", "-n", str(steps), "-o", ply, *flags])


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-s", "--scene", type=Path, required=True, help="folder with sparse/0 and images/")
    parser.add_argument("-r", "--resolution", type=int, default=2, help="factor by which images are reduced")
    parser.add_argument("--iterations", type=int, required=True, help="steps of train.py")
    parser.add_argument("--opensplat", type=Path, help="program to compare with")
    parser.add_argument("--out", type=Path, default=Path("output/photographs"), help="folder of the results (new)")
    args = parser.parse_args()
    args.out.mkdir(parents=True)
    out, source = args.out.resolve(), args.scene.resolve()
    scene = scene_of(SceneOptions(source_path=str(source), eval=True, resolution=args.resolution))
    flags = f"--eval --quiet -r {args.resolution} --iterations {args.iterations}".split()
    seconds = processor_seconds([sys.executable, ROOT / "train.py", "-s", source, "-m", out / "ours", *flags])
    say(f"{len(scene.train)} training views, {len(scene.test)} held out, {scene.train[0].camera.width} columns\n")
    say("| program | steps | Gaussians | processor time, s | PSNR, held out | SSIM |")
    say("| --- | --- | --- | --- | --- | --- |")
    ply = out / f"ours/point_cloud/iteration_{args.iterations}/point_cloud.ply"
    say(row("train.py, recipe `photos`", ply, scene.test, args.iterations, seconds))
    if args.opensplat is not None:
        write_scene(scene, source, out / "scene")
        for name, more in (("OpenSplat", []), ("OpenSplat, full size from the first step", ["--num-downscales", "0"])):
            trials = [opensplat(args.opensplat.resolve(), out / "scene", out / "trial.ply", n, more) for n in TRIALS]
            step = (trials[1] - trials[0]) / (TRIALS[1] - TRIALS[0])
            steps = max(int((seconds - trials[0]) / step) + TRIALS[0], 1)
            used = opensplat(args.opensplat.resolve(), out / "scene", out / "opensplat.ply", steps, more)
            say(row(name, out / "opensplat.ply", scene.test, steps, used))
    return 0


if __name__ == "__main__":
    sys.exit(main())
