"""Measure what render.py left: pictures, and trajectories where the truth is known.

    python metrics.py -m output/tanabata

Protocols, never mixed.  *Deblurring*: training views at instants inside their own exposure.  *Held out*: views
that training never saw, their pose fitted with the scene frozen, to their own spikes (``--eval``) or else to the
sharp image they are compared with (``novel.json``).  Of a scene with both, the images are *novel views*.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from arguments import Config, add_model_arguments
from commands.guard import guarded
from evaluation.report import METHODS, Run, write_report
from pictures.sheets import compose
from scene.dataset import read_scene
from scene.model_folder import NOVEL, find_iteration, read_cameras, why_stale
from scene.views import true_poses, window_spec
from utils.image_metrics import gain_match, psnr, ssim_map
from utils.io import atomic_write, load_image, save_image
from utils.lpips_offline import load_lpips, lpips_distances
from utils.trajectory_metrics import trajectory_errors

PROTOCOLS = ("deblurring", "held out", "novel views")
Rows = dict[str, dict[str, float]]  # measured values by picture name


@dataclass(frozen=True)
class Picture:
    """What a picture's name says: its view, and its sub-frame where it is not the middle of the exposure's own."""

    name: str
    view: str
    subframe: int | None

    @classmethod
    def of(cls, name: str, views: Collection[str], names: Collection[str]) -> Picture:
        """``VVV_MM`` is a sub-frame where ``VVV`` is a view's or a picture's name and the whole is no view's."""
        match = re.fullmatch(r"(.+)_(\d{2,})", name)
        if name in views or match is None or not (match[1] in views or match[1] in names):
            return cls(name, name, None)
        return cls(name, match[1], int(match[2]))


def pictures_in(folder: Path, cameras: list[dict[str, Any]], kind: str = "gt") -> list[Picture]:
    """All pictures of an ``ours_N`` folder that have a true image (or another ``kind``), in order of their names."""
    names = sorted(path.stem for path in (folder / kind).glob("*.png"))
    views, known = {entry["name"] for entry in cameras}, set(names)
    return [Picture.of(name, views, known) for name in names]


def by_protocol(split: str, pictures: list[Picture]) -> dict[str, list[Picture]]:
    """The pictures of a split by how they are compared; what a pose was fitted to is never mixed."""
    if split == "train":
        return {"deblurring": pictures}
    images = [p for p in pictures if p.view.startswith(NOVEL)]
    exposures = [p for p in pictures if not p.view.startswith(NOVEL)]
    return {"held out": exposures, "novel views": images} if images and exposures else {"held out": pictures}


def load_beside(path: Path, truth: Tensor) -> Tensor:
    """The picture [1, C, H, W] at ``path``, with the channels of the ``truth`` [1, C, H, W] it is compared with."""
    image = load_image(path, channels=truth.shape[1])[None]
    if image.shape != truth.shape:
        (height, width), (h, w) = image.shape[2:], truth.shape[2:]
        raise ValueError(f"{path}: {width}x{height} pixels, expected {w}x{h} as the true picture has")
    return image


def measure(image: Tensor, truth: Tensor, model: nn.Module | None) -> dict[str, float]:
    """PSNR, SSIM and LPIPS of one picture [1, C, H, W], raw and after the best single gain."""
    return measure_all([image], truth, model)[0]


def measure_all(images: Sequence[Tensor], truth: Tensor, model: nn.Module | None) -> list[dict[str, float]]:
    """``measure`` of several pictures with the same truth, which is analysed once."""
    assert all(image.shape == truth.shape for image in images)
    matched, gains = zip(*(gain_match(image, truth) for image in images), strict=True)
    # Each picture as it is, and with its gain.
    both = torch.cat([*images, *(image.clamp(0, 1) for image in matched)])
    measured = {
        "PSNR": psnr(both, truth).tolist(),
        "SSIM": ssim_map(both, truth).mean((1, 2, 3)).tolist(),
    }
    if model is not None:
        measured["LPIPS"] = lpips_distances(model, both.split(1), truth)
    rows = []
    for i, gain in enumerate(gains):
        row = {name: values[i] for name, values in measured.items()}
        row |= {f"{name}_gain": values[i + len(images)] for name, values in measured.items()}
        rows.append(row | {"gain": gain})
    return rows


