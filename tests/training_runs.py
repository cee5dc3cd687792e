"""Short trainings on the small test scene."""

from pathlib import Path

import torch

from arguments.parser import current_names, parse_training
from scene.dataset import scene_of
from training.recipes import build
from training.training import Training

# Small enough for tests; everything of a method happens within six iterations.
SMALL = (
    "--iterations 6 --quiet --densify_from_iter 0 --densification_interval 2 --densify_until_iter 5 --crop 16 "
    "--average_from 3 --pose_every 2 --init_num_pts 300 --sh_degree_interval 2"
).split()
TIMING = [
    *SMALL,
    *"--cap_max 330 --recon_from 1 --fixed_pattern_every 2 --window_from 3 --retime_from 3 --retime_every 2".split(),
]
PAPER = [*SMALL, *"--recipe paper --densify_grad_threshold 1e-6".split()]
_WITHOUT_NETWORK = [word for word in SMALL if word not in ("--crop", "16")]
IMAGES = ["--images", *_WITHOUT_NETWORK, "--cap_max", "330"]
SPIKEGS = ["--recipe", "spikegs", *_WITHOUT_NETWORK, *"--cap_max 330 --bsn_width 2 --bsn_steps 1".split()]
SPIKENERF = "--recipe spikenerf --iterations 6 --samples 16 --rays 64 --quiet".split()
CASCADE = ["--recipe", "cascade", *_WITHOUT_NETWORK, "--cap_max", "330"]


def small_training(scene: Path, model: Path, *flags: str) -> Training:
    """The training that train.py makes of these flags."""
    settings = parse_training(current_names(["-s", str(scene), "-m", str(model), *flags]))
    return build(settings, scene_of(settings.scene))


def stepped(training: Training, steps: int = 6) -> Training:
    for _ in range(steps):
        training.step()
    return training


def learned(t: Training) -> dict[str, torch.Tensor]:
    """Everything learned so far."""
    state = t.state
    network = {} if state.network is None else state.network.state_dict()
    return {
        **{name: value.detach().clone() for name, value in state.field.parameters().items()},
        "poses": state.trajectory.view(1, state.recording.u).detach(),
        **{name: value.clone() for name, value in network.items()},
    }


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
