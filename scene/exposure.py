"""One view's recorded exposure: everything that renders and Recon-Net are compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scene.cameras import Camera
from scene.lens import to_pinhole, to_sensor
from spike import SensorModel, SpikeStream, Targets, WindowSpec
from spike.inspection import refuse_constant
from spike.targets import Mode
from spike.timing import Guide
from utils.crops import Crop
from utils.mapped import MappedTensors
from utils.remapping import Remap

# Frames between the renders that guide the re-timing.
GUIDE_EVERY = 4
# Least light of a guide, as a share of white: where it is nearly dark, its ratios are noise.
GUIDE_FLOOR = 0.02

# Function from times u [K] of an exposure to the intensities [K, 1, H, W] that its pixels should have seen.
Sight = Callable[[Tensor], Tensor]


def usable_margin(stream: SpikeStream, spec: WindowSpec) -> int:
    """Number of frames on either side of the central context of ``stream`` that improve its timing intensities.

    Raises:
        ValueError: the stream is shorter than the context.
    """
    spare = (len(stream) - spec.context) // 2
    if spare < 0:
        raise ValueError(
            f"{stream.name}: a stream of {len(stream)} frames, expected at least {spec.context}: an exposure "
            f"of {spec.exposure} with half a short window of {spec.short} on each side"
        )
    # Frames beyond the context show the intervals of dark pixels; more than a context's length adds nothing.
    return min(spare, spec.context // 2)


def guide(sight: Sight, spec: WindowSpec, sensor: SensorModel, margin: int) -> Guide:
    """What a stream of the context and ``margin`` more frames at either end saw, by the renders of a scene."""
    context = np.linspace(0, spec.context - 1, (spec.context - 1) // GUIDE_EVERY + 1)
    u = (context - spec.half) / max(spec.exposure - 1, 1)
    images = sight(torch.from_numpy(u).float())[:, 0].cpu()
    gain = images.new_tensor(sensor.gain)
    if sensor.gain_map is not None:
        gain = gain * sensor.gain_map.to(images)
    rates = gain * images + sensor.dark()
    return Guide(rates.clamp_min(GUIDE_FLOOR * sensor.gain).numpy(), context + margin)


def through_lens(camera: Camera, sight: Sight) -> Sight:
    """What the pixels of a camera's sensor should have seen, given what its pinhole image should show."""
    if camera.lens is None:
        return sight
    remap = to_sensor(camera.lens)
    return lambda u: remap(sight(u))


# Least share of a pixel of a pinhole image that is from a stuck pixel of the sensor.
_SHARE = 1e-3


def stuck_in_images(sensor: SensorModel, cameras: Iterable[Camera]) -> Tensor | None:
    """Mask [H, W] of the pixels in the cameras' pinhole images that a stuck pixel of the sensor has a part in, or None.

    If the cameras have several lenses, a pixel counts that is stuck through any of them.
    """
    if sensor.stuck is None:
        return None
    mask, lenses = sensor.stuck.mask, {camera.lens for camera in cameras}
    shown = [mask if lens is None else to_pinhole(lens)(mask.float()).abs() > _SHARE for lens in lenses]
    return torch.stack(shown).any(0)


