"""Checks the CUDA rasterizers against the plain torch reference, and trains the demo's scene with some recipes.

    python benchmarks/gpu_check.py --out output/gpu_check               # on a machine with CUDA: up to 8 minutes
    python benchmarks/gpu_check.py --device cpu --minutes 1             # what can be tested without

Writes ``gpu_check.json`` and the same as Markdown, ``gpu_check.md``, after every part.  What cannot run (a package
is missing, a kernel fails) is an entry with its reason; the rest is done all the same.  Needs torch and, for the
training, the requirements of train.py; nothing is downloaded or installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import utils  # isort: skip  # noqa: F401  (before torch: see there)

import torch
from torch import Tensor

from gaussian_renderer.backends import get_rasterizer
from utils import se3
from utils.run_log import peak_memory

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "submodules/diff-gaussian-rasterization-cpu/python/diff_gaussian_rasterization_cpu/reference.py"
LEARNED = ("means", "quats", "scales", "opacities", "colors", "viewmats")
CUDA_BACKENDS = ("gsplat", "inria")
EPS2D = 0.3  # Inria's kernels have no other
# (Gaussians, width, height, cameras) of the timing.
SIZES = {"cuda": (100_000, 800, 600, 6), "cpu": (20_000, 200, 124, 6)}
Row = dict[str, Any]


def problem(n: int, width: int, height: int, cameras: int, device: torch.device) -> dict[str, Any]:
    """Arguments of a rasterizer: random Gaussians in front of cameras that look at them, colors of degree 3."""
    g = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g)

    viewmats = se3.exp(0.1 * normal(cameras, 6))
    viewmats[:, 2, 3] += 4
    focal = float(width)
    k = torch.tensor([[focal, 0, 0.48 * width], [0, focal, 0.53 * height], [0, 0, 1]])
    tensors = {
        "means": normal(n, 3) * torch.tensor([1.2, 0.9, 0.7]),
        "quats": normal(n, 4),
        "scales": (normal(n, 3) * 0.4 - 1.0 - torch.log(torch.tensor(n / 10.0)) / 3).exp(),
        "opacities": torch.sigmoid(normal(n)),
        "colors": torch.cat([normal(n, 1, 3), 0.2 * normal(n, 15, 3)], 1),
        "viewmats": viewmats,
        "Ks": k.expand(cameras, 3, 3).contiguous(),
        "backgrounds": torch.rand(cameras, 3, generator=g),
    }
    options = {"width": width, "height": height, "sh_degree": 3, "eps2d": EPS2D, "rasterize_mode": "antialiased"}
    return {name: value.to(device) for name, value in tensors.items()} | options


def gradients(rasterize: Callable[..., Any], arguments: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
    """The renders [M, H, W, 3], and the gradients of a fixed loss with respect to everything that is learned."""
    leaves = {name: arguments[name].detach().clone().requires_grad_() for name in LEARNED}
    renders = rasterize(**(arguments | leaves))[0]
    g = torch.Generator().manual_seed(1)
    weights = torch.randn(renders.shape, generator=g).to(renders)
    (renders * weights).sum().backward()
    return renders.detach(), {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}


def reference() -> Callable[..., Any]:
    """The plain torch rasterizer, read from its file: its package need not be built."""
    spec = importlib.util.spec_from_file_location("rasterizer_reference", REFERENCE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Callable[..., Any] = module.rasterization
    return found


def compare(name: str, device: torch.device) -> Row:
    """Largest differences of a backend from the reference (float64): in the image, and of gradients in percent of the
    largest entry."""
    small = problem(60, 48, 36, 3, device)
    image, own = gradients(get_rasterizer(name, device), small)
    double = {key: v.cpu().double() if isinstance(v, Tensor) else v for key, v in small.items()}
    wanted, theirs = gradients(reference(), double)
    row: Row = {"image": float((image.cpu() - wanted).abs().max())}
    for key, expected in theirs.items():
        if key not in own:
            row[f"grad {key}"] = None
            continue
        row[f"grad {key}"] = 100 * float((own[key].cpu() - expected).abs().max() / expected.abs().max())
    return row


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def memory(device: torch.device) -> float | None:
    """Peak memory in MB: of the device's tensors, or of the process."""
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else peak_memory()
    return None if peak is None else peak / 2**20


