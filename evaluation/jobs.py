"""The runs of full_eval.py: which ones are needed, and how to perform one."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from arguments import RECIPES, TimingSettings
from arguments.parser import given_recipe
from arguments.parts import ImageOptions
from baselines.images import image_of
from baselines.providers import BLIND_SPOT, prepare
from evaluation.images import load_like, measure_known
from evaluation.known import Known
from evaluation.methods import BASELINES, METHODS, POSES
from pictures.kinds import IMAGE
from scene.colmap import find_model
from scene.dataset import read_scene
from scene.manifest import DEBLURRING, ImageWriter, images_folder
from scene.model_folder import claim
from utils.checkpoint import latest_checkpoint
from utils.io import load_image, write_json
from utils.json_files import read_json, record, text
from utils.locks import LOCK, FolderLock
from utils.lpips_offline import Lpips, load_lpips
from utils.signals import ignored

# How a command ends after SIGHUP, SIGINT, SIGKILL (such as for lack of memory) and SIGTERM.
_BY_SIGNAL = {129, 130, 137, 143}
ROOT = Path(__file__).resolve().parents[1]
RESULTS, LOG = "results.json", "log.txt"


class Interrupted(RuntimeError):
    """A command was ended by a signal: another try may succeed."""


@dataclass(frozen=True)
class Job:
    """One run; ``start_from`` is the model that training starts from, if there is one."""

    scene: Path
    method: str
    poses: str
    seed: int
    start_from: str = ""

    def folder(self, out: Path) -> Path:
        """The folder of its results."""
        return out / self.scene.name / self.method / self.poses / f"seed{self.seed}"

    def is_done(self, out: Path) -> bool:
        """Whether its results exist."""
        return (self.folder(out) / RESULTS).exists()

    def failure(self, out: Path) -> str:
        """Why the run cannot have results (its poses cannot be found); empty if there is no such reason."""
        if not self.is_done(out):
            return ""
        return str(read_json(self.folder(out) / RESULTS, record({}, {"failed": text()})).get("failed", ""))

    def pose_file(self, out: Path) -> Path:
        """The pose file to train from; relative to the scene unless structure from motion has to find it."""
        kind = POSES[self.poses]
        if kind.found:
            return out / self.scene.name / "poses" / f"{METHODS[self.method].poses_from}.json"
        return Path(kind.transforms)

    def blind_spot(self, out: Path) -> Path:
        """The file of the scene's blind-spot network: runs with the same seed share it, the first one trains it."""
        return out / self.scene.name / f"blind_spot_seed{self.seed}.pth"

    def train_flags(self, out: Path, options: ImageOptions = ImageOptions()) -> list[str]:
        """The flags for train.py, except the results folder; ``options`` are for recipes that learn from images."""
        level = POSES[self.poses].level
        noise = ["--perturb", str(level), "--perturb_seed", str(self.seed)] if level else []
        flags = ["-s", str(self.scene), *METHODS[self.method].flags, "--transforms", str(self.pose_file(out)), *noise]
        read = RECIPES[given_recipe(flags) or TimingSettings.recipe].of().values()
        if "spk2imgnet_weights" in read:
            flags += _weights(options)
        if self.start_from and "start_from" in read:
            flags += ["--start_from", self.start_from]
        if METHODS[self.method].poses_from == BLIND_SPOT:
            flags += ["--bsn_weights", str(self.blind_spot(out))]
        return [*flags, "--seed", str(self.seed), "--quiet"]

    def __str__(self) -> str:
        return f"{self.scene.name} {self.method} {self.poses} seed {self.seed}"


def jobs_of(
    scenes: Sequence[Path], methods: Sequence[str], poses: Sequence[str], seeds: Sequence[int], start_from: str = ""
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
            missing = ", ".join(POSES[kind].transforms for kind in poses if kind not in there)
            if not there:
                raise ValueError(f"{scene}: there is no {missing}; without initial poses nothing can be trained")
            notes.append(f"{scene}: there is no {missing}; its rows are left out")
        for method in methods:
            if method in BASELINES:
                jobs.append(Job(scene, method, "accurate", 0))
                continue
            jobs += [Job(scene, method, kind, seed, start_from) for kind in there for seed in seeds]
    return jobs, notes


def _has_poses(scene: Path, kind: str) -> bool:
    """Whether train.py finds such poses; a COLMAP model stands for a missing transforms.json."""
    file = POSES[kind].transforms
    return (scene / file).is_file() or (file == POSES["accurate"].transforms and find_model(scene) is not None)


@lru_cache(maxsize=1)
def _lpips() -> tuple[Lpips | None, str]:
    """LPIPS's network, read once for all images from spikes alone."""
    return load_lpips()


def measure_baseline(
    root: Path, method: str, folder: Path, options: ImageOptions = ImageOptions(), shared: Path | None = None
) -> dict[str, Any]:
    """Write the images of one of ``BASELINES`` of the scene in ``root`` and measure them as metrics.py does.

    Args:
        options: for methods that read weights.
        shared: file of known values (``evaluation.known``).
    """
    began = time.monotonic()
    scene, (network, source) = read_scene(root), _lpips()
    known = Known(shared, source)
    rows, provider = [], prepare(method, scene, options)
    prepared = time.monotonic()
    with ImageWriter(folder, "train", 0) as images:
        for view in scene.train:
            name = view.camera.name
            image = image_of(provider, scene, view)
            images.save(IMAGE, DEBLURRING, name, None, 0.5, image)
            if view.image_path is not None:
                truth = load_image(view.image_path, len(image))
                written = images_folder(folder, "train", 0) / IMAGE.folder / f"{name}.png"
                rows += measure_known([load_like(written, truth)], truth, network, known)
    known.save()
    means = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]} if rows else {}
    minutes = (prepared - began) / 60
    return {DEBLURRING: {IMAGE.name: means | {"views": len(rows)}}, "LPIPS": source, "minutes": minutes}


