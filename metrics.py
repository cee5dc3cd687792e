"""Measure what render.py left: pictures, and trajectories where the truth is known.

    python metrics.py -m output/tanabata

Two protocols, never mixed.  *Deblurring*: training views at instants inside their own exposure.  *Held out*:
views that training never saw, their pose fitted with the scene frozen.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from arguments import Config, add_model_arguments
from arguments.command import guarded
from scene.dataset import read_scene
from scene.model_folder import find_iteration, read_cameras
from utils.comparison import compose
from utils.image_metrics import gain_match, psnr, ssim
from utils.io import atomic_write, load_image, save_image
from utils.lpips_offline import load_lpips, lpips_distance
from utils.trajectory_metrics import trajectory_errors

METHODS = {"renders": "Gaussians", "recon": "Recon-Net", "tfp": "TFP (short)", "long": "long exposure"}
PROTOCOLS = {"train": "deblurring", "test": "held out"}
_SUBFRAME = re.compile(r"(.*)_(\d\d)")


def measure(image: Tensor, truth: Tensor, model: nn.Module | None) -> dict[str, float]:
    """PSNR, SSIM and LPIPS of one picture [1, C, H, W], raw and after the best single gain."""
    if image.shape != truth.shape:
        raise ValueError(f"a picture of {tuple(image.shape[2:])} pixels beside a true one of {tuple(truth.shape[2:])}")
    matched, gain = gain_match(image, truth)
    values = {
        "PSNR": float(psnr(image, truth)),
        "SSIM": float(ssim(image, truth)),
        "PSNR_gain": float(psnr(matched.clamp(0, 1), truth)),
        "SSIM_gain": float(ssim(matched.clamp(0, 1), truth)),
        "gain": gain,
    }
    if model is not None:
        values["LPIPS"] = lpips_distance(model, image, truth)
        values["LPIPS_gain"] = lpips_distance(model, matched, truth)
    return values


def measure_folder(folder: Path, model: nn.Module | None, quiet: bool) -> dict[str, dict[str, dict[str, float]]]:
    """Metrics by method and picture name of one ``ours_N`` folder."""
    table: dict[str, dict[str, dict[str, float]]] = defaultdict(dict)
    truths = sorted((folder / "gt").glob("*.png"))
    for path in tqdm(truths, desc=f"Measuring {folder.parent.name}", disable=quiet):
        truth = load_image(path, channels=None)[None]
        # LPIPS is the costly one: of the middle of each exposure only.
        at_middle = model if _SUBFRAME.fullmatch(path.stem) is None or path.stem.startswith("novel_") else None
        for kind in METHODS:
            file = folder / kind / path.name
            if file.exists():
                image = load_image(file, channels=truth.shape[1])[None]
                table[kind][path.stem] = measure(image, truth, at_middle)
    return table


def summarise(rows: dict[str, dict[str, float]], split: str) -> dict[str, float]:
    """Means over views at u = 0.5, and PSNR over all sub-frames where their truth exists."""
    subframes = {n: r for n, r in rows.items() if split == "train" and _SUBFRAME.fullmatch(n)}
    middle = {n: r for n, r in rows.items() if n not in subframes}
    keys = next(iter(middle.values()), {})
    means = {key: float(np.mean([row[key] for row in middle.values()])) for key in keys}
    if subframes:
        means["PSNR_all_subframes"] = float(np.mean([row["PSNR"] for row in subframes.values()]))
    means["views"] = len(middle)
    return means


def measure_trajectories(config: Config) -> dict[str, Any] | None:
    """ATE, RPE and motion error of the training views, or None where the truth is unknown."""
    scene = read_scene(config.data.source_path, config.data.transforms, config.data.eval, config.data.llffhold)
    if scene.truth is None:
        return None
    entries = [e for e in read_cameras(config.data.model_path) if e["split"] == "train" and e["name"] in scene.truth]
    if not entries:
        return None
    truth = np.stack([scene.truth[e["name"]].numpy() for e in entries])
    estimate = np.array([e["w2c"] for e in entries])
    if estimate.shape != truth.shape:
        return None
    errors = trajectory_errors(estimate, truth)
    return {
        "ATE": errors.ate,
        "RPE_translation": errors.rpe_translation,
        "RPE_rotation_deg": errors.rpe_rotation,
        "motion_error": errors.motion,
        "flipped_views": [entries[v]["name"] for v in errors.flipped],
    }


def picture(folder: Path, table: dict[str, dict[str, dict[str, float]]]) -> np.ndarray | None:
    """The comparison picture of up to three training views."""
    names = [p.stem for p in sorted((folder / "gt").glob("*.png")) if _SUBFRAME.fullmatch(p.stem) is None]
    if not names:
        return None
    columns = {"long": "long exposure", "tfp": "TFP", "recon": "Recon-Net", "renders": "Gaussians", "gt": "truth"}
    rows, notes = [], []
    for i in sorted({0, len(names) // 2, len(names) - 1}):
        row: dict[str, Any] = {}
        note: dict[str, str] = {}
        for kind, title in columns.items():
            file = folder / kind / f"{names[i]}.png"
            image = load_image(file, channels=None).permute(1, 2, 0).numpy() if file.exists() else None
            row[title] = None if image is None else (image[..., 0] if image.shape[-1] == 1 else image)
            if kind in table and names[i] in table[kind]:
                note[title] = f"{table[kind][names[i]]['PSNR']:.1f} dB"
        rows.append(row)
        notes.append(note)
    return compose(rows, "truth", ["TFP", "Recon-Net", "Gaussians"], notes)


def print_table(results: dict[str, Any], reason: str) -> None:
    """What was measured, for a person."""
    header = f"{'':<11} {'method':<14} {'views':>5} {'PSNR':>7} {'SSIM':>7} {'LPIPS':>7}"
    header += f" {'PSNR, gain':>11} {'all u':>7}"
    print(header + "\n" + "-" * len(header))
    for protocol in PROTOCOLS.values():
        for method, row in results.get(protocol, {}).items():
            lpips = f"{row['LPIPS']:7.3f}" if "LPIPS" in row else "missing"
            everywhere = f"{row['PSNR_all_subframes']:7.2f}" if "PSNR_all_subframes" in row else f"{'':>7}"
            print(
                f"{protocol:<11} {method:<14} {row['views']:>5} {row['PSNR']:7.2f} {row['SSIM']:7.4f} {lpips} "
                f"{row['PSNR_gain']:11.2f} {everywhere}"
            )
    path = results.get("trajectory")
    if path:
        print(
            f"trajectory  ATE {path['ATE']:.4f}, RPE {path['RPE_translation']:.4f} and "
            f"{path['RPE_rotation_deg']:.3f} degrees a sub-frame, motion error {100 * path['motion_error']:.1f} %, "
            f"{len(path['flipped_views'])} views reversed in time"
        )
    print(f"LPIPS: {reason}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure the pictures and trajectories of a trained model.")
    add_model_arguments(parser)
    parser.add_argument("--iteration", type=int, help="saved iteration to measure (default: the newest)")
    parser.add_argument("--lpips", choices=["vgg", "alex"], default="vgg", help="LPIPS backbone (default: vgg)")
    args = parser.parse_args()
    if not args.model_path:
        raise ValueError("no model given: say which folder with -m, for example -m output/tanabata")
    model = Path(args.model_path)
    config = Config.load(model)
    config.data.model_path = str(model)
    iteration = find_iteration(model, args.iteration)
    network, reason = load_lpips(args.lpips)

    results: dict[str, Any] = {"iteration": iteration, "LPIPS": reason}
    per_view: dict[str, Any] = {}
    for split, protocol in PROTOCOLS.items():
        folder = model / split / f"ours_{iteration}"
        if not (folder / "gt").is_dir():
            continue
        table = measure_folder(folder, network, args.quiet)
        results[protocol] = {METHODS[kind]: summarise(rows, split) for kind, rows in table.items()}
        per_view[protocol] = {METHODS[kind]: rows for kind, rows in table.items()}
        if split == "train":
            drawn = picture(folder, table)
            if drawn is not None:
                save_image(model / "comparison.png", drawn)
    if not per_view and not (model / "train").is_dir():
        raise ValueError(f"{model}: no rendered pictures of iteration {iteration}; run render.py -m {model} first")
    errors = measure_trajectories(config)
    if errors is not None:
        results["trajectory"] = errors
    for name, content in (("results.json", results), ("per_view.json", per_view)):
        with atomic_write(model / name, "w") as file:
            json.dump(content, file, indent=1)
    if not per_view:
        print(f"{model}: the scene has no sharp images, so there is nothing to compare the pictures with")
    print_table(results, reason)
    note = ", comparison.png" if (model / "comparison.png").exists() else ""
    print(f"Written: {model}/results.json, per_view.json{note}")
    return 0


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    sys.exit(guarded(main))
