"""Do the tests notice a wrong line?  Plants one small fault at a time in a copy of the program and runs its tests.

    python tests/mutants.py                  all of them (about ten minutes)
    python tests/mutants.py --only NAME ...  some of them
    python tests/mutants.py --list           their names, and the tests that should notice

A mutant is *killed* if a test fails, and *SURVIVED* if all pass.  It is *stale* if the text that it replaces is not
found exactly once in its file: change the entry along with the line.  It is *broken* if pytest could not run.
To add one, append to ``MUTANTS``.  A survivor that no test can tell from the program goes to ``ALLOWED``, with the
reason.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Seconds after which a run counts as a failure: a fault may loop for ever.
TIMEOUT = 300
MOST_ALLOWED = 3
LIBRARIES = (
    "torch", "scipy.interpolate", "scipy.ndimage", "scipy.spatial.transform", "cv2", "plyfile",
    "diff_gaussian_rasterization_cpu",
)  # fmt: skip
REPORT = "pytest-report.txt"


@dataclass(frozen=True)
class Mutant:
    """``old`` becomes ``new`` in ``file``; one of ``tests`` (files) should fail."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def is_stale(self, root: Path = ROOT) -> bool:
        """Whether the text to replace is not found exactly once."""
        path = root / self.file
        return not path.is_file() or path.read_text(encoding="utf-8").count(self.old) != 1


def _of(file: str, tests: str, *faults: tuple[str, str, str]) -> list[Mutant]:
    """Mutants (name, old, new) of one file with the same tests, named without their folder and suffix."""
    paths = tuple(f"tests/{name}.py" for name in tests.split())
    return [Mutant(name, file, old, new, paths) for name, old, new in faults]


