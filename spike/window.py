"""The frames of one view: those of the exposure, of each sub-frame and of Recon-Net's inputs."""

from __future__ import annotations

from dataclasses import dataclass

# How far beyond a rejected value to search for a valid one.
_REACH = 200


def _fault(numbers: tuple[int, ...]) -> tuple[int, str] | None:
    """Index of the one of exposure, short, subframes and long_group that does not fit, and why; None if all fit."""
    exposure, short, subframes, long_group = numbers
    if subframes < 1 or subframes % 2 == 0:
        return 2, f"the number of sub-frames must be odd (one is the middle), not {subframes}"
    if short < 1 or short % 2 == 0:
        return 1, f"the short window must be odd (centered on a frame), not {short}"
    if long_group < 1:
        return 3, f"the long input must sum at least 1 frame into one, not {long_group}"
    # A single sub-frame still needs a middle frame, so its exposure grows by two.
    if exposure < subframes or (exposure - 1) % max(subframes - 1, 2):
        return 0, f"an exposure of {exposure} frames cannot hold {subframes} evenly spaced sub-frames"
    if (exposure + short - 2) % long_group:
        context = exposure + short - 1
        return 1, (
            f"a short window of {short} frames makes a context of {context}, which without its middle does not "
            f"split into groups of {long_group}"
        )
    return None


@dataclass(frozen=True)
class WindowSpec:
    """All window numbers of the method, derived from four (supplement D and E).

    Args:
        exposure: frames T of the virtual long exposure (97).
        short: frames of the short window around a sub-frame (41, odd).
        subframes: sub-frames M in the exposure (13, odd), the first and last at its ends.
        long_group: frames summed into one voxel of the long input (4).

    Frames are counted from the start of the *context*: the exposure with half a short window on each side.
    """

    exposure: int = 97
    short: int = 41
    subframes: int = 13
    long_group: int = 4

    def __post_init__(self) -> None:
        numbers = (self.exposure, self.short, self.subframes, self.long_group)
        found = _fault(numbers)
        if found is None:
            return
        culprit, sentence = found
        value = numbers[culprit]
        near = sorted(range(1, 2 * abs(value) + _REACH), key=lambda v: abs(v - value))
        fits = [v for v in near if _fault((*numbers[:culprit], v, *numbers[culprit + 1 :])) is None][:2]
        raise ValueError(sentence + (f"; {' or '.join(map(str, sorted(fits)))} would work" if fits else ""))

    @property
    def half(self) -> int:
        """Frames of a short window on either side of its center (20)."""
        return self.short // 2

    @property
    def reach(self) -> float:
        """How far the context reaches beyond the exposure on either side, exposures (0.21)."""
        return self.half / max(self.exposure - 1, 1)

    @property
    def middle(self) -> int:
        """Index of the sub-frame at u = 0.5."""
        return self.subframes // 2

    @property
    def context(self) -> int:
        """All frames a view needs (137)."""
        return self.exposure + self.short - 1

    @property
    def stride(self) -> int:
        """Frames from one sub-frame to the next (8)."""
        return (self.exposure - 1) // max(self.subframes - 1, 1)

    @property
    def centers(self) -> list[int]:
        """Context frame of every sub-frame (20 + 8 m)."""
        if self.subframes == 1:
            return [self.context // 2]
        return [self.half + self.stride * m for m in range(self.subframes)]

    @property
    def times(self) -> list[float]:
        """Time u of every sub-frame in the exposure: m / (M - 1)."""
        if self.subframes == 1:
            return [0.5]
        return [m / (self.subframes - 1) for m in range(self.subframes)]

    @property
    def long_channels(self) -> int:
        """Voxel frames of the long input (34)."""
        return (self.context - 1) // self.long_group

    def frame(self, u: float) -> int:
        """The context frame nearest to the time ``u`` in [0, 1] of the exposure."""
        return self.half + round(u * (self.exposure - 1))

    def interval(self, a: int, b: int) -> tuple[int, int]:
        """Context frames [start, stop) from the center of sub-frame ``a`` to that of ``b``, both included."""
        centers = self.centers
        if self.subframes == 1:
            return self.half, self.half + self.exposure
        return centers[a], centers[b] + 1

    def window(self, m: int, width: int) -> tuple[int, int]:
        """Context frames [start, stop) of the ``width`` (odd) frames centered on sub-frame ``m``."""
        if width < 1 or width % 2 == 0:
            raise ValueError(f"the length of a window around a sub-frame must be odd, not {width}")
        start = self.centers[m] - width // 2
        return start, start + width


# The paper's window; recordings are cut into views of it, and ground truth is given at its sub-frames.
PAPER = WindowSpec()
# Frames stored beyond the context at either end, as in the authors' data: their spikes make the ends as exact.
SPARE = 20
STORED = PAPER.context + 2 * SPARE
