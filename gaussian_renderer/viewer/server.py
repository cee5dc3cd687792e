"""The viewer's browser interface: one session per browser, rendered in its own thread.

Requires viser, which is imported only when a ``Viewer`` is created: training and rendering work without it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import math
import threading
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from gaussian_renderer.paths import SavedView, Surround, save_camera_file
from gaussian_renderer.viewer.access import Access, listening
from gaussian_renderer.viewer.canvas import BESIDE, GAUSSIANS, NOTHING, WIPE, Canvas, Choice
from gaussian_renderer.viewer.sources import RecordedPictures
from gaussians.model import PARAMETERS, GaussianModel
from recon_net import SpikeToImage
from scene.trajectory import Trajectory
from spike import SensorModel
from utils import se3
from utils.run_log import SIZES

if TYPE_CHECKING:
    import viser

# Browsers at a time: each has a thread.
_MOST_CLIENTS = 32
# Sliders and fields have limits in the browser, which a client can ignore.
_LINES, _SIZES, _ASPECTS, _ANGLES, _MOST_KEYS = (120, 1080), (0.02, 1.0), (0.2, 5.0), (0.02, 3.0), 1000

State = Literal["running", "paused", "stopped"]

FREE = "free camera"
_STEPS = ("previous", "next")
# Seconds without motion before an image is drawn at full resolution, and time budget for an image during motion.
_STILL, _BUDGET = 0.15, 0.04
# Seconds that a browser has to report its camera's new position; until then, its reports are outdated.
_ARRIVAL = 5.0
# Seconds between updates of a scene in training, and between updates of its curves.
_LOOK_EVERY, _CURVES_EVERY = 1.0, 2.0
_MOST_POINTS = 1000
_PLAY_SECONDS = 3.0
_CORRECTED, _INITIAL = (255, 150, 40), (80, 160, 255)
# Names in ``losses`` that are not losses.
_NOT_LOSSES = ("psnr", *SIZES)


class Viewer:
    """Serves a scene to browsers until ``close`` is called.

    Args:
        canvas: draws the images; has the views with their corrected trajectories.
        initial: mid-exposure poses [V, 4, 4] before correction, if known.
        host: address to listen on; only this machine by default.  On others, whoever learns the URL controls it.
        port: port; the next free one is used if it is taken.
        path_file: file in which "save path" stores the key poses (``render.py --video`` can read it).
        trajectory: the trajectories in training, in the order of the views; ``update`` follows them.
        training: whether to show progress, pause and stop.

    Raises:
        ValueError: viser is not installed, or the address cannot be used.
    """

    def __init__(
        self,
        canvas: Canvas,
        *,
        initial: Tensor | None = None,
        host: str = "127.0.0.1",
        port: int = 8080,
        path_file: Path | None = None,
        trajectory: Trajectory | None = None,
        training: bool = False,
    ):
        try:
            import viser
        except ImportError:
            raise ValueError("the viewer needs the package viser: pip install viser") from None

        self.canvas, self.initial, self.path_file = canvas, initial, path_file
        self._trajectory = trajectory
        self._sessions: dict[int, _Session] = {}
        self._lock = threading.Lock()
        self._state: State = "running"
        # Steps that were last reported, shown and charted, and the earliest times of the next updates.
        self._iteration = self._looked = self._charted = -1
        self._look_at = self._chart_at = 0.0
        self._curves: list[tuple[int, dict[str, float]]] = []
        self._every = 1
        surround = Surround.of(self.views)
        self.spread = float(np.linalg.norm(surround.centers - surround.centers.mean(0), axis=-1).mean()) or 1.0
        self._access = Access(host, lambda: len(self._sessions) >= _MOST_CLIENTS)
        listener = listening(host, port)
        # viser always prints a banner; the command decides what to print.
        with self._access.serving(listener), contextlib.redirect_stdout(io.StringIO()):
            self.server = viser.ViserServer(host=host, port=port, label="USP-Gaussian", verbose=False)
        self.host, self.port = host, listener.getsockname()[1]
        # A browser may ask for a public tunnel to this server; nobody gets one.
        for name in ("request_share_url", "disconnect_share_url"):
            setattr(self.server, name, lambda *_, **__: None)
        # Beside the image, not over it: two images are compared there.
        self.server.gui.configure_theme(
            control_width="small", dark_mode=True, show_logo=False, show_share_button=False
        )
        self.server.gui.main_panel.dock_right()
        self.server.scene.set_up_direction(tuple(surround.up))
        start = self.views[len(self.views) // 2]
        pose = se3.inverse(start.middle).double().numpy()
        center, forward = pose[:3, 3], pose[:3, 2]
        # One step behind the middle view, so that the cameras are visible.
        camera = self.server.initial_camera
        camera.position = center - 0.7 * self.spread * forward
        camera.look_at = center + max(float((surround.focus - center) @ forward), 1e-3) * forward
        camera.up = -pose[:3, 1]
        camera.fov = 2 * math.atan(start.height / 2 / float(start.K[1, 1]))
        if training:
            self._training_panel()
            self._take(canvas.drawing.gaussians)
        self.server.on_client_connect(self._connected)
        self.server.on_client_disconnect(self._disconnected)

    @property
    def views(self) -> list[SavedView]:
        """The cameras; their poses change during training."""
        return self.canvas.views

    @property
    def url(self) -> str:
        """The viewer's address, with the secret that opens it."""
        return self._access.url(self.port)

    @property
    def state(self) -> State:
        """The state that the user requests for the training."""
        return self._state

    def close(self) -> None:
        """Disconnect all browsers and free the port."""
        for session in list(self._sessions.values()):
            session.close()
        with contextlib.redirect_stdout(io.StringIO()):
            self.server.stop()

    def _connected(self, client: viser.ClientHandle) -> None:
        session = _Session(self, client)
        with self._lock:
            self._sessions[client.client_id] = session
        # This browser's data may be outdated: nothing is copied while no browser is connected.
        self._looked = self._charted = -1

    def _disconnected(self, client: viser.ClientHandle) -> None:
        with self._lock:
            session = self._sessions.pop(client.client_id, None)
        if session is not None:
            session.close()

    # ---- training --------------------------------------------------------------------------------------------

    def _training_panel(self) -> None:
        from viser import uplot

        gui = self.server.gui
        with gui.add_folder("Training", order=-1):
            self._progress = gui.add_markdown("waiting for the first step")
            self._pause = gui.add_button("Pause", hint="Resume continues from the same step")
            stop = gui.add_button("Stop and save", color="red")
            self._chart: Any = gui.add_uplot(
                (np.zeros(1), np.zeros(1)), (uplot.Series(), uplot.Series(label="loss")), aspect=1.6, visible=False
            )

        @self._pause.on_click
        def _(_: object) -> None:
            if self._state != "stopped":
                self._state = "paused" if self._state == "running" else "running"
                self._pause.label = "Resume" if self._state == "paused" else "Pause"

        @stop.on_click
        def _(_: object) -> None:
            self._state = "stopped"
            self._progress.content = "**Stopping.** The model is being saved."

    def update(
        self,
        gaussians: GaussianModel,
        iteration: int,
        losses: Mapping[str, float],
        network: SpikeToImage | None = None,
        sensor: SensorModel | None = None,
    ) -> State:
        """Show the progress of training; to be called after every step, from the training thread.

        The Gaussians and the network are copied at most once per second, and only while a browser is connected.
        The browser can then be served in the meantime, and being watched does not change the training.

        Args:
            losses: the terms of the step; ``psnr`` and ``gaussians`` among them are shown as numbers.
            network, sensor: the current Recon-Net and sensor.

        Returns:
            ``running``; ``paused``: the caller waits and calls again with the same step; ``stopped``: the caller
            saves and ends.
        """
        if iteration != self._iteration:
            self._iteration = iteration
            if iteration % self._every == 0:
                self._curves.append((iteration, dict(losses)))
                if len(self._curves) > _MOST_POINTS:
                    self._curves, self._every = self._curves[1::2], 2 * self._every
        if not self._sessions:
            return self._state
        now, paused = time.monotonic(), self._state == "paused"
        # In a pause, the last step is shown at once, and then nothing more: repeated calls cost nothing.
        if self._looked != iteration and (now >= self._look_at or paused):
            self._looked, self._look_at = iteration, now + _LOOK_EVERY
            if isinstance(self.canvas.pictures, RecordedPictures):
                self.canvas.pictures.learn(network, sensor)
            self._take(gaussians)
        if self._charted != iteration and (now >= self._chart_at or paused):
            self._charted, self._chart_at = iteration, now + _CURVES_EVERY
            self._show_progress(iteration, len(gaussians))
            if self._trajectory is not None:
                self._follow(self._trajectory)
        return self._state

    def _take(self, gaussians: GaussianModel) -> None:
        """Show a copy, because the Gaussians change while they are drawn."""
        raw = {name: gaussians.raw[name].detach().clone() for name in PARAMETERS}
        still = GaussianModel(raw, gaussians.sh_degree, gaussians.low_pass)
        self.canvas.drawing = dataclasses.replace(self.canvas.drawing, gaussians=still)
        for session in list(self._sessions.values()):
            session.refresh()

    def _show_progress(self, iteration: int, count: int) -> None:
        from viser import uplot

        text = f"iteration **{iteration}**, {count} Gaussians"
        seen = [row["psnr"] for _, row in self._curves if "psnr" in row]
        self._progress.content = text + (f", PSNR {seen[-1]:.2f} dB" if seen else "")
        names = sorted({name for _, row in self._curves for name in row if name not in _NOT_LOSSES})
        steps = np.array([step for step, _ in self._curves], np.float64)
        if len(steps) < 2 or not names:
            return
        curves = [_held([row.get(name) for _, row in self._curves]) for name in names]
        colors = ("#ffa030", "#50a0ff", "#60d080", "#e06080", "#b080ff", "#d0d060", "#60d0d0")
        self._chart.series = (
            uplot.Series(label="iteration"),
            *(
                uplot.Series(label=name, stroke=colors[i % len(colors)], width=1)
                for i, name in enumerate(names)
            ),
        )
        self._chart.data = (steps, *curves)
        self._chart.scales = {"x": uplot.Scale(time=False), "y": uplot.Scale(auto=True)}
        self._chart.visible = True

    def _follow(self, trajectory: Trajectory) -> None:
        """Copy the current poses of the training."""
        with torch.no_grad():
            for i, view in enumerate(self.views):
                poses = trajectory.view(i, view.times.to(trajectory.increments.device)).cpu()
                self.views[i] = dataclasses.replace(view, w2c=poses)
        for session in list(self._sessions.values()):
            session.draw_cameras()


