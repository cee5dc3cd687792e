"""Look at a trained model, or at anybody's 3DGS PLY, in the browser.

    python -m gaussian_renderer.viewer -m output/tanabata
    python -m gaussian_renderer.viewer --ply scene.ply
"""

from __future__ import annotations

import argparse
import threading
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from arguments import Config, add_model_arguments
from gaussian_renderer.backends import get_rasterizer
from gaussian_renderer.drawing import Drawing
from gaussian_renderer.paths import SavedView, look_at, read_views
from gaussian_renderer.viewer import Canvas, RecordedPictures, SavedPictures, Viewer
from gaussians.formats import read_gaussians
from gaussians.model import GaussianModel
from scene.dataset import SceneData, read_scene
from scene.model_folder import find_iteration, iteration_folder, load_learned_sensor, load_network
from scene.views import window_spec
from utils.device import pick_device, use_threads


def load_gaussians(path: Path) -> GaussianModel:
    """Gaussians of a file, with one channel where all three are equal."""
    params = read_gaussians(path)
    if all(bool((x == x[..., :1]).all()) for x in (params.sh0, params.shN)):
        params = replace(params, sh0=params.sh0[..., :1].contiguous(), shN=params.shN[..., :1].contiguous())
    return GaussianModel.of(params)


def surrounding_view(gaussians: GaussianModel) -> SavedView:
    """A camera that sees most of the Gaussians of a file without cameras (3DGS's y axis points down)."""
    means = gaussians.means.detach()
    middle = means.median(dim=0).values
    radius = float((means - middle).norm(dim=-1).quantile(0.7)) if len(means) < 1_000_000 else 1.0
    eye = middle - torch.tensor([0.0, 0.3, 1.0]) * max(2 * radius, 1e-3)
    w2c = look_at(eye[None].double().numpy(), middle.double().numpy(), torch.tensor([0.0, -1.0, 0.0]).numpy())
    k = torch.tensor([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])
    return SavedView("start", "", 640, 480, k, torch.tensor([0.5]), torch.as_tensor(w2c, dtype=torch.float32))


def initial_poses(scene: SceneData, views: list[SavedView]) -> Tensor | None:
    """Poses [V, 4, 4] that training started from, or None where the scene has other views."""
    known = {view.camera.name: view.camera.w2c for view in scene.train}
    train = [view for view in views if view.split == "train"]
    return torch.stack([known[view.name] for view in train]) if all(view.name in known for view in train) else None


def open_model(
    model: Path, iteration: int, drawing: Drawing, quiet: bool
) -> tuple[Canvas, Tensor | None]:
    """What there is to see of a trained model, and the poses it started from (where its scene is still there)."""
    # Views in training come first: initial poses are theirs.
    views = sorted(read_views(model), key=lambda view: view.split != "train")
    config = Config.load(model)
    data, spec, saved = config.data, window_spec(config.data), SavedPictures(model, iteration)
    try:
        scene = read_scene(data.source_path, data.transforms, eval=data.eval, llffhold=data.llffhold)
    except ValueError as error:
        if not quiet:
            print(f"without the recording and the initial poses ({error}): showing the pictures that render.py left")
        return Canvas(drawing, views, saved), None
    network = load_network(model, iteration, spec.short, spec.long_channels)
    initial = initial_poses(scene, views)
    if initial is None and not quiet:
        print(f"without the initial poses: {data.source_path} has other views")
    sensor = load_learned_sensor(model, iteration)
    return Canvas(drawing, views, RecordedPictures(scene, config, network, sensor, saved)), initial


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m gaussian_renderer.viewer", description="Look at a trained model in the browser."
    )
    add_model_arguments(parser)
    parser.add_argument("--iteration", type=int, help="saved iteration to show (default: the newest)")
    parser.add_argument("--ply", type=Path, help="a .ply, .splat or .spz of Gaussians instead of a model folder")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine)")
    parser.add_argument("--port", type=int, default=8080, help="port to listen on (default: 8080, or the next free)")
    args = parser.parse_args()
    if bool(args.model_path) == bool(args.ply):
        raise ValueError("give either a model folder with -m, for example -m output/tanabata, or a file with --ply")
    if not 0 < args.port < 65536:
        raise ValueError(f"--port must be 1 to 65535, not {args.port}")

    device = pick_device(args.device)
    rasterizer = get_rasterizer(args.rasterizer, device)
    use_threads(heavy=False)
    if args.ply:
        gaussians = load_gaussians(args.ply)
        drawing = Drawing(gaussians.to(device), rasterizer)
        canvas, initial = Canvas(drawing, [surrounding_view(gaussians)]), None
        path_file = args.ply.with_suffix(".path.json")
    else:
        model = Path(args.model_path)
        iteration = find_iteration(model, args.iteration)
        gaussians = load_gaussians(iteration_folder(model, iteration) / "point_cloud.ply")
        drawing = Drawing(gaussians.to(device), rasterizer)
        canvas, initial = open_model(model, iteration, drawing, args.quiet)
        path_file = model / "camera_path.json"
    viewer = Viewer(canvas, initial=initial, host=args.host, port=args.port, path_file=path_file)
    try:
        print(f"{len(gaussians)} Gaussians; open {viewer.url} in a browser, end with Ctrl-C", flush=True)
        threading.Event().wait()
    except KeyboardInterrupt:
        print()
    finally:
        viewer.close()
    return 0

