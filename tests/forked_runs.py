"""Runs of the commands in forked children, which have everything imported: a run takes less than a second.

Neither torch nor the rasterizer may have drawn in the parent, because their threads do not live on in a child.
"""

import utils  # isort: skip  # noqa: F401  (before torch: see there)

import hashlib
import mmap
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

import render
import train
from commands import convert as convert_command
from commands.guard import guarded
from evaluation.images import rendered_images
from gaussian_renderer.backends import get_rasterizer
from gaussians.ply import read_gaussian_ply
from scene.manifest import MANIFEST, SPLITS, images_folder
from scene.model_folder import find_iteration, load_trajectory, read_cameras
from training.trained_model import TrainedModel
from training.training import Training
from utils.checkpoint import latest_checkpoint, load_checkpoint
from utils.io import load_image

# What is otherwise imported late, once in every child: the rasterizer, and half of torch with the first optimizer.
get_rasterizer("cpu", torch.device("cpu"))
torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])

EVERY, STEPS = 2, 8
TRAIN = (
    f"--iterations {STEPS} --checkpoint_every {EVERY} --save_iterations 4 --log_every 2 --quiet --densify_from_iter 0 "
    "--densification_interval 2 --densify_until_iter 6 --crop 16 --pose_every 2 --init_num_pts 300 --cap_max 330 "
    "--sh_degree_interval 2 --recon_from 1 --fixed_pattern_every 4 --window_from 3"
).split()
COMMANDS: dict[str, Callable[[], int]] = {
    "train.py": train.main, "render.py": render.main, "convert.py": convert_command.main,
}  # fmt: skip


class Child:
    """A command in a forked child.

    Args:
        log: file that receives its output.
        before, after: called in the child first and last.
    """

    def __init__(
        self, words: Sequence[object], log: Path, before: Callable[[], None] = lambda: None,
        after: Callable[[], object] = lambda: None,
    ):  # fmt: skip
        self.log = log
        # The steps that it has completed, in memory that outlives it.
        self._progress = mmap.mmap(-1, 8)
        self.pid = os.fork()
        if not self.pid:
            status = 99
            try:
                status = self._work([str(word) for word in words], before)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                after()
                os._exit(status)

    def _work(self, words: list[str], before: Callable[[], None]) -> int:
        out = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        for stream in (1, 2):
            os.dup2(out, stream)
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
        step = Training.step

        def counted(training: Training) -> dict[str, float]:
            terms = step(training)
            self._progress[:8] = training.iteration.to_bytes(8, "little")
            return terms

        Training.step = counted  # type: ignore[method-assign]
        torch.set_grad_enabled(True)
        sys.argv = words
        before()
        return guarded(COMMANDS[words[0]])

    @property
    def progress(self) -> int:
        """The latest completed step; 0 if there was none."""
        return int.from_bytes(self._progress[:8], "little")

    def wait(self) -> int:
        """The exit status; negative: the signal that killed it."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def killed_after(self, seconds: float) -> bool:
        """Kill it after a time; returns whether it was still running."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if os.waitpid(self.pid, os.WNOHANG)[0]:
                return False
            time.sleep(min(0.002, max(end - time.monotonic(), 0)))
        os.kill(self.pid, 9)
        return self.wait() == -9


def digest(*files: Path) -> str:
    """One digest of the contents of files."""
    found = hashlib.blake2b()
    for file in files:
        found.update(file.name.encode() + file.read_bytes())
    return found.hexdigest()


def result(model: Path) -> str:
    """What training has learned, as a digest: the Gaussians, the poses and the network."""
    return digest(*sorted((model / f"point_cloud/iteration_{STEPS}").iterdir()))


def pictures(model: Path) -> str:
    """What rendering has written, as a digest."""
    return digest(*sorted(model.glob("t*/ours_*/*/*.png")))


def check_model(model: Path) -> int:
    """Read everything in a model's folder; returns the iteration of its newest checkpoint (0: none).

    Raises:
        Exception: something is there that cannot be read.
    """
    for checkpoint in model.glob("chkpnt*.pth"):
        load_checkpoint(checkpoint)
    saved = {int(p.parent.name.partition("_")[2]) for p in model.glob("point_cloud/iteration_*/point_cloud.ply")}
    for iteration in saved:
        assert len(read_gaussian_ply(model / f"point_cloud/iteration_{iteration}/point_cloud.ply").means) > 100
        load_trajectory(model, iteration)
        TrainedModel.load(model, iteration)
    if STEPS in saved:
        assert find_iteration(model) == STEPS
        read_cameras(model)
    for split in SPLITS:
        if (images_folder(model, split, STEPS) / MANIFEST).exists():
            for image in rendered_images(model, split, STEPS):
                load_image(images_folder(model, split, STEPS) / image.file)
    newest = latest_checkpoint(model)
    return 0 if newest is None else int(newest.stem[6:])


def quick_folder() -> str | None:
    """Where temporary folders are quickest: in memory, if there is such a file system."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def leftovers(folder: Path) -> list[Path]:
    """What a killed run leaves, and the next one should have removed."""
    return [p for p in folder.rglob(".*") if p.name.endswith((".partial", ".lock", ".swap"))]