def do(job: Job, out: Path, options: ImageOptions = ImageOptions(), patience: float = 0.0) -> None:
    """Train, render and measure one job; its output goes to ``log.txt`` in its folder.

    The job's folder is locked, also for the commands: if this program is killed and one of them goes on, no other
    evaluation starts the same job.

    Args:
        patience: seconds to wait for such a command to end.

    Raises:
        Interrupted: one of the commands was ended by a signal.
        RuntimeError: one of the commands failed, or left no results.
        ValueError: another evaluation is doing this job.
    """
    if job.is_done(out):
        return
    folder = job.folder(out)
    # Beside the folder, which may be moved aside.
    holder = "full_eval.py, or a command that it started"
    with FolderLock(folder.parent, holder, f".{folder.name}{LOCK}", patience) as lock:
        if job.is_done(out):  # by another evaluation, in the meantime
            return
        shared = out / job.scene.name / "known.json"
        if job.method in BASELINES:
            options = replace(options, bsn_weights=str(job.blind_spot(out)))
            write_json(folder / RESULTS, measure_baseline(job.scene, job.method, folder, options, shared))
            return
        resume = ["--resume"] if latest_checkpoint(folder) is not None else []
        if not resume:
            claim(folder)[0].release()
        folder.mkdir(exist_ok=True)
        commands = [
            ["train.py", *job.train_flags(out, options), "-m", str(folder), *resume],
            ["render.py", "-m", str(folder), "--quiet"],
            ["metrics.py", "-m", str(folder), "--known", str(shared), "--quiet"],
        ]
        with open(folder / LOG, "a", encoding="utf-8") as log:
            if POSES[job.poses].found and not job.pose_file(out).exists():
                reason = _find_poses(job, out, options, log, lock)
                if reason:
                    write_json(folder / RESULTS, {"failed": reason})
                    return
            for command in commands:
                status = _run(command, log, lock).returncode
                if status < 0 or status in _BY_SIGNAL:
                    raise Interrupted(f"{command[0]} was ended by a signal; see {folder / LOG}")
                if status:
                    raise RuntimeError(f"{command[0]} failed; see {folder / LOG}")
        if not job.is_done(out):
            raise RuntimeError(f"metrics.py left no {folder / RESULTS}; see {folder / LOG}")


def _run(
    command: list[str], log: TextIO, lock: FolderLock, errors: int | None = None
) -> subprocess.CompletedProcess[str]:
    """Run one command, which inherits the lock.  A signal to stop is passed on, and the command ends first.

    Args:
        errors: where its standard error goes (None: to the log).
    """
    process = subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, stdout=log, stderr=log if errors is None else errors, text=True,
        pass_fds=[lock.handle],
    )  # fmt: skip
    try:
        _, said = process.communicate()
    except BaseException:  # Ctrl-C reaches the command by itself, other signals do not
        with ignored():
            process.terminate()
            process.communicate()
        raise
    return subprocess.CompletedProcess(command, process.returncode, stderr=said)


def _weights(options: ImageOptions) -> list[str]:
    return ["--spk2imgnet_weights", options.spk2imgnet_weights] if options.spk2imgnet_weights else []


def _find_poses(job: Job, out: Path, options: ImageOptions, log: TextIO, lock: FolderLock) -> str:
    """Find a job's initial poses on the images of its method; returns why too few views could be registered, if so.

    Raises:
        RuntimeError: the command failed for another reason.
    """
    command = ["-m", "scene", "poses", "-s", str(job.scene), "--image_method", METHODS[job.method].poses_from]
    command += ["--out", str(job.pose_file(out)), *_weights(options)]
    if METHODS[job.method].poses_from == BLIND_SPOT:
        # The poses serve all seeds.
        command += ["--bsn_weights", str(replace(job, seed=0).blind_spot(out))]
    done = _run(command, log, lock, errors=subprocess.PIPE)
    log.write(done.stderr)
    if not done.returncode:
        return ""
    [*_, said] = done.stderr.splitlines() or [""]
    if not re.search(r"registered \d+ of \d+ views", said):
        raise RuntimeError(f"python -m scene poses failed; see {job.folder(out) / LOG}")
    return said.removeprefix("error: ")