MUTANTS: list[Mutant] = [
    *_of(
        "commands/guard.py",
        "test_commands",
        ("lack of memory ends in a traceback", "except MemoryError as error:", "except BufferError as error:"),
        ("lack of memory without a word", "str(error) or 'out of memory'", "str(error) or ''"),
    ),
    *_of(
        "utils/telling.py",
        "test_quiet",
        ("sentences in spite of --quiet", "    if not _quiet:", "    if True:"),
        ("bars for what is over at once", "0 if _quiet else _DELAY", "0"),
        ("the training's bar in spite of --quiet", "initial=done, disable=_quiet", "initial=done, disable=False"),
    ),
    *_of(
        "scene/dataset.py",
        "test_photographs",
        ("size of the first image turned", 'zip(("w", "h"), image_size', 'zip(("h", "w"), image_size'),
    ),
    *_of(
        "spike/targets.py",
        "test_spike_sensor",
        ("tfi: the later spike one frame early", "frame + 1 + later.argmax(0), len", "frame + later.argmax(0), len"),
        ("tfi: no wait beyond the start", "frame - earlier.argmax(0), -1)", "frame - earlier.argmax(0), 0)"),
        (
            "long input: groupings swapped",
            'if grouping == "adjacent":\n        return rest',
            'if grouping != "adjacent":\n        return rest',
        ),
    ),
    *_of(
        "spike/targets.py",
        "test_spike_formulas test_spike_targets",
        ("window weights: a box for a triangle", "np.bartlett(2 * smoothing + 1)[1:-1]", "np.ones(2 * smoothing - 1)"),
        ("window weights: lost before the stream", "weights[0] += wide[:smoothing].sum()", "weights[0] += 0"),
        (
            "window weights: lost after the stream",
            "weights[-1] += wide[smoothing + frames :].sum()",
            "weights[-1] += 0",
        ),
        ("quadrature: recurrence upside down", "b = norms[-1] / norms[-2] if", "b = norms[-2] / norms[-1] if"),
        ("quadrature: weights of the last row", "return nodes, vectors[0] ** 2", "return nodes, vectors[-1] ** 2"),
        (
            "quadrature: counting smoothed",
            'smoothing = SMOOTHING if mode == "timing" else 0',
            "smoothing = SMOOTHING",
        ),
        ("variance: half of a count's", "1 / (6 * width**2)", "1 / (12 * width**2)"),
        ("variance: spurious counts", "+ self.spurious_rate / width\n", "+ self.spurious_rate / width**2\n"),
        ("variance: of timing x2.25", "torch.minimum(hard, soft) / 12", "2.25 * torch.minimum(hard, soft) / 12"),
        ("variance: hard window's halved", "hard = 4 / (3 * width**2)", "hard = 2 / (3 * width**2)"),
        ("variance: the larger of two", "torch.minimum(hard, soft)", "torch.maximum(hard, soft)"),
        ("variance: soft window's by rate^2", "soft = float(np.square(np.diff(weights)).sum()) * rate",
         "soft = float(np.square(np.diff(weights)).sum()) * rate.square()"),
        ("variance: gain not squared", "return variance / self._gain().square()", "return variance / self._gain()"),
        ("variance: dark current left out", "means * self._gain() + self.sensor.dark()", "means * self._gain()"),
        ("variance: missed spurious spikes", "_MISSED_SPURIOUS = 0.3", "_MISSED_SPURIOUS = 0.03"),
        ("targets: spurious subtracted twice", "self.sensor.intensity(rate, spurious_left=False)",
         "self.sensor.intensity(rate)"),
        ("targets: margin ignored", "(start + self.margin, stop + self.margin) for", "(start, stop) for"),
    ),
    *_of(
        "spike/window.py",
        "test_spike_stream test_properties",
        ("window: interval without its last frame", "centers[a], centers[b] + 1", "centers[a], centers[b]"),
        ("window: off the center", "self.centers[m] - width // 2", "self.centers[m] - width // 2 + 1"),
        ("window: suggestions that do not fit", "*numbers[culprit + 1 :])) is None", "*numbers[culprit + 1 :])) != 0"),
    ),
    *_of(
        "spike/timing.py",
        "test_spike_formulas test_spike_targets",
        ("charge: a spike's frame not shared", "charge[:, 1:] += piece[:, :-1]", "charge[:, 1:] += piece[:, 1:]"),
        ("charge: tail and head off by a frame", "(start % frames + 0.5)", "(start % frames - 0.5)"),
        ("charge: light before the first frame", "before_start[~is_spike] = 0", "before_start[~is_spike] = 0.5"),
        ("charge: a whole spike without any", "~is_spike] *= 0.5", "~is_spike] *= 1.0"),
        ("charge: a lone spike counts double", "~is_spike[tail - 1], 1 / whole", "~is_spike[tail - 1], 2 / whole"),
        ("spurious: one side's evidence twice", "misfit(both, left) + misfit(both, right)",
         "misfit(both, left) + misfit(both, left)"),
        ("spurious: odds without the interval", "np.log(np.float32(rate) * both)", "np.log(np.float32(rate))"),
        ("spurious: neighbors go too", "(score > 0) & (score > beside[:-2])", "(score > 0)"),
        ("spurious: evidence limited to little", "_EVIDENCE_LIMIT = 12.0", "_EVIDENCE_LIMIT = 1.2"),
        ("spurious: change not squared", "variance = change**2 * u * v", "variance = change * u * v"),
        ("spurious rate: doubled", "np.percentile(places, 25)) / size", "np.percentile(places, 25)) / size * 2"),
        ("spurious rate: of the noisiest places", "np.percentile(places, 25)", "np.percentile(places, 95)"),
    ),
    *_of(
        "spike/timing.py",
        "test_retiming",
        ("re-timing: not in proportion", "charge if light is None else charge * light", "charge"),
        ("re-timing: a spike's frame not shared", "(sums - 0.5 * light).reshape(-1)[start]", "sums.reshape(-1)[start]"),
        ("re-timing: before the first spike without limit", "rate[head] = np.minimum(after, per_light[head])",
         "rate[head] = after"),
        ("re-timing: after the last spike without limit", "rate[tail] = np.minimum(before, per_light[tail])",
         "rate[tail] = before"),
        ("guided test: intervals in frames", "if light is None else (np.cumsum(light, axis=1) - 0.5 * light)",
         "if light is None else (np.cumsum(1 + 0 * light, axis=1) - 0.5 * light)"),
        ("guided test: neighbors ignored", "np.maximum(np.abs(excess) - _TRUSTED, 0)", "0"),
        ("guide: next frame", "np.interp(np.arange(count), self.frames", "np.interp(1 + np.arange(count), self.frames"),
    ),
    *_of(
        "spike/fixed_pattern.py",
        "test_fixed_pattern test_spike_formulas",
        ("pattern: clipped to little", "limit = 4 * 1.4826", "limit = 0.4 * 1.4826"),
        ("pattern: smooth errors count", "gaussian_filter(values, _NEIGHBORHOOD)", "gaussian_filter(values, 1e4)"),
        ("pattern: pixels without light count", "count / total.clip(1e-12)", "1 / total.clip(1e-12)"),
        ("pattern: noise doubled", ".square().mean()) / 4  # of", ".square().mean()) / 2  # of"),
        ("pattern: not drawn to one", "return 1 + (factor - 1) * signal / (signal + noise)", "return factor"),
        ("pattern: light's threshold not squared", "views * _LEAST_LIGHT**2", "views * _LEAST_LIGHT"),
        ("pattern: all views in one half", "self._added >= self.views // 2", "self._added >= 0"),
        ("pattern: divides the own map", "(own * gain).cpu()", "(own / gain).cpu()"),
    ),
    *_of(
        "spike/sensor.py",
        "test_spike_sensor test_spike_formulas",
        ("sensor: share that can fire", "(rate - self.spurious_rate) / (1 - self.spurious_rate)",
         "(rate - self.spurious_rate)"),
        ("sensor: hard reset loses a whole frame", "fired / (1 - fired / 2)", "fired / (1 - fired)"),
        ("sensor: dark after gain", "(fired - self.dark()) / self.gain", "fired / self.gain - self.dark()"),
        ("sensor: gain map multiplied", "light / self.gain_map.to(light)", "light * self.gain_map.to(light)"),
    ),
    *_of(
        "spike/calibration.py",
        "test_spike_calibration test_spike_formulas",
        ("calibration: mean gain", "float(np.median(light)) / level", "float(np.mean(light)) / level"),
        ("calibration: level forgotten", "light / (gain * level)", "light / gain"),
        ("calibration: dead pixels are good", "(relative < LEAST_GAIN).numpy()", "(relative < 0).numpy()"),
        ("calibration: hot pixels are good", "max(_HOT_DARK * gain, _HOT_TIMES", "max(gain, _HOT_TIMES"),
        ("calibration: a warm sensor is hot", "_HOT_TIMES * float(dark_map.median())", "0"),
        ("calibration: dark of a hard reset", "reset=reset).intensity(rate)", "reset='soft').intensity(rate)"),
        ("calibration: spurious beyond the dark rate", "spurious = min(spurious, float(rate.mean()))",
         "spurious = max(spurious, float(rate.mean()))"),
        ("calibration: white is the median", "np.percentile(rates, 99.5)", "np.percentile(rates, 50)"),
    ),
    *_of(
        "spike/inspection.py",
        "test_spike_formulas",
        ("inspection: change halved", "2 * np.abs(b - a).mean()", "np.abs(b - a).mean()"),
        ("inspection: hot without chance", "rate > _FACTOR * around + noise,", "rate > _FACTOR * around,"),
    ),
    *_of(
        "simulation/twin.py",
        "test_noise",
        ("twin: no spurious spikes", "if spurious else None", "if spurious > 1 else None"),
        ("twin: half of the scatter forgotten", "(found - regular) / 2", "found / 2"),
        ("twin: compared with the rates", "* sensor.gain - true", "- true"),
        ("twin: a guide without errors", "(seen.light - _between", "(seen.light - 0 * _between"),
        ("twin: few views are one", "-(-len(views) // wanted)", "len(views)"),
        ("twin: as many views of large images", "_PIXELS // (camera.height * camera.width)", "_MOST"),
    ),
    *_of(
        "scene/fusion.py",
        "test_fusion",
        ("fusion: one gain for all frequencies", "v.reshape(-1, 1, 1) / energy", "v.mean() / energy.mean(1, True)"),
        ("fusion: patches on their own", "_PATCHES = 7", "_PATCHES = 1"),
        ("fusion: any noise is white", "_COLORED = 4", "_COLORED = 0"),
        ("fusion: not orthonormal", "rows[0] /= math.sqrt(2)", "rows[0] /= 1"),
        ("fusion: a shifted correction", "beyond : beyond + width]", "beyond + 1 : beyond + 1 + width]"),
        ("fusion: no margin", "_MARGIN = 1.2", "_MARGIN = 1.0"),
        ("fusion: dead pixels are believed", "own <= limit", "own <= 9"),
        ("fusion: wrong renders are believed", "_OWN_MEDIANS * usual)", "0 * usual)"),
        ("fusion: away from the spikes", "kept = (1 - explained).clamp_min(0)", "kept = (1 - explained)"),
    ),
    *_of(
        "training/losses.py",
        "test_losses test_loss_formulas",
        ("loss: L1 not weighed against SSIM", "loss = (1 - dssim) * l1(", "loss = l1("),
        ("loss: half of SSIM", "loss + dssim * (1 - ssim(", "loss + 0.5 * dssim * (1 - ssim("),
        ("loss: reblur without the last", "frames[middle - k : middle + k + 1]", "frames[middle - k : middle + k]"),
        ("loss: wider shortest interval", "max(subframes // 4, 1)", "max(subframes // 3, 1)"),
        ("loss: the worse direction", "return torch.minimum(forward", "return torch.maximum(forward"),
        ("loss: noise x100", "BEYOND_NOISE = 1.4", "BEYOND_NOISE = 140"),
        ("loss: noise is the variance", "BEYOND_NOISE * variance.sqrt()", "BEYOND_NOISE * variance"),
        ("loss: noise not taken off", ".sqrt() - noise).mean()", ".sqrt()).mean()"),
        ("loss: ratio's excess", "(ratio.clamp_min(largest) - largest).mean()", "ratio.clamp_min(largest).mean()"),
        ("loss: ratio of the middle axis", "/ scales.amin(-1)", "/ scales.median(-1)[0]"),
    ),
    *_of(
        "scene/trajectory.py",
        "test_trajectory test_trajectory_formulas test_preconditioning",
        ("trajectory: Bezier basis", "u**k * v ** (degree - k)", "u**k * v ** (degree - 1)"),
        ("trajectory: goes on as a polynomial", "inside = u.clamp(0, 1)", "inside = u"),
        ("trajectory: stops at its ends", "beyond, u, v = (u - inside)[:, None]", "beyond, u, v = (u - u)[:, None]"),
        ("trajectory: tangent of one end", "torch.where(u[:, None] == 1, -first.flip(0), first)", "first"),
        ("trajectory: tangent backwards", "-first.flip(0), first)", "first.flip(0), first)"),
        ("trajectory: tangent of a cubic too long", "_tangents(3, 2, u) / 2", "_tangents(3, 2, u)"),
        ("trajectory: Bezier curves are cubic", '"bezier": bezier}.get', '"bezier": 3}.get'),
        ("trajectory: older models are refused", 'stored.get("degree", _degree(trajectory.curve, 3))',
         'stored["degree"]'),
        ("trajectory: any degree of a stored curve", "not known or self.degree != _degree(self.curve, self.degree)",
         "not known"),
        ("trajectory: cubic basis", "3 * u**3 - 6 * u**2 + 4", "3 * u**3 - 5 * u**2 + 4"),
        ("trajectory: cumulative from the front", "basis.flip(-1).cumsum(-1).flip(-1)[:, 1:, None]",
         "basis.cumsum(-1)[:, 1:, None]"),
        ("trajectory: moves on the other side", "pose = moves[:, k] @ pose", "pose = pose @ moves[:, k]"),
        ("trajectory: not reversed", "self.increments[rows].flip(0)", "self.increments[rows]"),
        ("trajectory: knots one spacing late", "(np.arange(count) - 1) * spacing", "np.arange(count) * spacing"),
        ("trajectory: exposure from its middle", "base + (times - 0.5 - start) / spacing",
         "base + (times - start) / spacing"),
        ("trajectory: guess from the middle on", "(times[:, None] + u[None] - 0.5)", "(times[:, None] + u[None])"),
        ("trajectory: views in any order",
         "[np.argsort(timing.middle[members])]\n        times = timing.middle[members]\n        at",
         "\n        times = timing.middle[members]\n        at"),
        ("trajectory: clamped ends", 'order = "natural" if', 'order = "clamped" if'),
        ("trajectory: exposure one frame longer", "/ (exposure - 1), recording", "/ exposure, recording"),
        ("trajectory: knot spacing multiplied", "u.double() / self.knot_spacing", "u.double() * self.knot_spacing"),
        ("trajectory: reach ignored", "reach = max(_REACH, 1.1 * reach)", "reach = _REACH"),
        ("trajectory: a knot's view one knot late", "self.first + half", "self.first + half + 2"),
        ("trajectory: a spline in any order",
         "[np.argsort(timing.middle[members])]\n            times = timing.middle[members]\n            start",
         "\n            times = timing.middle[members]\n            start"),
        ("trajectory: recordings share knots", "base = sum(len(a) for a in anchors)", "base = 0"),
    ),
    *_of(
        "arguments/command_line.py",
        "test_command_line",
        ("command line: no dashes", "super().parse_known_args(underscored(", "super().parse_known_args(list("),
        ("command line: flags of the whole program", "self._asked(words)._refuse", "self._refuse"),
        ("command line: no remarks", "self._remark(flag) or ", ""),
        ("command line: with the usage", 'self.exit(2, f"error: {message}\\n")', "super().error(message)"),
        ("command line: abbreviations", '**{"allow_abbrev": False, **kwargs}', "**kwargs"),
    ),
    *_of(
        "arguments/parser.py",
        "test_arguments",
        ("parser: positive forms of negative flags", 'names = {name, f"lambda_{name}"} if is_off else {name}',
         'names = {name, f"lambda_{name}"}'),
    ),
    *_of(
        "scene/preconditioning.py",
        "test_preconditioning",
        ("preconditioning: no damping", "+ DAMPING * torch", "+ 1e-6 * torch"),
        ("preconditioning: each direction by itself", "values, vectors = torch.linalg.eigh(correlations)",
         "values, vectors = torch.ones(6).double(), torch.eye(6).double()"),
        ("preconditioning: what nothing moves", "sizes.clamp_min(1e-6 * largest).rsqrt()", "sizes.rsqrt()"),
        ("preconditioning: not the inverse", "values.rsqrt()[..., None]", "values.sqrt()[..., None]"),
        ("preconditioning: mixed units", "(unit[:, :, None] * root)", "root"),
        ("preconditioning: turns the wrong way", "1 + u * u, -v]", "-1 - u * u, -v]"),
        ("preconditioning: points outside of the image", "(column >= 0) & (column < width) & ", ""),
        ("preconditioning: points behind the camera", "points[points[:, 2] > 0]", "points[points[:, 2] != 0]"),
        ("preconditioning: near points decide", "depth.clamp_min(_NEAREST * depth.median())", "depth"),
        ("preconditioning: a blind camera by itself", "motions[~seen] = motions[seen].mean(0)",
         "motions[~seen] = torch.eye(6).double()"),
    ),
    *_of(
        "scene/tum.py",
        "test_properties",
        ("tum: world to camera", "to_world = se3.inverse(w2c.detach().cpu().double())",
         "to_world = w2c.detach().cpu().double()"),
        ("tum: times to nine digits", "repr(float(time)), *numbers", 'f"{time:.9g}", *numbers'),
    ),
    *_of(
        "gaussians/densification.py",
        "test_densification test_densification_rules",
        ("densification: gradient of a mean over cameras", "norms = norms * len(norms)", "norms = norms * 1"),
        ("densification: half the threshold", "gradient > self.grow_gradient", "gradient > 0.5 * self.grow_gradient"),
        ("densification: width and height swapped", '[info["width"] / 2, info["height"] / 2]',
         '[info["height"] / 2, info["width"] / 2]'),
        ("densification: hidden ones count", "(norms * visible).sum(0)", "norms.sum(0)"),
        ("densification: wide by the shortest axis", "gaussians.scales.detach().amax(-1) >",
         "gaussians.scales.detach().amin(-1) >"),
        ("densification: extent ignored", "self.split_scale * self.scene_extent\n", "self.split_scale\n"),
        ("densification: children 1.5 times smaller", "(scales / 1.6).log()", "(scales / 1.5).log()"),
        ("densification: children along the world's axes", 'rotations(parents["quats"]) @ (scales * noise)[..., None]',
         "(scales * noise)[..., None]"),
        ("densification: transparent ones stay", "gaussians.opacities >= self.cull_opacity",
         "gaussians.opacities >= 0.1 * self.cull_opacity"),
        ("densification: huge ones stay", "<= self.cull_scale * self.scene_extent",
         "<= 10 * self.cull_scale * self.scene_extent"),
        ("densification: huge ones go at once", "if self.reset_every and iteration > self.reset_every:",
         "if self.reset_every:"),
        ("densification: reset to the culled", "math.log(2 * self.cull_opacity / (1 - 2 * self.cull_opacity))",
         "math.log(self.cull_opacity / (1 - self.cull_opacity))"),
        ("densification: reset keeps moments", '"opacity_logits", slice(None))', '"opacity_logits", slice(0))'),
        ("densification: cap takes the least", "torch.where(grow, gradient, gradient.new_tensor(-1.0))",
         "torch.where(grow, -gradient, gradient.new_tensor(-1e9))"),
        ("densification: statistics kept", "        self._gradient = torch.zeros(0)\n", ""),
        ("densification: acts at its start", "if iteration > self.start and", "if iteration >= self.start and"),
        ("densification: moments of what is culled", "lambda moment: moment[mask])",
         "lambda moment: moment[: int(mask.sum())])"),
        ("mcmc: noise by axes", "(2 * gaussians.raw[\"log_scales\"][moved].T).exp()",
         "gaussians.raw[\"log_scales\"][moved].T.exp()"),
        ("mcmc: noise along the world's axes", "turned = _rotation_planes(gaussians.quats[moved])",
         "turned = torch.eye(3)[..., None].expand(3, 3, len(moved))"),
        ("mcmc: noise turned backward", "(turned * along).sum(1).T", "(turned * along[:, None]).sum(0).T"),
        ("mcmc: noise without the rate", "(weight[moved] * self.noise * rate)", "(weight[moved] * self.noise)"),
        ("mcmc: opaque ones wander", "torch.sigmoid(100 * (0.005 - gaussians.opacities))",
         "torch.sigmoid(100 * (0.05 - gaussians.opacities))"),
        ("mcmc: moments of the sources kept", "_forget(gaussians, optimizer, name, sources)",
         "_forget(gaussians, optimizer, name, sources[:0])"),
        ("mcmc: more count as dead", "dead = torch.nonzero(opacities <= self.dead_opacity)",
         "dead = torch.nonzero(opacities <= 10 * self.dead_opacity)"),
        ("mcmc: sources drawn evenly", "torch.multinomial(opacities[alive], len(dead)",
         "torch.multinomial(torch.ones_like(opacities[alive]), len(dead)"),
        ("mcmc: grows by half", "growth: float = 1.05", "growth: float = 1.5"),
        ("mcmc: cap ignored", "min(self.cap, int(self.growth * len(gaussians)))", "int(self.growth * len(gaussians))"),
        ("mcmc: opacity of one copy fewer", "n = (counts[which] + 1)", "n = counts[which].clamp_min(1)"),
        ("mcmc: scale series", "/ math.sqrt(k + 1)", "/ math.sqrt(k + 2)"),
        ("mcmc: scale turned over", "scale = old / denominator", "scale = denominator / old"),
        ("mcmc: opacity not kept from dying", "opacities = new.clamp(self.dead_opacity, 1 - eps)",
         "opacities = new.clamp(0, 1 - eps)"),
    ),
    *_of(
        "gaussians/initialization.py",
        "test_initialization test_gaussian_formulas",
        ("points: near plane", "0.2 * float(depths.quantile(0.05))", "0.02 * float(depths.quantile(0.05))"),
        ("points: range of the spread", "0.5 * spread, 10.0 * spread", "0.5 * spread, 5.0 * spread"),
        ("points: depths evenly", "1 / (1 / far + rng.random(int(blind.sum())) * (1 / near - 1 / far))",
         "far + rng.random(int(blind.sum())) * (near - far)"),
        ("points: world from camera", "picture.w2c[:3, 3]) @ picture.w2c[:3, :3])",
         "picture.w2c[:3, 3]) @ picture.w2c[:3, :3].T)"),
        ("points: the farthest neighbor's depth", "weight = 1 / (distance + 1) ** 2", "weight = (distance + 1) ** 2"),
    ),
    *_of(
        "gaussians/model.py",
        "test_gaussian_formulas",
        ("model: the point counts as its neighbor", "distances[:, 1:].mean(1)", "distances.mean(1)"),
        ("model: no rotation is another quaternion", "quats[:, 0] = 1", "quats[:, 3] = 1"),
        ("model: every degree's coefficients", "[:, : (degree + 1) ** 2 - 1]", ""),
        ("model: colors about zero", "((colors - 0.5) / SH_C0)", "(colors / SH_C0)"),
        ("model: opacity's logit doubled", "device=xyz.device).logit()", "device=xyz.device).logit() * 2"),
    ),
    *_of(
        "gaussian_renderer/__init__.py",
        "test_gaussian_formulas",
        ("render: SH degree off by one", "else min(sh_degree, gaussians.sh_degree)",
         "else min(sh_degree + 1, gaussians.sh_degree)"),
        ("render: low-pass of 3DGS for all", "eps2d=gaussians.low_pass.variance", "eps2d=0.3"),
    ),
    *_of(
        "gaussians/sh.py",
        "test_sh",
        ("sh: constant", "SH_C0 = 0.28209479177387814", "SH_C0 = 0.28"),
        ("sh: colors below zero", "+ 0.5).clamp_min(0)", "+ 0.5)"),
        ("sh: seen from the other side", "means - camera_centers(w2c)", "camera_centers(w2c) - means"),
    ),
    *_of(
        "scene/cameras.py",
        "test_video test_scene_dataset",
        ("cameras: mirrored poses", "np.linalg.det(rotation) > 0", "np.linalg.det(rotation) != 0"),
        ("cameras: any last row", "(poses[..., 3, :] == [0, 0, 0, 1]).all()", "True"),
    ),
    *_of(
        "scene/cameras.py",
        "test_mesh",
        ("cameras: small images alias", "round(across / width), 2), 6)", "round(across / width), 2), 2)"),
    ),
    *_of(
        "utils/reading.py",
        "test_json_files test_hostile_files",
        ("reading: pipes are read", "if not stat.S_ISREG(status.st_mode):", "if stat.S_ISDIR(status.st_mode):"),
        ("reading: any path is inside", "!= folder:", "is None:"),
        ("reading: names of any length", "if longest > _LONGEST_NAME:", "if False:"),
        ("reading: the file is not named", 'ValueError(f"{path}: not {expected}', 'ValueError(f"not {expected}'),
    ),
    *_of(
        "utils/json_files.py",
        "test_json_files",
        ("json: NaN is a number", "if not (math.isfinite(found) and least", "if not (True and least"),
        ("json: one level deeper", "for _ in range(DEEPEST):", "for _ in range(DEEPEST + 1):"),
        ("json: true is a number", "if type(found) not in (int, float):", "if not isinstance(found, (int, float)):"),
        ("json: text in arrays", 'found.dtype.kind not in "iuf"', 'found.dtype.kind not in "iufU"'),
    ),
    *_of(
        "gaussians/ply_table.py",
        "test_hostile_files test_ply",
        ("ply: rows are not counted", "if least > size - header.size:", "if least > 1e300:"),
        ("ply: negative counts", 're.fullmatch(r"[0-9]{1,18}"', 're.fullmatch(r"-?[0-9]{1,18}"'),
    ),
    *_of(
        "scene/colmap_files.py",
        "test_hostile_files test_scene_dataset",
        ("colmap: names of any length", "    require_short(name)\n", ""),
        ("colmap: observations beyond the end", "if not (at < counts[row]).all():", "if False:"),
        ("colmap: tracks of others", "if not np.array_equal(flat[", "if False and not np.array_equal(flat["),
    ),
    *_of(
        "utils/checkpoint.py",
        "test_hostile_files",
        ("checkpoint: checksums are not compared", "damaged = archive.testzip()", "damaged = None"),
        ("checkpoint: any shape", "stored.shape != expected.shape or", "False or"),
    ),
    *_of(
        "gaussians/ply.py",
        "test_ply test_properties",
        ("ply: colors cut down", ".clamp(0, 1) * 255).round()", ".clamp(0, 1) * 255)"),
        ("ply: coefficients by degree", "shn.transpose(1, 2).flatten(1)", "shn.flatten(1)"),
        ("ply: mono is red", "sh0.mean(-1, keepdim=True), shn", "sh0[..., :1], shn"),
        ("ply: low-pass to two digits", "{self.variance:g} square", "{self.variance:.2g} square"),
    ),
    *_of(
        "gaussians/formats.py",
        "test_format_bytes test_properties",
        ("splat: the least visible first", "opacity.log(), descending=True", "opacity.log(), descending=False"),
        ("splat: quaternions of 127", "(quats * 128 + 128)", "(quats * 127 + 128)"),
        ("splat: scales twice", "scales.clamp_min(1e-10).log()", "(2 * scales.clamp_min(1e-10)).log()"),
        ("spz: scales read from elsewhere", "log_scales / 16 - 10", "log_scales / 16 - 9"),
        ("spz: colors by SH_C0", "_bytes_of((0.5 + 0.15 * g.sh0", "_bytes_of((0.5 + SH_C0 * g.sh0"),
        ("spz: axes not turned", "_SPZ_FLIP = torch.tensor([1.0, -1.0, -1.0])",
         "_SPZ_FLIP = torch.tensor([1.0, 1.0, 1.0])"),
        ("spz: a harmonic's sign", "1, -1, -1, 1, -1, 1])", "1, -1, -1, 1, -1, -1])"),
        ("spz: positions overflow", "22 - math.ceil(", "24 - math.ceil("),
        ("spz: quaternions of version 2", "/ 127.5 - 1", "/ 128 - 1"),
        ("spz: bits of the first degree", "_SPZ_SH_BITS = (5, 4, 4)", "_SPZ_SH_BITS = (4, 4, 4)"),
    ),
    *_of(
        "utils/__init__.py",
        "test_device",
        ("threads: spin", 'setdefault("OMP_WAIT_POLICY", "passive")', 'setdefault("OMP_WAIT_POLICY", "active")'),
    ),
    *_of(
        "utils/image_metrics.py",
        "test_image_metrics",
        ("psnr: twice", "return -10 * torch.log10", "return -20 * torch.log10"),
        ("psnr: over all images", ".flatten(1).mean(1).clamp_min", ".flatten().mean(0, keepdim=True).clamp_min"),
        ("ssim: first constant", "c1, c2 = 0.01**2,", "c1, c2 = 0.02**2,"),
        ("ssim: second constant", "0.01**2, 0.03**2", "0.01**2, 0.02**2"),
        ("ssim: wider window", "_blur(stacked, 11, 1.5)", "_blur(stacked, 11, 2.0)"),
        ("gain: the other way", "/ image.square().sum().clamp_min", "/ truth.square().sum().clamp_min"),
    ),
    *_of(
        "utils/se3.py",
        "test_se3",
        ("se3: series of the translation", "(-1 / 6, -1 / 24, -1 / 120),", "(-1 / 6, -1 / 24, -1 / 100),"),
        ("se3: inverse Jacobian", "translation - 0.5 * first", "translation + 0.5 * first"),
    ),
    *_of(
        "utils/trajectory_metrics.py",
        "test_trajectory_metrics test_trajectory_formulas",
        ("umeyama: another axis mirrored", "sign[2] = -1", "sign[0] = -1"),
        ("umeyama: scale without the sign", "float((d * sign).sum() / spread)", "float(d.sum() / spread)"),
        ("ate: mean of the coordinates", "np.sqrt((offset**2).sum(-1).mean())", "np.sqrt((offset**2).mean())"),
        ("rpe: mean angle", "np.degrees(np.sqrt((angle**2).mean()))", "np.degrees(angle.mean())"),
        ("rpe: mean of the coordinates", "np.sqrt((error[..., :3, 3] ** 2).sum(-1).mean())",
         "np.sqrt((error[..., :3, 3] ** 2).mean())"),
        ("motion: of the first step", "offset[:, -1] - offset[:, 0]", "offset[:, 1] - offset[:, 0]"),
        ("flips: turning ignored", "(_turning, 1.0))", "(centers, 1.0))"),
        ("flips: never", "np.nonzero(likeness < 0)[0]", "np.nonzero(likeness < -9)[0]"),
        ("orientation: mirrors allowed", "np.sign(np.linalg.det(u @ vt))])", "1.0])"),
    ),
    *_of(
        "utils/run_log.py",
        "test_properties",
        ("log: the last row dropped", 'row["iteration"] <= iteration]', 'row["iteration"] < iteration]'),
        ("log: time from the first row", 'kept[-1].get("seconds"', 'kept[0].get("seconds"'),
    ),
    *_of(
        "gaussian_renderer/pose_fitting.py",
        "test_pose_fitting",
        ("pose fitting: the last pose", "    return best\n", "    return parameter.detach().clone()\n"),
        ("pose fitting: the rate collapses", "0.01 ** (1 / max(steps, 1))", "0.01"),
        ("pose fitting: mosaic ignored", "images if mosaic is None else mosaic.of(images)", "images"),
        ("pose fitting: knots not put back", "trajectory.increments.copy_(best)", "pass"),
        ("similarity: centers not scaled", "(scale * rotation @ se3", "(rotation @ se3"),
    ),
    *_of(
        "gaussian_renderer/paths.py",
        "test_camera_paths",
        ("orbit: upside down", "look_at(eye, s.focus, s.up)", "look_at(eye, s.focus, -s.up)"),
        ("orbit: up is down", "-poses[:, 1, :3].mean(0)", "poses[:, 1, :3].mean(0)"),
        ("orbit: height forgotten", "eye = s.focus + height * s.up + radius", "eye = s.focus + radius"),
        ("orbit: widest radius", "radius = float(np.median(", "radius = float(np.max("),
        ("orbit: ten times the least", "least = 0.1 * np.linalg.norm", "least = 1.0 * np.linalg.norm"),
        ("orbit: wide and tall swapped", "wide, tall = np.maximum", "tall, wide = np.maximum"),
        ("interpolation: beyond its ends", "at = at.clamp(float(times[0]), float(times[-1]))\n", "\n"),
        ("interpolation: share of unit time", "share = (at - times[left]) / (times[left + 1] - times[left])",
         "share = at - times[left]"),
        ("recording: turns take no time", "norm(dim=-1) / spread + turn", "norm(dim=-1) / spread"),
        ("recording: moments of the left key", "u = float(place[left]) + share", "u = float(place[left]) + 0 * share"),
        ("slow motion: first half", "u = torch.linspace(0, 1, frames) if", "u = torch.linspace(0, 0.5, frames) if"),
    ),
    *_of(
        "gaussian_renderer/uncertainty.py",
        "test_gaussian_formulas",
        ("uncertainty: noise not squared", "(drawing, views) / NOISE**2", "(drawing, views) / NOISE"),
        ("uncertainty: harmonic's constant left in", "(gradient / SH_C0).square()", "gradient.square()"),
        ("uncertainty: passes add up", ".mean(-1)[:, 0] / rounds", ".mean(-1)[:, 0]"),
        ("uncertainty: deviations about zero", "(deviation - 0.5)[:, None, None]", "deviation[:, None, None]"),
    ),
    *_of(
        "utils/image_metrics.py",
        "test_losses test_loss_formulas",
        ("loss: weight ignored", "else difference * weight).mean()", "else difference).mean()"),
    ),
    *_of(
        "utils/se3.py",
        "test_se3 test_properties",
        ("camera's center: rotation not transposed", "w2c[..., :3, :3].transpose(-1, -2) @", "w2c[..., :3, :3] @"),
    ),
    *_of(
        "training/objectives.py",
        "test_recipes",
        ("L_sub: noise a hundredfold", "targets, recording.variance(sample))",
         "targets, 1e4 * recording.variance(sample))"),
        ("L_sub: against the window's middle", "recording.seen(sample.averaged(", "recording.seen(sample.middle("),
        ("fused: residual of the middle", "recording.targets(sample) - sample.averaged(images)",
         "recording.targets(sample) - sample.middle(images)"),
        ("fused: gradients pass", "images = moment.renders.images.detach()", "images = moment.renders.images"),
        ("L_joint: mask ignored", "moment.frames.images, weight)", "moment.frames.images)"),
        ("L_joint: mask not of mean one", "weight, stuck = inner / inner.mean(),", "weight, stuck = inner,"),
        ("L_joint: always flips", "(renders, frames, self.flip)", "(renders, frames, True)"),
        ("ratio: in every step", "if moment.state.iteration % self.every:", "if moment.state.iteration % 1:"),
        ("mean scale: not in extents", " / moment.state.recording.scene.extent", ""),
        ("mean opacity: a sum", "gaussians.opacities.mean()", "gaussians.opacities.sum()"),
        ("L_rec: middle one late", "middle = (self.subframes - 1) // 2", "middle = (self.subframes + 1) // 2"),
        ("weight 0 stays", "for objective in objectives if objective.weight]", "for objective in objectives]"),
    ),
    *_of(
        "training/objectives.py",
        "test_stuck",
        ("stuck: in L_rec", "reblur_loss(without(stuck, moment.frames.images)", "reblur_loss((moment.frames.images)"),
        ("stuck: in L_sub", "recording.seen(sample.averaged(moment.renders.images), targets)",
         "sample.averaged(moment.renders.images)"),
        ("stuck: in L_joint", "if stuck is not None:", "if False:"),
    ),
    *_of(
        "spike/stuck.py",
        "test_stuck",
        ("stuck: a lamp is hot", "< _COMPANY\n    return dead, hot", "< 9\n    return dead, hot"),
        ("stuck: dead in one view is dead", "| ~telling).all(0)", "| ~telling).any(0)"),
        ("stuck: filled from the farthest", "distance**-2.0", "distance**2.0"),
        ("stuck: other colors", "step = 2 if self.colored else 1", "step = 1"),
    ),
    *_of(
        "training/sampling.py",
        "test_recipes",
        ("epochs begin late", "divmod(iteration - 1, self.views)", "divmod(iteration, self.views)"),
        ("windows: one step early", "if iteration > self.window_from", "if iteration >= self.window_from"),
        ("windows: more cameras", "max(self.cameras // len(window.weights), 1)", "self.cameras"),
        ("windows: all at the instant", "offsets[:, None].to(u.device) + u", "0 * offsets[:, None].to(u.device) + u"),
        ("windows: middle is the first", "[points // 2]", "[0]"),
        ("windows: not weighted", "weights.to(images), renders)", "torch.ones_like(weights) / len(weights), renders)"),
        ("instants: the first sub-frames", "torch.randint(self.subframes, (count,)", "torch.randint(1, (count,)"),
    ),
    *_of(
        "training/reconstruction.py",
        "test_recipes test_train",
        ("network: one step early", "return iteration > self.begins", "return iteration >= self.begins"),
        ("network: every step", "(iteration - self.begins) % self.every == 0", "True"),
        ("network: crop without an inside", "0 < self.crop <= 2 * radius", "0 < self.crop < 2 * radius"),
        ("network: crops of the first", "crop.of(image) for crop", "self.crops[0].of(image) for crop"),
    ),
    *_of(
        "training/optimizers.py",
        "test_recipes",
        ("rate: linear", "(self.start * (self.end / self.start) ** progress)",
         "(self.start + (self.end - self.start) * progress)"),
        ("rate: unit forgotten at the end", "return self.unit * (self.start *", "return (self.start *"),
        ("poses: every step", "iteration % self.pose_every == 0", "True"),
        ("network's rate: from the first step", "(iteration - self.network_from) / (self.steps - self.network_from)",
         "iteration / (2 * self.steps)"),
        ("reversed view: moments stay", '(moments.get("exp_avg"), moments.get("exp_avg_sq"), trajectory',
         "(trajectory"),
        ("poses: gradients of the increments",
         'increments.grad = torch.einsum("qij,qi->qj", matrices, increments.grad)',
         "pass"),
        ("poses: steps rounded by large increments", "increments.zero_()", "pass"),
        ("poses: transposed steps", 'before + torch.einsum("qij,qj->qi"', 'before + torch.einsum("qij,qi->qj"'),
        ("fixed poses: gradients", "requires_grad_(poses is not None)", "requires_grad_(True)"),
        ("resumed: gradients of the knots lost", 'else fitting("pose_gradient", gradient, increments)',
         "else None"),
    ),
    *_of(
        "training/after.py",
        "test_recipes",
        ("votes: the wrong way", "l1(renders, frames) <= l1(", "l1(renders, frames) >= l1("),
        ("votes: twice as fast", "vote = 0.1", "vote = 0.2"),
        ("votes: turned again and again", "self.direction[view] = 0.0", "pass"),
        ("fixed pattern: upside down",
         "pattern.add(exposure.measured, exposure.on_sensor(state.render(sample).images))",
         "pattern.add(exposure.on_sensor(state.render(sample).images), exposure.measured)"),
        ("fixed pattern: one step late", "if state.iteration % self.every:", "if (state.iteration - 1) % self.every:"),
        ("mean: of all steps alike", "max(1 / counted, 1 - self.decay)", "1 / counted"),
        ("mean: begins with the last step alone", "max(1 / counted, 1 - self.decay)", "1 - self.decay"),
        ("mean: used before the end", "if state.iteration == optimizers.steps:", "if True:"),
        ("mean: poses left out", '| {"poses": state.trajectory.increments}', ""),
    ),
    *_of(
        "training/after.py",
        "test_retiming",
        ("re-timing: one step late", "(state.iteration - self.begins) % self.every",
         "(state.iteration - self.begins - 1) % self.every"),
        ("re-timing: resumed with the latest scene", 'guide.field.restore(state["field"])', "pass"),
        ("re-timing: resumed with the latest poses", 'guide.trajectory.load_state_dict(state["trajectory"])', "pass"),
        ("re-timing: resumed with other gains", 'gains = state["gains"].get("gain_map")', "gains = None"),
    ),
    *_of(
        "training/training.py",
        "test_recipes",
        ("loss: weights ignored", "[weight * value for weight, value in terms.values()]",
         "[value for weight, value in terms.values()]"),
        ("loss: no number is learned from", "if not math.isfinite(total):", "if False:"),
    ),
    *_of(
        "training/building.py",
        "test_recipes",
        ("initial points: no cap", "if c.densification.cap_max:", "if False:"),
        ("means: always in extents", 'if c.rates.means_unit == "extent":', "if True:"),
        ("motion: always at rest", "if moves else None", "if False else None"),
        ("noise: by the world's unit", "MCMCStrategy.noise / unit**2", "MCMCStrategy.noise"),
        ("spline: as long as the windows", "max(window.reach, window_of(c).reach)", "window.reach"),
        ("spline: as long as the exposures", "motion.knot_spacing, reach,", "motion.knot_spacing, 0.0,"),
    ),
    *_of(
        "training/state.py",
        "test_recipes test_exposure",
        ("random numbers: the seed ignored", 'generator("step", self.seed,', 'generator("step", 0,'),
        ("targets: of the first sub-frame", ".subframe(m) for view, m in pairs", ".subframe(0) for view, m in pairs"),
        ("renders: not as the filters see them", "out.images = recording.mosaic.of(out.images)", "pass"),
    ),
    *_of(
        "gaussian_renderer/field.py",
        "test_recipes",
        ("SH: one degree early", "else iteration // every", "else iteration // every + 1"),
    ),
    *_of(
        "gaussian_renderer/field.py",
        "test_blocks",
        ("surroundings are not drawn", "surroundings=self.surroundings,\n        )", ")"),
    ),
    *_of(
        "training/shards.py",
        "test_processes test_recipes test_golden",
        ("shards: penalties lost", "value.grad = gradient if before is None else before.add_(gradient)",
         "value.grad = gradient"),
        ("shards: gradients of other cameras", "(own, whole.grad[cut])", "(own, whole.grad[: len(own)])"),
        ("shards: gradients of the part before stay", "                value.grad = None\n",
         "                pass\n"),
    ),
    *_of(
        "utils/processes.py",
        "test_processes",
        ("processes: half of the shards", "leaves = [[a + b for a, b in", "leaves = [[a for a, b in"),
        ("processes: parts that overlap", "return share(count, self.rank, self.size)", "return slice(0, count)"),
        ("processes: an old name is taken", "and mine in store.get(f\"{name}/all\").decode().split():", "or True:"),
    ),
    *_of(
        "evaluation/rendering.py",
        "test_processes",
        ("rendering: held-out views of others", "indices = [trained + i for i in _numbers(own)]",
         "indices = [trained + i for i in range(len(views[own]))]"),
        ("rendering: lists before all have ended", "            processes.together(writer.gather)\n", ""),
    ),
    *_of(
        "scene/blocks.py",
        "test_blocks",
        ("blocks: regions that overlap", "((points >= low) & (points < high)).all(-1)",
         "((points >= low) & (points <= high)).all(-1)"),
        ("blocks: a margin on one side", "tuple((low - margin).tolist())", "tuple(low.tolist())"),
        ("blocks: what is hidden is seen", "seen = depth <= _HIDDEN * nearest", "seen = depth > 0"),
        ("blocks: the wrong axis", "centers.amin(0)).argmax())", "centers.amin(0)).argmin())"),
    ),
    *_of(
        "scene/partition.py",
        "test_blocks",
        ("partition: times of a block's views", "[float(middles[i]) for i in cut.members[number]]",
         "[float(middles[i]) for i in range(len(cut.members[number]))]"),
        ("partition: links seen from elsewhere", "(self._final / name).parent", "self._final"),
    ),
    *_of(
        "training/merging.py",
        "test_blocks",
        ("merging: degree of the settings", "self.model.trajectory.degree", "path.curve_degree"),
        ("merging: all Gaussians are kept", "inside = one.place.contains(moved.means)",
         "inside = one.place.contains(moved.means) | True"),
        ("merging: colors that do not turn", "shN=_turned_colors(g.shN, self.rotation)", "shN=g.shN"),
        ("merging: turned the other way", "sh_basis(degree, directions @ rotation)[:, 1:]",
         "sh_basis(degree, directions @ rotation.T)[:, 1:]"),
        ("merging: sizes stay", "log_scales=g.log_scales + float(np.log(self.scale))", "log_scales=g.log_scales"),
        ("merging: curves of the first block", "path.first[index[name]] + float(start)", "path.first[index[name]]"),
        ("merging: blocks stay where they drifted", "found[b] = Attached(motion, a, count, apart)",
         "found[b] = Attached(Similarity.none(), a, count, apart)"),
    ),
    *_of(
        "training/starting.py",
        "test_blocks",
        ("start: surroundings that are trained, too", "around = _in_view(state) & ~inside", "around = _in_view(state)"),
        ("start: surroundings of the first instants only", "torch.tensor([0.0, 0.5, 1.0]", "torch.tensor([-9.0]"),
        ("start: nothing around a block", "if around.any() else None", "if False else None"),
        ("start: curves of other views", "[place[name] for name in names]", "[0 for name in names]"),
        ("start: gains of the scene", "recording.use_gains(fitting(", "print(fitting("),
        ("start: colors without their view dependence", "GaussianField(gaussians, field.rasterizer, 0,",
         "GaussianField(gaussians, field.rasterizer, 1000,"),
    ),
    *_of(
        "evaluation/seams.py",
        "test_blocks",
        ("seams: the rest as well", "if across[name] >= ACROSS]", "if across[name] >= 0]"),
    ),
    *_of(
        "utils/mapped.py",
        "test_mapped",
        ("mapped: the wrong row is asked for", "self._starts[index] + row * size", "self._starts[index] + size"),
        ("mapped: all tensors are the first", "count=value.numel(), offset=start)", "count=value.numel(), offset=0)"),
    ),
    *_of(
        "scene/exposure.py",
        "test_exposure",
        ("gains: the wrong way", "else values / self._gain_map", "else values * self._gain_map"),
        ("gains: noise not squared", "self._gain_map.square()", "self._gain_map"),
        ("margin: none", "return min(spare, spec.context // 2)", "return 0"),
    ),
    *_of(
        "scene/exposure.py",
        "test_retiming",
        ("guide: dark current left out", "gain * images + sensor.dark()", "gain * images"),
        ("guide: gains of the pixels left out", "gain = gain * sensor.gain_map.to(images)", "pass"),
        ("guide: off by the margin", "context + margin)", "context)"),
        ("guide: times off by half a window", "u = (context - spec.half)", "u = (context - 0)"),
    ),
    *_of(
        "scene/exposure.py",
        "test_lens",
        ("lens: gains after resampling", "even if self._remap is None else self._remap(even)",
         "even if self._remap is None else self._even(self._remap(values))"),
        ("lens: renders stay in the pinhole image", "return remap(images) *", "return images *"),
        ("lens: pixels that see nothing count", "* remap.inside.to(images.device)", ""),
    ),
    *_of(
        "scene/lens.py",
        "test_lens",
        ("lens: tangential coefficients exchanged", "x * radial + 2 * p1 * cross + p2 *",
         "x * radial + 2 * p2 * cross + p1 *"),
        ("lens: beyond the fold", "& self.keeps_order(found)", ""),
        ("lens: focal lengths stay", "return high", "return 1.0"),
    ),
    *_of(
        "utils/remapping.py",
        "test_lens",
        ("resampling: off by half a pixel", "(positions * scale - 1)", "(positions * scale - 1 - scale / 2)"),
        ("resampling: a crop without its taps", "max(top - 1, 0)", "max(top, 0)"),
        ("resampling: noise as before", "float(squares.prod(-1).mean())", "1.0"),
    ),
    *_of(
        "scene/views.py",
        "test_views",
        ("window: offsets of a longer exposure", "frames / max(self.window.exposure - 1, 1)",
         "frames / self.window.exposure"),
    ),
    *_of(
        "recon_net/frames.py",
        "test_recon_net",
        ("crop: too little around it", "crop.grown(network.receptive_radius,",
         "crop.grown(network.receptive_radius - 1,"),
        ("crop: all of it counts", "crop.inner(network.receptive_radius,", "crop.inner(0,"),
    ),
    *_of(
        "arguments/sizing.py",
        "test_arguments",
        ("size: fewer steps for more views", "by_views**_STEPS_BY_VIEWS", "by_views**-_STEPS_BY_VIEWS"),
        ("size: no bound", "min(max(_rounded(steps), _LEAST_STEPS), _MOST_STEPS)", "_rounded(steps)"),
    ),
    *_of(
        "training/spiking.py",
        "test_spikenerf",
        ("hard fire: one frame early", "(1 / light.clamp_min(_DARK)).floor() + 1",
         "(1 / light.clamp_min(_DARK)).ceil()"),
        ("hard fire: the gradient of a soft reset", "ctx.save_for_backward(interval * rate)",
         "ctx.save_for_backward(torch.ones_like(rate))"),
        ("soft fire: always from empty", "(light * frames + phase).floor()", "(light * frames).floor()"),
        ("sensor layer: dark current lost", "return light + self.dark[row, column]", "return light"),
        ("sensor layer: a common gain is brightness", "(self.log_gain - self.log_gain.mean())[row, column].exp()",
         "self.log_gain[row, column].exp()"),
    ),
    *_of(
        "gaussian_renderer/radiance.py",
        "test_spikenerf",
        ("radiance: no opaque end", "torch.cat([alpha[:, :-1], torch.ones_like(alpha[:, :1])], dim=-1)", "alpha"),
        ("radiance: corners of pixels", "torch.arange(size).to(w2c) + 0.5", "torch.arange(size).to(w2c)"),
        ("radiance: samples spread in depth", "return 1 / (1 / near + share * (1 / far - 1 / near))",
         "return near + share * (far - near)"),
    ),
    *_of(
        "evaluation/tables.py",
        "test_full_eval",
        ("tables: scenes among images", "[row for row in rows if not _is_of_scene(row)]", "list(rows)"),
        ("tables: the initial error after training", '"ATE before": before', '"ATE before": path'),
    ),
    *_of(
        "evaluation/jobs.py",
        "test_full_eval",
        ("jobs: each run its blind-spot network", "options = replace(options, bsn_weights=str(job.blind_spot(out)))",
         "options = replace(options)"),
        ("jobs: one blind-spot network for all seeds", 'f"blind_spot_seed{self.seed}.pth"', '"blind_spot.pth"'),
    ),
    *_of(
        "simulation/demo.py",
        "test_demo_scene",
        ("demo: images held instead of interpolated", "torch.lerp(before, image, i / spacing)", "before"),
        ("demo: the last frames not rendered", "SPACINGS = (1, 2, 4, 8)", "SPACINGS = (1, 2, 3, 4, 8)"),
    ),
    *_of(
        "benchmarks/joint.py",
        "test_joint_benchmark",
        ("joint: the images' own power", "(y * x.conj()).real", "y.abs().square()"),
        ("joint: blur of the images", "(response - 1).square() * power", "(response - 1).square() * response"),
        ("joint: means count as response", "return torch.fft.fft2((images - mean) * window)",
         "return torch.fft.fft2(images * window)"),
        ("joint: measured again", "row.items() <= json.loads(line).items()", "row.items() < {}.items()"),
    ),
    *_of(
        "evaluation/known.py",
        "test_full_eval",
        ("known: whatever the truth", "for values in (image, truth):", "for values in (image,):"),
        ("known: lost by the last to write", "self._stored() | self._rows", "self._rows"),
    ),
    *_of(
        "scene/fusion.py",
        "test_noise",
        ("lessons: nothing but renders", "render + torch.stack(errors)", "render + 0 * torch.stack(errors)"),
    ),
    *_of(
        "spike/preview.py",
        "test_preview",
        ("preview: as few spikes as in good light", "wanted = int(min(_FIRED", "wanted = _REACH or int(min(_FIRED"),
        ("preview: dark speckles stay", " | (image < low * (1 - _SPECKLE))", ""),
        ("preview: a pixel is its own neighbor", "torch.cat([around[:4], around[5:]])", "around"),
        ("preview: half the counts", "math.ceil(_COUNTED /", "math.ceil(1 /"),
    ),
    *_of(
        "conversion/structure_from_motion.py",
        "test_convert",
        ("lens: not estimated", '"RADIAL" if radial else "SIMPLE_PINHOLE"', '"SIMPLE_PINHOLE"'),
        ("between: helpers stay where they were", "{index: moved(pose) for index", "{index: pose for index"),
        ("between: views beyond the last instant get a pose", "<= w.middle <= times[-1]", "<= w.middle"),
        ("attempts: the smallest error", "len(s.w2c), -s.uncertainty", "len(s.w2c), -s.error"),
        ("attempts: points, not image points", "int(model.compute_num_observations())", "len(points)"),
        ("lens: lost on the way", "        coefficients_of(named_parameters(camera)),\n", "        {},\n"),
    ),
    *_of(
        "conversion/windows.py",
        "test_convert",
        ("chosen: helpers as in good light", "DIM_HELPER_STEP if windows[0].dim else HELPER_STEP", "HELPER_STEP"),
    ),
    *_of(
        "conversion/posing.py",
        "test_cascade",
        ("posing: points in another scale", "xyz = scale * found.xyz @ rotation.T", "xyz = found.xyz @ rotation.T"),
        ("posing: time closed up", "dropped=len(posed.views) < posed.count)", "dropped=False)"),
        ("posing: the wrong view's pose", "views = [scene.train[i] for i in index]",
         "views = scene.train[: len(index)]"),
    ),
    *_of(
        "scene/perturbation.py",
        "test_perturbation",
        ("perturbation: about the world's axes", "(se3.exp(-torch.stack(draws) * units) @ w2c.double())",
         "(w2c.double() @ se3.exp(-torch.stack(draws) * units))"),
        ("perturbation: radians for degrees", "[math.radians(level)] * 3", "[level / 100] * 3"),
        ("perturbation: points behind the camera", "[seen[..., 2] > 0]", "[seen[..., 2] < 1e9]"),
    ),
    *_of(
        "baselines/images.py",
        "test_baseline_images test_spikegs",
        ("images: not finite", "if not bool(pixels.isfinite().all())", "if False"),
        ("images: always the middle", "targets.around(spec.frame(u), self.width)", "targets.around(68, self.width)"),
    ),
    *_of(
        "baselines/spk2imgnet.py",
        "test_spk2imgnet",
        ("spk2imgnet: offsets of another scale", "2 * _enlarged(coarse_offset)", "_enlarged(coarse_offset)"),
        ("spk2imgnet: rows for columns", "torch.stack([columns, rows], dim=-1)",
         "torch.stack([rows, columns], dim=-1)"),
        ("spk2imgnet: positions by corners", "(2 * at[:, :, 0] + 1) / h - 1", "2 * at[:, :, 0] / (h - 1) - 1"),
        ("spk2imgnet: the middle after the others", "*aligned[:MIDDLE], features[:, MIDDLE], *aligned[MIDDLE:]",
         "*aligned, features[:, MIDDLE]"),
        ("spk2imgnet: the sum of the errors' mean", "errors.mean((0, 3, 4)).sum()", "errors.mean()"),
        ("spk2imgnet: shapes not compared", "if name in found and _shape(found[name]) != _shape(expected[name])",
         "if False"),
    ),
    *_of(
        "baselines/blind_spot.py",
        "test_blind_spot",
        ("blind spot: the row below", "(0, 0, 2, 0)", "(0, 0, 1, 1)"),
        ("blind spot: a pool that sees the row below", "quarter = F.max_pool2d(_down_one(self.enc2(half)), 2)",
         "quarter = F.max_pool2d(self.enc2(half), 2)"),
        ("blind spot: no shift at the end", "return _down_one(self.dec1(", "return (self.dec1("),
        ("blind spot: rows padded from themselves", "(0, 0, 0, -height % 4))", "(0, 0, -height % 4, 0))"),
    ),
    *_of(
        "training/recipes.py",
        "test_spikegs",
        ("spikegs: exposures of stills", "c = c.replaced(subframes=1, lambda_exp=0.0)", "c = c.replaced(subframes=1)"),
    ),
    *_of(
        "utils/locks.py",
        "test_reliability",
        ("lock: others are let in", "fcntl.LOCK_EX | fcntl.LOCK_NB", "fcntl.LOCK_SH | fcntl.LOCK_NB"),
        ("lock: another's file is removed", "if os.path.samestat(os.fstat(self.handle), os.stat(", "if bool(os.stat(("),
    ),
    *_of(
        "training/checkpoint.py",
        "test_reliability",
        ("checkpoint: any number is saved", "    require_finite(training, stored)\n", ""),
        ("checkpoint: any scene is continued with", "if other is not None:", "if False:"),
    ),
    *_of(
        "scene/identity.py",
        "test_reliability",
        ("identity: contents not compared", "words in _WORDS.items():", "words in [*_WORDS.items()][:2]:"),
    ),
    *_of(
        "conversion/placing.py",
        "test_placing",
        ("placing: edited files are replaced", " or _digest(path) != known[file]", ""),
        ("placing: files that came meanwhile", "_check_replaceable(root, names)  # again", "pass  # again"),
        ("placing: inputs inside a folder", "read == place or place in read.parents", "read == place"),
    ),
    *_of(
        "utils/swap.py",
        "test_placing",
        ("swap: old entries moved before the step", "if is_new and not waits:", "if not waits:"),
        (
            "swap: nobody finishes it",
            "if not (folder / SWAP).is_dir():\n        return\n    with",
            "if folder:\n        return\n    with",
        ),
    ),
    *_of(
        "gaussian_renderer/viewer/access.py",
        "test_viewer_access",
        ("viewer: pages of others", "if origin is not None and", 'if origin == "null" and'),
        ("viewer: names of others", "if host is None or not self._is_ours(host):", "if host is None:"),
        ("viewer: no secret", "if not hmac.compare_digest(given.encode(), self.token.encode()):", "if not given:"),
    ),
    *_of(
        "spike/guess.py", "test_spike_command",
        ("guess: a pixel compared with itself", "(a * d).mean() + (b * c).mean()", "(a * b).mean() + (c * d).mean()"),
        ("guess: parts of an image taken for frames", " and fit.own >= _AS_MUCH * whole", ""),
        ("guess: several frames taken for one", ">= _EXPLAINED * max(own.values())", ">= 0.999 * max(own.values())"),
        ("guess: two rows taken for one", "top % c == 0 and alike[c] >= _AS_MUCH * alike[top]", "c == top"),
        ("guess: padding is like an image", "_Fit(below, below - others,", "_Fit(below, below,"),
        ("guess: noise has a size", "_SIGNIFICANT = 6.0", "_SIGNIFICANT = 0.001"),
        ("guess: few spikes, sure size", ", significance / _SIGNIFICANT - 1)", ")"),
        ("guess: flicker is like an image", "alike=fit.alike - common", "alike=fit.alike"),
        ("guess: header words are an image", "((rates == 0) | (rates == 1)).mean(0)", "(rates == 0).all(0)"),
        ("guess: a dark edge is padding", ".any(1).mean() > _HEADER_ROWS:", ".any(1).mean() > 2:"),
        ("guess: split rows pass", "min(ends) == max(ends) >= _PADDING", "min(ends) > len(still)"),
        ("guess: unclear order, sure size", "_UNSURE - _NO_ORDER + order_sure", "_UNSURE + _NO_ORDER + order_sure"),
    ),
    *_of(
        "utils/memory.py", "test_reliability",
        ("memory: returned after every step", "any(mallopt(_MMAP_THRESHOLD, size) for size in _MAPPED_ALONE)", "False"),
        ("memory: never returned", "            trim(0)\n", "            pass\n"),
    ),
    *_of(
        "training/building.py", "test_blocks",
        ("building: poses of the scene, not of the model", "_points_of(state), _middle_poses(state), recording",
         "_points_of(state), recording.w2c.cpu(), recording"),
    ),
    *_of(
        "training/building.py", "test_recipes",
        ("building: black scenes", "if depth < 2 * NEAR_PLANE:", "if depth < 0:"),
    ),
    *_of(
        "scene/matching.py", "test_matching",
        ("matching: views without images stay", "if view.image_path is not None], [note]", "], [note]"),
    ),
    *_of(
        "scene/colmap.py", "test_matching",
        ("colmap: names without folders", "if count[path.stem] == 1 else", "if True else"),
    ),
    *_of(
        "scene/origin.py", "test_origin",
        ("origin: the world's", "if not 0 < _REMOTE * usual < float(middle.norm()):", "if True:"),
        ("origin: any offset is far", "_REMOTE = 1e4", "_REMOTE = 1e2"),
        ("origin: poses were rounded before", "moved = w2c.double().clone()", "moved = w2c.float().double()"),
        ("origin: points were rounded before", "(points.double() - origin).float()", "points.float() - origin.float()"),
    ),
    *_of(
        "utils/signals.py", "test_reliability",
        ("signals: a library keeps them", "            for number in STOPPING:", "            for number in ():"),
    ),
]