def measure_folder(
    folder: Path, pictures: list[Picture], model: nn.Module | None, reversed_views: dict[str, int], quiet: bool
) -> dict[str, Rows]:
    """Metrics by method and picture name of one ``ours_N`` folder.

    Args:
        reversed_views: views whose recovered trajectory runs backwards in time, with their number of
            sub-frames.  Their renders are compared with the truth in reverse (``PSNR``), and as they are
            (``PSNR_as_recovered``); the middle of an exposure is the same in both.  Recon-Net's frames
            come with the spikes' own time.
    """
    table: dict[str, Rows] = {kind: {} for kind in METHODS}
    for picture in tqdm(pictures, desc=f"Measuring {folder.parent.name}", disable=quiet):
        truth = load_image(folder / "gt" / f"{picture.name}.png", channels=None)[None]
        # LPIPS is the costly one: of the middle of each exposure only.
        network = model if picture.subframe is None else None
        images: dict[str, Tensor] = {}
        for kind in table:
            file = folder / kind / f"{picture.name}.png"
            if file.exists():
                images[kind] = load_beside(file, truth)
        as_recovered = None
        if picture.subframe is not None and picture.view in reversed_views and "renders" in images:
            as_recovered = float(psnr(images.pop("renders"), truth))
            opposite = reversed_views[picture.view] - 1 - picture.subframe
            other = folder / "renders" / f"{picture.view}_{opposite:02d}.png"
            if other.exists():
                images["renders"] = load_beside(other, truth)
        if not images:
            continue
        for kind, row in zip(images, measure_all(list(images.values()), truth, network), strict=True):
            table[kind][picture.name] = row
        if as_recovered is not None and "renders" in images:
            table["renders"][picture.name]["PSNR_as_recovered"] = as_recovered
    return {kind: rows for kind, rows in table.items() if rows}


def summarise(rows: Rows, pictures: list[Picture]) -> dict[str, float]:
    """Means over views at u = 0.5, and PSNR over all sub-frames where their truth exists."""
    middle = [rows[p.name] for p in pictures if p.subframe is None and p.name in rows]
    subframes = [rows[p.name] for p in pictures if p.subframe is not None and p.name in rows]
    means = {key: float(np.mean([row[key] for row in middle])) for key in (middle[0] if middle else {})}
    if subframes:
        means["PSNR_all_subframes"] = float(np.mean([row["PSNR"] for row in subframes]))
        if any("PSNR_as_recovered" in row for row in subframes):
            as_recovered = [row.get("PSNR_as_recovered", row["PSNR"]) for row in subframes]
            means["PSNR_all_subframes_as_recovered"] = float(np.mean(as_recovered))
    means["views"] = len(middle)
    return means


@dataclass(frozen=True)
class Trajectories:
    """Training views with their recovered and true poses [V, M, 4, 4]; without truth, ``why`` says what is amiss."""

    names: list[str]
    poses: np.ndarray | None
    truth: np.ndarray | None = None
    why: str = ""