class Exposure:
    """Targets of one view, from its spikes or from its long-exposure image.

    Intensities are stored in the sensor's pixels, as if all of them had its mean gain.  They are divided by the pixel
    gains on access, so gains that training estimates do not require reading the spikes again.  Then they are resampled
    to the pinhole camera if there is a lens: a fixed pattern belongs to the sensor's pixels.

    Args:
        camera: the view's camera.
        long: E(T) [C, H, W].
        subframes: narrow windows around the sub-frames [M, C, H, W] (spikes only).
        wide: windows of half the short window [M, C, H, W], if needed.
        variance: expected variance [H, W] of ``subframes``, averaged over all sub-frames.
        intervals: mean intensities [C, H, W] by first and last sub-frame.
        spec, stream: the window, and the spikes.
        gain_map: gains [H, W] of the pixels relative to the sensor's, or None.
        mapped: the file that contains the tensors, if they are in one.
        remap: resamples the sensor's images to those of the pinhole camera; None: they are the same.
    """

    def __init__(
        self,
        camera: Camera,
        long: Tensor,
        subframes: Tensor | None = None,
        wide: Tensor | None = None,
        variance: Tensor | None = None,
        intervals: dict[tuple[int, int], Tensor] | None = None,
        spec: WindowSpec | None = None,
        stream: SpikeStream | None = None,
        gain_map: Tensor | None = None,
        mapped: MappedTensors | None = None,
        remap: Remap | None = None,
    ):
        self.camera = camera
        self.spec = spec
        self._long, self._subframes, self._wide, self._variance = long, subframes, wide, variance
        self._intervals = intervals or {}
        self._stream = stream
        self._mapped = mapped
        self._remap = None if remap is None else remap.to(long.device)
        self.use_gains(gain_map)

    @classmethod
    def from_spikes(
        cls,
        camera: Camera,
        stream: SpikeStream,
        spec: WindowSpec,
        sensor: SensorModel,
        mode: Mode,
        subframe_width: int,
        intervals: Sequence[tuple[int, int]] = (),
        wide: bool = True,
        sight: Sight | None = None,
    ) -> Exposure:
        """Convert the central context of ``stream`` to targets once; the spikes stay packed.

        Args:
            intervals: pairs of sub-frames whose means ``interval`` returns.
            wide: whether to compute the half-width windows.
            sight: the course of the light, which shapes the charge within each interval (timing only); None: constant.

        Raises:
            ValueError: a stream that is too short, also for ``subframe_width``, or a sensor of another size.
        """
        sensor.check_size(stream.height, stream.width, stream.name)
        margin = usable_margin(stream, spec)
        widest = spec.short + 2 * margin
        if subframe_width > widest:
            raise ValueError(
                f"{stream.name}: {len(stream)} frames have room for windows of at most {widest} around the sub-frames, "
                f"not of {subframe_width} (--subframe_width)"
            )
        even = replace(sensor, gain_map=None)
        shape = None if sight is None else guide(through_lens(camera, sight), spec, sensor, margin)
        frames = stream.central(spec, margin)
        refuse_constant(frames, stream.name)
        targets = Targets(frames, spec, even, mode, margin, shape)
        narrow = targets.subframes(subframe_width)
        return cls(
            camera,
            targets.long_exposure()[None],
            narrow[:, None],
            targets.subframes(spec.half + 1 - spec.half % 2)[:, None] if wide else None,
            targets.variance(narrow, subframe_width).mean(0),
            {ab: targets.interval(*ab)[None] for ab in intervals},
            spec,
            stream,
            sensor.gain_map,
            remap=None if camera.lens is None else to_pinhole(camera.lens),
        )

    def _converted(self, convert: Callable[[Tensor], Tensor], mapped: MappedTensors | None = None) -> Exposure:
        """A copy with every target converted, in the order of ``_targets``."""

        def converted(values: Tensor | None) -> Tensor | None:
            return None if values is None else convert(values)

        return Exposure(
            self.camera, convert(self._long), converted(self._subframes), converted(self._wide),
            converted(self._variance), {key: convert(value) for key, value in self._intervals.items()}, self.spec,
            self._stream, self._gain_map, mapped, self._remap,
        )  # fmt: skip

    @property
    def _targets(self) -> list[Tensor]:
        known = (self._long, self._subframes, self._wide, self._variance, *self._intervals.values())
        return [values for values in known if values is not None]

    def to(self, device: torch.device) -> Exposure:
        """A copy of the exposure with its targets on ``device``."""
        return self._converted(lambda values: values.to(device))

    def in_file(self, folder: Path) -> Exposure:
        """A copy of the exposure (on the CPU) with its targets in a file in ``folder``, see ``MappedTensors``."""
        mapped = MappedTensors(folder, self._targets)
        tensors = iter(mapped.tensors)
        return self._converted(lambda _: next(tensors), mapped)

    def of_camera(self, camera: Camera, folder: Path | None = None) -> Exposure:
        """A copy for another camera with targets of its own, in memory or in a file in ``folder``."""
        copy = self._converted(torch.clone) if folder is None else self.in_file(folder)
        copy.camera = camera
        return copy

    def expect(self, subframes: Iterable[int]) -> None:
        """Read some sub-frames' targets in the background if they are in a file: the next step uses them."""
        if self._mapped is not None and self._subframes is not None:
            stored = [1] if self._wide is None else [1, 2]  # narrow and wide windows, in the order of ``_targets``
            for m in subframes:
                for index in stored:
                    self._mapped.expect(index, m)

    def cropped(self, crop: Crop) -> Exposure:
        """The targets on a crop, in shared memory: gains are applied to the crop alone.  ``spikes`` stays as it is."""
        remap = self._remap
        if remap is not None:
            crop, remap = remap.cropped(crop)

        def part(values: Tensor | None) -> Tensor | None:
            return None if values is None else crop.of(values)

        return Exposure(
            self.camera, crop.of(self._long), part(self._subframes), part(self._wide), None,
            {key: crop.of(value) for key, value in self._intervals.items()}, self.spec, self._stream,
            part(self._gain_map), remap=remap,
        )  # fmt: skip

    def use_gains(self, gain_map: Tensor | None) -> None:
        """Read the targets with these pixel gains [H, W] from now on."""
        self._gain_map = None if gain_map is None else gain_map.to(self._long)
        self._noise = None
        if self._variance is not None:
            gains = 1 if self._gain_map is None else self._gain_map.square()
            # By rows: the bits of a sum over a whole image depend on the number of threads.
            variance = self._variance / gains
            if self._remap is not None:
                variance = self._remap.noise_gain * self._remap(variance)
            self._noise = variance.mean(-1).mean()

    def _even(self, values: Tensor) -> Tensor:
        """Intensities in the sensor's pixels."""
        return values if self._gain_map is None else values / self._gain_map

    def _read(self, values: Tensor) -> Tensor:
        even = self._even(values)
        return even if self._remap is None else self._remap(even)

    @property
    def measured(self) -> Tensor:
        """Intensities [M, 1, H, W] of the narrow windows in the sensor's pixels."""
        assert self._subframes is not None, "an exposure read from an image has no sub-frames"
        return self._even(self._subframes)

    def on_sensor(self, images: Tensor) -> Tensor:
        """Images [..., H, W] of the pinhole camera in the sensor's pixels; 0 in pixels that see nothing of them."""
        if self.camera.lens is None:
            return images
        remap = to_sensor(self.camera.lens)
        return remap(images) * remap.inside.to(images.device)

    @property
    def long(self) -> Tensor:
        """E(T) [C, H, W]."""
        return self._read(self._long)

    @property
    def subframes(self) -> Tensor | None:
        """Intensities [M, C, H, W] of the narrow windows, or None without spikes."""
        return None if self._subframes is None else self._read(self._subframes)

    @property
    def wide(self) -> Tensor | None:
        """Intensities [M, C, H, W] of the half-width windows, or None if they were not computed."""
        return None if self._wide is None else self._read(self._wide)

    def subframe(self, m: int) -> Tensor:
        """Intensity [C, H, W] of the narrow window around sub-frame ``m``."""
        assert self._subframes is not None, "an exposure read from an image has no sub-frames"
        return self._read(self._subframes[m])

    @property
    def noise(self) -> Tensor:
        """Expected variance [] of the narrow windows' intensity, averaged over pixels and sub-frames."""
        assert self._noise is not None, "an exposure read from an image has no sub-frames"
        return self._noise

    def interval(self, a: int, b: int) -> Tensor:
        """Mean intensity [C, H, W] over sub-frames a to b (inclusive)."""
        return self._read(self._intervals[(a, b)])

    def spikes(self, crop: Crop) -> Tensor:
        """The context's spikes [T, h, w] on a crop, as zeros and ones.

        Raises:
            ValueError: a camera with a lens: spikes cannot be resampled.
        """
        if self._remap is not None:
            raise ValueError(f"view {self.camera.name} has lens distortion: spikes cannot be undistorted")
        assert self._stream is not None and self.spec is not None, "an exposure read from an image has no spikes"
        return crop.of(torch.as_tensor(self._stream.central(self.spec)))

    def middle_image(self, sensor: SensorModel, mode: Mode, width: int) -> Tensor:
        """Intensity [1, H, W] of the ``width`` frames around the middle: from counts (TFP) or spike timing."""
        assert self._stream is not None and self.spec is not None, "an exposure read from an image has no spikes"
        margin = usable_margin(self._stream, self.spec) if mode == "timing" else 0
        targets = Targets(self._stream.central(self.spec, margin), self.spec, sensor, mode, margin)
        return self.camera.straightened(targets.subframes(width)[self.spec.middle][None])
