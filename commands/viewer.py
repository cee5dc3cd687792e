"""Shows a trained model, or any 3DGS PLY, in the browser.

    python -m gaussian_renderer.viewer -m output/tanabata
    python -m gaussian_renderer.viewer --ply scene.ply
"""

from __future__ import annotations

import threading
from pathlib import Path

import torch
from torch import Tensor

from arguments.command_line import CommandLine
from arguments.parser import add_model_arguments
from gaussian_renderer.backends import get_rasterizer
from gaussian_renderer.drawing import Drawing
from gaussian_renderer.paths import SavedView, look_at, read_views
from gaussian_renderer.viewer import Canvas, RecordedPictures, SavedPictures, Viewer
from gaussians.formats import read_gaussians, without_equal_channels
from gaussians.model import GaussianModel
from scene.dataset import SceneData
from training.trained_model import TrainedModel
from utils.device import pick_device, use_threads
from utils.telling import announce, be_quiet, say

# Gaussians that a view of all of them is chosen by.
_LOOKED_AT = 100_000


def surrounding_view(gaussians: GaussianModel) -> SavedView:
    """A camera that sees most of the Gaussians of a file without cameras (3DGS's y axis points down)."""
    means = gaussians.means.detach()
    means = means[:: -(-len(means) // _LOOKED_AT)]
    middle = means.median(dim=0).values
    radius = float((means - middle).norm(dim=-1).quantile(0.7))
    eye = middle - torch.tensor([0.0, 0.3, 1.0]) * max(2 * radius, 1e-3)
    w2c = look_at(eye[None].double().numpy(), middle.double().numpy(), torch.tensor([0.0, -1.0, 0.0]).numpy())
    k = torch.tensor([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])
    return SavedView("start", "", 640, 480, k, torch.tensor([0.5]), torch.as_tensor(w2c, dtype=torch.float32))


def initial_poses(scene: SceneData, views: list[SavedView]) -> Tensor | None:
    """Poses [V, 4, 4] that training started from, or None if the scene has other views."""
    known = {view.camera.name: view.camera.w2c for view in scene.train}
    train = [view for view in views if view.split == "train"]
    return torch.stack([known[view.name] for view in train]) if all(view.name in known for view in train) else None


def open_model(model: TrainedModel, drawing: Drawing) -> tuple[Canvas, Tensor | None]:
    """The images of a trained model, and the poses [V, 4, 4] it started from (None without its scene)."""
    # Training views come first, because the initial poses are those of training views.
    views = sorted(read_views(model.folder), key=lambda view: view.split != "train")
    saved = SavedPictures(model.folder, model.iteration)
    try:
        scene = model.scene
    except ValueError as error:
        say(f"showing the images written by render.py, without the recording and the initial poses ({error})")
        return Canvas(drawing, views, saved), None
    initial = initial_poses(scene, views)
    if initial is None:
        say(f"not showing the initial poses: {model.source_path} has other views")
    pictures = RecordedPictures(
        scene,
        model.window_spec,
        model.exposures,
        spikes=model.learns_from_spikes,
        subframe_width=model.subframe_width,
        network=model.network,
        sensor=model.learned_sensor,
        saved=saved,
    )
    return Canvas(drawing, views, pictures), initial


def main() -> int:
    parser = CommandLine(
        prog="python -m gaussian_renderer.viewer", description="Show a trained model in the browser."
    )
    add_model_arguments(parser)
    parser.add_argument("--iteration", type=int, help="saved iteration to show (default: the newest)")
    parser.add_argument("--ply", type=Path, help=".ply, .splat or .spz file of Gaussians, instead of a model folder")
    parser.add_argument(
        "--host", default="127.0.0.1",
        help="address to listen on (default: 127.0.0.1, this machine).  Any other address is dangerous: "
        "the connection is not encrypted, and everybody who sees the traffic can control the viewer; prefer an SSH "
        "tunnel",
    )  # fmt: skip
    parser.add_argument("--port", type=int, default=8080, help="port to listen on (default: 8080 or the next free one)")
    args = parser.parse_args()
    be_quiet(args.quiet)
    if bool(args.model_path) == bool(args.ply):
        raise ValueError("give either a model folder with -m, for example -m output/tanabata, or a file with --ply")
    if not 0 < args.port < 65536:
        raise ValueError(f"--port must be 1 to 65535, not {args.port}")

    device = pick_device(args.device)
    rasterizer = get_rasterizer(args.rasterizer, device)
    use_threads(heavy=False)
    if args.ply:
        gaussians = GaussianModel.of(without_equal_channels(read_gaussians(args.ply)))
        if not len(gaussians):
            raise ValueError(f"{args.ply}: has no Gaussians")
        drawing = Drawing(gaussians.to(device), rasterizer)
        canvas, initial = Canvas(drawing, [surrounding_view(gaussians)]), None
        path_file = args.ply.with_suffix(".path.json")
    else:
        # Recon-Net runs on the CPU, one image at a time.
        model = TrainedModel.load(args.model_path, args.iteration, source=args.source_path)
        gaussians = model.load_gaussians()
        around = model.load_surroundings(gaussians.channels)
        around = None if around is None else around.to(device)
        drawing = Drawing(gaussians.to(device), rasterizer, surroundings=around)
        canvas, initial = open_model(model, drawing)
        path_file = model.folder / "camera_path.json"
    viewer = Viewer(canvas, initial=initial, host=args.host, port=args.port, path_file=path_file)
    try:
        announce(f"{len(gaussians)} Gaussians; open {viewer.url} in a browser, press Ctrl-C to stop")
        threading.Event().wait()
    except KeyboardInterrupt:
        print()
    finally:
        viewer.close()
    return 0