def _within(value: Any, limits: tuple[float, float]) -> float:
    """A client's number, clamped; the lower limit if it is none."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return limits[0]
    return min(max(number, limits[0]), limits[1]) if math.isfinite(number) else limits[0]


def _held(values: Sequence[float | None]) -> np.ndarray:
    """Values of a curve; gaps repeat the previous value (the chart draws nothing next to a NaN)."""
    last = next((value for value in values if value is not None), 0.0)
    held = [last := last if value is None else value for value in values]
    return np.array(held, np.float64)


def _pose_of(position: np.ndarray, wxyz: np.ndarray) -> Tensor:
    """World-to-camera pose [4, 4] of a browser's camera (OpenCV axes, as ours)."""
    to_world = np.eye(4)
    to_world[:3, :3] = Rotation.from_quat(np.roll(wxyz, -1)).as_matrix()
    to_world[:3, 3] = position
    return torch.as_tensor(np.linalg.inv(to_world), dtype=torch.float32)


def _frustum_lines(to_world: np.ndarray, view: SavedView, size: float) -> np.ndarray:
    """Edges [8, 2, 3] of a camera's frustum, as large as viser's own at the scale ``size``."""
    x, y = (side / 2 / float(focal) for side, focal in ((view.width, view.K[0, 0]), (view.height, view.K[1, 1])))
    corners = np.array([[-x, -y, 1], [x, -y, 1], [x, y, 1], [-x, y, 1]])
    # viser keeps the volume of the frustum constant for every field of view.
    corners *= size / np.cbrt(x * y / 3)
    corners = corners @ to_world[:3, :3].T + to_world[:3, 3]
    rays = [np.stack([to_world[:3, 3], corner]) for corner in corners]
    return np.stack(rays + [np.stack([corners[i], corners[(i + 1) % 4]]) for i in range(4)])