def speed(name: str, device: torch.device) -> Row:
    """Milliseconds of a forward and a backward pass of several cameras, the fastest of a few."""
    n, width, height, cameras = SIZES[device.type]
    arguments, rasterize = problem(n, width, height, cameras, device), get_rasterizer(name, device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds, end = [], time.monotonic() + 15
    while len(seconds) < 2 or (len(seconds) < 20 and time.monotonic() < end):
        synchronize(device)
        start = time.monotonic()
        gradients(rasterize, arguments)
        synchronize(device)
        seconds.append(time.monotonic() - start)
    scene = f"{n:,} Gaussians, {cameras} cameras of {width}x{height}"
    return {"scene": scene, "ms, forward and backward": 1000 * min(seconds), "memory, MB": memory(device)}


def train(recipe: str, rasterizer: str, scene_folder: Path, device: torch.device, seconds: float) -> Row:
    """Train for a limited time (with all preparations), and measure PSNR against the sharp images."""
    end = time.monotonic() + seconds
    from arguments import RECIPES
    from gaussian_renderer import render_trajectory
    from scene.dataset import read_scene
    from training.recipes import build
    from utils.image_metrics import psnr
    from utils.io import load_image

    scene = read_scene(scene_folder)
    # Inria's low-pass is compiled in; the same for all, so that the rows can be compared.
    settings = RECIPES[recipe].of(device=device.type, rasterizer=rasterizer, low_pass=EPS2D)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    training = build(settings, scene)
    start = time.monotonic()
    while training.iteration < training.steps and time.monotonic() < end:
        training.step()
    synchronize(device)
    spent, state, values = time.monotonic() - start, training.state, []
    with torch.no_grad():
        for i, view in enumerate(scene.train):
            if view.image_path is None:
                continue
            pose = state.trajectory.view(i, torch.tensor([0.5], device=device))
            camera, gaussians = view.camera, state.gaussian_field
            out = render_trajectory(
                gaussians.gaussians, pose, camera.K.to(device), camera.width, camera.height, gaussians.rasterizer
            )
            values.append(float(psnr(out.images, load_image(view.image_path)[None].to(device))))
    return {
        "steps": f"{training.iteration} of {training.steps}",
        "ms per step": 1000 * spent / max(training.iteration, 1),
        "memory, MB": memory(device),
        "Gaussians": len(state.gaussians),
        "PSNR": sum(values) / len(values) if values else None,
    }


def circumstances(device: torch.device) -> Row:
    """The machine and the versions."""
    row: Row = {"device": device.type, "python": platform.python_version(), "torch": torch.__version__}
    if device.type == "cuda":
        row |= {"GPU": torch.cuda.get_device_name(), "CUDA": torch.version.cuda}
    for package in ("gsplat", "diff_gaussian_rasterization", "diff-gaussian-rasterization-cpu"):
        try:
            row[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            row[package] = "not installed"
    nvcc = shutil.which("nvcc")
    row["nvcc"] = nvcc or "not found"
    if nvcc:
        told = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=False).stdout.split("release ")
        row["nvcc"] = told[-1].split(",")[0]
    return row


def attempt(part: Callable[[], Row]) -> Row:
    """The row of a part, or the reason why there is none."""
    start = time.monotonic()
    try:
        row = part()
    except Exception as error:  # whatever fails on an unknown machine is a finding, and the rest goes on
        row = {"failed": f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no message'])[0]}"}
    return row | {"seconds": round(time.monotonic() - start, 1)}


def markdown(found: dict[str, Any]) -> str:
    """The results as Markdown: one table for each part."""
    lines = ["# GPU check", ""]
    lines += [f"- {key}: {value}" for key, value in found["machine"].items()]
    for title, rows in found["parts"].items():
        columns = list(dict.fromkeys(key for row in rows.values() for key in row))
        lines += ["", f"## {title}", "", "| | " + " | ".join(columns) + " |", "|" + " --- |" * (len(columns) + 1)]
        for name, row in rows.items():
            cells = [row.get(column, "") for column in columns]
            texts = ["" if c is None else f"{c:.3g}" if isinstance(c, float) and c < 100 else str(c) for c in cells]
            texts = [f"{c:.0f}" if isinstance(c, float) and c >= 100 else t for c, t in zip(cells, texts, strict=True)]
            lines.append(f"| {name} | " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="device to check (default: cuda)")
    parser.add_argument("--minutes", type=float, default=8, help="time for everything, minutes (default: 8)")
    parser.add_argument("-s", "--scene", type=Path, help="scene to train on (default: the demo's, made if missing)")
    parser.add_argument(
        "--recipes", nargs="*", default=["timing", "images", "paper", "released"], metavar="RECIPE",
        help="recipes to train (default: timing, images, paper, released)",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("output/gpu_check"), help="folder of the results")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        print("torch finds no CUDA device here; --device cpu tests the script without one", file=sys.stderr)
        return 1
    device, end = torch.device(args.device), time.monotonic() + 60 * args.minutes
    backends = CUDA_BACKENDS if args.device == "cuda" else ("cpu",)
    found: dict[str, Any] = {"machine": circumstances(device), "parts": {}}
    args.out.mkdir(parents=True, exist_ok=True)

    def note(part: str, name: str, row: Row) -> None:
        found["parts"].setdefault(part, {})[name] = row
        (args.out / "gpu_check.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
        (args.out / "gpu_check.md").write_text(markdown(found), encoding="utf-8")
        print(f"{part}, {name}: {row}", flush=True)

    for name in backends:
        note("Differences from the reference", name, attempt(lambda name=name: compare(name, device)))
    for name in backends:
        note("Speed of one call", name, attempt(lambda name=name: speed(name, device)))
    with tempfile.TemporaryDirectory() as folder:
        scene = args.scene or ROOT / "data" / "demo"
        if not scene.is_dir():
            scene = Path(folder) / "demo"
            command = [sys.executable, str(ROOT / "data/make_demo.py"), "--out", str(scene)]
            subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
        runs = [(recipe, backend) for recipe in args.recipes for backend in backends]
        for i, (recipe, backend) in enumerate(runs):
            seconds = max(end - time.monotonic(), 0) / (len(runs) - i)
            row = attempt(lambda r=recipe, b=backend, s=seconds: train(r, b, scene, device, s))
            note("Training", f"{recipe}, {backend}", row)
    print(f"Written to {args.out}: gpu_check.json, gpu_check.md")
    return int(any("failed" in row for rows in found["parts"].values() for row in rows.values()))


if __name__ == "__main__":
    sys.exit(main())