# Mutants that may survive, with the reason: at most ``MOST_ALLOWED``.
ALLOWED: dict[str, str] = {}


def copy_of_the_program(folder: Path) -> None:
    """The tracked files as they are in the working tree."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)


def load_libraries() -> None:
    """Import what every test needs: forks of this process have it at once.  Nothing of the program itself."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as the program asks for (utils/__init__.py)
    for name in LIBRARIES:
        importlib.import_module(name)


def _pytest(folder: Path, tests: Sequence[str], report: Path) -> None:
    """Run pytest in the copy, as a process of its own, and end with its status."""
    os.chdir(folder)
    sys.path[:] = [place for place in sys.path if place not in ("", str(ROOT), str(ROOT / "tests"))]
    sys.dont_write_bytecode = True  # two faults of one second and one length would share it
    with report.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        status = pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests])
        sys.stdout.flush()
    os._exit(int(status))


def run_tests(folder: Path, tests: Sequence[str]) -> int:
    """Pytest's exit status in the copy; 1 also where it ran too long."""
    process = multiprocessing.get_context("fork").Process(target=_pytest, args=(folder, tests, folder / REPORT))
    process.start()
    process.join(TIMEOUT)
    if process.is_alive():
        process.kill()
        process.join()
        return 1
    return process.exitcode if process.exitcode is not None else -1


