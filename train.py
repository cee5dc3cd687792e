"""Train a 3D Gaussian scene, camera trajectories and Recon-Net on spike streams, without ground truth.

    python train.py -s data/tanabata
"""

from __future__ import annotations

import utils  # isort: skip  # noqa: F401  (before torch: see there)

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from threading import Event

from arguments import RECIPES, Settings, load_settings
from arguments.parser import (
    asks_for_help,
    current_names,
    given_recipe,
    parse_training,
    resumed_settings,
    scene_options,
    training_parser,
    wants_images,
)
from commands.guard import guarded
from scene.dataset import SceneData, scene_of
from scene.model_folder import TRAINING, claim
from training import checkpoint
from training.hooks import Hook, Journal, Keeper, Watching
from training.recipes import build
from training.training import Training
from utils.checkpoint import latest_checkpoint
from utils.device import share_processors
from utils.io import remove_leftovers
from utils.locks import FolderLock
from utils.processes import Processes
from utils.signals import StopRequest, handled
from utils.telling import be_quiet, counted, say


def learn(training: Training, hooks: Sequence[Hook], stop: Event) -> None:
    """The training loop: runs steps until all are done or ``stop`` is set in any process."""
    while training.iteration < training.steps and not training.processes.any(stop.is_set()):
        terms = training.step()
        for hook in hooks:
            hook(training, terms)


def run(training: Training) -> int:
    """Train with progress and checkpoints; Ctrl-C, SIGTERM and SIGHUP stop it cleanly.  Returns the exit status."""
    settings, request = training.settings, StopRequest()
    if not training.processes.first:
        with handled(request.receive):
            learn(training, [], request.event)
        return 0
    journal = Journal(training, echo=sys.stdout if settings.run.json_log else None)
    hooks: list[Hook] = [journal, Keeper()]
    if settings.run.viewer:
        hooks.insert(0, Watching(training, journal, request.event))
    with handled(request.receive):  # until everything is saved
        with ExitStack() as open_hooks:
            for hook in hooks:
                open_hooks.callback(hook.close)
            learn(training, hooks, request.event)
        path = checkpoint.save(training)
        journal.finish(training)
        done = training.iteration == training.steps
        folder = checkpoint.save_model(training) if done or settings.run.viewer else None  # as the viewer's button says
    if done:
        say(f"{counted(training.steps, 'iteration')} in {journal.seconds_in_all:.0f} s; the model is in {folder}")
        return 0
    say(
        f"Stopped{request.reason} after iteration {training.iteration}; the state is saved in {path}. Continue with:\n"
        f"  {settings.scene.resuming}"
    )
    return request.status


def start(settings: Settings, scene: SceneData, processes: Processes) -> int:
    """Start a new training; an earlier run in its folder is moved aside."""
    model = settings.scene.model_path
    with processes.only_first(lambda: FolderLock(model, TRAINING)):  # nothing is built for a folder that is in use
        training = shared(processes.together(lambda: build(settings, scene)), processes)
    if not processes.first:
        return run(training)
    lock, aside = claim(model)
    with lock:
        if aside is not None:
            say(f"{model} contained an earlier run, which is now in {aside}")
        remove_leftovers(model)
        checkpoint.save_settings(training)
        training.state.field.save_start(Path(model))
        sizes = ", ".join(f"{count} {name}" for name, count in training.state.field.sizes().items())
        say(
            f"{settings.recipe}: {counted(len(scene.train), 'view')} of {scene.size[0]}x{scene.size[1]}, "
            f"{counted(training.steps, 'step')}, {sizes} at first"
        )
        recording = training.state.recording
        if recording.folder is not None:
            say(f"The targets of {len(recording)} views are in files in {recording.folder} while the training runs")
        return run(training)


def resume(settings: Settings, processes: Processes) -> int:
    """Resume training from the newest checkpoint.

    Raises:
        ValueError: there is no checkpoint, or it does not fit the scene.
    """
    model = settings.scene.model_path
    with processes.only_first(lambda: FolderLock(model, TRAINING)):
        if processes.first:
            remove_leftovers(model)
        path = latest_checkpoint(model)
        if path is None:
            raise ValueError(f"{model}: no checkpoint chkpnt<iteration>.pth to resume from")
        training = shared(processes.together(lambda: restored(settings, path)), processes)
        if processes.first:
            checkpoint.save_settings(training)  # the scene may have been moved
        return run(training)


def restored(settings: Settings, path: Path) -> Training:
    """The training whose checkpoint is in ``path``."""
    training = build(settings, scene_of(settings.scene, not settings.from_spikes))
    try:
        checkpoint.load(training, path)
    except ValueError as error:
        other = latest_checkpoint(path.parent, path)
        if other is None:
            raise
        raise ValueError(f"{error}; without {path.name}, --resume would continue with {other.name}") from error
    return training


def begun(settings: Settings) -> bool:
    """Whether the folder of the results has a checkpoint of a training with these settings."""
    model = settings.scene.model_path
    if latest_checkpoint(model) is None:
        return False
    place = {"source_path", "model_path", "start_from", "resume"}
    stored, wanted = load_settings(model).values(), settings.values()
    return all(stored.get(name) == value for name, value in wanted.items() if name not in place)


def shared(training: Training, processes: Processes) -> Training:
    """The training with its steps shared by ``processes``, which must all have built the same one.

    Raises:
        ValueError: a number of shards that they cannot share, other settings, or another machine.
    """
    processes.own(training.settings.rates.shards)
    processes.same("the command line", " ".join(sys.argv[1:]))
    processes.same("the state", training.state.digest())
    training.processes = processes
    return training


def show_help(argv: Sequence[str]) -> int:
    """Print the flags with the values that this command line would use."""
    settings: Settings = RECIPES[given_recipe(argv) or "timing"].of()
    try:
        if "--resume" in argv:
            settings = resumed_settings(argv)
        else:
            scene = scene_of(scene_options(argv), wants_images(argv))
            settings = parse_training(argv, scene.has_spikes).for_scene(len(scene.train), *scene.size)
    except ValueError:
        pass  # no scene, or not readable: show the recipe's defaults
    training_parser(settings, all_flags=asks_for_help(argv) == "--help-all").print_help()
    return 0


def main() -> int:
    be_quiet("--quiet" in sys.argv)
    argv = current_names(sys.argv[1:])
    if asks_for_help(argv):
        return show_help(argv)
    with Processes.of_environment() as processes:
        be_quiet("--quiet" in argv or not processes.first)
        if "--resume" in argv:
            settings = resumed_settings(argv)
            be_quiet(settings.run.quiet or not processes.first)
            share_processors(settings.run.threads, processes.local_size)
            return resume(settings, processes)
        scene = processes.together(lambda: scene_of(scene_options(argv), wants_images(argv)))
        for note in scene.notes:
            say(note)
        settings = parse_training(argv, scene.has_spikes)
        be_quiet(settings.run.quiet or not processes.first)
        share_processors(settings.run.threads, processes.local_size)
        if processes.restarted and begun(settings.for_scene(len(scene.train), *scene.size)):
            return resume(settings, processes)
        return start(settings, scene, processes)


if __name__ == "__main__":
    sys.exit(guarded(main))
