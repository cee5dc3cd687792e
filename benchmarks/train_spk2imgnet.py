"""Trains the small Spk2ImgNet on pictures that packages ship, and writes its weights.

    pip install scikit-image==0.26.0 scikit-learn==1.9.1 viser
    python benchmarks/train_spk2imgnet.py --steps 1000 -o output/spk2imgnet --check data/demo

Started again with the same folder, it continues, also with more steps: the learning rate is constant, and the weights
that are written at the end are the mean of those at the last rows of the log.  ``log.jsonl`` has the loss, and for each
scene of ``--check`` (with sharp images; nothing is learned from them) the PSNR at u = 0.5 of TFP(13), where the network
starts, of TFP(41) and of the network, in dB.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import utils  # isort: skip  # noqa: F401  (before torch: see there)

import numpy as np
import torch
from torch import Tensor

from baselines.images import ImageProvider, WindowMean, image_of
from baselines.moving_pictures import MovingPictures, gray_pictures, shipped_pictures
from baselines.spk2imgnet import (
    BLOCK,
    CENTERS,
    FRAMES,
    SmallSpk2ImgNet,
    Spk2Img,
    save_weights,
    supervised_loss,
)
from commands.guard import guarded
from recon_net.network import autocast
from scene.dataset import read_scene
from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.image_metrics import psnr
from utils.io import load_image
from utils.randomness import generator

# Steps over which the learning rate grows to its value.
WARM_UP = 50


def mean_of(states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of a network's weights at several steps."""
    return {name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]}


def check(network: SmallSpk2ImgNet, folder: Path, views: int) -> dict[str, float]:
    """PSNR (dB) over some views of a scene, by method."""
    scene, cpu = read_scene(folder), Spk2Img(network)
    methods: dict[str, ImageProvider] = {
        f"TFP({BLOCK})": WindowMean(BLOCK), f"TFP({FRAMES})": WindowMean(FRAMES), "network": cpu
    }  # fmt: skip
    chosen = [view for view in scene.train if view.image_path is not None]
    chosen = chosen[:: max(len(chosen) // views, 1)][:views]
    found: dict[str, list[float]] = {name: [] for name in methods}
    for view in chosen:
        for name, method in methods.items():
            truth = load_image(view.image_path)[None]
            found[name].append(float(psnr(image_of(method, scene, view)[None].clamp(0, 1), truth)))
    return {name: round(float(np.mean(values)), 3) for name, values in found.items()}


def write_row(out: Path, row: dict[str, Any]) -> None:
    """Append a row to the log, and print it."""
    with open(out / "log.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    print(row, flush=True)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("-o", "--out", type=Path, required=True, help="folder of the checkpoint, log and weights")
    made.add_argument("--steps", type=int, default=3600, help="training steps (default: 3600)")
    made.add_argument("--batch", type=int, default=4, help="samples per step (default: 4)")
    made.add_argument("--side", type=int, default=48, help="side of a sample, pixels (default: 48)")
    made.add_argument("--rate", type=float, default=1e-3, help="learning rate of Adam (default: 1e-3)")
    made.add_argument("--average", type=int, default=8, help="rows of the log whose weights are averaged (default: 8)")
    made.add_argument("--seed", type=int, default=0, help="seed of every random choice (default: 0)")
    made.add_argument("--check", nargs="*", type=Path, default=[], metavar="SCENE", help="scenes to measure on")
    made.add_argument("--check_views", type=int, default=2, help="views per scene to measure on (default: 2)")
    made.add_argument("--every", type=int, default=100, help="steps between rows of the log (default: 100)")
    made.add_argument("--check_every", type=int, default=300, help="steps between measurements (default: 300)")
    return made


def main() -> int:
    args = parser().parse_args()
    data = MovingPictures(gray_pictures(shipped_pictures()), FRAMES, args.side)
    torch.manual_seed(args.seed)
    network = SmallSpk2ImgNet()
    optimizer = torch.optim.Adam(network.parameters(), lr=args.rate)
    path, done, seconds = args.out / "checkpoint.pth", 0, 0.0
    kept: list[dict[str, Tensor]] = []
    if path.exists():
        stored = load_checkpoint(path)
        network.load_state_dict(stored["network"])
        optimizer.load_state_dict(stored["optimizer"])
        done, seconds, kept = stored["step"], stored["seconds"], stored["kept"]
    args.out.mkdir(parents=True, exist_ok=True)
    losses: list[float] = []
    began = time.process_time() - seconds
    for step in range(done + 1, args.steps + 1):
        batch = data.batch(args.batch, generator("batch", args.seed, step))
        with autocast(torch.device("cpu")):
            rate, estimates = network.rates(batch.spikes.contiguous(memory_format=torch.channels_last))
        loss = supervised_loss(rate, estimates, batch.images[:, list(CENTERS)], batch.gain)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.param_groups[0]["lr"] = args.rate * min(step / WARM_UP, 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
        last = step == args.steps
        if step % args.every and not last:
            continue
        row = {"step": step, "cpu_seconds": round(time.process_time() - began, 1), "loss": float(np.mean(losses))}
        if step % args.check_every == 0 or last:
            row |= {folder.name: check(network, folder, args.check_views) for folder in args.check}
        losses.clear()
        write_row(args.out, row)
        kept = [*kept, {name: value.clone() for name, value in network.state_dict().items()}][-args.average :]
        state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "kept": kept}
        save_checkpoint(path, state | {"seconds": time.process_time() - began})
    network.load_state_dict(mean_of(kept))
    write_row(
        args.out,
        {"averaged": len(kept)} | {folder.name: check(network, folder, args.check_views) for folder in args.check},
    )
    save_weights(args.out / "spk2imgnet_small.pth", network)
    print(f"Written: {args.out / 'spk2imgnet_small.pth'}")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