class _Session:
    """One browser: its camera, its controls, and the thread that draws for it."""

    def __init__(self, viewer: Viewer, client: viser.ClientHandle):
        self.viewer, self.client = viewer, client
        self._condition = threading.Condition()
        self._dirty, self._closed, self._sharp = True, False, False
        self._moved = 0.0
        self._view: int | None = None
        # Where the camera was last placed, whether the browser has confirmed it, and the deadline for that.
        self._target = np.zeros(3), np.zeros(4)
        self._arrived, self._arrives_by = False, 0.0
        self._seconds_a_pixel = 1e-7
        self._keys: list[Tensor] = []
        self._controls()
        self.draw_cameras()
        client.camera.on_update(lambda _: self._camera_moved())
        self._thread = threading.Thread(target=self._work, name=f"viewer-{client.client_id}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the thread."""
        with self._condition:
            self._closed = True
            self._condition.notify()

    def refresh(self, moving: bool = False) -> None:
        """Draw again, at a lower resolution if the camera is moving."""
        with self._condition:
            self._dirty, self._sharp = True, False
            if moving:
                self._moved = time.monotonic()
            self._condition.notify()

    # ---- controls --------------------------------------------------------------------------------------------

    def _controls(self) -> None:
        gui: Any = self.client.gui
        names, modes = [view.name for view in self.viewer.views], self.viewer.canvas.modes(None)
        # Six rows; the rest is in closed folders, so that one sees the scene first.
        self._choose = gui.add_dropdown("view", [FREE, *names], hint="look through a camera of the recording")
        self._step = gui.add_button_group("jump to", _STEPS)
        self._mode = gui.add_dropdown("image", modes)
        self._u = gui.add_slider("exposure u", 0.0, 1.0, 0.01, 0.5, hint="0: the shutter opens, 1: it closes")
        self._play = gui.add_checkbox("play", False, hint="play the exposure of the view")
        self._status = gui.add_markdown("")
        with gui.add_folder("Compare", expand_by_default=False):
            self._together = gui.add_dropdown("compare", [NOTHING, BESIDE, WIPE], hint="needs a view")
            self._other = gui.add_dropdown("with", modes)
            self._border = gui.add_slider("wipe", 0.0, 1.0, 0.01, 0.5)
        with gui.add_folder("Cameras and size", expand_by_default=False):
            self._corrected = gui.add_checkbox("trajectories", True, hint="from u = 0 (yellow) to u = 1 (red)")
            known = self.viewer.initial is not None
            self._initial = gui.add_checkbox("initial poses (blue)", known, disabled=not known)
            self._size = gui.add_slider("camera size", 0.02, 1.0, 0.02, 0.1)
            self._lines = gui.add_slider("max height", 120, 1080, 20, 540, hint="height of a still image, in pixels")
        if self.viewer.path_file is not None:
            with gui.add_folder("Camera path", expand_by_default=False):
                self._path_status = gui.add_markdown("no key poses yet")
                add, clear, save = (gui.add_button(text) for text in ("Add this pose", "Clear", "Save path"))
            add.on_click(lambda _: self._edit_path([*self._keys, self._camera()][:_MOST_KEYS]))
            clear.on_click(lambda _: self._edit_path([]))
            save.on_click(lambda _: self._save_path())
        self._choose.on_update(lambda _: self._view_chosen())
        self._step.on_click(lambda _: self._view_stepped(1 if self._step.value == _STEPS[1] else -1))
        self._u.on_update(lambda _: self._scrubbed())
        for control in (self._mode, self._other, self._together, self._lines, self._play):
            control.on_update(lambda _: self.refresh())
        self._border.on_update(lambda _: self.refresh(moving=True))
        for control in (self._corrected, self._initial):
            control.on_update(lambda _: self._show_cameras())
        self._size.on_update(lambda _: self.draw_cameras())

    def _edit_path(self, keys: list[Tensor]) -> None:
        self._keys = keys
        self._path_status.content = f"{len(keys)} key poses" if keys else "no key poses yet"

    def _save_path(self) -> None:
        assert self.viewer.path_file is not None
        if not self._keys:
            self._path_status.content = "add a pose first"
            return
        try:
            save_camera_file(self.viewer.path_file, self._keys)
            self._path_status.content = f"saved; `python render.py -m ... --video {self.viewer.path_file}`"
        except ValueError as error:
            self._path_status.content = f"**{error}**"

    def _view_chosen(self) -> None:
        names = [view.name for view in self.viewer.views]
        chosen = names.index(self._choose.value) if self._choose.value in names else None
        if chosen == self._view:
            return
        self._view = chosen
        view = None if chosen is None else self.viewer.views[chosen]
        modes = self.viewer.canvas.modes(view)
        for control in (self._mode, self._other):
            kept = control.value if control.value in modes else GAUSSIANS
            control.options = modes
            control.value = kept
        if view is not None:
            self._jump(view)
        self._show_cameras()
        self.refresh()

    def _view_stepped(self, by: int) -> None:
        """Look through the previous or next view; from the free camera, through the last or first."""
        at = self._view if self._view is not None else (-1 if by > 0 else 0)
        self._clicked((at + by) % len(self.viewer.views), None)

    def _clicked(self, index: int, _: object) -> None:
        self._choose.value = self.viewer.views[index].name

    def _scrubbed(self) -> None:
        if self._view is not None:
            self._jump(self.viewer.views[self._view])
            self.refresh()

    def _jump(self, view: SavedView) -> None:
        """Place the browser's camera at the view's pose at u, so that free flight starts from there."""
        to_world = se3.inverse(view.at(torch.tensor([self._time()]))[0]).double().numpy()
        wxyz = np.roll(Rotation.from_matrix(to_world[:3, :3]).as_quat(), 1)
        self._target = to_world[:3, 3], wxyz
        self._arrived, self._arrives_by = False, time.monotonic() + _ARRIVAL
        camera = self.client.camera
        rows = max(view.height, view.width / _within(camera.aspect, _ASPECTS))
        with self.client.atomic():
            camera.position, camera.wxyz = self._target
            camera.fov = 2 * math.atan(rows / 2 / float(view.K[1, 1]))

    def _time(self) -> float:
        """The chosen time in the exposure."""
        return _within(self._u.value, (0.0, 1.0))

    def _camera(self) -> Tensor:
        return _pose_of(self.client.camera.position, self.client.camera.wxyz)

    def _camera_moved(self) -> None:
        """Follow the browser's camera; if the user moves it away from the current view, leave the view."""
        if self._view is not None:
            there = not self._away()
            self._arrived = self._arrived or there or time.monotonic() > self._arrives_by
            if not self._arrived:
                return
            if not there:
                self._choose.value = FREE
        self.refresh(moving=self._view is None)

    def _away(self) -> bool:
        """Whether the browser's camera has moved from where it was placed, by more than rounding."""
        (position, wxyz), camera = self._target, self.client.camera
        turn = 2 * math.acos(min(abs(float(camera.wxyz @ wxyz)), 1.0))
        return float(np.linalg.norm(camera.position - position)) > 1e-4 * self.viewer.spread or turn > 1e-3

    # ---- cameras in the scene --------------------------------------------------------------------------------

    def draw_cameras(self) -> None:
        """Draw the trajectories and frustums."""
        scene, views = self.client.scene, self.viewer.views
        size = _within(self._size.value, _SIZES) * self.viewer.spread
        with self.client.atomic():
            self._groups = {
                name: scene.add_frame(f"/{name}", show_axes=False, visible=shown)
                for name, shown in self._shown_cameras().items()
            }
            paths = [se3.inverse(view.w2c)[:, :3, 3].numpy() for view in views]
            moving = [(path, view) for path, view in zip(paths, views, strict=True) if len(path) > 1]
            if moving:
                segments = np.concatenate([np.stack([path[:-1], path[1:]], axis=1) for path, _ in moving])
                u = np.concatenate([view.times.numpy()[:-1] for _, view in moving])
                early, late = np.array([255, 190, 0]), np.array([230, 0, 0])
                colors = (early + u[:, None] * (late - early)).astype(np.uint8)[:, None].repeat(2, axis=1)
                scene.add_line_segments(
                    "/corrected/paths", segments, colors, thickness=3.0, thickness_units="screen"
                )
            for i, view in enumerate(views):
                to_world = se3.inverse(view.middle).double().numpy()
                frustum = scene.add_camera_frustum(
                    f"/corrected/view{i}",
                    fov=2 * math.atan(view.height / 2 / float(view.K[1, 1])),
                    aspect=view.width / view.height,
                    scale=size,
                    thickness=1.5,
                    thickness_units="screen",
                    color=_CORRECTED,
                    wxyz=np.roll(Rotation.from_matrix(to_world[:3, :3]).as_quat(), 1),
                    position=to_world[:3, 3],
                )
                frustum.on_click(partial(self._clicked, i))
            if self.viewer.initial is not None:
                lines = [
                    _frustum_lines(se3.inverse(pose).double().numpy(), view, size)
                    for pose, view in zip(self.viewer.initial, views, strict=False)
                ]
                scene.add_line_segments(
                    "/initial/views", np.concatenate(lines), _INITIAL, thickness=1.5, thickness_units="screen"
                )

    def _shown_cameras(self) -> dict[str, bool]:
        """Visibility of the cameras; hidden while looking through one, since they would cover the image."""
        chosen = {"corrected": self._corrected.value, "initial": self._initial.value}
        return {name: value and self._view is None for name, value in chosen.items()}

    def _show_cameras(self) -> None:
        for name, shown in self._shown_cameras().items():
            self._groups[name].visible = shown

    # ---- drawing ---------------------------------------------------------------------------------------------

    def _work(self) -> None:
        last = time.monotonic()
        while True:
            with self._condition:
                while not (self._dirty or self._closed):
                    # After motion, a full-resolution image is due; otherwise wait for the next event.
                    wait = None if self._sharp else max(self._moved + _STILL - time.monotonic(), 0.0)
                    if wait is not None and not self._condition.wait(wait):
                        break
                    if wait is None:
                        self._condition.wait()
                if self._closed:
                    return
                self._dirty = False
            started = time.monotonic()
            moving = started - self._moved < _STILL
            try:
                image = self._picture(moving)
                # The browser may have disconnected, which is not an error.
                self.client.scene.set_background_image(image, format="jpeg", jpeg_quality=70 if moving else 92)
                self.client.flush()
            except Exception as error:  # the thread must survive, and the user must see the error
                self._status.content = f"**could not draw:** {error}"
                self._sharp = True
                continue
            self._sharp = not moving
            elapsed = time.monotonic() - started
            if self._view is None:
                self._seconds_a_pixel = elapsed / (image.shape[0] * image.shape[1])
            self._status.content = f"{image.shape[1]}x{image.shape[0]}, {1000 * elapsed:.0f} ms"
            if self._play.value and self._view is not None:
                self._u.value = round((self._time() + (started - last) / _PLAY_SECONDS) % 1.0, 2)
            last = started

    def _picture(self, moving: bool) -> np.ndarray:
        """The image to show now, uint8 [H, W, 3]."""
        camera, canvas = self.client.camera, self.viewer.canvas
        aspect, full = _within(camera.aspect, _ASPECTS), int(_within(self._lines.value, _LINES))
        border = _within(self._border.value, (0.0, 1.0))
        choice = Choice(self._mode.value, self._other.value, self._together.value, border)
        if self._view is not None:
            view = self.viewer.views[self._view]
            image = canvas.of_view(view, self._time(), choice, aspect, least=full)
        else:
            height = min(full, max(int(_within(camera.image_height or full, _LINES)), 1))
            if moving:
                affordable = math.sqrt(_BUDGET / max(self._seconds_a_pixel, 1e-12) / aspect)
                height = int(min(height, max(affordable, height / 3)))
            image = canvas.free(
                self._camera(), _within(camera.fov, _ANGLES), max(round(height * aspect), 1), height, choice.mode,
                settled=not moving,
            )  # fmt: skip
        return np.asarray((image * 255).round().astype(np.uint8))
