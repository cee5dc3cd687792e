"""Hooks that follow a training: log and curves, checkpoints, saved models, the viewer.

A hook is called after every step, with the values of the loss terms.
"""

from __future__ import annotations

import copy
import json
import time
from threading import Event
from typing import Protocol, TextIO

import torch

from gaussian_renderer.drawing import Drawing
from gaussian_renderer.paths import read_views
from gaussian_renderer.viewer import Canvas, RecordedPictures, Viewer
from training import checkpoint
from training.training import Training
from utils.run_log import Board, RunLog
from utils.telling import announce, bar


class Hook(Protocol):
    """Follows a training step by step."""

    def __call__(self, training: Training, terms: dict[str, float]) -> None:
        """Process a step and its loss terms."""

    def close(self) -> None:
        """Called once, when the training ends for any reason."""


class Journal:
    """Progress bar, ``log.jsonl``, and TensorBoard if requested.

    Args:
        echo: a stream that also receives the log rows.

    Attributes:
        latest: PSNR of the probe and number of Gaussians in the latest row.
    """

    def __init__(self, training: Training, echo: TextIO | None = None):
        self._echo = echo
        run, model = training.settings.run, training.settings.scene.model_path
        self.latest: dict[str, float] = {}
        self._log = RunLog(model, training.iteration)
        self._board = Board(model, training.iteration) if run.tensorboard else None
        self._bar = bar("Training", training.steps, training.iteration)
        self._started = time.monotonic()

    @property
    def seconds_in_all(self) -> float:
        """The time of the whole run, before it was resumed included."""
        return self._log.before + self.seconds

    @property
    def seconds(self) -> float:
        """Seconds since this process started training."""
        return time.monotonic() - self._started

    def __call__(self, training: Training, terms: dict[str, float]) -> None:
        self._bar.update()
        run = training.settings.run
        if training.iteration % run.log_every and training.iteration != training.steps:
            return
        value, image = training.probe()
        sizes = training.state.field.sizes()
        self.latest = {"psnr": value, **sizes}
        row = self._log.add(training.iteration, self.seconds, **terms, **self.latest)
        self._bar.set_postfix(loss=f"{row['loss']:.4f}", psnr=f"{row['psnr']:.2f}", **sizes)
        if self._board is not None:
            self._board.add(row, terms, image, training.state.field.histograms())
        if self._echo is not None:
            self._echo.write(json.dumps(row) + "\n")
            self._echo.flush()

    def finish(self, training: Training) -> None:
        """Record how the run was made, and its time and memory."""
        self._log.finish(training.iteration, self.seconds)

    def close(self) -> None:
        self._bar.close()
        if self._board is not None:
            self._board.close()


# Iterations between checks that all numbers are finite; every saving checks them too.
_FINITE_EVERY = 25


class Keeper:
    """Saves models and checkpoints during training, and stops it when a number is no longer finite."""

    def __call__(self, training: Training, terms: dict[str, float]) -> None:
        del terms
        run = training.settings.run
        if training.iteration % _FINITE_EVERY == 0:
            checkpoint.require_finite(training)
        if training.iteration in run.save_iterations:
            checkpoint.save_model(training)
        every = run.checkpoint_every
        if every and training.iteration % every == 0 and training.iteration < training.steps:
            checkpoint.save(training)

    def close(self) -> None:
        """Nothing to close."""


class Watching:
    """Shows the training in the browser, with buttons to pause and stop it.

    Args:
        journal: provides the latest log row, shown beside the losses.
        stop: set by the stop button.
    """

    def __init__(self, training: Training, journal: Journal, stop: Event):
        checkpoint.save_cameras(training)
        state, recording, c = training.state, training.state.recording, training.settings
        self._journal, self._stop = journal, stop
        pictures = RecordedPictures(
            recording.scene,
            recording.window,
            lambda views, scene: [e.to(torch.device("cpu")) for e in recording.read(views, scene.sensor)],
            spikes=recording.from_spikes,
            subframe_width=c.subframe_width,
            network=copy.deepcopy(state.network),
        )
        field = state.gaussian_field
        drawing = Drawing(field.gaussians, field.rasterizer, surroundings=field.surroundings)
        self._viewer = Viewer(
            Canvas(drawing, read_views(c.scene.model_path), pictures),
            initial=torch.stack([view.camera.w2c for view in recording.scene.train]),
            host=c.run.viewer_host,
            port=c.run.viewer_port,
            trajectory=state.trajectory,
            training=True,
        )
        announce(f"Watch the training at {self._viewer.url}")

    def __call__(self, training: Training, terms: dict[str, float]) -> None:
        state, shown = training.state, terms | self._journal.latest
        sensor = checkpoint.learned_sensor(training)
        now = state.gaussians, state.iteration, shown, state.network, sensor
        answer = self._viewer.update(*now)
        while answer == "paused" and not self._stop.wait(0.1):
            answer = self._viewer.update(*now)
        if answer == "stopped":
            self._stop.set()

    def close(self) -> None:
        self._viewer.close()