def read_trajectories(config: Config, cameras: list[dict[str, Any]], iteration: int) -> Trajectories:
    """Recovered poses of the training views, and the true ones where the scene has them."""
    data = config.data
    entries = [entry for entry in cameras if entry["split"] == "train"]
    names = [entry["name"] for entry in entries]
    shapes = {np.shape(entry["w2c"]) for entry in entries}
    if len(shapes) != 1:
        return Trajectories(names, None, why="cameras.json has training views of different numbers of sub-frames")
    poses = np.array([entry["w2c"] for entry in entries])
    stale = why_stale(entries, iteration)
    if stale is not None:
        return Trajectories(names, None, why=stale)
    try:
        scene = read_scene(data.source_path, data.transforms, data.eval, data.llffhold)
    except ValueError as error:
        return Trajectories(names, poses, why=f"the scene cannot be read ({error})")
    file = scene.root / "trajectory.json"
    if scene.truth is None:
        return Trajectories(names, poses, why=f"there is no {file}")
    unknown = [name for name in names if name not in scene.truth]
    if unknown:
        why = f"{file} lacks {len(unknown)} of {len(names)} training views ({', '.join(unknown[:3])})"
        return Trajectories(names, poses, why=why)
    spec, found = window_spec(data), []
    for name in names:
        true = true_poses(scene.truth[name], spec)
        if true is None:
            count = len(scene.truth[name])
            why = f"{file} has view {name} at {count} instants, which are not the model's {spec.subframes}"
            return Trajectories(names, poses, why=why)
        found.append(true.numpy())
    return Trajectories(names, poses, np.stack(found))


def measure_trajectories(found: Trajectories) -> tuple[dict[str, Any] | None, str]:
    """ATE, RPE and motion error of the training views; or None, and why there are none."""
    if found.poses is None or found.truth is None:
        return None, found.why
    try:
        errors = trajectory_errors(found.poses, found.truth)
    except ValueError as error:
        return None, str(error)
    return {
        "ATE": errors.ate,
        "RPE_translation": errors.rpe_translation,
        "RPE_rotation_deg": errors.rpe_rotation,
        "motion_error": errors.motion,
        "reversed_views": [found.names[v] for v in errors.flipped],
        "subframes": found.poses.shape[1],
    }, ""


