"""Measures the speed of the rasterizer and prints one table.

    python benchmarks/benchmark.py                 the README's table
    python benchmarks/benchmark.py --quick         the smallest scene only
    python benchmarks/benchmark.py --opensplat ../OpenSplat    also the CPU rasterizer of that checkout
    python benchmarks/benchmark.py --plot curves.png   scaling with Gaussians, pixels, views and threads
    python benchmarks/benchmark.py --large         one view of 50 k to 3 M Gaussians: rates and memory, another table

Times are the best of many repetitions, in milliseconds: "wall" is wall-clock time, "each thread" is CPU time
divided by the number of threads, which other programs on the machine disturb far less.

The work per pixel depends on the scene, so the table shows how many Gaussians a pixel evaluates and blends.  The
limit is the rate of a loop of fused multiply-adds alone, measured on the same threads right after.  "of the limit"
compares it with the arithmetic of the pairs in the processed vectors, by CPU time.  Masked lanes are executed, so
they count, and an addition counts as much as a multiply-add.  The time of projection, sorting, tile lists, sums and
memory access is included, so it lowers the percentage.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import time
from collections.abc import Callable
from typing import Any

import diff_gaussian_rasterization_cpu as dgr
import limits
import opensplat
import torch
from diff_gaussian_rasterization_cpu import reference
from scenes import LARGE, WORKLOADS, Workload, scene

LEARNED = ("means", "quats", "scales", "opacities", "colors", "viewmats")
VIEWS = 13

# Vector instructions per pair in src/kernels/blending.hpp (those of AVX-512 are used for all sets), and per channel of
# a pair.
FORWARD_PAIR, FORWARD_CHANNEL = 15, 1
BACKWARD_PAIR, BACKWARD_CHANNEL = 25, 2


@dataclasses.dataclass(frozen=True)
class Timing:
    """Best of the repetitions, in seconds: wall-clock time, and CPU time divided by the number of threads."""

    forward: float
    backward: float
    forward_processor: float
    backward_processor: float

    @property
    def both(self) -> float:
        return self.forward + self.backward

    @property
    def processor(self) -> float:
        return self.forward_processor + self.backward_processor


def measure(function: Callable[..., Any], arguments: dict[str, Any], seconds: float) -> Timing:
    """Time forward and backward pass of ``function`` with all gradients, repeated for ``seconds``."""
    for name in LEARNED:
        arguments[name] = arguments[name].detach().requires_grad_()
    clocks = (time.perf_counter, time.process_time)
    best = [float("inf")] * 4
    threads = 1 if function is reference.rasterization else dgr.thread_count()
    until = time.perf_counter() + seconds
    done = 0
    while done < 3 or time.perf_counter() < until:
        start = [clock() for clock in clocks]
        renders = function(**arguments)[0]
        forward = [clock() - begun for clock, begun in zip(clocks, start, strict=True)]
        gradient = torch.full_like(renders, 0.01)
        start = [clock() for clock in clocks]
        renders.backward(gradient)
        backward = [clock() - begun for clock, begun in zip(clocks, start, strict=True)]
        taken = (forward[0], backward[0], forward[1] / threads, backward[1] / threads)
        best = [min(pair) for pair in zip(best, taken, strict=True)]
        for name in LEARNED:
            arguments[name].grad = None
        done += 1
    return Timing(*best)


def ours(**arguments: Any) -> Any:
    return dgr.rasterization(**arguments, screen_gradients=False)


def pairs(arguments: dict[str, Any]) -> list[float]:
    """Gaussians per pixel in the first view: evaluated by the forward pass, visited by the backward pass, blended."""
    with torch.no_grad():
        info = dgr.rasterization(**arguments)[2]
    pixels = arguments["width"] * arguments["height"]
    return [count / pixels for count in limits.pair_counts(info, 0)]


def instruction_rate() -> float:
    """Multiply-adds per second (of one float each) on the threads in use: the limit."""
    return limits.multiply_add_rate(dgr.instruction_set(), dgr.thread_count())


def share(load: Workload, views: int, counts: list[float], timing: Timing, channels: int) -> tuple[float, float]:
    """Shares of the limit that the forward and the backward pass reach."""
    rate = instruction_rate()
    pixels = views * load.width * load.height
    forward = pixels * counts[0] * (FORWARD_PAIR + FORWARD_CHANNEL * channels)
    backward = pixels * counts[1] * (BACKWARD_PAIR + BACKWARD_CHANNEL * channels)
    return forward / rate / timing.forward_processor, backward / rate / timing.backward_processor


def table(loads: tuple[Workload, ...], channels: int, seconds: float) -> None:
    best = dgr.instruction_sets()[-1]
    print(f"{dgr.thread_count()} threads, {channels} channel(s), SH degree 3, antialiased, all gradients with poses")
    print("| scene | views | set | pairs a pixel | wall ms | each thread ms | of the limit | to the best |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for load in loads:
        for views in (1, VIEWS):
            arguments: dict[str, Any] = scene(load, views, channels)
            counts = pairs(arguments)
            reached: dict[str, Timing] = {}
            for name in reversed(dgr.instruction_sets()):
                dgr.set_instruction_set(name)
                reached[name] = measure(ours, arguments, seconds if name == best else seconds / 3)
                forward, backward = share(load, views, counts, reached[name], channels)
                print(
                    f"| {load.name} | {views} | {name} | {counts[0]:.0f}, {counts[1]:.0f}, {counts[2]:.0f} "
                    f"| {1e3 * reached[name].forward:.1f} + {1e3 * reached[name].backward:.1f} "
                    f"| {1e3 * reached[name].forward_processor:.1f} + {1e3 * reached[name].backward_processor:.1f} "
                    f"| {forward:.0%}, {backward:.0%} "
                    f"| {reached[name].processor / reached[best].processor:.2f} |",
                    flush=True,
                )
            dgr.set_instruction_set(best)


def peak(work: Callable[[], Any]) -> int:
    """Bytes of memory that ``work`` needs beyond what the process holds (Linux)."""

    def kilobytes(name: str) -> int:
        return int(next(line for line in open("/proc/self/status") if line.startswith(name)).split()[1])

    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak starts anew
    before = kilobytes("VmRSS:")
    work()
    return 1024 * (kilobytes("VmHWM:") - before)


def alone(load: Workload, gradients: bool) -> tuple[float, int, int]:
    """Seconds of processor time of one thread for a render or a step, its memory in bytes, and its pairs."""
    torch.set_num_threads(1)
    dgr.set_thread_count(1)
    arguments: dict[str, Any] = scene(load, 1, 1)
    if gradients:
        timings: list[Timing] = []
        memory = peak(lambda: timings.append(measure(ours, arguments, 0)))
        return timings[0].processor, memory, 0
    with torch.no_grad():
        memory = peak(lambda: ours(**arguments))
        times = []
        for _ in range(3):
            start = time.process_time()
            info = ours(**arguments)[2]
            times.append(time.process_time() - start)
    return min(times), memory, info["n_pairs"]


def large() -> None:
    """Renders and steps (forward and backward) per second of processor time of one thread, and their memory."""
    print("| Gaussians | image | pairs | renders/s | steps/s | memory of a render | of a step |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    fresh = multiprocessing.get_context("spawn")
    for load in LARGE:
        # A process each: memory kept from earlier calls would not show.
        with fresh.Pool(1, maxtasksperchild=1) as pool:
            render, step = (pool.apply(alone, (load, gradients)) for gradients in (False, True))
        print(
            f"| {load.gaussians:,} | {load.width}x{load.height} | {1e-6 * render[2]:.1f} M | {1 / render[0]:.1f} "
            f"| {1 / step[0]:.1f} | {1e-6 * render[1]:.0f} MB | {1e-6 * step[1]:.0f} MB |",
            flush=True,
        )


def twin_row() -> None:
    """Compare with the torch reference on a small scene, because it stores every pixel-Gaussian pair."""
    load = dataclasses.replace(WORKLOADS[0], gaussians=500, width=64, height=40)
    arguments: dict[str, Any] = scene(load, 1, 1)
    native, twin = measure(ours, arguments, 1), measure(reference.rasterization, arguments, 1)
    print(
        f"torch reference, 500 Gaussians at 64x40: {1e3 * twin.both:.0f} ms, "
        f"{twin.processor / (native.processor * dgr.thread_count()):.0f} times our CPU time"
    )


def opensplat_rows(checkout: str, loads: tuple[Workload, ...], seconds: float) -> None:
    """Compare with OpenSplat's CPU rasterizer: one view, three channels, classic, no gradient to the pose."""
    theirs = opensplat.load(checkout)
    print("| scene | views | ours ms, wall | OpenSplat ms, wall | wall | processor | mean difference |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for load in loads:
        arguments: dict[str, Any] = scene(load, 1, 3) | {"rasterize_mode": "classic"}
        native = measure(ours, arguments, seconds)
        torch.set_num_threads(dgr.thread_count())  # OpenSplat projects with torch
        other = measure(theirs, arguments, seconds)
        torch.set_num_threads(1)
        with torch.no_grad():
            difference = float((ours(**arguments)[0] - theirs(**arguments)[0]).abs().mean())
        print(
            f"| {load.name} | 1 | {1e3 * native.forward:.1f} + {1e3 * native.backward:.1f} "
            f"| {1e3 * other.forward:.0f} + {1e3 * other.backward:.0f} | {other.both / native.both:.0f} times "
            f"| {other.processor / native.processor:.0f} times | {difference:.0e} |",
            flush=True,
        )


def plot(path: str, seconds: float) -> None:
    """Plot the time of a step over the number of Gaussians, pixels, views and threads."""
    try:
        import matplotlib
    except ImportError:
        raise SystemExit("--plot needs matplotlib: pip install matplotlib") from None

    matplotlib.use("Agg")
    from matplotlib import pyplot

    base = WORKLOADS[0]
    figure, axes = pyplot.subplots(1, 4, figsize=(14, 3.4))

    def curve(axis: Any, title: str, values: list[int], arguments_of: Callable[[int], dict[str, Any]]) -> None:
        times = [1e3 * measure(ours, arguments_of(v), seconds).both for v in values]
        axis.loglog(values, times, "o-")
        axis.set(xlabel=title, ylabel="forward + backward, ms", xticks=values, xticklabels=map(str, values))
        axis.minorticks_off()
        axis.set_yticks([])
        axis.margins(0.15, 0.2)
        for value, time_taken in zip(values, times, strict=True):
            label = f"{time_taken:.3g}"
            axis.annotate(label, (value, time_taken), (0, 6), textcoords="offset points", ha="right")

    def sized(factor: int) -> Workload:
        # the same Gaussians in the world, with more pixels each
        return dataclasses.replace(base, width=base.width * factor // 2, height=base.height * factor // 2)

    curve(axes[0], "Gaussians (k)", [6, 12, 25, 50, 100],
          lambda n: scene(dataclasses.replace(base, gaussians=n * 1000), 1, 1))  # fmt: skip
    curve(axes[1], "image width / 200 px", [1, 2, 3, 4], lambda f: scene(sized(f), 1, 1))
    curve(axes[2], "views", [1, 2, 4, 8, 13], lambda m: scene(base, m, 1))
    before = dgr.thread_count()

    def threaded(count: int) -> dict[str, Any]:
        dgr.set_thread_count(count)
        return scene(base, 4, 1)

    curve(axes[3], "threads (4 views)", list(range(1, before + 1)), threaded)
    dgr.set_thread_count(before)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", action="store_true", help="up to 3 M Gaussians, one thread, with memory")
    parser.add_argument("--quick", action="store_true", help="only the smallest scene")
    parser.add_argument("--channels", type=int, default=1, choices=(1, 3), help="color channels (default: 1)")
    parser.add_argument("--seconds", type=float, default=6, help="time per row in seconds (default: 6)")
    parser.add_argument("--opensplat", metavar="PATH", help="checkout of OpenSplat to compare with")
    parser.add_argument("--plot", metavar="PNG", help="file for a plot of scaling curves, instead of the table")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.large:
        large()
        return
    if arguments.plot:
        plot(arguments.plot, arguments.seconds)
        return
    rate = instruction_rate()
    print(f"limit: {2e-9 * rate:.0f} GFLOP/s of fused multiply-adds ({dgr.instruction_set()})")
    table(WORKLOADS[:1] if arguments.quick else WORKLOADS, arguments.channels, arguments.seconds)
    twin_row()
    if arguments.opensplat:
        opensplat_rows(arguments.opensplat, WORKLOADS[:1] if arguments.quick else WORKLOADS, arguments.seconds)


if __name__ == "__main__":
    main()