def outcome(folder: Path, mutant: Mutant) -> str:
    """What becomes of one mutant: killed, SURVIVED, stale or broken.  The copy is as before afterwards."""
    if mutant.is_stale(folder):
        return "stale"
    path = folder / mutant.file
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole.replace(mutant.old, mutant.new), encoding="utf-8")
    try:
        status = run_tests(folder, mutant.tests)
    finally:
        path.write_text(whole, encoding="utf-8")
    return {0: "SURVIVED", 1: "killed"}.get(status, "broken")


def run(mutants: Sequence[Mutant]) -> int:
    """Run them all, printing as it goes; the exit status."""
    outcomes: dict[str, str] = {}
    load_libraries()
    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        folder = Path(name)
        copy_of_the_program(folder)
        tests = sorted({test for mutant in mutants for test in mutant.tests})
        print(f"without a fault: {len(tests)} files of tests", flush=True)
        if run_tests(folder, tests) != 0:
            print((folder / REPORT).read_text())
            print("a test fails without a fault: mend it first, nothing can be told from the others")
            return 1
        began = time.monotonic()
        for i, mutant in enumerate(mutants, 1):
            outcomes[mutant.name] = outcome(folder, mutant)
            left = (time.monotonic() - began) / i * (len(mutants) - i) / 60
            print(f"[{i}/{len(mutants)}] {outcomes[mutant.name]:8}  {mutant.name}  ({left:.0f} min left)", flush=True)
    named = {kind: [n for n, o in outcomes.items() if o == kind] for kind in ("killed", "SURVIVED", "stale", "broken")}
    print(", ".join(f"{len(names)} {kind}" for kind, names in named.items()))
    for name in named["SURVIVED"]:
        print(f"  {name}: {ALLOWED.get(name, 'no test notices')}")
    unexpected = [name for name in named["SURVIVED"] if name not in ALLOWED]
    return int(bool(unexpected or named["stale"] or named["broken"] or len(ALLOWED) > MOST_ALLOWED))


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Plant one fault at a time and see whether a test fails.")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="names of mutants, or how they begin")
    parser.add_argument("--list", action="store_true", help="print the mutants and the tests that should notice")
    options = parser.parse_args(argv)
    chosen = [m for m in MUTANTS if options.only is None or m.name.startswith(tuple(options.only))]
    if not chosen:
        parser.error(f"no mutant is called {' or '.join(options.only)}")
    if options.list:
        for mutant in chosen:
            stale = "  STALE" if mutant.is_stale() else ""
            print(f"{mutant.name}  [{mutant.file}]  {' '.join(mutant.tests)}{stale}")
        return 0
    return run(chosen)


if __name__ == "__main__":
    sys.exit(main())