def comparison(folder: Path, pictures: list[Picture], table: dict[str, Rows]) -> np.ndarray | None:
    """The comparison picture of up to three views."""
    names = [p.name for p in pictures if p.subframe is None]
    if not names:
        return None
    columns = {"long": "long exposure", "tfp": "TFP", "recon": "Recon-Net", "renders": "Gaussians"}
    columns |= {"fused": "Fused", "gt": "truth"}
    columns = {kind: title for kind, title in columns.items() if (folder / kind).is_dir()}
    rows, notes = [], []
    for i in sorted({0, len(names) // 2, len(names) - 1}):
        row: dict[str, Any] = {}
        note: dict[str, str] = {}
        for kind, title in columns.items():
            file = folder / kind / f"{names[i]}.png"
            image = load_image(file, channels=None).permute(1, 2, 0).numpy() if file.exists() else None
            row[title] = None if image is None else (image[..., 0] if image.shape[-1] == 1 else image)
            if names[i] in table.get(kind, {}):
                note[title] = f"{table[kind][names[i]]['PSNR']:.1f} dB"
        rows.append(row)
        notes.append(note)
    erring = [title for title in columns.values() if title not in ("long exposure", "truth")]
    return compose(rows, "truth", erring, notes)


def _cell(row: dict[str, float], key: str, width: int, digits: int) -> str:
    return f"{row[key]:{width}.{digits}f}" if key in row else f"{'missing':>{width}}"


def print_table(results: dict[str, Any]) -> None:
    """What was measured, for a person."""
    header = f"{'':<11} {'method':<14} {'views':>5} {'PSNR':>7} {'SSIM':>7} {'LPIPS':>7}"
    header += f" {'PSNR, gain':>11} {'all u':>7}"
    print(header + "\n" + "-" * len(header))
    for protocol in PROTOCOLS:
        for method, row in results.get(protocol, {}).items():
            everywhere = _cell(row, "PSNR_all_subframes", 7, 2) if "PSNR_all_subframes" in row else f"{'':>7}"
            print(
                f"{protocol:<11} {method:<14} {row['views']:>5} {_cell(row, 'PSNR', 7, 2)} {_cell(row, 'SSIM', 7, 4)} "
                f"{_cell(row, 'LPIPS', 7, 3)} {_cell(row, 'PSNR_gain', 11, 2)} {everywhere}"
            )
    path = results.get("trajectory")
    if path is None:
        print(f"trajectory  missing: {results['trajectory_missing']}")
    else:
        rpe, turn, motion = (path[key] for key in ("RPE_translation", "RPE_rotation_deg", "motion_error"))
        print(
            f"trajectory  ATE {path['ATE']:.4f}, "
            + ("RPE missing, " if rpe is None else f"RPE {rpe:.4f} and {turn:.3f} degrees a sub-frame, ")
            + ("motion error missing, " if motion is None else f"motion error {100 * motion:.1f} %, ")
            + f"{len(path['reversed_views'])} views reversed in time"
        )
        as_recovered = results.get("deblurring", {}).get("Gaussians", {}).get("PSNR_all_subframes_as_recovered")
        if as_recovered is not None:
            print(
                "            'all u' compares the Gaussians of the reversed views with the truth in reverse; "
                f"as recovered: {as_recovered:.2f} dB"
            )
    print(f"LPIPS: {results['LPIPS']}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure the pictures and trajectories of a trained model.")
    add_model_arguments(parser, is_drawn=False)
    parser.add_argument("--iteration", type=int, help="saved iteration to measure (default: the newest)")
    parser.add_argument("--lpips", choices=["vgg", "alex"], default="vgg", help="LPIPS backbone (default: vgg)")
    args = parser.parse_args()
    if not args.model_path:
        raise ValueError("no model given: say which folder with -m, for example -m output/tanabata")
    model = Path(args.model_path)
    config = Config.load(model)
    iteration = find_iteration(model, args.iteration)
    network, reason = load_lpips(args.lpips)

    results: dict[str, Any] = {"iteration": iteration, "LPIPS": reason}
    cameras = read_cameras(model)
    trajectories = read_trajectories(config, cameras, iteration)
    path, why = measure_trajectories(trajectories)
    results |= {"trajectory": path} if path is not None else {"trajectory_missing": why}
    reversed_views = dict.fromkeys(path["reversed_views"], path["subframes"]) if path is not None else {}
    per_view: dict[str, Any] = {}
    written = ["results.json", "per_view.json", "report.html"]
    shown: dict[str, tuple[str, list[str]]] = {}
    folders = {split: model / split / f"ours_{iteration}" for split in ("train", "test")}
    rendered = [
        (split, protocol, pictures)
        for split, folder in folders.items()
        for protocol, pictures in by_protocol(split, pictures_in(folder, cameras, "renders")).items()
    ]
    for split, protocol, drawn in rendered:
        folder = folders[split]
        pictures = [p for p in drawn if (folder / "gt" / f"{p.name}.png").exists()]
        # Without the truth there is nothing to measure, but something to look at.
        seen = [p.name for p in pictures or drawn if p.subframe is None]
        if seen:
            shown[protocol] = split, seen
        if not pictures:
            continue
        table = measure_folder(folder, pictures, network, reversed_views if split == "train" else {}, args.quiet)
        results[protocol] = {METHODS[kind]: summarise(rows, pictures) for kind, rows in table.items()}
        per_view[protocol] = {METHODS[kind]: rows for kind, rows in table.items()}
        beside = comparison(folder, pictures, table) if split == "train" else None
        if beside is not None:
            save_image(model / "comparison.png", beside)
            written.append("comparison.png")
    if not any(folder.is_dir() for folder in folders.values()):
        raise ValueError(f"{model}: no rendered pictures of iteration {iteration}; run render.py -m {model} first")
    for name, content in (("results.json", results), ("per_view.json", per_view)):
        with atomic_write(model / name, "w") as file:
            json.dump(content, file, indent=1)
    truth = trajectories.truth if path is not None else None
    write_report(
        Run(model, iteration, results, per_view, shown, trajectories.names, trajectories.poses, truth)
    )
    if not per_view:
        print(f"{model}: the scene has no sharp images, so there is nothing to compare the pictures with")
    print_table(results)
    print(f"Written to {model}: {', '.join(written)}")
    return 0


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    sys.exit(guarded(main))
