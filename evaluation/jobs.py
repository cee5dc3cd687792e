"""The runs of full_eval.py: which ones are needed, and how to perform one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from arguments import RECIPES, TimingSettings
from arguments.parser import given_recipe
from arguments.parts import ImageOptions
from baselines.images import image_of
from baselines.providers import prepare
from evaluation.images import load_like, measure
from evaluation.methods import BASELINES, METHODS, POSES
from pictures.kinds import IMAGE
from scene.dataset import read_scene
from scene.manifest import DEBLURRING, ImageWriter, images_folder
from utils.io import load_image, write_json
from utils.lpips_offline import Lpips, load_lpips

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Job:
    """One run."""

    scene: Path
    method: str
    poses: str
    seed: int

    def folder(self, out: Path) -> Path:
        """The folder of its results."""
        return out / self.scene.name / self.method / self.poses / f"seed{self.seed}"

    def is_done(self, out: Path) -> bool:
        """Whether its results exist."""
        return (self.folder(out) / "results.json").exists()

    def train_flags(self, options: ImageOptions = ImageOptions()) -> list[str]:
        """The flags for train.py, except the results folder; ``options`` are for recipes that learn from images."""
        flags = ["-s", str(self.scene), "--spike", *METHODS[self.method].flags]
        read = RECIPES[given_recipe(flags) or TimingSettings.recipe].of().values()
        if "spk2imgnet_weights" in read and options.spk2imgnet_weights:
            flags += ["--spk2imgnet_weights", options.spk2imgnet_weights]
        return [*flags, "--transforms", POSES[self.poses], "--seed", str(self.seed), "--quiet"]

    def __str__(self) -> str:
        return f"{self.scene.name} {self.method} {self.poses} seed {self.seed}"


def jobs_of(
    scenes: Sequence[Path], methods: Sequence[str], poses: Sequence[str], seeds: Sequence[int]
) -> tuple[list[Job], list[str]]:
    """Every combination that makes sense: images made from spikes alone have neither poses nor seeds.

    Returns:
        the jobs, and a sentence for each scene that lacks some kinds of poses, which are left out of it.

    Raises:
        ValueError: a scene is no folder, has none of the poses to train from, or two have the same name.
    """
    names = [scene.name for scene in scenes]
    for scene in scenes:
        if not scene.is_dir():
            raise ValueError(f"{scene}: no such folder")
        if names.count(scene.name) > 1:
            raise ValueError(f"{scene}: two scenes are called {scene.name}; their results would share a folder")
    jobs, notes = [], []
    for scene in scenes:
        there = [kind for kind in poses if _has_poses(scene, kind)]
        if len(there) < len(poses) and not BASELINES.keys() >= set(methods):
            missing = ", ".join(POSES[kind] for kind in poses if kind not in there)
            if not there:
                raise ValueError(f"{scene}: there is no {missing}; without initial poses nothing can be trained")
            notes.append(f"{scene}: there is no {missing}; its rows are left out")
        for method in methods:
            if method in BASELINES:
                jobs.append(Job(scene, method, "accurate", 0))
                continue
            jobs += [Job(scene, method, kind, seed) for kind in there for seed in seeds]
    return jobs, notes


def _has_poses(scene: Path, kind: str) -> bool:
    """Whether train.py finds such poses; COLMAP's ``sparse`` stands for a missing transforms.json."""
    return (scene / POSES[kind]).is_file() or (kind == "accurate" and (scene / "sparse").is_dir())


@lru_cache(maxsize=1)
def _lpips() -> tuple[Lpips | None, str]:
    """LPIPS's network, read once for all images from spikes alone."""
    return load_lpips()


def measure_baseline(
    root: Path, method: str, folder: Path, options: ImageOptions = ImageOptions()
) -> dict[str, Any]:
    """Write the images of one of ``BASELINES`` of the scene in ``root`` and measure them as metrics.py does."""
    scene, (network, source) = read_scene(root), _lpips()
    rows, provider = [], prepare(method, scene, options)
    with ImageWriter(folder, "train", 0) as images:
        for view in scene.train:
            name = view.camera.name
            image = image_of(provider, scene, view)
            images.save(IMAGE, DEBLURRING, name, None, 0.5, image)
            if view.image_path is not None:
                truth = load_image(view.image_path, len(image))
                written = images_folder(folder, "train", 0) / IMAGE.folder / f"{name}.png"
                rows += measure([load_like(written, truth)], truth, network)
    means = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]} if rows else {}
    return {DEBLURRING: {IMAGE.name: means | {"views": len(rows)}}, "LPIPS": source}


def do(job: Job, out: Path, options: ImageOptions = ImageOptions()) -> None:
    """Train, render and measure one job; its output goes to ``log.txt`` in its folder.

    Raises:
        RuntimeError: one of the commands failed, or left no results.
    """
    folder = job.folder(out)
    folder.mkdir(parents=True, exist_ok=True)
    if job.method in BASELINES:
        results = measure_baseline(job.scene, job.method, folder, options)
        write_json(folder / "results.json", results)
        return
    resume = ["--resume"] if list(folder.glob("chkpnt*.pth")) else []
    commands = [
        ["train.py", *job.train_flags(options), "-m", str(folder), *resume],
        ["render.py", "-m", str(folder), "--quiet"],
        ["metrics.py", "-m", str(folder), "--quiet"],
    ]
    with open(folder / "log.txt", "a", encoding="utf-8") as log:
        for command in commands:
            if subprocess.run([sys.executable, *command], cwd=ROOT, stdout=log, stderr=log, check=False).returncode:
                raise RuntimeError(f"{command[0]} failed; see {folder / 'log.txt'}")
    if not job.is_done(out):
        raise RuntimeError(f"metrics.py left no {folder / 'results.json'}; see {folder / 'log.txt'}")
